//! What a collection frees, what it keeps, and what it says about it.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::time::SystemTime;

use cofferdam_core::cancel::Cancel;

use super::images::{add, publish};
use super::*;

fn gc(storage: &ImageStorage) -> Collected {
    storage.gc(&GcOptions::default()).unwrap()
}

fn dry() -> GcOptions {
    GcOptions { dry_run: true, ..GcOptions::default() }
}

/// The images that are in the store.
fn images(storage: &ImageStorage) -> Vec<String> {
    storage.images().unwrap().into_iter().map(|image| image.reference).collect()
}

fn kinds(collected: &Collected) -> Vec<Kind> {
    collected.freed.iter().map(|freed| freed.kind).collect()
}

/// Sets when an image was used last: so many days ago.
fn used(fixture: &Fixture, reference: &str, days: u64) {
    age(&fixture.path(&refs::path(reference).unwrap()), Duration::from_hours(24 * days));
}

/// Everything below a directory, with what a change of anything would change.
fn snapshot(path: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![path.to_owned()];
    while let Some(dir) = todo.pop() {
        let meta = dir.symlink_metadata().unwrap();
        let times = (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
        found.insert(dir.display().to_string(), format!("{} {} {} {times:?}", meta.ino(), meta.mode(), meta.len()));
        if meta.is_dir() {
            todo.extend(std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}

/// What `du` says.
fn du(path: &Path) -> u64 {
    let mut seen = std::collections::HashSet::new();
    let mut todo = vec![path.to_owned()];
    let mut sum = 0;
    while let Some(dir) = todo.pop() {
        let meta = dir.symlink_metadata().unwrap();
        if seen.insert(meta.ino()) {
            sum += meta.blocks() * 512;
        }
        if meta.is_dir() {
            todo.extend(std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    sum
}

/// A store with all kinds of things that may be freed, and an image.
fn littered() -> (Fixture, LayerDescriptor) {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    let stray = fixture.add_layer(b"stray");
    for layer in [&layer, &stray] {
        fixture.storage.ensure_tree(layer).unwrap();
    }
    publish(&fixture, "a:1", &[&layer]).unwrap();
    add(&fixture, "never published", &[&stray]);
    let trees = fixture.storage.local_trees(fixture.temp.path(), &Digest::of(b"manifest")).unwrap();
    let blob = || fixture.storage.open_layer(&layer.digest);
    drop(trees.ensure(&layer, &*fixture.unpacker, blob, &Watch::default()).unwrap());
    let staged = names::fresh(names::Staging::Blob, Some(&Digest::of(b"x")));
    std::fs::write(fixture.path("layers").join(staged), "half").unwrap();
    let staged = names::fresh(names::Staging::Tree, Some(&Digest::of(b"x")));
    std::fs::create_dir_all(fixture.path("extracted").join(staged).join("a/b")).unwrap();
    std::fs::write(fixture.path("locks/0123.lease"), format!("{}\n", stray.digest)).unwrap();
    let note = format!("records/manifest.{}.json", Digest::of(b"gone").file_stem());
    std::fs::write(fixture.path(&note), "{}").unwrap();
    std::fs::create_dir_all(fixture.path("guests/modules")).unwrap();
    for (name, days) in [("old", 40), ("new", 1)] {
        let path = fixture.path("guests/modules").join(name);
        std::fs::write(&path, "x").unwrap();
        let then = SystemTime::now() - Duration::from_hours(24 * days);
        let times = std::fs::FileTimes::new().set_accessed(then).set_modified(then);
        File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
    }
    std::fs::write(fixture.path("not ours"), "x").unwrap();
    (fixture, layer)
}

#[test]
fn a_dry_run_changes_nothing_and_says_what_would_be_freed() {
    let (fixture, layer) = littered();
    let before = snapshot(&fixture.path("."));
    let all = GcOptions { older_than: Some(Duration::ZERO), keep_storage: Some(0), ..dry() };
    let storage = ImageStorage::open_as_it_is(
        fixture.path("."),
        Limits::default(),
        Arc::clone(&fixture.unpacker) as Arc<dyn LayerUnpacker>,
    )
    .unwrap();
    let rehearsed = storage.gc(&dry()).unwrap();
    let everything = storage.gc(&all).unwrap();
    let usage = storage.usage().unwrap();
    assert_eq!(snapshot(&fixture.path(".")), before);
    assert_eq!(everything.images.len(), 1);
    assert!(everything.bytes > rehearsed.bytes);
    assert_eq!(usage.reclaimable, rehearsed.bytes);

    let done = gc(&fixture.storage);
    assert_eq!(done.freed, rehearsed.freed);
    assert_eq!((done.bytes, done.remaining), (rehearsed.bytes, rehearsed.remaining));
    assert_eq!((done.kept, done.images), (Vec::new(), Vec::new()));
    let expected = [
        Kind::Manifest,
        Kind::Config,
        Kind::Layer,
        Kind::Tree,
        Kind::LocalTree,
        Kind::Note,
        Kind::Note,
        Kind::Note,
        Kind::Note,
        Kind::Note,
        Kind::Staging,
        Kind::Staging,
        Kind::Staging,
        Kind::Guest,
    ];
    assert_eq!(kinds(&rehearsed), expected);
    for freed in &rehearsed.freed {
        assert!(!fixture.path(&freed.path).exists(), "{freed:?}");
    }
    // What is needed, used or not ours is there.
    assert!(fixture.storage.trees().is_ready(&layer.digest) && fixture.storage.has_layer(&layer.digest.to_string()));
    fixture.storage.image("a:1").unwrap();
    assert!(fixture.path("guests/modules/new").exists() && fixture.path("not ours").exists());
    assert_eq!(names(&fixture.path("local")), [""; 0]);
    assert_nothing_staged(&fixture);
    assert_eq!(gc(&fixture.storage).freed, []);
}

#[test]
fn a_store_that_is_not_there_is_not_made_by_a_look() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("images");
    let look = || ImageStorage::open_as_it_is(&path, Limits::default(), Arc::<Toy>::default());
    assert_eq!(look().unwrap_err().kind(), ErrorKind::NotFound);
    std::fs::create_dir(&path).unwrap();
    assert_eq!(look().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(names(&path), [""; 0]);
}

#[test]
fn what_is_leased_stays_and_the_rest_goes() {
    let fixture = Fixture::new();
    let (shared, own) = (fixture.add_layer(b"shared"), fixture.add_layer(b"own"));
    for layer in [&shared, &own] {
        fixture.storage.ensure_tree(layer).unwrap();
    }
    publish(&fixture, "a:1", &[&shared, &own]).unwrap();
    let other = fixture.reopen();
    let lease = other.lease_blocking([shared.digest.clone()], &Cancel::new()).unwrap();
    let removed = fixture.storage.remove("a:1").unwrap();
    assert!(removed.kept.is_some());
    assert_eq!((removed.blobs.len(), removed.trees), (3, vec![own.digest.clone()]), "all but what is leased");
    assert!(fixture.storage.trees().is_ready(&shared.digest));
    let collected = gc(&fixture.storage);
    assert_eq!(collected.freed, []);
    assert_eq!(collected.kept.len(), 1);
    assert_eq!(collected.kept[0].what, shared.digest.to_string());
    drop(lease);
    assert_eq!(kinds(&gc(&fixture.storage)), [Kind::Layer, Kind::Tree, Kind::Note, Kind::Note]);
    assert_eq!(names(&fixture.path("extracted")), [""; 0]);
    assert_nothing_staged(&fixture);
}

/// An open tree needs no lease.
#[test]
fn a_tree_that_is_read_stays() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    let tree = fixture.reopen().ensure_tree(&layer).unwrap();
    for options in [dry(), GcOptions::default()] {
        let collected = fixture.storage.gc(&options).unwrap();
        assert_eq!(kinds(&collected), [], "{options:?}");
        assert!(collected.kept.iter().any(|kept| kept.why.contains("read")), "{collected:?}");
    }
    tree.check_whole().unwrap();
    drop(tree);
    assert_eq!(gc(&fixture.storage).freed.len(), 4);
}

/// Trees that were made for overlayfs stay with the image, with whoever has them open, and with a lease of the image.
#[test]
fn overlay_trees_go_with_their_image() {
    let fixture = Fixture::new();
    let (base, top) = (fixture.add_layer(b"base"), fixture.add_layer(b"top"));
    publish(&fixture, "a:1", &[&base, &top]).unwrap();
    let trees = fixture.storage.overlay_trees().unwrap();
    let made = |name: Digest, bytes: &'static [u8]| {
        let layer = LayerDescriptor::of(name);
        let blob = Digest::of(bytes);
        let make = |staged: &StagedTree| {
            staged.directory();
            let (blob, diff_id) = (staged.layer().digest.clone(), blob.clone());
            let (record, reports) = (b"{}".to_vec(), Vec::new());
            let layer = UnpackedLayer { decoded_bytes: 0, diff_id, record, reader: None, reports };
            Ok(Unpacked { blob, blob_bytes: 1, layer })
        };
        trees.ensure_with(&layer, None, &Watch::default(), make).unwrap()
    };
    let names = [overlay_name(&top), merged_name(&[base.clone(), top.clone()]), root_name(&base)];
    for name in names.clone() {
        drop(made(name, b"x"));
    }
    drop(made(Digest::of(b"of an image that is gone"), b"x"));
    assert_eq!(kinds(&gc(&fixture.storage)), [Kind::OverlayTree, Kind::Note, Kind::Note]);
    let usage = fixture.storage.usage().unwrap();
    assert_eq!((usage.by_kind.values().sum::<u64>(), usage.total), (usage.total, du(&fixture.path("."))));
    assert!(usage.images[0].own >= usage.by_kind[&Kind::OverlayTree]);
    let open = made(names[0].clone(), b"x");
    let (_, lease) = fixture.storage.lease_image("a:1", &Cancel::new()).unwrap();
    fixture.storage.remove("a:1").unwrap();
    assert_eq!(gc(&fixture.storage).freed, []);
    drop(lease);
    fixture.storage.gc(&dry()).unwrap();
    assert!(!gc(&fixture.storage).freed.is_empty());
    assert!(trees.is_ready(&names[0]) && !trees.is_ready(&names[1]) && !trees.is_ready(&names[2]));
    open.check_whole().unwrap();
    drop(open);
    assert_eq!(kinds(&gc(&fixture.storage)), [Kind::OverlayTree, Kind::Note, Kind::Note]);
}

/// What an earlier version made for overlayfs has a name that this one does not know, and may be mounted.
#[test]
fn trees_for_overlayfs_of_an_earlier_version_are_not_emptied() {
    let fixture = Fixture::new();
    let trees = fixture.storage.overlay_trees().unwrap();
    let layer = fixture.add_layer(b"layer");
    drop(trees.ensure(&layer, &*fixture.unpacker, || fixture.storage.open_layer(&layer.digest), &Watch::default()));
    let record = fixture.path("overlay/records").join(format!("{}.json", layer.digest.file_stem()));
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, text.replacen("\"version\":2", "\"version\":1", 1)).unwrap();
    let mounted = fixture.path("overlay/extracted").join(layer.digest.file_stem());
    let mounted = cap_std::fs::Dir::open_ambient_dir(mounted, cap_std::ambient_authority()).unwrap();
    for options in [dry(), GcOptions::default()] {
        let collected = fixture.storage.gc(&options).unwrap();
        assert!(collected.kept.iter().any(|kept| kept.why.contains("earlier version")), "{collected:?}");
    }
    assert_eq!(mounted.read("etc/content").unwrap(), b"layer");
    assert!(names(&fixture.path("overlay/extracted"))[0].ends_with(".replaced"));
    gc(&fixture.storage);
    assert_eq!(mounted.read("etc/content").unwrap(), b"layer");
}

#[test]
fn under_the_use_of_the_whole_store_nothing_is_freed() {
    let fixture = Fixture::new();
    fixture.add_layer(b"layer");
    let in_use = fixture.reopen().in_use_blocking().unwrap();
    for options in [dry(), GcOptions::default()] {
        let collected = fixture.storage.gc(&options).unwrap();
        assert_eq!((collected.freed.len(), collected.kept[0].what.as_str()), (0, "everything"));
    }
    drop(in_use);
    assert_eq!(gc(&fixture.storage).freed.len(), 1);
}

/// The embedder's way: lease, fetch, publish, let go.
#[test]
fn what_is_not_leased_cannot_be_published() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    let image = add(&fixture, "a:1", &[&layer]);
    let object = fixture.storage.load_image(&image).unwrap();
    let parts = [image.manifest.clone(), object.config_digest.clone(), layer.digest.clone()];
    for missing in 0..parts.len() {
        let some = parts.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, digest)| digest.clone());
        let lease = fixture.storage.lease_blocking(some, &Cancel::new()).unwrap();
        assert_eq!(fixture.storage.publish(image.clone(), &lease).unwrap_err().kind(), ErrorKind::Usage);
    }
    let lease = fixture.storage.lease_blocking(parts, &Cancel::new()).unwrap();
    assert_eq!(gc(&fixture.reopen()).freed, []);
    fixture.storage.publish(image, &lease).unwrap();
    drop(lease);
    assert_eq!(gc(&fixture.storage).freed, []);
    fixture.storage.image("a:1").unwrap();
}

#[test]
fn an_image_that_is_not_used_goes_and_one_that_is_leased_does_not() {
    let fixture = Fixture::new();
    for (name, days) in [("old:1", 31), ("leased:1", 40), ("revived:1", 50), ("new:1", 29)] {
        let layer = fixture.add_layer(name.as_bytes());
        publish(&fixture, name, &[&layer]).unwrap();
        used(&fixture, name, days);
    }
    // To lease an image is to use it: its age must not be what saves it.
    let (_, lease) = fixture.storage.lease_image("leased:1", &Cancel::new()).unwrap();
    used(&fixture, "leased:1", 40);
    drop(fixture.storage.lease_image("revived:1", &Cancel::new()).unwrap());
    let month = GcOptions { older_than: Some(Duration::from_hours(24 * 30)), ..GcOptions::default() };
    let storage = fixture.reopen();
    let collected = storage.gc(&month).unwrap();
    let gone: Vec<_> = collected.images.iter().map(|image| (image.reference.as_str(), image.why)).collect();
    assert_eq!(gone, [("old:1", Why::OlderThan)]);
    assert!(collected.kept.iter().any(|kept| kept.what == "leased:1"), "{:?}", collected.kept);
    assert_eq!(images(&storage), ["leased:1", "new:1", "revived:1"]);
    for name in ["leased:1", "new:1", "revived:1"] {
        storage.publish(storage.resolve(name).unwrap().unwrap(), &storage.in_use_blocking().unwrap()).unwrap();
        used(&fixture, name, 10);
    }
    drop(lease);
    // The clock goes on; one that goes back makes nothing old.
    let at = |now| GcOptions { now: Some(now), ..month.clone() };
    let (later, earlier) = (Duration::from_hours(24 * 25), Duration::from_hours(24 * 365));
    assert_eq!(storage.gc(&at(SystemTime::now() - earlier)).unwrap().images, []);
    assert_eq!(storage.gc(&at(SystemTime::now() + later)).unwrap().images.len(), 3);
    assert_eq!(names(&fixture.path("layers")), [""; 0]);
}

#[test]
fn the_least_recently_used_go_until_the_rest_fits() {
    let fixture = Fixture::new();
    let shared = fixture.add_layer(&vec![7; 200_000]);
    for (name, days) in [("a:1", 4), ("b:1", 3), ("c:1", 2), ("d:1", 1)] {
        let mut content = name.as_bytes().to_vec();
        content.resize(100_000, 0);
        let layer = fixture.add_layer(&content);
        publish(&fixture, name, &[&shared, &layer]).unwrap();
        used(&fixture, name, days);
    }
    let (_, lease) = fixture.storage.lease_image("b:1", &Cancel::new()).unwrap();
    used(&fixture, "b:1", 3);
    let usage = fixture.storage.usage().unwrap();
    let own = usage.images[0].own;
    assert!(own > 100_000 && own < 200_000, "{usage:?}");
    // Room for one less than there are: nothing else goes.
    let most = |most| GcOptions { keep_storage: Some(most), ..GcOptions::default() };
    assert_eq!(fixture.storage.gc(&most(usage.total)).unwrap().images, []);
    let shrink = |bytes, options: &GcOptions| {
        let rehearsed = fixture.storage.gc(&GcOptions { dry_run: true, ..options.clone() }).unwrap();
        let collected = fixture.storage.gc(options).unwrap();
        assert_eq!(collected.freed, rehearsed.freed);
        assert!(collected.remaining <= bytes, "{} of {bytes}", collected.remaining);
        assert_eq!(collected.remaining, fixture.storage.usage().unwrap().total);
        collected.images.into_iter().map(|image| image.reference).collect::<Vec<_>>()
    };
    assert_eq!(shrink(usage.total - 1, &most(usage.total - 1)), ["a:1"]);
    // The next is leased.
    let left = usage.total - own - 1;
    assert_eq!(shrink(left, &most(left)), ["c:1"]);
    let collected = fixture.storage.gc(&most(0)).unwrap();
    assert_eq!(collected.images.len(), 1);
    assert!(collected.kept.iter().any(|kept| kept.what == "the store"), "{:?}", collected.kept);
    assert_eq!(images(&fixture.storage), ["b:1"]);
    drop(lease);
    fixture.storage.image("b:1").unwrap();
    assert!(fixture.storage.has_layer(&shared.digest.to_string()));
}

#[test]
fn what_is_needed_must_be_known() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    publish(&fixture, "a:1", &[&layer]).unwrap();
    fixture.add_layer(b"stray");
    let manifest = fixture.storage.resolve("a:1").unwrap().unwrap().manifest;
    std::fs::write(fixture.storage.manifest_path(&manifest.to_string()), "{}").unwrap();
    let all = GcOptions { older_than: Some(Duration::ZERO), keep_storage: Some(0), ..GcOptions::default() };
    let collected = fixture.storage.gc(&all).unwrap();
    assert_eq!((collected.freed.len(), collected.images.len()), (0, 0));
    assert!(collected.kept[0].why.contains("a:1"), "{:?}", collected.kept);
    let usage = fixture.storage.usage().unwrap();
    assert_eq!((usage.images[0].complete, usage.reclaimable), (false, 0));
}

/// In a store that was adopted, or that an embedder fills by the calls of the reference, only what is ours goes.
#[tokio::test]
async fn what_others_keep_is_not_collected() {
    let fixture = Fixture::new();
    let (shared, own) = (fixture.add_layer(b"shared"), fixture.add_layer(b"own"));
    let stray = fixture.add_layer(b"stray");
    let theirs = add(&fixture, "theirs", &[&shared]);
    fixture.storage.stage_config_download(&Digest::of(b"x").to_string()).await.unwrap().abort().await;
    publish(&fixture, "a:1", &[&shared, &own]).unwrap();
    used(&fixture, "a:1", 3);
    assert_eq!(gc(&fixture.storage).freed, []);
    let old = GcOptions { older_than: Some(Duration::from_hours(24)), ..GcOptions::default() };
    let rehearsed = fixture.storage.gc(&GcOptions { dry_run: true, ..old.clone() }).unwrap();
    let collected = fixture.storage.gc(&old).unwrap();
    assert_eq!(collected.freed, rehearsed.freed);
    assert_eq!(kinds(&collected), [Kind::Manifest, Kind::Config, Kind::Layer, Kind::Reference]);
    assert!(collected.kept.iter().any(|kept| kept.why.contains("keep-unreferenced")));
    for layer in [&shared, &stray] {
        assert!(fixture.storage.has_layer(&layer.digest.to_string()));
    }
    fixture.storage.load_image(&theirs).unwrap();
}

#[test]
fn sums_are_what_du_says() {
    let (fixture, layer) = littered();
    let own = fixture.add_layer(&vec![5; 300_000]);
    fixture.storage.ensure_tree(&own).unwrap();
    publish(&fixture, "b:1", &[&layer, &own]).unwrap();
    fixture.storage.tag("b:1", "c:1").unwrap();
    fixture.storage.trees().promote().unwrap();
    let usage = fixture.storage.usage().unwrap();
    assert_eq!(usage.total, du(&fixture.path(".")));
    assert_eq!(usage.by_kind.values().sum::<u64>(), usage.total);
    let of = |kind| usage.by_kind.get(&kind).copied().unwrap_or(0);
    let layers: u64 = usage.layers.iter().map(|layer| layer.blob).sum();
    assert_eq!(layers, of(Kind::Layer));
    assert!(usage.layers.iter().map(|layer| layer.tree).sum::<u64>() > of(Kind::Tree), "with notes");
    let find = |digest: &Digest| usage.layers.iter().find(|layer| layer.digest == *digest).unwrap();
    assert_eq!((find(&layer.digest).images, find(&own.digest).images), (3, 2));
    assert!(find(&own.digest).blob >= 300_000 && find(&own.digest).tree >= 300_000);
    // Two names of one image: neither alone frees much.
    let image = |name: &str| usage.images.iter().find(|image| image.reference == name).unwrap().clone();
    assert!(image("b:1").own < 10_000 && image("b:1").bytes > 600_000);
    fixture.storage.remove("c:1").unwrap();
    gc(&fixture.storage);
    let usage = fixture.storage.usage().unwrap();
    let own = usage.images.iter().find(|image| image.reference == "b:1").unwrap().own;
    fixture.storage.remove("b:1").unwrap();
    let after = fixture.storage.usage().unwrap();
    let books = |usage: &Usage| usage.by_kind[&Kind::Bookkeeping];
    assert_eq!(usage.total - books(&usage) - own, after.total - books(&after), "its own is what its removal frees");
    assert_eq!(after.total, du(&fixture.path(".")));
}

/// One descriptor for a lease of whatever length, and one for each open tree.
#[test]
fn leases_and_trees_take_few_descriptors() {
    let fixture = Fixture::new();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let layers: Vec<_> = (0..60_u32).map(|at| fixture.add_layer(&at.to_le_bytes())).collect();
    for layer in &layers {
        fixture.storage.ensure_tree(layer).unwrap();
    }
    let refs: Vec<_> = layers.iter().collect();
    publish(&fixture, "a:1", &refs).unwrap();
    let before = open();
    let lease = fixture.storage.lease_image("a:1", &Cancel::new()).unwrap();
    let with_lease = open();
    let trees: Vec<_> = layers.iter().map(|layer| fixture.storage.ensure_tree(layer).unwrap()).collect();
    let with_trees = open();
    // Tests of other threads open files too, but not hundreds.
    assert!(with_lease < before + 30 && with_trees < before + 100, "{before}, {with_lease}, {with_trees}");
    drop((lease, trees));
}

/// Where the store can only be read, it can still be used, and that is not noted.
#[test]
fn what_cannot_be_noted_is_not() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    publish(&fixture, "a:1", &[&layer]).unwrap();
    used(&fixture, "a:1", 9);
    std::fs::write(fixture.path("meta.json"), r#"{"format":1,"read_only_compatible":["packs"]}"#).unwrap();
    let storage = fixture.reopen();
    let at = || fixture.path("refs/a%3A1.json").metadata().unwrap().mtime();
    let before = at();
    drop(storage.lease_image("a:1", &Cancel::new()).unwrap());
    assert_eq!(at(), before);
    assert!(matches!(storage.gc(&GcOptions::default()), Err(Error::StoreFeature { .. })));
    assert_eq!(storage.gc(&dry()).unwrap().freed, []);
}

/// A collector looked before the manifest was saved, and found the note about it alone.
#[test]
fn the_note_about_a_manifest_that_is_there_stays() {
    let fixture = Fixture::new();
    let digest = Digest::of(b"manifest");
    let note = fixture.path("records").join(manifest::note_name(&digest));
    std::fs::write(&note, b"{}").unwrap();
    let manifest = fixture.storage.manifest_path(&digest.to_string());
    std::fs::write(&manifest, b"{}").unwrap();
    fixture.storage.take_lost_note(&digest).unwrap();
    assert!(note.exists() && manifest.exists());
    std::fs::remove_file(&manifest).unwrap();
    fixture.storage.take_lost_note(&digest).unwrap();
    assert!(!note.exists());
}
