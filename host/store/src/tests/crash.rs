//! Dead owners, living ones, and stores of other versions.

use std::io::BufRead as _;
use std::process::{Child, Command, Stdio};

use super::*;

const STORE: &str = "COFFERDAM_TEST_STORE";
const BLOB: &[u8] = b"a blob that is never finished";

/// Another process at work in the store: it has staged a blob and a tree, and waits to be killed.
fn worker(fixture: &Fixture) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::crash::work_in_another_process", "--ignored", "--nocapture"])
        .env(STORE, fixture.path("."))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("at work")), "the other process failed");
    child
}

#[test]
#[ignore = "the other process of the tests below"]
fn work_in_another_process() {
    let Some(path) = std::env::var_os(STORE) else { return };
    let storage = open(Path::new(&path), &Arc::default());
    let digest = Digest::of(BLOB);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut staged = runtime
        .block_on(storage.begin_blob(BlobKind::Layer, &digest, None))
        .unwrap()
        .granted()
        .expect("nobody else has it");
    staged.write_all(&BLOB[..7]).unwrap();
    let _download = runtime.block_on(storage.stage_config_download(&digest.to_string())).unwrap();
    let tree = storage.trees().begin(&LayerDescriptor::of(digest), None).unwrap().granted().unwrap();
    let dir = cap_std::fs::Dir::from_std_file(File::from(tree.directory_handle().unwrap()));
    dir.create_dir_all("a/b/c").unwrap();
    dir.write("a/b/c/file", "x").unwrap();
    let mut out = std::io::stdout();
    out.write_all(b"\nat work\n").unwrap();
    out.flush().unwrap();
    // Until the end of the input, that is, of the parent.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
}

fn staged_names(fixture: &Fixture) -> Vec<String> {
    let dirs = ["layers", "configs", "extracted"];
    dirs.iter().flat_map(|dir| names(&fixture.path(dir))).filter(|name| name.ends_with("ing")).collect()
}

#[test]
fn the_living_keep_their_staging_and_the_dead_leave_none() {
    let fixture = Fixture::new();
    let mut child = worker(&fixture);
    assert_eq!(staged_names(&fixture).len(), 3);
    let storage = fixture.reopen();
    storage.sweep().unwrap();
    assert_eq!(staged_names(&fixture).len(), 3, "the other process lives");
    // Nor does its work seem to be free for the taking.
    let layer = LayerDescriptor::of(Digest::of(BLOB));
    assert!(!storage.trees().remove(&layer.digest).unwrap());

    child.kill().unwrap();
    child.wait().unwrap();
    let storage = fixture.reopen();
    assert_eq!(staged_names(&fixture), [""; 0]);
    assert_nothing_staged(&fixture);
    // Nobody waits for the dead.
    drop(storage.trees().begin(&layer, None).unwrap().granted().unwrap());
}

/// Returns when a thread of this process waits for a lock: the kernel says so, `->` in `/proc/locks`.
fn await_waiter(fixture: &Fixture, lock: &str) {
    use std::os::unix::fs::MetadataExt as _;
    let inode = format!(":{} ", fixture.path("locks").join(lock).metadata().unwrap().ino());
    let deadline = std::time::Instant::now() + Duration::from_mins(1);
    loop {
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        if locks.lines().any(|line| line.contains("->") && line.contains(&inode)) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "nobody waits:\n{locks}");
        std::thread::yield_now();
    }
}

#[test]
fn a_waiter_takes_over_from_the_dead() {
    let fixture = Fixture::new();
    let mut child = worker(&fixture);
    let layer = LayerDescriptor::of(Digest::of(BLOB));
    fixture.plant_layer(&layer.digest, BLOB);
    let (storage, waiting) = (fixture.reopen(), layer.clone());
    let waiter = std::thread::spawn(move || storage.trees().begin(&waiting, None).unwrap().granted().is_some());
    await_waiter(&fixture, &format!("extracted.{}.lock", layer.digest.file_stem()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(waiter.join().unwrap(), "it is the waiter's turn");
    fixture.reopen();
    assert_nothing_staged(&fixture);
}

/// The reference takes no locks: what it stages is left alone until it must be dead.
#[test]
fn staging_of_the_reference_is_swept_when_it_is_old() {
    let fixture = Fixture::new();
    let stem = Digest::of(b"x").file_stem();
    let name = |suffix: &str| format!("{stem}.{}.{suffix}", uuid::Uuid::new_v4().simple());
    let (new_file, old_file) = (name("downloading"), name("downloading"));
    let (new_tree, old_tree) = (name("extracting"), name("extracting"));
    for file in [&new_file, &old_file] {
        std::fs::write(fixture.path("layers").join(file), "x").unwrap();
    }
    for tree in [&new_tree, &old_tree] {
        std::fs::create_dir_all(fixture.path("extracted").join(tree).join("a/b")).unwrap();
    }
    let day = Duration::from_hours(24);
    age(&fixture.path("layers").join(&old_file), day);
    age(&fixture.path("extracted").join(&old_tree), day);
    let now = promote::seconds();
    fixture.storage.sweep_at(now).unwrap();
    // A time of modification may be the layer's; the one of the change says that somebody is at work.
    assert_eq!(names(&fixture.path("layers")).len(), 2);
    assert_eq!(names(&fixture.path("extracted")).len(), 2);
    fixture.storage.sweep_at(now + day.as_secs()).unwrap();
    assert_eq!(names(&fixture.path("layers")), [""; 0]);
    assert_eq!(names(&fixture.path("extracted")), [""; 0]);
}

/// A name that cannot be swept keeps nothing else from being swept, in whatever order the directory lists them.
#[test]
fn sweeping_goes_on_after_what_cannot_be_swept() {
    let fixture = Fixture::new();
    let digest = Digest::of(b"x");
    let bundle = fixture.temp.path().join("bundle");
    let trees = fixture.storage.local_trees(&bundle, &digest).unwrap();
    let local = trees.path(&digest).ancestors().nth(2).unwrap().to_owned();
    // Where a staged blob would be, there is a directory: opening it for writing fails.
    let bad = fixture.path("layers").join(names::fresh(names::Staging::Blob, Some(&digest)));
    std::fs::create_dir(&bad).unwrap();
    let dead = [
        fixture.path("layers").join(names::fresh(names::Staging::Blob, Some(&digest))),
        fixture.path("records").join(names::fresh(names::Staging::Small, None)),
        local.join("records").join(names::fresh(names::Staging::Small, None)),
        fixture.path("locks").join("dead.lock"),
    ];
    for path in &dead {
        std::fs::write(path, "x").unwrap();
    }
    let tree = local.join("extracted").join(names::fresh(names::Staging::Tree, Some(&digest)));
    std::fs::create_dir_all(tree.join("a")).unwrap();
    // In the place of a local layout's directory, there is a file.
    std::fs::write(fixture.path("local").join("0".repeat(64)), "x").unwrap();
    assert!(fixture.storage.sweep().is_err());
    for path in dead.iter().chain([&tree]) {
        assert!(!path.exists(), "{}", path.display());
    }
    fixture.reopen();
}

#[test]
fn sweeping_touches_nothing_else() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    fixture.storage.ensure_tree(&layer).unwrap();
    let strangers = ["layers/notes.downloading", "layers/README", "extracted/mine.extracting", "refs/draft.writing"];
    for stranger in strangers {
        std::fs::write(fixture.path(stranger), "x").unwrap();
        age(&fixture.path(stranger), Duration::from_hours(24 * 365));
    }
    let storage = fixture.reopen();
    for stranger in strangers {
        assert!(fixture.path(stranger).exists(), "{stranger}");
    }
    assert!(storage.has_layer(&layer.digest.to_string()) && storage.trees().is_ready(&layer.digest));
}

/// Killed between the record of a tree and the tree.
#[test]
fn a_record_without_a_tree_is_swept() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    fixture.storage.ensure_tree(&layer).unwrap();
    std::fs::remove_dir_all(fixture.storage.layer_extracted_path(&layer.digest.to_string())).unwrap();
    fixture.reopen();
    assert_eq!(names(&fixture.path("records")), [""; 0]);
}

#[test]
fn a_store_of_a_later_version_is_not_touched() {
    let fixture = Fixture::new();
    let leftover = fixture.path("layers").join(names::fresh(names::Staging::Blob, Some(&Digest::of(b"x"))));
    std::fs::write(&leftover, "x").unwrap();
    std::fs::write(fixture.path("meta.json"), r#"{"format":1,"incompatible":["packs"]}"#).unwrap();
    let refused = try_open(fixture.path(".")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert!(refused.to_string().contains("packs") && refused.hint().is_some());
    assert!(leftover.exists());

    std::fs::write(fixture.path("meta.json"), r#"{"format":1,"read_only_compatible":["packs"]}"#).unwrap();
    let layer = fixture.add_layer(b"layer");
    let storage = fixture.reopen();
    assert!(storage.has_layer(&layer.digest.to_string()), "reading is allowed");
    assert!(leftover.exists(), "nothing is swept");
    assert!(matches!(storage.sweep(), Err(Error::StoreFeature { .. })));
    assert!(matches!(storage.ensure_tree(&layer).unwrap_err().root(), Error::StoreFeature { .. }));
    assert!(matches!(storage.save_manifest_bytes(b"", &Digest::of(b"").to_string()), Err(Error::StoreFeature { .. })));
}

/// Everything that the reference leaves behind, in one directory.
#[tokio::test]
async fn a_directory_of_the_reference_is_adopted() {
    let temp = tempfile::tempdir().unwrap();
    let images = temp.path().join("images");
    let (good, bad) = (Digest::of(b"good layer"), Digest::of(b"bad layer"));
    for dir in ["layers", "configs", "manifests", "extracted"] {
        std::fs::create_dir_all(images.join(dir)).unwrap();
    }
    let layer = |digest: &Digest| images.join("layers").join(format!("{}.tar.gz", digest.file_stem()));
    std::fs::write(layer(&good), "good layer").unwrap();
    std::fs::write(layer(&bad), "cut sho").unwrap();
    std::fs::write(images.join("configs").join(format!("{}.json", good.file_stem())), "good layer").unwrap();
    let tree = images.join("extracted").join(good.file_stem());
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("half"), "x").unwrap();

    let unpacker = Arc::new(Toy::default());
    let storage = open(&images, &unpacker);
    assert!(storage.has_layer(&good.to_string()) && storage.has_layer(&bad.to_string()));
    assert_eq!(storage.load_config(&good.to_string()).unwrap(), "good layer");
    let extract = |digest: &Digest| storage.extract_layer(&digest.to_string(), &layer(digest));
    extract(&good).unwrap();
    assert_eq!(names(&tree), ["etc"]);
    assert_eq!(extract(&bad).unwrap_err().kind(), ErrorKind::Integrity);
    assert!(!storage.has_layer(&bad.to_string()), "it was set aside when it was used");
    assert!(!storage.set_aside(BlobKind::Layer, &bad).await.unwrap());
    assert!(storage.begin_blob(BlobKind::Layer, &bad, None).await.unwrap().granted().is_some());
    assert!(matches!(storage.begin_blob(BlobKind::Layer, &good, Some(10)).await.unwrap(), Claim::Present));
}

/// Everybody who opens the store sweeps it, also between the bytes of a small file and its name.
#[test]
fn a_small_file_is_not_swept_before_it_has_its_name() {
    let fixture = Fixture::new();
    let refs = &fixture.storage.rooms().refs;
    let (mut slot, locked) = file::write(refs, "a", b"{}", file::Flush::Later).unwrap();
    fixture.reopen();
    slot.publish_new("a", file::Flush::Later).unwrap();
    drop(locked);
    assert_eq!(refs.read("a").unwrap(), b"{}");
}

/// Two that open a new store at once, or one that dies while it makes it: what is half made is not somebody else's.
#[test]
fn a_store_that_is_half_made_is_no_store_of_the_reference() {
    let fixture = Fixture::new();
    std::fs::remove_file(fixture.path("meta.json")).unwrap();
    assert!(!fixture.reopen().keeps_unreferenced());
    std::fs::remove_file(fixture.path("meta.json")).unwrap();
    std::fs::remove_dir(fixture.path("records")).unwrap();
    assert!(fixture.reopen().keeps_unreferenced());
}
