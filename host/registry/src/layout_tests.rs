//! Documents that lie, and layouts that are not what they seem.

#![expect(clippy::disallowed_methods, reason = "tests write their layouts by path")]

use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, ErrorKind, Result};
use cofferdam_core::limits::Limits;
use cofferdam_documents::{
    Descriptor, Document, Documents, LayoutName, LayoutSelector, MediaType, PlatformChoice, RawDocument, Resolved,
    StatedPlatform, resolve_image,
};
use rustix::fs::{CWD, FileType, Mode};
use serde_json::{Value, json};

use crate::image_source::ImageSource;
use crate::oci_layout::OciLayout;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

fn raw(document: &Value, sent_as: Option<&str>) -> RawDocument {
    let bytes = Bytes::from(document.to_string());
    RawDocument { digest: Digest::of(&bytes), bytes, media_type: sent_as.map(MediaType::new) }
}

fn parse(document: &Value, sent_as: Option<&str>) -> Result<Document> {
    Document::parse(&raw(document, sent_as), &Limits::default())
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()})
}

fn manifest() -> Value {
    json!({
        "schemaVersion": 2,
        "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", b"layer")],
    })
}

/// A document with one field set, or removed where the value is null.
fn with(mut document: Value, pointer: &str, value: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).unwrap();
    match (parent, value) {
        (Value::Object(map), Value::Null) => drop(map.remove(field)),
        (Value::Object(map), value) => drop(map.insert(field.into(), value)),
        (Value::Array(list), value) => list[field.parse::<usize>().unwrap()] = value,
        _ => panic!("{pointer} leads nowhere"),
    }
    document
}

#[test]
fn manifests_of_both_families_are_read() {
    let docker = json!({
        "schemaVersion": 2, "mediaType": DOCKER_MANIFEST,
        "config": descriptor("application/vnd.docker.container.image.v1+json", b"{}"),
        "layers": [
            descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", b"1"),
            descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", b"2"),
        ],
    });
    let Document::Manifest(read) = parse(&docker, Some(DOCKER_MANIFEST)).unwrap() else { panic!("an index?") };
    assert_eq!(read.layers.iter().map(|layer| layer.size).collect::<Vec<_>>(), [1, 1]);
    for sent_as in [None, Some("application/json"), Some(OCI_MANIFEST), Some("text/plain; charset=utf-8")] {
        let Document::Manifest(read) = parse(&manifest(), sent_as).unwrap() else { panic!("an index?") };
        assert!(read.layers[0].media_type.as_str().ends_with("+gzip"));
    }
    for (sent_as, inside) in [(OCI_INDEX, None), (DOCKER_LIST, Some(DOCKER_LIST))] {
        let index = with(json!({"schemaVersion": 2, "manifests": []}), "/mediaType", json!(inside));
        assert!(matches!(parse(&index, Some(sent_as)), Ok(Document::Index(_))));
    }
}

/// CVE-2021-41190: one document that is read as an index here and as a manifest there.
#[test]
fn a_document_is_one_thing() {
    let index = json!({"schemaVersion": 2, "manifests": []});
    for (document, sent_as) in [
        (with(manifest(), "/manifests", json!([])), None),
        (with(with(manifest(), "/manifests", json!([])), "/config", Value::Null), None),
        (with(with(manifest(), "/manifests", json!([])), "/layers", Value::Null), Some(OCI_INDEX)),
        (manifest(), Some(OCI_INDEX)),
        (index.clone(), Some(OCI_MANIFEST)),
        (with(manifest(), "/mediaType", json!(OCI_INDEX)), None),
        (with(manifest(), "/mediaType", json!(DOCKER_MANIFEST)), Some(OCI_MANIFEST)),
        (with(manifest(), "/mediaType", json!(OCI_MANIFEST)), Some(DOCKER_MANIFEST)),
        (with(index, "/mediaType", json!(OCI_MANIFEST)), Some("application/json")),
    ] {
        let error = parse(&document, sent_as).unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{document} as {sent_as:?}: {error}");
    }
}

#[test]
fn what_breaks_the_rules_is_refused() {
    let many = vec![descriptor("application/vnd.oci.image.layer.v1.tar", b""); 513];
    for (document, what) in [
        (json!([]), "an array"),
        (json!({"schemaVersion": 2}), "nothing in it"),
        (with(manifest(), "/schemaVersion", json!(3)), "another version"),
        (with(manifest(), "/schemaVersion", Value::Null), "no version"),
        (with(manifest(), "/config", Value::Null), "no config"),
        (with(manifest(), "/layers", Value::Null), "no layers"),
        (with(manifest(), "/layers", json!({})), "layers that are no list"),
        (with(manifest(), "/layers/0/size", json!(-1)), "a negative size"),
        (with(manifest(), "/layers/0/size", json!(1.5)), "half a byte"),
        (with(manifest(), "/layers/0/size", json!(u64::MAX)), "a size beyond all"),
        (with(manifest(), "/layers/0/size", json!(i64::MAX)), "a size beyond the limit"),
        (with(manifest(), "/layers/0/size", Value::Null), "no size"),
        (with(manifest(), "/layers/0/digest", json!("sha256:../../etc/passwd")), "a path for a digest"),
        (with(manifest(), "/layers/0/digest", json!("md5:00")), "an unknown algorithm"),
        (with(manifest(), "/layers/0/mediaType", json!("application/x-tar")), "an unknown layer"),
        (with(manifest(), "/layers/0/mediaType", Value::Null), "a layer without a type"),
        (with(manifest(), "/config/mediaType", json!("application/vnd.wasm.config.v1+json")), "an artifact"),
        (with(manifest(), "/config/size", json!(9 << 20)), "a huge config"),
        (with(manifest(), "/layers", json!(many)), "too many layers"),
        (json!({"schemaVersion": 1, "fsLayers": [], "history": []}), "schema 1"),
        (json!({"fsLayers": []}), "schema 1, by its looks"),
    ] {
        let checked = parse(&document, None).and_then(|document| match document {
            Document::Manifest(manifest) => manifest.check_layers(|_| false),
            Document::Index(_) => Ok(()),
        });
        let error = checked.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{what}: {error}");
    }
    // JSON itself: a key that two readers may read differently, and depth.
    let twice = br#"{"schemaVersion":2,"layers":[],"layers":[]}"#.to_vec();
    let deep = [b"{\"x\":".to_vec(), vec![b'['; 1 << 20]].concat();
    for bytes in [twice, deep, b"\xff".to_vec(), Vec::new()] {
        let raw = RawDocument { digest: Digest::of(&bytes), bytes: bytes.into(), media_type: None };
        assert_eq!(Document::parse(&raw, &Limits::default()).unwrap_err().kind(), ErrorKind::Refused);
    }
}

fn entry(document: &RawDocument, media_type: &str, platform: &str) -> Value {
    let mut parts = platform.split('/');
    let mut entry = descriptor(media_type, &document.bytes);
    if let (Some(os), Some(architecture)) = (parts.next().filter(|os| !os.is_empty()), parts.next()) {
        entry["platform"] = json!({"os": os, "architecture": architecture});
        if let Some(variant) = parts.next() {
            entry["platform"]["variant"] = json!(variant);
        }
    }
    entry
}

fn index(entries: &[Value]) -> RawDocument {
    raw(&json!({"schemaVersion": 2, "manifests": entries}), None)
}

/// A manifest that is told apart by a number.
fn image(number: u32) -> RawDocument {
    raw(&with(manifest(), "/annotations", json!({"number": number.to_string()})), None)
}

/// Documents in memory, the first of them on top.
struct InMemory(Vec<RawDocument>);

#[async_trait]
impl Documents for InMemory {
    async fn top(&self) -> Result<RawDocument> {
        Ok(self.0[0].clone())
    }

    async fn document(&self, descriptor: &Descriptor) -> Result<RawDocument> {
        let found = self.0.iter().find(|document| document.digest == descriptor.digest);
        found.cloned().ok_or_else(|| Error::NotFound { what: descriptor.digest.to_string(), hint: None })
    }

    async fn config(&self, descriptor: &Descriptor) -> Result<Bytes> {
        Ok(self.document(descriptor).await?.bytes)
    }
}

async fn resolve(documents: &[RawDocument], platform: &str) -> Result<Resolved> {
    let choice = PlatformChoice::Exactly(platform.parse().unwrap());
    resolve_image("image", &InMemory(documents.to_vec()), &choice, &Limits::default()).await
}

#[tokio::test]
async fn the_nearest_variant_is_chosen() {
    let images: Vec<_> = (0..8).map(image).collect();
    let platforms = [
        "unknown/unknown",
        "linux/arm/v5",
        "linux/arm/v6",
        "linux/amd64",
        "linux/amd64/v2",
        "linux/amd64/v2",
        "linux/arm64",
        "windows/amd64",
    ];
    let mut entries: Vec<_> =
        images.iter().zip(platforms).map(|(image, platform)| entry(image, OCI_MANIFEST, platform)).collect();
    entries[3]["annotations"] = json!({"other": "x"});
    let attested = with(
        entry(&images[0], OCI_MANIFEST, "linux/arm/v7"),
        "/annotations",
        json!({
            "vnd.docker.reference.type": "attestation-manifest",
        }),
    );
    entries.insert(0, attested);
    entries.insert(0, with(entry(&images[0], OCI_MANIFEST, "linux/arm/v7"), "/artifactType", json!("a/b")));
    entries.insert(0, entry(&images[0], "application/vnd.unknown+json", "linux/arm/v7"));
    let mut documents = vec![index(&entries)];
    documents.extend(images.clone());
    for (platform, chosen) in [
        ("linux/arm", Some(2)),
        ("linux/arm/v6", Some(2)),
        ("linux/arm/v5", Some(1)),
        ("linux/amd64", Some(3)),
        ("linux/amd64/v2", Some(4)),
        ("linux/amd64/v4", Some(4)),
        ("linux/arm64/v8", Some(6)),
        ("linux/arm64/v9", Some(6)),
        ("windows/amd64", Some(7)),
        ("linux/386", None),
        ("unknown/unknown", None),
    ] {
        match (resolve(&documents, platform).await, chosen) {
            (Ok(resolved), Some(chosen)) => {
                assert_eq!(resolved.raw.digest, images[chosen].digest, "{platform}");
                assert_eq!(resolved.top().digest, documents[0].digest);
            }
            (Err(error), None) => assert_eq!(error.kind(), ErrorKind::NotFound, "{platform}: {error}"),
            (other, _) => panic!("{platform}: {other:?}"),
        }
    }
}

/// A manifest and a configuration that states a platform, or none.
fn configured(platform: Option<&str>) -> [RawDocument; 2] {
    let mut parts = platform.into_iter().flat_map(|platform| platform.split('/'));
    let config = json!({
        "os": parts.next(), "architecture": parts.next(), "variant": parts.next(),
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"layer")]},
    });
    let config = raw(&config, None);
    let config_of = descriptor("application/vnd.oci.image.config.v1+json", &config.bytes);
    [raw(&with(manifest(), "/config", config_of), None), config]
}

#[tokio::test]
async fn entries_without_a_platform_are_chosen_by_their_configurations() {
    let one = image(1);
    let single = index(&[entry(&one, OCI_MANIFEST, "")]);
    let found = resolve(&[single, one.clone()], "linux/arm64").await.unwrap();
    assert_eq!((&found.raw.digest, found.platform), (&one.digest, None));
    let platforms = [None, Some("linux/arm/v6"), Some("linux/amd64"), Some("linux/arm/v7"), Some("linux/amd64")];
    let images = platforms.map(configured);
    let gone = configured(Some("linux/s390x"));
    let odd = with(entry(&gone[0], OCI_MANIFEST, ""), "/size", json!("many"));
    let unreadable = image(7);
    let mut entries = vec![odd, entry(&gone[0], OCI_MANIFEST, ""), entry(&unreadable, OCI_MANIFEST, "")];
    entries.extend(images.iter().map(|[manifest, _]| entry(manifest, OCI_MANIFEST, "")));
    let several = index(&entries);
    let nested = index(&[entry(&several, OCI_INDEX, "")]);
    let mut documents = vec![nested.clone(), several.clone(), unreadable];
    documents.extend(images.iter().flatten().cloned());
    for (platform, chosen) in
        [("linux/arm/v7", Some(3)), ("linux/arm/v6", Some(1)), ("linux/amd64", Some(2)), ("linux/arm64", None)]
    {
        for top in [0, 1] {
            match (resolve(&documents[top..], platform).await, chosen) {
                (Ok(found), Some(chosen)) => assert_eq!(found.raw.digest, images[chosen][0].digest, "{platform}"),
                (Err(error), None) => {
                    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
                    assert!(error.hint().unwrap().contains("linux/amd64, linux/arm/v6, linux/arm/v7"), "{error}");
                }
                (other, _) => panic!("{platform}: {other:?}"),
            }
        }
    }
}

/// An entry's `artifactType` is the type of its configuration where it is an image's (image spec 1.1, `descriptor.md`).
#[tokio::test]
async fn only_other_artifacts_are_passed_over() {
    let (one, two) = (image(1), image(2));
    let second = entry(&two, OCI_MANIFEST, "linux/amd64");
    for (artifact_type, is_image) in [
        (json!("application/vnd.oci.image.config.v1+json"), true),
        (json!("application/vnd.docker.container.image.v1+json"), true),
        (json!("Application/vnd.oci.image.config.v1+JSON; x=y"), true),
        (json!(""), true),
        (json!("application/vnd.example.sbom"), false),
        (json!("application/vnd.oci.empty.v1+json"), false),
        (json!(["application/vnd.oci.image.config.v1+json"]), false),
    ] {
        let first = with(entry(&one, OCI_MANIFEST, "linux/amd64"), "/artifactType", artifact_type.clone());
        let documents = [index(&[first, second.clone()]), one.clone(), two.clone()];
        let found = resolve(&documents, "linux/amd64").await.unwrap();
        assert_eq!(found.raw.digest, if is_image { &one } else { &two }.digest, "{artifact_type}");
    }
    let first = with(entry(&one, OCI_MANIFEST, "linux/amd64"), "/artifactType", json!(null));
    assert_eq!(
        resolve(&[index(&[first, second]), one.clone(), two], "linux/amd64").await.unwrap().raw.digest,
        one.digest
    );
}

/// As Docker 1.10 to 1.12 pushed them, and registries serve them to this day.
#[test]
fn old_types_of_configurations_are_taken_where_the_rest_is_an_image() {
    let typed = |media_type: Value| with(manifest(), "/config/mediaType", media_type);
    for media_type in [
        json!("application/octet-stream"),
        json!("text/html"),
        json!("application/json; charset=utf-8"),
        json!(""),
        Value::Null,
    ] {
        for extra in [json!(null), json!(""), json!("application/vnd.oci.image.config.v1+json")] {
            parse(&with(typed(media_type.clone()), "/artifactType", extra), None).unwrap();
        }
        let artifact = with(typed(media_type.clone()), "/artifactType", json!("application/vnd.example"));
        assert_eq!(parse(&artifact, None).unwrap_err().kind(), ErrorKind::Refused, "{media_type}");
        let chart = with(typed(media_type), "/layers/0/mediaType", json!("application/vnd.cncf.helm.chart"));
        let Document::Manifest(chart) = parse(&chart, None).unwrap() else { panic!("an index?") };
        assert_eq!(chart.check_layers(|_| false).unwrap_err().kind(), ErrorKind::Refused);
    }
    for media_type in ["text/plain", "application/vnd.oci.empty.v1+json", "application/vnd.cncf.helm.config.v1+json"] {
        assert_eq!(parse(&typed(json!(media_type)), None).unwrap_err().kind(), ErrorKind::Refused, "{media_type}");
    }
}

/// What is odd about an entry that nobody asked for refuses nothing; where it is selected, it is refused.
#[tokio::test]
async fn an_odd_entry_is_in_the_way_of_itself_alone() {
    let (one, two) = (image(1), image(2));
    let good = entry(&one, OCI_MANIFEST, "linux/arm64");
    let other = entry(&two, OCI_MANIFEST, "linux/amd64");
    for odd in [
        with(other.clone(), "/digest", json!("blake3:00")),
        with(other.clone(), "/digest", json!(5)),
        with(other.clone(), "/digest", Value::Null),
        with(other.clone(), "/size", json!(-1)),
        with(other.clone(), "/size", json!(1.5)),
        with(other.clone(), "/size", json!("7")),
        with(other.clone(), "/size", json!(u64::MAX)),
        with(other.clone(), "/size", Value::Null),
    ] {
        let documents = [index(&[odd.clone(), good.clone()]), one.clone(), two.clone()];
        assert_eq!(resolve(&documents, "linux/arm64").await.unwrap().raw.digest, one.digest, "{odd}");
        assert_eq!(resolve(&documents, "linux/amd64").await.unwrap_err().kind(), ErrorKind::Refused, "{odd}");
        // Of two for the same platform, the one that can be used is.
        let documents = [index(&[odd.clone(), other.clone()]), one.clone(), two.clone()];
        assert_eq!(resolve(&documents, "linux/amd64").await.unwrap().raw.digest, two.digest, "{odd}");
    }
    for odd in [
        json!(null),
        json!("text"),
        json!([{}]),
        json!(7),
        json!({}),
        with(other.clone(), "/mediaType", json!(5)),
        with(other.clone(), "/mediaType", Value::Null),
        with(other.clone(), "/platform", json!({"os": "linux", "architecture": ["amd64"]})),
        with(other.clone(), "/platform", json!({"os": 1, "architecture": 2, "variant": 3, "os.version": 4})),
        with(other.clone(), "/platform", json!("linux/amd64")),
        with(other.clone(), "/annotations", json!([1])),
        with(other.clone(), "/annotations", json!({"org.opencontainers.image.ref.name": {"x": 1}, "y": 2})),
        with(other.clone(), "/urls", json!({"x": 1})),
        with(other.clone(), "/artifactType", json!({"x": 1})),
    ] {
        let documents = [index(&[odd.clone(), good.clone()]), one.clone(), two.clone()];
        assert_eq!(resolve(&documents, "linux/arm64").await.unwrap().raw.digest, one.digest, "{odd}");
    }
    // A member that comes twice, so that two readers may see two images.
    let twice = good.to_string().replacen('{', &format!("{{\"digest\":\"{}\",", two.digest), 1);
    let text = format!(r#"{{"schemaVersion":2,"manifests":[{twice},{other}]}}"#);
    let top = RawDocument { digest: Digest::of(text.as_bytes()), bytes: text.into(), media_type: None };
    let documents = [top, one, two.clone()];
    assert_eq!(resolve(&documents, "linux/amd64").await.unwrap().raw.digest, two.digest);
    assert_eq!(resolve(&documents, "linux/arm64").await.unwrap_err().kind(), ErrorKind::Refused);
}

/// The index decides; what the configuration says otherwise is only noted.
#[tokio::test]
async fn what_an_index_says_of_a_platform_counts() {
    let [image, config] = configured(Some("linux/amd64"));
    let choice = |text: &str| PlatformChoice::Exactly(text.parse().unwrap());
    let stated: StatedPlatform = "linux/amd64".parse().unwrap();
    let documents = [index(&[entry(&image, OCI_MANIFEST, "linux/arm64")]), image.clone(), config];
    let found = resolve(&documents, "linux/arm64").await.unwrap();
    assert_eq!(found.platform, Some("linux/arm64".parse().unwrap()));
    found.check_config(&choice("linux/arm64"), "x", Some(&stated)).unwrap();
    // Without an index that says something, the configuration's word is all that there is.
    let nested = index(&[entry(&image, OCI_MANIFEST, "")]);
    for documents in [vec![image.clone()], vec![nested, image.clone()]] {
        let alone = resolve(&documents, "linux/arm64").await.unwrap();
        let error = alone.check_config(&choice("linux/arm64"), "x", Some(&stated)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn indexes_are_followed_two_deep() {
    let image = image(1);
    let inner = index(&[entry(&image, OCI_MANIFEST, "linux/amd64")]);
    let middle = index(&[entry(&inner, OCI_INDEX, "linux/amd64")]);
    let outer = index(&[entry(&middle, OCI_INDEX, "linux/amd64")]);
    let two = resolve(&[middle.clone(), inner.clone(), image.clone()], "linux/amd64").await.unwrap();
    assert_eq!((two.indexes.len(), two.raw.digest), (2, image.digest.clone()));
    let error = resolve(&[outer, middle, inner, image], "linux/amd64").await.unwrap_err();
    assert!(matches!(error, Error::Limit { limit: 2, .. }), "{error}");
}

#[test]
fn an_image_for_another_platform_is_not_what_was_asked_for() {
    let choice = PlatformChoice::Exactly("linux/arm/v7".parse().unwrap());
    let stated = |text: &str| text.parse::<StatedPlatform>().unwrap();
    choice.check_config("x", Some(&stated("linux/arm/v6"))).unwrap();
    choice.check_config("x", None).unwrap();
    let error = choice.check_config("x", Some(&stated("linux/arm64"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    PlatformChoice::Host.check_config("x", Some(&stated("linux/s390x"))).unwrap();
}

/// Most configurations state no variant; the index did, and decided.
#[test]
fn a_variant_that_a_configuration_does_not_state_is_not_held_against_it() {
    for wanted in ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm"] {
        let choice = PlatformChoice::Exactly(wanted.parse().unwrap());
        choice.check_config("x", Some(&"linux/arm".parse().unwrap())).unwrap();
        for other in ["linux/arm/v8", "linux/arm64", "windows/arm"] {
            let error = choice.check_config("x", Some(&other.parse().unwrap())).unwrap_err();
            assert!(error.hint().unwrap().contains(other), "{:?}", error.hint());
        }
    }
}

/// One image for several platforms, as some tools write it: an entry each, and no names.
#[tokio::test]
async fn a_flat_layout_is_chosen_from_by_platform() {
    let images = ["linux/amd64", "linux/arm64", "linux/arm/v7"].map(|platform| configured(Some(platform)));
    let lay = |entries: &[Value]| {
        let temp = tempfile::tempdir().unwrap();
        write_layout(temp.path(), &[]);
        std::fs::write(temp.path().join("index.json"), index(entries).bytes).unwrap();
        for document in images.iter().flatten() {
            std::fs::write(temp.path().join("blobs/sha256").join(document.digest.hex()), &document.bytes).unwrap();
        }
        temp
    };
    let stated: Vec<_> = images
        .iter()
        .zip(["linux/amd64", "linux/arm64", "linux/arm/v7"])
        .map(|([manifest, _], platform)| entry(manifest, OCI_MANIFEST, platform))
        .collect();
    let unstated: Vec<_> = images.iter().map(|[manifest, _]| entry(manifest, OCI_MANIFEST, "")).collect();
    let mixed = [stated[0].clone(), unstated[1].clone()];
    for entries in [&stated[..], &unstated, &mixed] {
        let temp = lay(entries);
        let top = top(temp.path(), LayoutSelector::Only).await.unwrap();
        assert_eq!(top.bytes, index(entries).bytes, "the index is what the name means");
        assert!(matches!(Document::parse(&top, &Limits::default()), Ok(Document::Index(_))));
    }
    // Two images for one platform, or with names, are several images.
    let named = with(stated[0].clone(), "/annotations", json!({"org.opencontainers.image.ref.name": "x"}));
    let again = entry(&images[1][0], OCI_MANIFEST, "linux/amd64");
    for (entries, hint) in [([stated[0].clone(), again], "oci:DIR@DIGEST"), ([named, stated[1].clone()], "oci:DIR:TAG")]
    {
        let error = top(lay(&entries).path(), LayoutSelector::Only).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.hint().unwrap().contains(hint), "{:?}", error.hint());
    }
    // The same image twice is one.
    let temp = lay(&[stated[0].clone(), unstated[0].clone()]);
    assert_eq!(top(temp.path(), LayoutSelector::Only).await.unwrap().digest, images[0][0].digest);
    // An entry that cannot be used is none.
    let odd = with(stated[0].clone(), "/digest", json!("blake3:00"));
    let temp = lay(&[odd, stated[1].clone(), stated[2].clone()]);
    assert!(top(temp.path(), LayoutSelector::Only).await.is_ok());
}

/// Writes a layout with these tags, each an image of its own.
fn write_layout(root: &Path, tags: &[&str]) -> Vec<RawDocument> {
    std::fs::create_dir_all(root.join("blobs/sha256")).unwrap();
    std::fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    let images: Vec<_> = (0..).map(image).take(tags.len()).collect();
    let entries: Vec<_> = images
        .iter()
        .zip(tags)
        .map(|(image, tag)| {
            std::fs::write(root.join("blobs/sha256").join(image.digest.hex()), &image.bytes).unwrap();
            let names = json!({"org.opencontainers.image.ref.name": tag});
            with(descriptor(OCI_MANIFEST, &image.bytes), "/annotations", names)
        })
        .collect();
    std::fs::write(root.join("index.json"), index(&entries).bytes).unwrap();
    std::fs::write(root.join("blobs/sha256").join(Digest::of(b"layer").hex()), b"layer").unwrap();
    images
}

fn open(root: &Path, selector: LayoutSelector) -> OciLayout {
    OciLayout::open(LayoutName::new(root, selector), Limits::default()).unwrap()
}

async fn top(root: &Path, selector: LayoutSelector) -> Result<RawDocument> {
    open(root, selector).resolve().await.map_err(|failure| failure.error)
}

async fn blob(root: &Path, bytes: &[u8], size: u64, from: u64) -> Result<Vec<u8>> {
    let descriptor = Descriptor { media_type: MediaType::new(""), digest: Digest::of(bytes), size, has_urls: false };
    let source = open(root, LayoutSelector::Only);
    let mut read = Vec::new();
    let mut blob = source.blob(&descriptor, from).await.map_err(|failure| failure.error)?;
    while let Some(chunk) = blob.next().await.map_err(|failure| failure.error)? {
        read.extend_from_slice(&chunk);
    }
    Ok(read)
}

#[tokio::test]
async fn a_layouts_images_are_found_by_tag_and_digest() {
    let temp = tempfile::tempdir().unwrap();
    let images = write_layout(temp.path(), &["one", "host:5000/two:2"]);
    for (selector, image) in [
        (LayoutSelector::Tag("one".into()), 0),
        (LayoutSelector::Tag("host:5000/two:2".into()), 1),
        (LayoutSelector::Digest(images[1].digest.clone()), 1),
    ] {
        assert_eq!(top(temp.path(), selector).await.unwrap().digest, images[image].digest);
    }
    let error = top(temp.path(), LayoutSelector::Only).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.hint().unwrap().ends_with("it has the tags host:5000/two:2, one"), "{:?}", error.hint());
    let error = top(temp.path(), LayoutSelector::Tag("three".into())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.hint().unwrap().contains("one"));

    let single = tempfile::tempdir().unwrap();
    let images = write_layout(single.path(), &["x"]);
    assert_eq!(top(single.path(), LayoutSelector::Only).await.unwrap().bytes, images[0].bytes);
    let twice = tempfile::tempdir().unwrap();
    write_layout(twice.path(), &["x", "x"]);
    assert_eq!(top(twice.path(), LayoutSelector::Tag("x".into())).await.unwrap_err().kind(), ErrorKind::Refused);
}

#[tokio::test]
async fn a_blob_is_read_from_where_it_is_asked_for() {
    let temp = tempfile::tempdir().unwrap();
    write_layout(temp.path(), &["x"]);
    let large: Vec<u8> = (0..2_000_000_u32).map(|i| (i % 251) as u8).collect();
    std::fs::write(temp.path().join("blobs/sha256").join(Digest::of(&large).hex()), &large).unwrap();
    for from in [0, 1, 1_999_999, 2_000_000] {
        let read = blob(temp.path(), &large, 2_000_000, from).await.unwrap();
        assert_eq!(read, large[usize::try_from(from).unwrap()..]);
    }
    for size in [1_999_999, 2_000_001] {
        let error = blob(temp.path(), &large, size, 0).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
    }
    assert_eq!(blob(temp.path(), b"absent", 6, 0).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_manifest_of_a_layout_is_verified() {
    let temp = tempfile::tempdir().unwrap();
    let images = write_layout(temp.path(), &["x"]);
    let path = temp.path().join("blobs/sha256").join(images[0].digest.hex());
    let mut bytes = images[0].bytes.to_vec();
    bytes[0] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(top(temp.path(), LayoutSelector::Only).await.unwrap_err(), Error::DigestMismatch { .. }));
    std::fs::write(&path, &bytes[1..]).unwrap();
    assert_eq!(top(temp.path(), LayoutSelector::Only).await.unwrap_err().kind(), ErrorKind::Integrity);
}

/// Everything in a layout that is no regular file: nothing outside is read, and nothing waits for a writer.
#[tokio::test]
async fn links_and_pipes_are_not_files() {
    let outside = tempfile::tempdir().unwrap();
    write_layout(outside.path(), &["x"]);
    let layer = format!("blobs/sha256/{}", Digest::of(b"layer").hex());
    for name in ["oci-layout", "index.json", "blobs", "blobs/sha256", &layer] {
        for pipe in [false, true] {
            let temp = tempfile::tempdir().unwrap();
            write_layout(temp.path(), &["x"]);
            let path = temp.path().join(name);
            if path.is_dir() {
                std::fs::remove_dir_all(&path).unwrap();
            } else {
                std::fs::remove_file(&path).unwrap();
            }
            if pipe {
                rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
            } else {
                std::os::unix::fs::symlink(outside.path().join(name), &path).unwrap();
            }
            let error = match top(temp.path(), LayoutSelector::Only).await {
                Ok(_) => blob(temp.path(), b"layer", 5, 0).await.unwrap_err(),
                Err(error) => error,
            };
            assert_eq!(error.kind(), ErrorKind::Refused, "{name}, {pipe}: {error}");
        }
    }
}

#[tokio::test]
async fn what_is_no_layout_is_said_to_be_none() {
    let temp = tempfile::tempdir().unwrap();
    assert_eq!(top(temp.path(), LayoutSelector::Only).await.unwrap_err().kind(), ErrorKind::NotFound);
    let absent = OciLayout::open(LayoutName::new(temp.path().join("x"), LayoutSelector::Only), Limits::default());
    assert_eq!(absent.unwrap_err().kind(), ErrorKind::NotFound);

    write_layout(temp.path(), &["x"]);
    let huge = [b"{\"x\":\"".to_vec(), vec![b'x'; 4 << 20], b"\"}".to_vec()].concat();
    for (name, content) in [
        ("oci-layout", &b"{}"[..]),
        ("oci-layout", b"{\"imageLayoutVersion\": \"2.0.0\"}"),
        ("oci-layout", &huge),
        ("index.json", b""),
        ("index.json", b"{\"schemaVersion\": 2}"),
        ("index.json", manifest().to_string().as_bytes()),
        ("index.json", &huge),
    ] {
        let path = temp.path().join(name);
        let right = std::fs::read(&path).unwrap();
        std::fs::write(&path, content).unwrap();
        assert_eq!(top(temp.path(), LayoutSelector::Only).await.unwrap_err().kind(), ErrorKind::Refused, "{name}");
        std::fs::write(&path, right).unwrap();
    }
    top(temp.path(), LayoutSelector::Only).await.unwrap();
}
