//! Staging and committing blobs.

use std::os::unix::fs::PermissionsExt as _;

use tokio::io::AsyncWriteExt as _;

use super::*;

const TEXT: &[u8] = b"hello world";

async fn staged(storage: &ImageStorage, bytes: &[u8], size: i64) -> StagedDownload {
    let mut staged = storage.stage_layer_download(&Digest::of(TEXT).to_string(), size).await.unwrap();
    staged.file().write_all(bytes).await.unwrap();
    staged
}

#[test]
fn a_store_is_its_owners_alone() {
    let fixture = Fixture::new();
    let mut dirs = vec![fixture.path(".")];
    dirs.extend(
        ["layers", "configs", "manifests", "extracted", "refs", "records", "locks", "local"].map(|d| fixture.path(d)),
    );
    for dir in dirs {
        let mode = dir.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{} has mode {mode:o}", dir.display());
    }
    assert_eq!(fixture.storage.images_dir(), fixture.temp.path().join("images"));
}

/// CVE-2021-41091, CVE-2024-25621, and a directory that somebody else's umask made.
#[test]
fn an_adopted_directory_is_closed_to_others() {
    let temp = tempfile::tempdir().unwrap();
    let images = temp.path().join("images");
    for dir in ["layers", "configs", "manifests", "extracted"] {
        std::fs::create_dir_all(images.join(dir)).unwrap();
        std::fs::set_permissions(images.join(dir), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::fs::set_permissions(&images, std::fs::Permissions::from_mode(0o755)).unwrap();
    open(&images, &Arc::default());
    for dir in [".", "layers", "configs", "manifests", "extracted"] {
        assert_eq!(images.join(dir).metadata().unwrap().permissions().mode() & 0o777, 0o700, "{dir}");
    }
}

/// `/` or a home directory may be given as the store's place: it is not the store's to close.
#[test]
fn a_directory_that_merely_holds_the_store_keeps_its_mode() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    for _ in 0..2 {
        open(temp.path(), &Arc::default());
        assert_eq!(temp.path().metadata().unwrap().permissions().mode() & 0o777, 0o755);
    }
}

#[test]
fn a_link_in_the_place_of_a_directory_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir(temp.path().join("images")).unwrap();
    std::os::unix::fs::symlink("/tmp", temp.path().join("images/layers")).unwrap();
    assert!(try_open(temp.path().join("images")).is_err());
}

#[tokio::test]
async fn what_is_right_is_committed() {
    let fixture = Fixture::new();
    for size in [11, 0, -1] {
        let staged = staged(&fixture.storage, TEXT, size).await;
        let (from, to) = (staged.staged_path().to_owned(), staged.final_path().to_owned());
        assert!(from.exists());
        assert!(staged.commit().await.unwrap(), "declared size {size}");
        assert!(!from.exists());
        assert_eq!(std::fs::read(&to).unwrap(), TEXT);
        assert_eq!(to, fixture.storage.layer_tarball_path(&Digest::of(TEXT).to_string()));
    }
    assert_nothing_staged(&fixture);
}

#[tokio::test]
async fn what_is_wrong_is_not_committed_and_does_not_stay() {
    let fixture = Fixture::new();
    let digest = Digest::of(TEXT).to_string();
    for (bytes, size) in [(TEXT, 5), (TEXT, 12), (b"hello_world", 11), (b"hello_world", 0), (b"", 11), (b"", 0)] {
        let staged = staged(&fixture.storage, bytes, size).await;
        let from = staged.staged_path().to_owned();
        assert!(!staged.commit().await.unwrap(), "{bytes:?}, declared size {size}");
        assert!(!from.exists());
        assert!(!fixture.storage.has_layer(&digest));
    }
    assert_nothing_staged(&fixture);
}

#[tokio::test]
async fn staged_names_have_the_form_of_the_contract() {
    let fixture = Fixture::new();
    let digest = Digest::of(TEXT);
    let layer = fixture.storage.stage_layer_download(&digest.to_string(), 11).await.unwrap();
    let again = fixture.storage.stage_layer_download(&digest.to_string(), 11).await.unwrap();
    let config = fixture.storage.stage_config_download(&digest.to_string()).await.unwrap();
    assert_ne!(layer.staged_path(), again.staged_path());
    for (staged, dir) in [(&layer, "layers"), (&again, "layers"), (&config, "configs")] {
        assert_eq!(staged.staged_path().parent().unwrap(), fixture.path(dir));
        let name = staged.staged_path().file_name().unwrap().to_str().unwrap();
        let uuid =
            name.strip_prefix(&format!("{}.", digest.file_stem())).unwrap().strip_suffix(".downloading").unwrap();
        assert!(uuid.len() == 32 && uuid.bytes().all(|b| b.is_ascii_hexdigit()), "{name}");
    }
    layer.abort().await;
    drop(again);
    drop(config);
    assert_nothing_staged(&fixture);
}

#[tokio::test]
async fn many_downloads_of_one_blob_all_succeed() {
    let fixture = Fixture::new();
    let mut downloads = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let storage = fixture.storage.clone();
        downloads.spawn(async move { staged(&storage, TEXT, 11).await.commit().await.unwrap() });
    }
    assert!(downloads.join_all().await.into_iter().all(|committed| committed));
    assert_eq!(names(&fixture.path("layers")).len(), 1);
}

/// A power cut left a file of the right name and size with other bytes, and pulling again does not help
/// (containerd#14164): here it does.
#[tokio::test]
async fn a_good_download_replaces_a_bad_blob() {
    let fixture = Fixture::new();
    let digest = Digest::of(TEXT);
    fixture.plant_layer(&digest, &[0; 11]);
    assert!(!fixture.storage.verify_layer(&digest.to_string()).await.unwrap());
    assert!(staged(&fixture.storage, TEXT, 11).await.commit().await.unwrap());
    assert!(fixture.storage.verify_layer(&digest.to_string()).await.unwrap());
    assert_nothing_staged(&fixture);
}

#[tokio::test]
async fn a_staged_file_that_was_taken_away_is_an_error() {
    let fixture = Fixture::new();
    let staged = staged(&fixture.storage, TEXT, 11).await;
    std::fs::remove_file(staged.staged_path()).unwrap();
    assert!(staged.commit().await.is_err());
    assert!(!fixture.storage.has_layer(&Digest::of(TEXT).to_string()));
}

#[tokio::test]
async fn an_endless_download_ends() {
    let fixture = Fixture::new();
    let mut staged = fixture.storage.stage_layer_download(&Digest::of(TEXT).to_string(), 11).await.unwrap();
    let chunk = vec![0; 1 << 20];
    let mut written = 0;
    while staged.file().write_all(&chunk).await.is_ok() {
        written += chunk.len();
        assert!(written < 64 << 20, "a download of 11 bytes may grow without end");
    }
    assert!(!staged.commit().await.unwrap());
}

#[tokio::test]
async fn sha512_is_a_digest_too() {
    let fixture = Fixture::new();
    let mut hasher = Hasher::new(cofferdam_core::Algorithm::Sha512);
    hasher.update(TEXT);
    let digest = hasher.finish().to_string();
    let mut staged = fixture.storage.stage_layer_download(&digest, 11).await.unwrap();
    staged.file().write_all(TEXT).await.unwrap();
    assert!(staged.commit().await.unwrap());
    assert!(fixture.storage.verify_layer(&digest).await.unwrap());
}

/// CVE-2014-9358, CVE-2024-3727, CVE-2026-95839, GHSA-f689-h8m7-3jp2: digest text used as a path, or panics.
#[tokio::test]
async fn digest_text_is_never_a_path() {
    let fixture = Fixture::new();
    let storage = &fixture.storage;
    let victim = fixture.temp.path().join("victim");
    std::fs::write(&victim, "hello").unwrap();
    let outside = victim.to_str().unwrap().to_owned();
    let climbing = format!("sha256:x/../../../{}", "victim");
    for text in [outside.as_str(), &climbing, "", "/etc", "..", "sha256:", "sha256:../../victim", "\u{e9}\u{e9}:\u{e9}"]
    {
        assert!(!storage.has_layer(text) && !storage.has_config(text) && !storage.has_manifest(text), "{text:?}");
        for path in [
            storage.layer_tarball_path(text),
            storage.layer_extracted_path(text),
            storage.config_path(text),
            storage.manifest_path(text),
            storage.local_bundle_cache_dir(fixture.temp.path(), text),
        ] {
            assert!(path.starts_with(storage.images_dir()) && !path.exists(), "{text:?} gives {}", path.display());
            assert_eq!(path.file_name().unwrap(), "invalid-digest");
        }
        let refused = [
            storage.stage_layer_download(text, 5).await.map(drop),
            storage.stage_config_download(text).await.map(drop),
            storage.verify_layer(text).await.map(drop),
            storage.load_config(text).map(drop),
            storage.load_manifest(text).map(drop),
            storage.save_manifest_bytes(b"{}", text),
            storage.extract_layer(text, &victim),
        ];
        for result in refused {
            assert!(matches!(result.unwrap_err().root(), Error::InvalidDigest { .. }), "{text:?}");
        }
        assert!(!storage.verify_blobs_exist(&[text.to_owned()]));
    }
    assert_eq!(std::fs::read(&victim).unwrap(), b"hello");
    assert_nothing_staged(&fixture);
}

#[tokio::test]
async fn layers_are_verified_without_being_believed() {
    let fixture = Fixture::new();
    let digest = Digest::of(TEXT);
    let text = digest.to_string();
    assert!(!fixture.storage.verify_layer(&text).await.unwrap(), "absent");
    std::fs::create_dir(fixture.storage.layer_tarball_path(&text)).unwrap();
    assert!(!fixture.storage.has_layer(&text), "a directory is no blob");
    assert!(!fixture.storage.verify_layer(&text).await.unwrap());
    assert!(!fixture.storage.layer_tarball_path(&text).exists(), "it was moved aside");
    for noticed in [true, false] {
        fixture.plant_layer(&digest, b"something else");
        assert!(fixture.storage.has_layer(&text));
        if noticed {
            assert!(!fixture.storage.verify_layer(&text).await.unwrap());
        } else {
            assert!(fixture.storage.set_aside(BlobKind::Layer, &digest).await.unwrap());
        }
        assert!(!fixture.storage.has_layer(&text));
    }
    fixture.plant_layer(&digest, TEXT);
    assert!(!fixture.storage.set_aside(BlobKind::Layer, &digest).await.unwrap(), "a good blob stays");
    assert!(fixture.storage.has_layer(&text));
    let absent = Digest::of(b"absent").to_string();
    assert!(fixture.storage.verify_blobs_exist(std::slice::from_ref(&text)));
    assert!(!fixture.storage.verify_blobs_exist(&[text, absent]));
}

#[tokio::test]
async fn one_writes_a_blob_and_the_others_wait_for_it() {
    const WAITING: u32 = 11;
    let fixture = Fixture::new();
    let digest = Digest::of(TEXT);
    let asked = Arc::new(AtomicU32::new(0));
    let mut first = fixture.storage.begin_blob(BlobKind::Layer, &digest, Some(11)).await.unwrap().granted().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..WAITING {
        // Opened anew, as another process would.
        let (storage, digest, asked) = (fixture.reopen(), digest.clone(), Arc::clone(&asked));
        tasks.spawn(async move {
            // The first poll leads as far as the question who has the lock; the first one has it until all have asked.
            let mut claim = Box::pin(storage.begin_blob(BlobKind::Layer, &digest, Some(11)));
            let early = futures_util::poll!(&mut claim);
            assert!(early.is_pending(), "nobody has the blob yet, and somebody is at work on it");
            asked.fetch_add(1, Ordering::SeqCst);
            assert!(matches!(claim.await.unwrap(), Claim::Present));
            assert!(storage.has_layer(&digest.to_string()), "present means present");
        });
    }
    while asked.load(Ordering::SeqCst) < WAITING {
        tokio::task::yield_now().await;
    }
    first.write_all(TEXT).unwrap();
    assert_eq!(first.verify().unwrap().commit().unwrap().size(), 11);
    tasks.join_all().await;
    assert_nothing_staged(&fixture);
}

#[tokio::test]
async fn who_gives_up_lets_the_next_one_work() {
    let fixture = Fixture::new();
    let digest = Digest::of(TEXT);
    let first = fixture.storage.begin_blob(BlobKind::Layer, &digest, None).await.unwrap().granted().unwrap();
    let (storage, other) = (fixture.storage.clone(), digest.clone());
    let second = tokio::spawn(async move { storage.begin_blob(BlobKind::Layer, &other, None).await });
    drop(first);
    let mut second = second.await.unwrap().unwrap().granted().unwrap();
    second.write_all(TEXT).unwrap();
    drop(second.verify().unwrap());
    assert!(!fixture.storage.has_layer(&digest.to_string()), "verified is not committed");
    assert_nothing_staged(&fixture);
}

#[tokio::test]
async fn staged_bytes_are_judged() {
    let fixture = Fixture::new();
    let digest = Digest::of(TEXT);
    let begin =
        async |size| fixture.storage.begin_blob(BlobKind::Layer, &digest, size).await.unwrap().granted().unwrap();
    let mut staged = begin(Some(5)).await;
    assert_eq!(staged.write_all(TEXT).unwrap_err().kind(), std::io::ErrorKind::FileTooLarge);
    drop(staged);
    let mut staged = begin(Some(12)).await;
    staged.write_all(TEXT).unwrap();
    assert!(matches!(staged.verify(), Err(Error::SizeMismatch { expected: 12, actual: 11, .. })));
    let mut staged = begin(None).await;
    staged.write_all(b"other").unwrap();
    let mut read = String::new();
    staged.reader().unwrap().read_to_string(&mut read).unwrap();
    assert_eq!(read, "other");
    assert!(matches!(staged.verify(), Err(Error::DigestMismatch { .. })));
    assert_nothing_staged(&fixture);
}

#[tokio::test]
async fn a_layer_of_another_size_is_fetched_again() {
    let fixture = Fixture::new();
    let digest = Digest::of(TEXT);
    fixture.plant_layer(&digest, b"hello");
    let mut staged = fixture.storage.begin_blob(BlobKind::Layer, &digest, Some(11)).await.unwrap().granted().unwrap();
    staged.write_all(TEXT).unwrap();
    staged.verify().unwrap().commit().unwrap();
    assert!(fixture.storage.verify_layer(&digest.to_string()).await.unwrap());
}

#[tokio::test]
async fn declared_sizes_have_limits() {
    let fixture = Fixture::new();
    let limits = fixture.storage.limits().clone();
    let digest = Digest::of(TEXT);
    for (kind, limit) in [(BlobKind::Config, limits.config_bytes), (BlobKind::Manifest, limits.manifest_bytes)] {
        let refused = fixture.storage.begin_blob(kind, &digest, Some(limit + 1)).await.unwrap_err();
        assert!(matches!(refused, Error::Limit { .. }));
        assert!(fixture.storage.begin_blob(kind, &digest, Some(limit)).await.is_ok());
    }
}

/// A limit holds whether a size is declared or not: what is stored can be read again.
#[tokio::test]
async fn undeclared_sizes_have_limits_too() {
    let fixture = Fixture::new();
    let digest = Digest::of(TEXT);
    let limits = |bytes| {
        Limits::default().with(|limits| {
            limits.config_bytes = bytes;
            limits.manifest_bytes = bytes;
            limits.layer_bytes = bytes;
        })
    };
    let storage = fixture.storage.clone().with_limits(limits(10));
    for kind in BlobKind::ALL {
        let mut staged = storage.begin_blob(kind, &digest, None).await.unwrap().granted().unwrap();
        assert_eq!(staged.write_all(TEXT).unwrap_err().kind(), std::io::ErrorKind::FileTooLarge, "{kind:?}");
    }
    for layer in [false, true] {
        let begin = async |storage: &ImageStorage| {
            let digest = digest.to_string();
            let staged = if layer {
                storage.stage_layer_download(&digest, 0).await
            } else {
                storage.stage_config_download(&digest).await
            };
            let mut staged = staged.unwrap();
            staged.file().write_all(TEXT).await.unwrap();
            staged.commit().await
        };
        assert!(matches!(begin(&storage).await, Err(Error::Limit { limit: 10, .. })));
        assert!(begin(&storage.clone().with_limits(limits(11))).await.unwrap());
    }
    assert!(matches!(storage.stage_layer_download(&digest.to_string(), 11).await, Err(Error::Limit { .. })));
    assert_nothing_staged(&fixture);
}
