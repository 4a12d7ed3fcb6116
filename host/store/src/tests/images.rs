//! Images by name, and what removing one frees.

use super::*;

/// An image of these layers in the store, published under a name.
pub(super) fn publish(fixture: &Fixture, reference: &str, layers: &[&LayerDescriptor]) -> Result<ImageObject> {
    fixture.storage.publish(add(fixture, reference, layers), &fixture.storage.in_use_blocking()?)
}

/// Manifest and configuration of an image of these layers in the store; the reference is yet to be published.
pub(super) fn add(fixture: &Fixture, reference: &str, layers: &[&LayerDescriptor]) -> ImageRef {
    let (manifest, config) = documents(reference, layers);
    let config_digest = Digest::of(config.as_bytes());
    std::fs::write(fixture.storage.config_path(&config_digest.to_string()), &config).unwrap();
    let digest = Digest::of(manifest.as_bytes());
    fixture.storage.save_manifest_bytes(manifest.as_bytes(), &digest.to_string()).unwrap();
    ImageRef {
        reference: reference.into(),
        manifest: digest,
        index: None,
        platform: Some("linux/amd64".into()),
        pulled_at: 0,
        pulled_as: None,
        decision: None,
    }
}

pub(super) fn documents(author: &str, layers: &[&LayerDescriptor]) -> (String, String) {
    let diff_ids: Vec<_> = layers.iter().filter_map(|layer| layer.diff_id.clone()).collect();
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "author": author,
        "config": {
            "User": "1000:1000",
            "ExposedPorts": { "8080/tcp": {}, "53/udp": {} },
            "Env": ["PATH=/usr/bin", "A=b"],
            "Entrypoint": ["/bin/init"],
            "Cmd": ["--serve"],
            "WorkingDir": "/srv",
        },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
    .to_string();
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| serde_json::json!({ "mediaType": layer.media_type, "digest": layer.digest, "size": layer.size }))
        .collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::of(config.as_bytes()),
            "size": config.len(),
        },
        "layers": layers,
    });
    (manifest.to_string(), config)
}

fn parse(manifest: &str, config: &str, limits: &Limits) -> Result<ImageObject> {
    ImageObject::parse("a:1", &Digest::of(manifest.as_bytes()), manifest.as_bytes(), config.as_bytes(), limits)
}

#[test]
fn an_image_is_listed_resolved_and_loaded() {
    let fixture = Fixture::new();
    let (base, top) = (fixture.add_layer(b"base"), fixture.add_layer(b"top"));
    let published = publish(&fixture, "docker.io/library/a:1", &[&base, &top]).unwrap();
    let storage = fixture.reopen();
    let images = storage.images().unwrap();
    assert_eq!(images.len(), 1);
    assert!(images[0].pulled_at > 1_700_000_000);
    assert_eq!(storage.resolve("docker.io/library/a:1").unwrap().unwrap(), images[0]);
    assert_eq!(storage.resolve(&images[0].manifest.to_string()).unwrap().unwrap(), images[0]);
    assert_eq!(storage.resolve("a:2").unwrap(), None);
    let image = storage.image("docker.io/library/a:1").unwrap();
    assert_eq!(image, published);
    assert_eq!(image.layers, [base.clone(), top.clone()]);
    assert_eq!(image.layer_digests().collect::<Vec<_>>(), [&base.digest, &top.digest]);
    assert_eq!(image.diff_ids().count(), 2);
    assert_eq!(image.total_size, 7);
    assert_eq!(image.platform, "linux/amd64");
    let expected = ImageConfig {
        entrypoint: vec!["/bin/init".into()],
        cmd: vec!["--serve".into()],
        env: vec!["PATH=/usr/bin".into(), "A=b".into()],
        user: "1000:1000".into(),
        working_dir: "/srv".into(),
        exposed_ports: vec!["53/udp".into(), "8080/tcp".into()],
    };
    assert_eq!(image.config, expected);
    let absent = storage.image("a:2").unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound);
    assert!(absent.hint().is_some());
    assert_nothing_staged(&fixture);
}

#[test]
fn a_reference_comes_last() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    let absent = LayerDescriptor { digest: Digest::of(b"absent"), ..layer.clone() };
    assert_eq!(publish(&fixture, "a:1", &[&layer, &absent]).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fixture.storage.images().unwrap(), []);
    // A tree is as good as a blob.
    fixture.storage.ensure_tree(&layer).unwrap();
    std::fs::remove_file(fixture.storage.layer_tarball_path(&layer.digest.to_string())).unwrap();
    publish(&fixture, "a:1", &[&layer]).unwrap();
    // Damaged documents are not.
    let image = fixture.storage.resolve("a:1").unwrap().unwrap();
    let manifest = fixture.storage.manifest_path(&image.manifest.to_string());
    std::fs::write(&manifest, "{}").unwrap();
    assert_eq!(
        fixture.storage.publish(image, &fixture.storage.in_use_blocking().unwrap()).unwrap_err().kind(),
        ErrorKind::Integrity
    );
}

#[test]
fn documents_that_disagree_are_refused() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.add_layer(b"one"), fixture.add_layer(b"two"));
    let (manifest, config) = documents("x", &[&one, &two]);
    let limits = Limits::default();
    parse(&manifest, &config, &limits).unwrap();
    let (_, other) = documents("x", &[&one]);
    assert_eq!(parse(&manifest, &other, &limits).unwrap_err().kind(), ErrorKind::Refused);
    let few = Limits::default().with(|limits| limits.layers = 1);
    assert!(matches!(parse(&manifest, &config, &few), Err(Error::Limit { limit: 1, .. })));
    let hostile = manifest.replace(&one.digest.to_string(), "sha256:../../../etc/passwd");
    assert_eq!(parse(&hostile, &config, &limits).unwrap_err().kind(), ErrorKind::Refused);
    let negative = manifest.replace("\"size\":3", "\"size\":-3");
    assert_ne!(negative, manifest);
    assert_eq!(parse(&negative, &config, &limits).unwrap_err().kind(), ErrorKind::Refused);
    let index = r#"{"schemaVersion":2,"manifests":[]}"#;
    assert_eq!(parse(index, &config, &limits).unwrap_err().kind(), ErrorKind::Refused);
    for broken in ["", "{}", "null"] {
        assert_eq!(parse(&manifest, broken, &limits).unwrap_err().kind(), ErrorKind::Refused);
        assert_eq!(parse(broken, &config, &limits).unwrap_err().kind(), ErrorKind::Refused);
    }
}

/// Configurations as Docker writes them: nulls where there is nothing, fields that the specification does not know.
#[test]
fn a_config_with_nulls_is_a_config() {
    let (manifest, config) = documents("x", &[]);
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    for field in ["ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "Labels", "OnBuild"] {
        config["config"][field] = serde_json::Value::Null;
    }
    config["docker_version"] = "27".into();
    config["history"] = serde_json::Value::Null;
    let image = parse(&manifest, &config.to_string(), &Limits::default()).unwrap();
    assert_eq!((image.config.cmd.len(), image.config.exposed_ports.len()), (0, 0));
    config["config"] = serde_json::Value::Null;
    assert_eq!(parse(&manifest, &config.to_string(), &Limits::default()).unwrap().config, ImageConfig::default());
}

#[test]
fn removal_frees_what_nothing_else_needs() {
    let fixture = Fixture::new();
    let (shared, own) = (fixture.add_layer(b"shared"), fixture.add_layer(b"own layer"));
    for layer in [&shared, &own] {
        fixture.storage.ensure_tree(layer).unwrap();
    }
    publish(&fixture, "a:1", &[&shared, &own]).unwrap();
    publish(&fixture, "b:1", &[&shared]).unwrap();
    let removed = fixture.storage.remove("a:1").unwrap();
    assert_eq!(removed.kept, None);
    assert_eq!(removed.trees, std::slice::from_ref(&own.digest));
    assert_eq!(removed.blobs.len(), 3, "manifest, config and layer");
    assert!(removed.bytes > 9);
    assert_eq!(fixture.storage.remove("a:1").unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!fixture.storage.has_layer(&own.digest.to_string()));
    assert!(!fixture.storage.trees().is_ready(&own.digest));
    assert!(fixture.storage.has_layer(&shared.digest.to_string()));
    assert!(fixture.storage.trees().is_ready(&shared.digest));
    fixture.storage.image("b:1").unwrap();
    fixture.storage.remove("b:1").unwrap();
    for dir in ["layers", "configs", "manifests", "extracted", "records", "refs"] {
        assert_eq!(names(&fixture.path(dir)), [""; 0], "{dir}");
    }
    assert_nothing_staged(&fixture);
}

#[test]
fn two_names_of_one_image_share_it() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    publish(&fixture, "a:1", &[&layer]).unwrap();
    let image = fixture.storage.resolve("a:1").unwrap().unwrap();
    let in_use = fixture.storage.in_use_blocking().unwrap();
    fixture.storage.publish(ImageRef { reference: "a:latest".into(), ..image }, &in_use).unwrap();
    drop(in_use);
    assert_eq!(fixture.storage.remove("a:1").unwrap(), Removed::default());
    fixture.storage.image("a:latest").unwrap();
    assert_eq!(fixture.storage.remove("a:latest").unwrap().blobs.len(), 3);
}

#[test]
fn nothing_is_freed_under_somebodys_feet() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    publish(&fixture, "a:1", &[&layer]).unwrap();
    let used = fixture.reopen().in_use_blocking().unwrap();
    assert!(fixture.storage.remove("a:1").unwrap().kept.is_some());
    assert_eq!(fixture.storage.images().unwrap(), []);
    assert!(fixture.storage.has_layer(&layer.digest.to_string()));
    drop(used);

    // Somebody extracts the layer.
    publish(&fixture, "a:1", &[&layer]).unwrap();
    let staged = fixture.reopen().trees().begin(&layer, None).unwrap().granted().unwrap();
    assert!(fixture.storage.remove("a:1").unwrap().kept.is_some());
    assert!(fixture.storage.has_layer(&layer.digest.to_string()));
    drop(staged);

    // What another image needs is not known.
    publish(&fixture, "a:1", &[&layer]).unwrap();
    publish(&fixture, "b:1", &[&layer]).unwrap();
    let other = fixture.storage.resolve("b:1").unwrap().unwrap();
    std::fs::write(fixture.storage.manifest_path(&other.manifest.to_string()), "{}").unwrap();
    let kept = fixture.storage.remove("a:1").unwrap().kept.unwrap();
    assert!(kept.contains("b:1"), "{kept}");
    assert!(fixture.storage.has_layer(&layer.digest.to_string()));
}

/// What a removal had to keep, the next one frees.
#[test]
fn what_was_kept_is_freed_later() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.add_layer(b"one"), fixture.add_layer(b"two"));
    fixture.storage.ensure_tree(&one).unwrap();
    publish(&fixture, "a:1", &[&one]).unwrap();
    publish(&fixture, "b:1", &[&two]).unwrap();
    let used = fixture.storage.in_use_blocking().unwrap();
    assert_eq!(fixture.storage.remove("a:1").unwrap().kept.unwrap(), "the store is in use");
    drop(used);
    // A reference that is set to another image leaves the old one to nobody.
    publish(&fixture, "c:1", &[&two]).unwrap();
    let removed = fixture.storage.remove("c:1").unwrap();
    assert_eq!((removed.kept, removed.trees), (None, vec![one.digest.clone()]));
    assert_eq!(removed.blobs.len(), 5, "two manifests, two configurations, one layer");
    fixture.storage.image("b:1").unwrap();
    assert!(fixture.storage.has_layer(&two.digest.to_string()));
    assert_eq!(names(&fixture.path("extracted")), [""; 0]);
}

/// Who embeds the store, or left a directory to be adopted, has images that no reference names.
#[tokio::test]
async fn what_others_keep_is_not_freed() {
    let fixture = Fixture::new();
    let (shared, own) = (fixture.add_layer(b"shared"), fixture.add_layer(b"own"));
    let stray = fixture.add_layer(b"stray");
    let theirs = add(&fixture, "theirs", &[&shared]);
    let config = fixture.storage.load_image(&theirs).unwrap().config_digest;
    fixture.storage.stage_config_download(&config.to_string()).await.unwrap().abort().await;
    let removed = {
        publish(&fixture, "a:1", &[&shared, &own]).unwrap();
        fixture.reopen().remove("a:1").unwrap()
    };
    assert_eq!((removed.kept, removed.blobs.len()), (None, 3));
    assert!(!fixture.storage.has_layer(&own.digest.to_string()));
    for layer in [&shared, &stray] {
        assert!(fixture.storage.has_layer(&layer.digest.to_string()));
    }
    assert!(fixture.storage.has_config(&config.to_string()));
    fixture.storage.load_image(&theirs).unwrap();
}

/// A torn file keeps no name taken for ever, nor space from being freed.
#[test]
fn a_damaged_reference_can_be_removed() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    publish(&fixture, "a:1", &[&layer]).unwrap();
    publish(&fixture, "b:1", &[&layer]).unwrap();
    std::fs::write(fixture.path("refs/a%3A1.json"), "{\"reference\":").unwrap();
    let kept = fixture.storage.remove("b:1").unwrap().kept.unwrap();
    assert!(kept.contains("a%3A1.json"), "{kept}");
    let removed = fixture.storage.remove("a:1").unwrap();
    assert_eq!((removed.kept, removed.blobs.len()), (None, 5));
    assert_eq!(fixture.storage.remove("a:1").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(names(&fixture.path("layers")), [""; 0]);
}

#[test]
fn trees_of_local_layouts_can_be_removed() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    let trees = fixture.storage.local_trees(fixture.temp.path(), &Digest::of(b"manifest")).unwrap();
    let blob = || fixture.storage.open_layer(&layer.digest);
    let tree = trees.ensure(&layer, &*fixture.unpacker, blob, &Watch::default()).unwrap();
    let path = trees.path(&layer.digest);
    drop(trees);
    assert!(fixture.storage.remove_local().unwrap().kept.is_some(), "a tree of it is open");
    drop(tree);
    let trees = fixture.storage.local_trees(fixture.temp.path(), &Digest::of(b"manifest")).unwrap();
    assert!(fixture.storage.remove_local().unwrap().kept.is_some(), "the layout is");
    drop(trees);
    assert_eq!(fixture.storage.remove_local().unwrap().trees, std::slice::from_ref(&layer.digest));
    assert!(!path.exists());
    assert!(fixture.storage.has_layer(&layer.digest.to_string()));
}

/// However an image was named when it was pulled, and however it is named now: what means the same finds it.
#[test]
fn an_image_is_found_by_each_name_that_means_it() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    let tagged = publish(&fixture, "docker.io/library/alpine:latest", &[&layer]).unwrap();
    let mut entry = fixture.storage.resolve("docker.io/library/alpine:latest").unwrap().unwrap();
    let digest = tagged.manifest_digest.to_string();
    for name in [
        "alpine",
        "alpine:latest",
        "library/alpine",
        "docker.io/alpine",
        "index.docker.io/library/alpine:latest",
        &digest,
        &format!("alpine@{digest}"),
        &format!("docker.io/library/alpine:latest@{digest}"),
        &format!("alpine:3@{digest}"),
    ] {
        assert_eq!(fixture.storage.resolve(name).unwrap().as_ref(), Some(&entry), "{name}");
        fixture.storage.image(name).unwrap();
    }
    // Of several tags of one image, the one that was written is meant.
    fixture.storage.tag("alpine", "docker.io/library/alpine:3").unwrap();
    let found = fixture.storage.resolve(&format!("alpine:latest@{digest}")).unwrap().unwrap();
    assert_eq!(found.reference, "docker.io/library/alpine:latest");
    fixture.storage.remove(&format!("alpine:3@{digest}")).unwrap();
    assert_eq!(fixture.storage.resolve("alpine:3").unwrap(), None);
    assert!(fixture.storage.remove(&format!("alpine:3@{digest}")).is_err());
    assert!(fixture.storage.resolve("alpine").unwrap().is_some());
    let other = Digest::of(b"another").to_string();
    for name in [
        "alpine:3",
        "quay.io/library/alpine",
        "library/alpine/x",
        &other,
        &format!("alpine@{other}"),
        &format!("quay.io/library/alpine@{digest}"),
    ] {
        assert_eq!(fixture.storage.resolve(name).unwrap(), None, "{name}");
    }
    assert!(fixture.storage.resolve("Not A Name").is_err());
    // Pulled by the digest of an index.
    let index = br#"{"schemaVersion":2,"manifests":[]}"#;
    let of_index = Digest::of(index);
    fixture.storage.save_manifest_bytes(index, &of_index.to_string()).unwrap();
    entry.reference = format!("docker.io/library/alpine@{of_index}");
    entry.index = Some(of_index.clone());
    fixture.storage.publish(entry.clone(), &fixture.storage.in_use_blocking().unwrap()).unwrap();
    for name in [of_index.to_string(), format!("alpine@{of_index}"), format!("alpine:tag@{of_index}")] {
        let found = fixture.storage.resolve(&name).unwrap().unwrap();
        assert_eq!(found.reference, entry.reference, "{name}");
    }
}
