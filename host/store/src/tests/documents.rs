//! Manifests and configurations.

use oci_client::manifest::{OciDescriptor, OciImageManifest, OciManifest};

use super::*;

fn manifest() -> OciManifest {
    let config = OciDescriptor {
        media_type: "application/vnd.oci.image.config.v1+json".into(),
        digest: Digest::of(b"config").to_string(),
        size: 6,
        ..OciDescriptor::default()
    };
    OciManifest::Image(OciImageManifest { config, ..OciImageManifest::default() })
}

fn config_of(manifest: &OciManifest) -> &str {
    match manifest {
        OciManifest::Image(image) => &image.config.digest,
        OciManifest::ImageIndex(_) => panic!("an index"),
    }
}

/// Bytes as a registry would send them: not what any serialiser here makes.
fn bytes() -> Vec<u8> {
    let text = serde_json::to_string(&manifest()).unwrap();
    text.replacen('{', "{   ", 1).into_bytes()
}

#[test]
fn exact_bytes_stay_exact() {
    let fixture = Fixture::new();
    let (bytes, storage) = (bytes(), &fixture.storage);
    let digest = Digest::of(&bytes);
    assert!(!storage.has_manifest(&digest.to_string()));
    assert_eq!(storage.load_manifest(&digest.to_string()).unwrap_err().kind(), ErrorKind::NotFound);
    for _ in 0..2 {
        storage.save_manifest_bytes(&bytes, &digest.to_string()).unwrap();
    }
    // The typed form of the same manifest does not harm it.
    storage.save_manifest(&manifest(), &digest.to_string()).unwrap();
    assert_eq!(std::fs::read(storage.manifest_path(&digest.to_string())).unwrap(), bytes);
    assert_eq!(storage.manifest_bytes(&digest).unwrap().unwrap(), bytes);
    assert_eq!(config_of(&storage.load_manifest(&digest.to_string()).unwrap()), Digest::of(b"config").to_string());
    assert_nothing_staged(&fixture);
}

/// Verified bytes that this version cannot read are verified all the same, and what cannot be looked at may be, too.
#[test]
fn a_typed_manifest_takes_the_place_of_no_verified_bytes() {
    let fixture = Fixture::new();
    let storage = &fixture.storage;
    let unknown = br#"{"schemaVersion":3,"news":[]}"#;
    let digest = Digest::of(unknown);
    storage.save_manifest_bytes(unknown, &digest.to_string()).unwrap();
    storage.save_manifest(&manifest(), &digest.to_string()).unwrap();
    assert_eq!(storage.manifest_bytes(&digest).unwrap().unwrap(), unknown);

    let bytes = bytes();
    let digest = Digest::of(&bytes).to_string();
    storage.save_manifest_bytes(&bytes, &digest).unwrap();
    let small =
        storage.clone().with_limits(Limits::default().with(|limits| limits.manifest_bytes = bytes.len() as u64 - 1));
    assert!(matches!(small.save_manifest(&manifest(), &digest), Err(Error::Limit { .. })));
    assert_eq!(std::fs::read(storage.manifest_path(&digest)).unwrap(), bytes);
    assert_nothing_staged(&fixture);
}

#[test]
fn other_bytes_are_refused() {
    let fixture = Fixture::new();
    let digest = Digest::of(&bytes()).to_string();
    let refused = fixture.storage.save_manifest_bytes(b"{}", &digest).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Integrity);
    assert!(!fixture.storage.has_manifest(&digest));
}

#[test]
fn a_typed_manifest_can_be_loaded_but_does_not_count_as_verified() {
    let fixture = Fixture::new();
    let digest = Digest::of(&bytes());
    let text = digest.to_string();
    for _ in 0..2 {
        fixture.storage.save_manifest(&manifest(), &text).unwrap();
        assert!(fixture.storage.has_manifest(&text));
        assert_eq!(config_of(&fixture.reopen().load_manifest(&text).unwrap()), Digest::of(b"config").to_string());
        assert_eq!(fixture.storage.manifest_bytes(&digest).unwrap(), None);
    }
    // Damage is found.
    let path = fixture.storage.manifest_path(&text);
    let damaged = std::fs::read_to_string(&path).unwrap().replace("application", "applicatiom");
    std::fs::write(&path, damaged).unwrap();
    assert_eq!(fixture.storage.load_manifest(&text).unwrap_err().kind(), ErrorKind::Integrity);
    // And the real bytes take its place.
    fixture.storage.save_manifest_bytes(&bytes(), &text).unwrap();
    assert_eq!(fixture.storage.manifest_bytes(&digest).unwrap().unwrap(), bytes());
    assert_eq!(names(&fixture.path("records")), [""; 0]);
}

#[test]
fn a_typed_manifest_that_was_serialised_alike_is_verified() {
    let fixture = Fixture::new();
    for bytes in [serde_json::to_vec(&manifest()).unwrap(), serde_json::to_vec_pretty(&manifest()).unwrap()] {
        let digest = Digest::of(&bytes);
        fixture.storage.save_manifest(&manifest(), &digest.to_string()).unwrap();
        assert_eq!(fixture.storage.manifest_bytes(&digest).unwrap().unwrap(), bytes);
    }
}

/// The reference serialises manifests again, so that they do not hash to their names, and leaves no note.
#[test]
fn a_manifest_of_the_reference_is_fetched_again() {
    let fixture = Fixture::new();
    let digest = Digest::of(&bytes());
    let text = digest.to_string();
    std::fs::write(fixture.storage.manifest_path(&text), serde_json::to_string_pretty(&manifest()).unwrap()).unwrap();
    // Who asks first, as its callers do, fetches it.
    assert!(!fixture.storage.has_manifest(&text));
    assert_eq!(fixture.storage.load_manifest(&text).unwrap_err().kind(), ErrorKind::Integrity);
    assert_eq!(fixture.storage.manifest_bytes(&digest).unwrap(), None);
    fixture.storage.save_manifest(&manifest(), &text).unwrap();
    assert!(fixture.storage.has_manifest(&text));
    fixture.storage.load_manifest(&text).unwrap();
    fixture.storage.save_manifest_bytes(&bytes(), &text).unwrap();
    assert_eq!(fixture.storage.manifest_bytes(&digest).unwrap().unwrap(), bytes());
    assert!(fixture.storage.has_manifest(&text));
}

/// What is there and would not load is not there for whoever decides by that whether to fetch it.
#[test]
fn a_document_that_would_not_load_is_not_had() {
    let fixture = Fixture::new();
    let storage = &fixture.storage;
    let (bytes, config) = (bytes(), b"{}".to_vec());
    let (manifest, digest) = (Digest::of(&bytes).to_string(), Digest::of(&config).to_string());
    storage.save_manifest_bytes(&bytes, &manifest).unwrap();
    std::fs::write(storage.config_path(&digest), &config).unwrap();
    assert!(storage.has_manifest(&manifest) && storage.has_config(&digest));
    let small = Limits::default().with(|limits| {
        limits.manifest_bytes = 1;
        limits.config_bytes = 1;
    });
    let small = storage.clone().with_limits(small);
    assert!(!small.has_manifest(&manifest) && !small.has_config(&digest));
    for damaged in [&b""[..], b"{", b"\xff"] {
        std::fs::write(storage.manifest_path(&manifest), damaged).unwrap();
        std::fs::write(storage.config_path(&digest), damaged).unwrap();
        assert!(!storage.has_manifest(&manifest) && !storage.has_config(&digest), "{}", damaged.escape_ascii());
    }
    // A question changes nothing.
    assert!(storage.manifest_path(&manifest).exists() && storage.config_path(&digest).exists());
    // Bytes that are right, and no manifest.
    let other = Digest::of(b"[]").to_string();
    storage.save_manifest_bytes(b"[]", &other).unwrap();
    assert!(!storage.has_manifest(&other) && storage.load_manifest(&other).is_err());
}

#[test]
fn documents_have_limits() {
    let fixture = Fixture::new();
    let limits = Limits::default().with(|limits| {
        limits.manifest_bytes = 100;
        limits.config_bytes = 100;
    });
    let storage = fixture.storage.clone().with_limits(limits);
    let bytes = bytes();
    let digest = Digest::of(&bytes).to_string();
    assert!(matches!(storage.save_manifest_bytes(&bytes, &digest), Err(Error::Limit { limit: 100, .. })));
    fixture.storage.save_manifest_bytes(&bytes, &digest).unwrap();
    assert!(matches!(storage.load_manifest(&digest), Err(Error::Limit { limit: 100, .. })));
    let config = vec![b' '; 101];
    let digest = Digest::of(&config).to_string();
    std::fs::write(storage.config_path(&digest), &config).unwrap();
    assert!(matches!(storage.load_config(&digest), Err(Error::Limit { limit: 100, .. })));
    assert_eq!(fixture.storage.load_config(&digest).unwrap().len(), 101);
}

/// CVE-2021-41190: one document that is an index to some and an image to others.
#[test]
fn an_ambiguous_manifest_is_refused() {
    let fixture = Fixture::new();
    let descriptor = r#"{"mediaType":"a/b","digest":"sha256:00","size":1}"#;
    for (text, right) in [
        (format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[]}}"#), true),
        (r#"{"schemaVersion":2,"manifests":[]}"#.to_owned(), true),
        (format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[],"manifests":[]}}"#), false),
        (r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#.to_owned(), false),
        (
            format!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","config":{descriptor},"layers":[]}}"#
            ),
            false,
        ),
        (
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]}"#.to_owned(),
            false,
        ),
        (r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), false),
        ("[]".to_owned(), false),
        (String::new(), false),
    ] {
        let digest = Digest::of(text.as_bytes()).to_string();
        fixture.storage.save_manifest_bytes(text.as_bytes(), &digest).unwrap();
        match fixture.storage.load_manifest(&digest) {
            Ok(_) => assert!(right, "{text} was accepted"),
            Err(error) => {
                assert!(!right, "{text}: {error}");
                assert_eq!(error.kind(), ErrorKind::Refused);
            }
        }
    }
}

#[tokio::test]
async fn a_config_is_its_exact_text() {
    use tokio::io::AsyncWriteExt as _;
    let fixture = Fixture::new();
    let text = "{ \"foo\":\n\"b\u{e4}r\" }";
    let digest = Digest::of(text.as_bytes()).to_string();
    let absent = fixture.storage.load_config(&digest).unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound);
    assert!(absent.to_string().contains("pull") && absent.hint().unwrap().contains("pull"));
    let mut staged = fixture.storage.stage_config_download(&digest).await.unwrap();
    staged.file().write_all(text.as_bytes()).await.unwrap();
    assert!(staged.commit().await.unwrap());
    assert!(fixture.storage.has_config(&digest));
    assert_eq!(fixture.storage.load_config(&digest).unwrap(), text);
    std::fs::write(fixture.storage.config_path(&digest), "{}").unwrap();
    assert_eq!(fixture.storage.load_config(&digest).unwrap_err().kind(), ErrorKind::Integrity);
    assert_eq!(fixture.storage.config_bytes(&digest.parse().unwrap()).unwrap(), None);
}
