//! The order of every commit: bytes, then the name, then the directory, then what refers to it. A power cut between any two
//! steps leaves the old state or the new. Each test lists all steps, so one that goes missing or moves is seen.

use super::*;

/// What a piece of work does to the disk: syncs and names, relative to the store, staging names as `*`.
fn steps<T>(fixture: &Fixture, work: impl FnOnce() -> T) -> (T, Vec<String>) {
    let root = format!("{}/", fixture.path("").canonicalize().unwrap().display());
    let (done, steps) = trace::record(work);
    let shown = |step: String| {
        let step = step.replace(&root, "");
        match step.rsplit_once('/') {
            Some((dir, name)) if name.ends_with("ing") => format!("{dir}/*"),
            _ => step,
        }
    };
    (done, steps.into_iter().map(shown).collect())
}

#[tokio::test]
async fn a_blob_is_on_disk_before_its_name_is() {
    let fixture = Fixture::new();
    let digest = Digest::of(b"layer");
    let mut staged = fixture.storage.begin_blob(BlobKind::Layer, &digest, Some(5)).await.unwrap().granted().unwrap();
    staged.write_all(b"layer").unwrap();
    let name = BlobKind::Layer.file_name(&digest);
    let (_, steps) = steps(&fixture, || staged.verify().unwrap().commit().unwrap());
    let naming = format!("lock locks/layers.{}.naming.lock", digest.file_stem());
    assert_eq!(steps, ["sync layers/*".to_owned(), naming, format!("name layers/{name}"), "sync layers".into()]);
}

/// Without the blob's lock, but not without the one under which names are given: else a good blob could be taken for the bad
/// one that is being set aside.
#[tokio::test]
async fn a_download_without_a_lock_gives_its_name_under_one() {
    let fixture = Fixture::new();
    let digest = Digest::of(b"layer");
    let mut staged = fixture.storage.stage_layer_download(&digest.to_string(), 5).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(staged.file(), b"layer").await.unwrap();
    let naming = fixture.storage.locks().acquire(&stage::naming_lock(BlobKind::Layer, &digest)).unwrap();
    let mut commit = Box::pin(staged.commit());
    let waited = tokio::time::timeout(Duration::from_millis(50), &mut commit).await;
    assert!(waited.is_err(), "it did not wait");
    assert!(!fixture.storage.has_layer(&digest.to_string()));
    drop(naming);
    assert!(commit.await.unwrap());
    assert_nothing_staged(&fixture);
}

#[test]
fn a_manifest_is_on_disk_before_its_name_is() {
    let fixture = Fixture::new();
    let digest = Digest::of(b"{}");
    let ((), steps) = steps(&fixture, || fixture.storage.save_manifest_bytes(b"{}", &digest.to_string()).unwrap());
    let name = BlobKind::Manifest.file_name(&digest);
    let lock = |what: &str| format!("lock locks/manifests.{}{what}.lock", digest.file_stem());
    let expected = [
        lock(""),
        "sync manifests/*".into(),
        lock(".naming"),
        format!("name manifests/{name}"),
        "sync manifests".into(),
    ];
    assert_eq!(steps, expected);
}

/// A power cut while a store is made leaves one that the next opening completes: what says that it is one comes last.
#[test]
fn a_new_store_says_so_last() {
    let temp = tempfile::tempdir().unwrap();
    let images = temp.path().join("deep/images");
    let (_, steps) = trace::record(|| open(&images, &Arc::default()));
    let named: Vec<_> = steps.iter().enumerate().filter(|(_, step)| step.starts_with("name")).collect();
    let [(at, meta)] = named[..] else { panic!("{steps:?}") };
    assert!(meta.ends_with("images/meta.json"));
    let root = format!("sync {}", images.canonicalize().unwrap().display());
    let before = steps[..at].iter().filter(|step| **step == root).count();
    assert_eq!(before, 8, "once for each directory that was made: {steps:?}");
    assert_eq!(steps[at + 1], root);
    // An opening that was cut short before that is done again, closing what may have been open to others.
    std::fs::remove_file(images.join("meta.json")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&images, mode).unwrap();
    open(&images, &Arc::default());
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&images.metadata().unwrap().permissions()) & 0o777, 0o700);
}

/// What was there already may have been written by anybody, and not be on disk yet.
#[test]
fn a_reference_comes_after_all_that_it_names() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    let image = images::add(&fixture, "a:1", &[&layer]);
    let config = fixture.storage.load_image(&image).unwrap().config_digest;
    let in_use = fixture.storage.in_use_blocking().unwrap();
    let manifest = image.manifest.clone();
    let (_, steps) = steps(&fixture, || fixture.storage.publish(image, &in_use).unwrap());
    let expected = [
        format!("sync manifests/{}", BlobKind::Manifest.file_name(&manifest)),
        format!("sync configs/{}", BlobKind::Config.file_name(&config)),
        format!("sync layers/{}", BlobKind::Layer.file_name(&layer.digest)),
        "sync manifests".into(),
        "sync configs".into(),
        "sync layers".into(),
        "sync refs/*".into(),
        "name refs/a%3A1.json".into(),
        "sync refs".into(),
    ];
    assert_eq!(steps, expected);
}

/// The blob of an image is gone, or is not what it was declared to be, and a tree takes its place: one that stays.
#[test]
fn a_reference_rests_on_no_tree_that_a_power_cut_may_empty() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    fixture.storage.ensure_tree(&layer).unwrap();
    fixture.plant_layer(&layer.digest, b"lay");
    assert!(!fixture.storage.trees().is_synced(&layer.digest).unwrap());
    let image = images::add(&fixture, "a:1", &[&layer]);
    let in_use = fixture.storage.in_use_blocking().unwrap();
    fixture.storage.publish(image.clone(), &in_use).unwrap();
    assert!(fixture.storage.trees().is_synced(&layer.digest).unwrap());
    drop(in_use);
    assert!(fixture.storage.trees().remove(&layer.digest).unwrap());
    let in_use = fixture.storage.in_use_blocking().unwrap();
    assert_eq!(fixture.storage.publish(image, &in_use).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_promoted_tree_was_synced_before_its_record_says_so() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    let (_, first) = steps(&fixture, || fixture.storage.ensure_tree(&layer).unwrap());
    let record = format!("name records/{}.json", layer.digest.file_stem());
    let notes = format!("name records/{}.layer.json", layer.digest.file_stem());
    let first: Vec<_> = first.into_iter().filter(|step| !step.starts_with("lock")).collect();
    // Volatile, all of it; but the record comes last before the tree's own name.
    assert_eq!(first, [notes, record.clone(), format!("name extracted/{}", layer.digest.file_stem())]);
    let (_, promoted) = steps(&fixture, || fixture.storage.trees().promote().unwrap());
    let list = record.replace(".json", ".mtree");
    let synced = list.replace("name", "sync");
    let promoted: Vec<_> = promoted.into_iter().filter(|step| !step.starts_with("lock")).collect();
    let listed = [list, record.clone(), "sync all of extracted".into()];
    assert_eq!(promoted[..3], listed, "its list first, so that the same sync is the list's too");
    // Once more: another process may have written it since.
    assert_eq!(promoted[3..], [synced, "sync records/*".to_owned(), record, "sync records".into()]);
}

fn syncs(steps: &[String]) -> Vec<&str> {
    steps.iter().filter_map(|step| step.strip_prefix("sync ")).collect()
}

#[tokio::test]
async fn without_durability_nothing_waits_for_the_disk() {
    let fixture = Fixture::new();
    let storage = fixture.storage.clone().with_durability(Durability::None);
    let layer = fixture.add_layer(b"layer");
    let image = images::add(&fixture, "a:1", &[&layer]);
    let in_use = storage.in_use_blocking().unwrap();
    let digest = Digest::of(b"other");
    let mut staged = storage.begin_blob(BlobKind::Layer, &digest, Some(5)).await.unwrap().granted().unwrap();
    staged.write_all(b"other").unwrap();
    let manifest = Digest::of(b"{}");
    let ((), steps) = steps(&fixture, || {
        staged.verify().unwrap().commit().unwrap();
        storage.save_manifest_bytes(b"{}", &manifest.to_string()).unwrap();
        storage.publish(image, &in_use).unwrap();
    });
    assert!(syncs(&steps).is_empty(), "{steps:?}");
    assert!(fixture.storage.has_layer(&digest.to_string()));
    assert_eq!(fixture.storage.images().unwrap().len(), 1);
}

#[test]
fn with_all_durability_trees_are_on_disk_before_the_reference() {
    let fixture = Fixture::new();
    let storage = fixture.storage.clone().with_durability(Durability::Layer);
    let layer = fixture.add_layer(b"layer");
    fixture.storage.ensure_tree(&layer).unwrap();
    let image = images::add(&fixture, "a:1", &[&layer]);
    let in_use = storage.in_use_blocking().unwrap();
    let (_, steps) = steps(&fixture, || storage.publish(image, &in_use).unwrap());
    let syncs = syncs(&steps);
    let at = |what: &str| syncs.iter().position(|step| *step == what).unwrap_or_else(|| panic!("{what}: {syncs:?}"));
    assert!(at("sync all of extracted".trim_start_matches("sync ")) < at("refs/*"));
    assert!(fixture.storage.trees().is_synced(&layer.digest).unwrap());
}

/// What takes the place of something that is there for good must not be lost with it.
#[test]
fn a_durable_reference_is_replaced_by_a_durable_one() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    let image = images::add(&fixture, "a:1", &[&layer]);
    let in_use = fixture.storage.in_use_blocking().unwrap();
    fixture.storage.publish(image.clone(), &in_use).unwrap();
    let storage = fixture.storage.clone().with_durability(Durability::None);
    let (_, steps) = steps(&fixture, || storage.publish(image, &in_use).unwrap());
    let layer = format!("layers/{}", BlobKind::Layer.file_name(&layer.digest));
    let syncs = syncs(&steps);
    assert!(syncs.contains(&layer.as_str()) && syncs.contains(&"refs/*") && syncs.contains(&"refs"), "{syncs:?}");
}
