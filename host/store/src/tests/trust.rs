//! A store, or a part of it, that somebody else could have written.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use super::*;

const STRANGER: u32 = 4242;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().mode() & 0o7777
}

/// Opens a store in every way in which there is one, and returns what each says.
fn open_all(path: &Path) -> [Result<()>; 3] {
    let toy = || Arc::<Toy>::default() as Arc<dyn LayerUnpacker>;
    let (limits, options) = (Limits::default(), FsckOptions::default());
    let progress = cofferdam_core::progress::Progress::none();
    [
        ImageStorage::open(path, limits.clone(), toy()).map(drop),
        ImageStorage::open_as_it_is(path, limits.clone(), toy()).map(drop),
        ImageStorage::fsck_at(path, limits, toy(), &options, &progress).map(drop),
    ]
}

fn assert_untrusted(path: &Path, part: &str) {
    for outcome in open_all(path) {
        let error = outcome.unwrap_err();
        let Error::Untrusted { path: named, .. } = error.root() else { panic!("{part}: {error}") };
        assert!(Path::new(named).ends_with(part), "{error}");
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.hint().is_some());
    }
}

/// A store with an image, and all the directories that a store can have.
fn whole() -> Fixture {
    let fixture = Fixture::new();
    for room in ["overlay", "guests", "plugins", "scratch"] {
        layout::private_dir(&fixture.storage.rooms().root, room).unwrap();
    }
    fixture
}

#[test]
fn a_store_or_room_that_others_may_write_to_is_refused() {
    let fixture = whole();
    let images = fixture.path("");
    for room in [""].into_iter().chain(layout::ROOMS) {
        let part = images.join(room);
        for wrong in [0o770, 0o702, 0o1777] {
            set_mode(&part, wrong);
            assert_untrusted(&images, room);
            assert_eq!(mode(&part), wrong, "{room} was changed");
        }
        set_mode(&part, 0o755);
        for outcome in open_all(&images) {
            outcome.unwrap();
        }
    }
}

#[test]
fn a_store_or_room_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let fixture = whole();
    let images = fixture.path("");
    for room in [""].into_iter().chain(layout::ROOMS) {
        let part = images.join(room);
        chown(&part, Some(STRANGER), None).unwrap();
        assert_untrusted(&images, room);
        assert_eq!(part.metadata().unwrap().uid(), STRANGER);
        chown(&part, Some(0), None).unwrap();
    }
    for outcome in open_all(&images) {
        outcome.unwrap();
    }
}

/// A directory of another program, or one with nothing in it, is taken over if it is this user's: others lose their access first.
#[test]
fn what_is_taken_over_is_closed_to_others() {
    let temp = tempfile::tempdir().unwrap();
    let unpacker = Arc::default();
    let (theirs, empty, full) = (temp.path().join("theirs"), temp.path().join("empty"), temp.path().join("full"));
    for dir in ["theirs/layers", "theirs/manifests", "theirs/local/key", "empty", "full/documents"] {
        fs::create_dir_all(temp.path().join(dir)).unwrap();
    }
    for dir in ["layers", "manifests", "local", ""] {
        set_mode(&theirs.join(dir), 0o775);
    }
    set_mode(&empty, 0o1777);
    set_mode(&full, 0o1777);
    open(&theirs, &unpacker);
    open(&empty, &unpacker);
    for closed in [&theirs, &theirs.join("layers"), &theirs.join("local"), &empty, &empty.join("refs")] {
        assert_eq!(mode(closed) & 0o777, 0o700, "{}", closed.display());
    }
    // One that holds anything else may be anything.
    assert!(matches!(try_open(&full), Err(Error::Untrusted { .. })));
    assert_eq!((mode(&full), full.read_dir().unwrap().count()), (0o1777, 1));
}

/// What another user put into a directory that was open to all is not believed because the directory is closed now.
#[test]
fn what_others_left_in_a_directory_that_is_taken_over_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for planted in ["refs", "locks", "overlay", "plugins", "layers"] {
        let temp = tempfile::tempdir().unwrap();
        for dir in ["layers", "manifests", planted] {
            fs::create_dir_all(temp.path().join(dir)).unwrap();
        }
        chown(temp.path().join(planted), Some(STRANGER), None).unwrap();
        set_mode(temp.path(), 0o777);
        let error = try_open(temp.path()).unwrap_err();
        assert!(matches!(error.root(), Error::Untrusted { owner: STRANGER, .. }), "{planted}: {error}");
    }
}

/// The store's own description is refused. A record is not believed, and its tree is made again with another one.
#[test]
fn a_file_whose_word_is_taken_must_be_its_owners_alone() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"content");
    let digest = layer.digest.to_string();
    fixture.storage.extract_layer(&digest, &fixture.storage.layer_tarball_path(&digest)).unwrap();
    let open = || ImageStorage::open(fixture.path(""), Limits::default(), Arc::<Toy>::default());
    let meta = fixture.path("meta.json");
    set_mode(&meta, 0o666);
    let error = open().unwrap_err();
    assert!(matches!(error.root(), Error::Untrusted { mode: 0o666, .. }), "{error}");
    set_mode(&meta, 0o600);
    let storage = open().unwrap();
    assert!(storage.trees().open(&layer, None).unwrap().is_some());
    set_mode(&fixture.path(&format!("records/{}.json", layer.digest.file_stem())), 0o666);
    assert!(storage.trees().open(&layer, None).unwrap().is_none());
    storage.extract_layer(&digest, &storage.layer_tarball_path(&digest)).unwrap();
    assert!(storage.trees().open(&layer, None).unwrap().is_some());
}
