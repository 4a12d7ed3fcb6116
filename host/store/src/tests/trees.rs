//! Extraction into the store, and what is believed afterwards.

use super::*;
use crate::record::OwnersIn;
use crate::sweep::Sweep;

fn content(storage: &ImageStorage, layer: &LayerDescriptor) -> Vec<u8> {
    std::fs::read(storage.layer_extracted_path(&layer.digest.to_string()).join("etc/content")).unwrap()
}

fn extract(storage: &ImageStorage, layer: &LayerDescriptor) -> Result<()> {
    let digest = layer.digest.to_string();
    storage.extract_layer(&digest, &storage.layer_tarball_path(&digest))
}

fn record_path(fixture: &Fixture, layer: &LayerDescriptor) -> std::path::PathBuf {
    fixture.path("records").join(format!("{}.json", layer.digest.file_stem()))
}

/// Changes a record as time, or somebody, might.
fn edit_record(fixture: &Fixture, layer: &LayerDescriptor, edit: impl FnOnce(&mut serde_json::Value)) {
    let path = record_path(fixture, layer);
    let mut record = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut record);
    std::fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
}

fn calls(fixture: &Fixture) -> u32 {
    fixture.unpacker.calls.load(Ordering::SeqCst)
}

#[test]
fn a_layer_is_extracted_once() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    for _ in 0..3 {
        extract(&fixture.storage, &layer).unwrap();
        extract(&fixture.reopen(), &layer).unwrap();
    }
    assert_eq!(calls(&fixture), 1);
    assert_eq!(content(&fixture.storage, &layer), b"layer");
    let tree = fixture.storage.ensure_tree(&layer).unwrap();
    assert_eq!(tree.path(), fixture.storage.layer_extracted_path(&layer.digest.to_string()));
    assert_eq!(tree.layer_record().unwrap(), br#"{"links":[]}"#);
    assert_eq!(tree.record().diff_ids, [toy_diff_id(b"layer")]);
    assert!(rustix::fs::statat(tree.directory(), "etc/content", rustix::fs::AtFlags::empty()).is_ok());
    assert_eq!(calls(&fixture), 1);
    assert_nothing_staged(&fixture);
}

#[test]
fn of_many_at_once_one_works_and_all_succeed() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"slow layer");
    std::thread::scope(|scope| {
        for _ in 0..16 {
            // Opened anew, as another process would: locks belong to open files, not to processes.
            let storage = fixture.reopen();
            let layer = &layer;
            scope.spawn(move || {
                extract(&storage, layer).unwrap();
                assert_eq!(content(&storage, layer), b"slow layer");
            });
        }
    });
    assert_eq!(calls(&fixture), 1);
    assert_nothing_staged(&fixture);
}

#[test]
fn a_failure_leaves_nothing() {
    let fixture = Fixture::new();
    let hostile = fixture.add_layer(b"hostile");
    let refused = extract(&fixture.storage, &hostile).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert!(refused.to_string().contains(&hostile.digest.to_string()), "{refused}");
    // A blob that does not hash to its name.
    let damaged = LayerDescriptor::of(Digest::of(b"good"));
    fixture.plant_layer(&damaged.digest, b"bad!");
    assert_eq!(extract(&fixture.storage, &damaged).unwrap_err().kind(), ErrorKind::Integrity);
    // A wrong DiffID, a wrong size.
    let layer = fixture.add_layer(b"layer");
    let wrong_diff_id = LayerDescriptor { diff_id: Some(Digest::of(b"other")), ..layer.clone() };
    let wrong_size = LayerDescriptor { size: Some(4), ..layer.clone() };
    for wrong in [wrong_diff_id, wrong_size] {
        assert_eq!(fixture.storage.ensure_tree(&wrong).unwrap_err().kind(), ErrorKind::Integrity);
    }
    // No blob at all.
    let absent = LayerDescriptor::of(Digest::of(b"absent"));
    assert_eq!(extract(&fixture.storage, &absent).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fixture.storage.ensure_tree(&absent).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(names(&fixture.path("extracted")), [""; 0]);
    assert_eq!(names(&fixture.path("records")), [""; 0]);
    assert_nothing_staged(&fixture);
    // And nothing of it stands in the way.
    fixture.plant_layer(&damaged.digest, b"good");
    extract(&fixture.storage, &damaged).unwrap();
    extract(&fixture.storage, &layer).unwrap();
}

/// The tree of an image must not serve another image that claims a different `DiffID` for the same blob.
#[test]
fn a_tree_that_is_there_is_checked_against_the_claim() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    fixture.storage.ensure_tree(&layer).unwrap();
    let wrong = LayerDescriptor { diff_id: Some(Digest::of(b"other")), ..layer.clone() };
    assert_eq!(fixture.storage.ensure_tree(&wrong).unwrap_err().kind(), ErrorKind::Integrity);
    assert!(matches!(fixture.storage.trees().begin(&wrong, None), Err(Error::DigestMismatch { .. })));
    let wrong = LayerDescriptor { size: Some(6), ..layer.clone() };
    assert!(matches!(fixture.storage.ensure_tree(&wrong), Err(error) if error.kind() == ErrorKind::Integrity));
    assert!(fixture.storage.trees().is_ready(&layer.digest), "the tree itself is fine");
    assert_eq!(calls(&fixture), 1);
}

#[test]
fn a_tree_of_the_reference_is_extracted_again() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    let tree = fixture.storage.layer_extracted_path(&layer.digest.to_string());
    std::fs::create_dir_all(tree.join("etc/deep")).unwrap();
    std::fs::write(tree.join("etc/content"), "never verified").unwrap();
    assert!(!fixture.storage.trees().is_ready(&layer.digest));
    extract(&fixture.storage, &layer).unwrap();
    assert_eq!(content(&fixture.storage, &layer), b"layer");
    assert_eq!(names(&tree.join("etc")), ["content"]);
    assert_nothing_staged(&fixture);
}

#[test]
fn a_tree_in_the_place_of_ours_is_not_believed() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    extract(&fixture.storage, &layer).unwrap();
    let tree = fixture.storage.layer_extracted_path(&layer.digest.to_string());
    std::fs::remove_dir_all(&tree).unwrap();
    assert!(!fixture.storage.trees().is_ready(&layer.digest), "a record without its tree");
    std::fs::create_dir(&tree).unwrap();
    assert!(!fixture.storage.trees().is_ready(&layer.digest), "another directory, maybe of the same inode and time");
    // Whatever its inode and its time of birth, without the mark it is another one.
    extract(&fixture.storage, &layer).unwrap();
    rustix::fs::removexattr(&tree, "user.cofferdam.tree").unwrap();
    assert!(!fixture.storage.trees().is_ready(&layer.digest));
    extract(&fixture.storage, &layer).unwrap();
    assert_eq!(content(&fixture.storage, &layer), b"layer");
    // A link, or a file, under the tree's name.
    std::fs::remove_dir_all(&tree).unwrap();
    std::os::unix::fs::symlink(fixture.temp.path(), &tree).unwrap();
    extract(&fixture.storage, &layer).unwrap();
    assert!(tree.symlink_metadata().unwrap().is_dir());
    assert!(fixture.temp.path().join("images").exists());
}

#[test]
fn after_a_power_cut_only_synced_trees_are_believed() {
    let fixture = Fixture::new();
    let (lost, synced) = (fixture.add_layer(b"lost"), fixture.add_layer(b"synced"));
    extract(&fixture.storage, &synced).unwrap();
    assert_eq!(fixture.storage.trees().promote().unwrap(), 1);
    assert_eq!(fixture.storage.trees().promote().unwrap(), 0, "once is enough");
    extract(&fixture.storage, &lost).unwrap();
    let before = fixture.storage.ensure_tree(&synced).unwrap();
    assert!(before.record().synced);
    for layer in [&lost, &synced] {
        edit_record(&fixture, layer, |record| record["boot_id"] = "another boot".into());
    }
    assert!(!fixture.storage.trees().is_ready(&lost.digest));
    assert!(fixture.storage.trees().is_ready(&synced.digest));
    let calls_before = calls(&fixture);
    extract(&fixture.storage, &synced).unwrap();
    assert_eq!(calls(&fixture), calls_before);
    extract(&fixture.storage, &lost).unwrap();
    assert_eq!(calls(&fixture), calls_before + 1);
}

/// A tree of an earlier boot is not promoted by a sync of this one: the sync came too late for it.
#[test]
fn a_sync_does_not_vouch_for_an_earlier_boot() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    extract(&fixture.storage, &layer).unwrap();
    edit_record(&fixture, &layer, |record| record["boot_id"] = "another boot".into());
    assert_eq!(fixture.storage.trees().promote().unwrap(), 0);
    assert!(!fixture.storage.trees().is_ready(&layer.digest));
}

/// Between the sync and the note of it, the tree may be replaced by one that was not synced.
#[test]
fn a_sync_vouches_only_for_what_was_there_before_it() {
    let fixture = Fixture::new();
    let (stays, goes) = (fixture.add_layer(b"stays"), fixture.add_layer(b"goes"));
    for layer in [&stays, &goes] {
        extract(&fixture.storage, layer).unwrap();
    }
    let trees = fixture.storage.trees();
    let before = trees.unsynced(Duration::ZERO).unwrap();
    assert!(trees.remove(&goes.digest).unwrap());
    extract(&fixture.storage, &goes).unwrap();
    assert_eq!(trees.confirm(before).unwrap(), 1);
    assert!(trees.is_synced(&stays.digest).unwrap());
    assert!(!trees.is_synced(&goes.digest).unwrap());
}

/// Trees of a process that ended before it could promote them.
#[test]
fn old_trees_are_promoted_when_the_store_is_opened() {
    let fixture = Fixture::new();
    let (old, new) = (fixture.add_layer(b"old"), fixture.add_layer(b"new"));
    for layer in [&old, &new] {
        extract(&fixture.storage, layer).unwrap();
    }
    edit_record(&fixture, &old, |record| record["written_at"] = 1_700_000_000.into());
    let storage = fixture.reopen();
    let deadline = std::time::Instant::now() + Duration::from_mins(1);
    while !storage.trees().is_synced(&old.digest).unwrap() {
        assert!(std::time::Instant::now() < deadline, "nobody promotes");
        std::thread::yield_now();
    }
    assert!(
        !storage.trees().is_synced(&new.digest).unwrap(),
        "it costs nothing to wait until the kernel has written it"
    );
}

/// A system that does not tell boots apart.
#[test]
fn without_a_boot_id_trees_are_synced_at_once() {
    let fixture = Fixture::new();
    let storage = &fixture.storage;
    let layer = fixture.add_layer(b"layer");
    let trees = Trees::new(
        fixture.path("extracted"),
        Arc::clone(&storage.rooms().extracted),
        Arc::clone(&storage.rooms().records),
        storage.locks().clone(),
        "extracted".into(),
        None,
        storage.access().clone(),
    );
    let ensure = || trees.ensure(&layer, &*fixture.unpacker, || storage.open_layer(&layer.digest), &Watch::default());
    let first = ensure().unwrap();
    assert!(first.record().synced && first.record().boot_id.is_none());
    ensure().unwrap();
    assert_eq!(calls(&fixture), 1);
    first.check_whole().unwrap();
}

/// Two images may claim the DiffID of one layer by two algorithms. Neither spoils the layer for the other.
#[test]
fn a_layer_may_be_measured_by_several_algorithms() {
    let fixture = Fixture::new();
    let bytes = b"layer";
    let first = fixture.add_layer(bytes);
    let sha512 = |bytes: &[u8]| {
        let mut hasher = Hasher::new(cofferdam_core::Algorithm::Sha512);
        hasher.update(bytes);
        hasher.finish()
    };
    let second = LayerDescriptor { diff_id: Some(sha512(&bytes.repeat(2))), ..first.clone() };
    let lie = LayerDescriptor { diff_id: Some(sha512(b"lie")), ..first.clone() };
    let held = fixture.storage.ensure_tree(&first).unwrap();
    assert_eq!(fixture.storage.ensure_tree(&lie).unwrap_err().kind(), ErrorKind::Integrity);
    for layer in [&second, &first, &second] {
        assert_eq!(fixture.storage.ensure_tree(layer).unwrap().record().mark, held.record().mark, "replaced in use");
    }
    assert_eq!(calls(&fixture), 3, "once for each claim that was new");
    assert_eq!(fixture.storage.ensure_tree(&lie).unwrap_err().kind(), ErrorKind::Integrity);
    assert_eq!(held.path(), fixture.storage.layer_extracted_path(&first.digest.to_string()));
    held.check_whole().unwrap();
    drop(held);
    assert_nothing_staged(&fixture);
}

#[test]
fn a_tree_whose_layer_was_noted_in_another_form_is_extracted_again() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    extract(&fixture.storage, &layer).unwrap();
    edit_record(&fixture, &layer, |record| record["layer_version"] = 7.into());
    assert!(!fixture.storage.trees().is_ready(&layer.digest));
    extract(&fixture.storage, &layer).unwrap();
    assert_eq!(calls(&fixture), 2);
}

#[test]
fn damage_to_what_a_merge_must_know_is_found_and_mended() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    let path = fixture.path("records").join(format!("{}.layer.json", layer.digest.file_stem()));
    for (damage, found_at_once) in [("{\"links\":{}}", false), ("", true)] {
        let tree = fixture.storage.ensure_tree(&layer).unwrap();
        std::fs::write(&path, damage).unwrap();
        assert_eq!(fixture.storage.trees().is_ready(&layer.digest), !found_at_once);
        assert!(matches!(tree.layer_record(), Err(Error::Damaged { .. })));
        drop(tree);
        let tree = fixture.storage.ensure_tree(&layer).unwrap();
        assert_eq!(tree.layer_record().unwrap(), br#"{"links":[]}"#);
    }
    assert_eq!(calls(&fixture), 3);
}

/// A tree that lost its record is replaced. Who reads it goes on reading all of it.
#[test]
fn a_tree_that_is_read_is_not_emptied() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    let read = fixture.storage.ensure_tree(&layer).unwrap();
    std::fs::remove_file(record_path(&fixture, &layer)).unwrap();
    let new = fixture.reopen().ensure_tree(&layer).unwrap();
    assert_eq!(calls(&fixture), 2);
    fixture.storage.sweep().unwrap();
    let dir = cap_std::fs::Dir::from_std_file(File::from(read.directory().try_clone_to_owned().unwrap()));
    assert_eq!(dir.read("etc/content").unwrap(), b"layer");
    assert!(matches!(read.check_whole(), Err(Error::Busy { .. })), "it is told that its tree is the old one");
    new.check_whole().unwrap();
    drop((read, dir, new));
    fixture.storage.sweep().unwrap();
    assert_eq!(names(&fixture.path("extracted")).len(), 2, "it may be mounted");
    in_another_boot(&fixture).sweep(&mut Sweep::new(0));
    assert_eq!(names(&fixture.path("extracted")), [layer.digest.file_stem()]);
    assert_nothing_staged(&fixture);
}

/// The trees as they are seen after the machine was started again.
fn in_another_boot(fixture: &Fixture) -> Trees {
    let storage = &fixture.storage;
    Trees::new(
        fixture.path("extracted"),
        Arc::clone(&storage.rooms().extracted),
        Arc::clone(&storage.rooms().records),
        storage.locks().clone(),
        "extracted".into(),
        Some("another boot".into()),
        storage.access().clone(),
    )
}

/// After an upgrade a tree is made again. Until then, and where it cannot be, the old one stays; then it only loses its name, because a
/// mount may show it, which takes no lock.
#[test]
fn a_tree_of_an_earlier_version_is_not_emptied() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    extract(&fixture.storage, &layer).unwrap();
    edit_record(&fixture, &layer, |record| record["version"] = 1.into());
    let tree = fixture.storage.layer_extracted_path(&layer.digest.to_string());
    let mounted = cap_std::fs::Dir::open_ambient_dir(&tree, cap_std::ambient_authority()).unwrap();
    let blob = fixture.storage.layer_tarball_path(&layer.digest.to_string());
    let aside = blob.with_extension("aside");
    std::fs::rename(&blob, &aside).unwrap();
    assert_eq!(fixture.reopen().ensure_tree(&layer).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(std::fs::read(tree.join("etc/content")).unwrap(), b"layer");
    std::fs::rename(&aside, &blob).unwrap();
    drop(fixture.reopen().ensure_tree(&layer).unwrap());
    assert_eq!(calls(&fixture), 2);
    fixture.reopen().gc(&GcOptions::default()).unwrap();
    assert_eq!(mounted.read("etc/content").unwrap(), b"layer");
    in_another_boot(&fixture).sweep(&mut Sweep::new(0));
    assert!(mounted.read("etc/content").is_err());
}

#[test]
fn the_number_of_replaced_trees_is_bounded() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    for _ in 0..7 {
        extract(&fixture.storage, &layer).unwrap();
        fixture.storage.trees().replace(&layer.digest).unwrap();
    }
    assert_eq!(names(&fixture.path("extracted")).len(), 4);
}

#[test]
fn waiting_for_another_extraction_ends_when_it_is_given_up() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    let staged = fixture.storage.trees().begin(&layer, None).unwrap().granted().unwrap();
    let watch = Watch::default();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| fixture.storage.ensure_tree_watched(&layer, &watch).map(drop));
        watch.cancel.cancel();
        assert!(matches!(waiter.join().unwrap().unwrap_err().root(), Error::Interrupted));
    });
    drop(staged);
    assert_eq!(calls(&fixture), 0);
}

#[test]
fn a_damaged_record_vouches_for_nothing() {
    let fixture = Fixture::new();
    let (layer, other) = (fixture.add_layer(b"layer"), fixture.add_layer(b"other"));
    for damage in ["", "{", "null", "{\"version\":1}"] {
        extract(&fixture.storage, &layer).unwrap();
        std::fs::write(record_path(&fixture, &layer), damage).unwrap();
        assert!(!fixture.storage.trees().is_ready(&layer.digest), "{damage:?}");
    }
    extract(&fixture.storage, &layer).unwrap();
    extract(&fixture.storage, &other).unwrap();
    std::fs::copy(record_path(&fixture, &other), record_path(&fixture, &layer)).unwrap();
    assert!(!fixture.storage.trees().is_ready(&layer.digest), "another tree's record");
}

#[test]
fn a_tree_can_be_begun_before_its_blob_is_there() {
    let fixture = Fixture::new();
    let bytes = b"layer";
    let layer = LayerDescriptor { diff_id: Some(toy_diff_id(bytes)), ..LayerDescriptor::of(Digest::of(bytes)) };
    let unpacked = |bytes: &[u8]| Unpacked {
        blob: Digest::of(bytes),
        blob_bytes: bytes.len() as u64,
        layer: UnpackedLayer {
            decoded_bytes: 0,
            diff_id: toy_diff_id(bytes),
            record: b"null".to_vec(),
            reader: None,
            reports: Vec::new(),
        },
    };
    let trees = fixture.storage.trees();
    let staged = trees.begin(&layer, None).unwrap().granted().unwrap();
    let name = names(&fixture.path("extracted")).pop().unwrap();
    let uuid = name.strip_prefix(&format!("{}.", layer.digest.file_stem())).unwrap();
    assert_eq!(uuid.strip_suffix(".extracting").unwrap().len(), 32, "{name}");
    assert!(matches!(staged.verify(unpacked(b"other")), Err(Error::DigestMismatch { .. })));
    assert_eq!(names(&fixture.path("extracted")), [""; 0]);
    drop(trees.begin(&layer, None).unwrap().granted().unwrap().verify(unpacked(bytes)).unwrap());
    assert_eq!(names(&fixture.path("extracted")), [""; 0], "verified is not committed");
    let staged = trees.begin(&layer, None).unwrap().granted().unwrap();
    let dir = cap_std::fs::Dir::from_std_file(File::from(staged.directory_handle().unwrap()));
    dir.write("file", "x").unwrap();
    let tree = staged.verify(unpacked(bytes)).unwrap().commit().unwrap();
    assert_eq!(std::fs::read(tree.path().join("file")).unwrap(), b"x");
    assert!(matches!(trees.begin(&layer, None).unwrap(), Claim::Present));
    assert_nothing_staged(&fixture);
}

#[tokio::test]
async fn waiting_for_a_tree_can_be_given_up() {
    let fixture = Fixture::new();
    let layer = LayerDescriptor::of(Digest::of(b"layer"));
    let trees = fixture.storage.trees();
    let held = trees.begin_async(&layer, None).await.unwrap().granted().unwrap();
    let wait = trees.begin_async(&layer, None);
    assert!(tokio::time::timeout(Duration::from_millis(20), wait).await.is_err());
    drop(held);
    // The abandoned waiter may come before or after; either way it takes its turn and leaves nothing.
    assert!(trees.begin_async(&layer, None).await.unwrap().granted().is_some());
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !names(&fixture.path("extracted")).is_empty() || names(&fixture.path("locks")).len() > 2 {
        assert!(std::time::Instant::now() < deadline, "an abandoned waiter holds on to what it got");
        tokio::task::yield_now().await;
    }
}

/// A program that takes no locks puts a directory under the tree's name while we work.
#[test]
fn a_commit_prevails_over_who_takes_no_locks() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    let staged = fixture.storage.trees().begin(&layer, None).unwrap().granted().unwrap();
    let tree = fixture.storage.layer_extracted_path(&layer.digest.to_string());
    std::fs::create_dir_all(tree.join("etc")).unwrap();
    let dest = staged.directory_handle().unwrap();
    let blob = fixture.storage.open_layer(&layer.digest).unwrap();
    let unpacked = unpacker::unpack_stored(&*fixture.unpacker, blob, &layer, dest, &Watch::default()).unwrap();
    staged.verify(unpacked).unwrap().commit().unwrap();
    assert_eq!(content(&fixture.storage, &layer), b"layer");
    assert!(fixture.storage.trees().is_ready(&layer.digest));
    assert_nothing_staged(&fixture);
}

#[test]
fn local_layouts_have_trees_of_their_own() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.temp.path().join("one"), fixture.temp.path().join("two"));
    std::fs::create_dir(&one).unwrap();
    std::fs::create_dir(&two).unwrap();
    let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
    let storage = &fixture.storage;
    let dir = |path: &Path, digest: &Digest| storage.local_bundle_cache_dir(path, &digest.to_string());
    assert_eq!(dir(&one, &a), dir(&one.join("../one/."), &a), "one layout, however it is spelled");
    assert_ne!(dir(&one, &a), dir(&two, &a));
    assert_ne!(dir(&one, &a), dir(&one, &b));
    assert_eq!(dir(&one, &a).parent().unwrap(), fixture.path("local"));
    assert_eq!(dir(&one, &a).file_name().unwrap().len(), 64);

    let layer = fixture.add_layer(b"layer");
    let trees = storage.local_trees(&one, &a).unwrap();
    assert_eq!(trees.path(&layer.digest), dir(&one, &a).join("extracted").join(layer.digest.file_stem()));
    let staged = trees.begin(&layer, None).unwrap().granted().unwrap();
    // Neither the registry's tree nor another layout's is affected, or waited for.
    extract(storage, &layer).unwrap();
    drop(storage.local_trees(&two, &a).unwrap().begin(&layer, None).unwrap().granted().unwrap());
    assert!(!trees.is_ready(&layer.digest));
    drop(staged);
}

/// What was judged may have been replaced since: the new one is nobody's to take.
#[test]
fn only_the_tree_that_was_judged_is_retired() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    let mark = |storage: &ImageStorage| storage.trees().vouched(&layer.digest).unwrap().map(|(_, record)| record.mark);
    extract(&fixture.storage, &layer).unwrap();
    let judged = mark(&fixture.storage).unwrap();
    assert!(fixture.storage.trees().remove(&layer.digest).unwrap());
    extract(&fixture.storage, &layer).unwrap();
    let trees = fixture.storage.trees();
    assert!(!trees.retire(&layer.digest, Some(&judged)).unwrap());
    assert!(!trees.retire(&layer.digest, None).unwrap());
    assert!(trees.is_ready(&layer.digest));
    let now = mark(&fixture.storage).unwrap();
    assert!(trees.retire(&layer.digest, Some(&now)).unwrap());
    assert!(!trees.path_exists(&layer.digest));
}

/// Our own work in the background must not keep anything from being collected.
#[test]
fn a_layout_that_is_promoted_in_the_background_can_be_collected() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    let (path, manifest) = (fixture.temp.path().join("layout"), Digest::of(b"manifest"));
    let trees = fixture.storage.local_trees(&path, &manifest).unwrap();
    trees
        .ensure(&layer, fixture.storage.unpacker(), || fixture.storage.open_layer(&layer.digest), &Watch::default())
        .unwrap();
    let (_, mut record) = trees.vouched(&layer.digest).unwrap().unwrap();
    record.written_at = 1_700_000_000;
    trees.write_record(&record).unwrap();
    drop(trees);
    let storage = fixture.reopen();
    let freed = storage.remove_local().unwrap();
    assert_eq!((freed.trees, freed.kept), (vec![layer.digest], None));
}

/// A plugin that was replaced, granted something or set otherwise makes other trees: those that the old one made are made again.
#[test]
fn a_tree_is_of_the_component_that_made_it() {
    let fixture = Fixture::new();
    let layer = LayerDescriptor { media_type: Some(FOREIGN.into()), ..fixture.add_layer(b"foreign layer") };
    let with = |plugin: Option<&[u8]>| {
        let toy = Arc::new(Toy { plugin: plugin.map(Digest::of), ..Toy::default() });
        (open(&fixture.temp.path().join("images"), &toy), toy)
    };
    let (old, toy) = with(Some(b"old"));
    let tree = old.ensure_tree(&layer).unwrap();
    old.ensure_tree(&layer).unwrap();
    assert_eq!((toy.calls.load(Ordering::SeqCst), &tree.record().reader), (1, &Some(Digest::of(b"old"))));
    let (new, toy) = with(Some(b"new"));
    assert!(new.trees().open(&layer, toy.plugin.as_ref()).unwrap().is_none());
    let again = new.ensure_tree(&layer).unwrap();
    assert_eq!((toy.calls.load(Ordering::SeqCst), &again.record().reader), (1, &Some(Digest::of(b"new"))));
    assert!(matches!(tree.check_whole(), Err(Error::Busy { .. })), "who reads the old one is told");
    // Without a plugin nobody can say what the layer is, however many trees of it there are.
    let (none, _) = with(None);
    assert!(matches!(none.ensure_tree(&layer).unwrap_err().root(), Error::Unsupported { .. }));
    // Where no media type is known, the first bytes tell which reader it has to be.
    let path = new.layer_tarball_path(&layer.digest.to_string());
    new.extract_layer(&layer.digest.to_string(), &path).unwrap();
    assert_eq!(toy.calls.load(Ordering::SeqCst), 1);
    none.extract_layer(&layer.digest.to_string(), &path).unwrap();
    assert!(none.trees().open(&LayerDescriptor::of(layer.digest.clone()), None).unwrap().is_some());
    assert!(new.trees().open(&layer, toy.plugin.as_ref()).unwrap().is_none());
}

/// An image that has a blob read in another way, and is refused, takes nothing away from one that is there.
#[test]
fn a_reading_that_fails_leaves_the_other_one_alone() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    let tree = fixture.storage.ensure_tree(&layer).unwrap();
    let toy = Arc::new(Toy { plugin: Some(Digest::of(b"plugin")), ..Toy::default() });
    let storage = open(&fixture.temp.path().join("images"), &toy);
    let diff_id = Some(Digest::of(b"another"));
    let foreign = LayerDescriptor { media_type: Some(FOREIGN.into()), diff_id, ..layer.clone() };
    assert!(matches!(storage.ensure_tree(&foreign).unwrap_err().root(), Error::DigestMismatch { .. }));
    tree.check_whole().unwrap();
    fixture.storage.ensure_tree(&layer).unwrap();
    assert_eq!(fixture.unpacker.calls.load(Ordering::SeqCst), 1);
}

/// Owners of files that are in attributes are not where a process looks that keeps them in inodes, and the other way round.
#[test]
fn a_tree_with_its_owners_elsewhere_is_made_again() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    let trees = fixture.storage.trees();
    fixture.storage.ensure_tree(&layer).unwrap();
    let noted = |owners| {
        let (_, mut record) = trees.vouched(&layer.digest).unwrap().unwrap();
        record.owners = owners;
        trees.write_record(&record).unwrap();
        fixture.storage.ensure_tree(&layer).unwrap();
        fixture.unpacker.calls.load(Ordering::SeqCst)
    };
    let here = trees.owners();
    let elsewhere = if here == OwnersIn::Inodes { OwnersIn::Attributes } else { OwnersIn::Inodes };
    assert_eq!((noted(Some(here)), noted(None), noted(Some(elsewhere))), (1, 1, 2));
}
