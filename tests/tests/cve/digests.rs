//! A digest is no path, whatever an image says that it is.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::layers::{self, Item};
use cofferdam_tests::layout::TAR;
use cofferdam_tests::{OciLayout, require, store};
use serde_json::{Value, json};

use super::Bench;

/// Where an image names a blob by its digest.
#[derive(Clone, Copy, Debug)]
enum Place {
    Manifest,
    Config,
    Layer,
    DiffId,
}

/// Makes the layout hold one image `v1` that is in order, but for the text of one digest.
fn image_with(layout: &OciLayout, place: Place, text: Option<&str>) -> Result<()> {
    let said = |here: &str, good: String| match text {
        Some(text) if format!("{place:?}") == here => text.to_owned(),
        _ => good,
    };
    let layer = layers::tar(&[Item::File("f", b"x".to_vec())])?;
    let digest = layout.add(&layer)?;
    let config = serde_json::to_vec(&json!({
        "architecture": cofferdam_tests::layout::architecture(),
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [said("DiffId", digest.clone())] },
    }))?;
    let describe = |kind: &str, digest: String, bytes: &[u8]| -> Value {
        json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
    };
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": kind,
        "config": describe(
            "application/vnd.oci.image.config.v1+json",
            said("Config", layout.add(&config)?),
            &config,
        ),
        "layers": [describe(TAR, said("Layer", digest), &layer)],
    }))?;
    let mut entry = describe(kind, said("Manifest", layout.add(&manifest)?), &manifest);
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
    // What a path made of the text would lead to: the very bytes that are asked for.
    for (name, bytes) in [("Manifest", &manifest), ("Config", &config), ("Layer", &layer), ("DiffId", &layer)] {
        if format!("{place:?}") == name {
            fs::write(layout.dir().join("planted"), bytes)?;
        }
    }
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    Ok(fs::write(layout.dir().join("index.json"), serde_json::to_vec(&index)?)?)
}

#[test]
fn cve_2014_9358_cve_2024_3727_cve_2026_95839_ghsa_f689_h8m7_3jp2_a_digest_is_no_path() -> Result<()> {
    require!("root");
    let bench = Bench::new()?;
    let (image, dest) = (bench.layout.source("v1"), bench.path("out/dest"));
    let planted = bench.layout.dir().join("planted").display().to_string();
    let texts = [
        String::new(),
        ":".into(),
        "sha256".into(),
        "sha256:".into(),
        "..".into(),
        planted.clone(),
        format!("sha256:{planted}"),
        "sha256:../../planted".into(),
        "sha256:x/../../../planted".into(),
        // As long as a digest.
        format!("sha256:{}../../planted", "./".repeat(25)),
        format!("sha256:{}", "é".repeat(32)),
        format!("sha256:a{}b", "é".repeat(31)),
        format!("sha256:{}\n", "a".repeat(63)),
        format!("sha256:{}\0", "a".repeat(63)),
        format!("sha256:{}", "A".repeat(64)),
        format!("sha512:{}", "a".repeat(64)),
        format!("../../planted:{}", "a".repeat(64)),
        format!("md5:{}", "a".repeat(32)),
    ];
    for place in [Place::Manifest, Place::Config, Place::Layer, Place::DiffId] {
        for text in &texts {
            image_with(&bench.layout, place, Some(text))?;
            for strategy in ["copy", "apply"] {
                let run = bench.cofferdam.run(["unpack", "--strategy", strategy, &image, &dest])?;
                let context = || format!("{place:?} is {text:?}, {strategy}");
                let run = run.expect_one_of(&[exit::INTEGRITY, exit::REFUSED]).with_context(context)?;
                ensure!(!run.err().contains("panicked"), "{}: {}", context(), run.err());
                bench.ensure_contained(&["victim"]).with_context(context)?;
                let trees = store::trees(bench.cofferdam.store())?;
                ensure!(trees.is_empty(), "{}: {trees:?}", context());
            }
        }
        // What was refused all the time was that text.
        image_with(&bench.layout, place, None)?;
        bench.cofferdam.ok(["unpack", &image, &dest])?;
        cofferdam_tests::scratch::remove_tree(Path::new(&dest));
        fs::remove_dir_all(bench.cofferdam.store())?;
    }
    Ok(())
}
