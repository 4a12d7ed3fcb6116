//! Manifests, indexes and configurations: what is read is what another reader of JSON finds there, and within the limits.

use cofferdam_core::{Digest, ErrorKind, Limits};
use cofferdam_documents::{Configuration, Descriptor, Document, MediaType, RawDocument};
use serde_json::Value;

use crate::claim::is_for_people;
use crate::stats::Stats;

static STATS: Stats<4> = Stats::new(["manifests", "indexes", "configurations", "refused"]);

/// What a server may say that a document is.
const STATED: [Option<&str>; 8] = [
    None,
    Some("application/vnd.oci.image.index.v1+json"),
    Some("application/vnd.oci.image.manifest.v1+json"),
    Some("application/vnd.docker.distribution.manifest.list.v2+json"),
    Some("application/vnd.docker.distribution.manifest.v2+json; charset=utf-8"),
    Some("application/json"),
    Some("application/vnd.docker.distribution.manifest.v1+prettyjws"),
    Some("text/\u{1b}[2Jhtml"),
];

/// Reads `data`, behind its first byte, as each of the documents; the first byte says what the server says.
pub fn run(data: &[u8]) {
    let Some((&stated, bytes)) = data.split_first() else { return };
    // The other reader refuses some that are fine: numbers that no `f64` holds, halves of surrogate pairs. Those are not compared.
    let value: Option<Value> = serde_json::from_slice(bytes).ok();
    let is_text = std::str::from_utf8(bytes).is_ok();
    let limits = Limits::default();
    let digest = Digest::of(bytes);
    let raw = RawDocument {
        bytes: bytes.to_vec().into(),
        digest: digest.clone(),
        media_type: STATED[usize::from(stated) % STATED.len()].map(MediaType::new),
    };
    let mut outcome = 3;
    match Document::parse(&raw, &limits) {
        Ok(Document::Manifest(manifest)) => {
            assert!(is_text);
            let Some(value) = &value else { return };
            assert!(value.get("manifests").is_none_or(Value::is_null), "an index is taken for a manifest");
            same(&manifest.config, &value["config"]);
            let layers = value["layers"].as_array().expect("layers");
            assert!(layers.len() == manifest.layers.len() && layers.len() <= limits.layers);
            for (layer, value) in manifest.layers.iter().zip(layers) {
                same(layer, value);
                assert!(layer.size <= limits.layer_bytes);
            }
            assert!(manifest.config.size <= limits.config_bytes);
            outcome = 0;
        }
        Ok(Document::Index(index)) => {
            assert!(is_text);
            let Some(value) = &value else { return };
            assert!(value.get("layers").is_none_or(Value::is_null), "a manifest is taken for an index");
            let mut listed = value["manifests"].as_array().expect("manifests").iter();
            for entry in &index.entries {
                // What leads to no image is left out, and may have the digest of one that does.
                let Ok(descriptor) = &entry.descriptor else { continue };
                let found = listed.any(|value| is_same(descriptor, value));
                assert!(found, "{descriptor:?} is not in the index, or not in its order");
            }
            outcome = 1;
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
            is_for_people(&error);
        }
    }
    let diff_ids = value.as_ref().and_then(|value| value["rootfs"]["diff_ids"].as_array());
    let layers = diff_ids.map_or(0, Vec::len);
    match Configuration::parse(bytes, &digest, layers) {
        Ok(config) => {
            assert_eq!(config.diff_ids.len(), layers);
            for (digest, value) in config.diff_ids.iter().zip(diff_ids.into_iter().flatten()) {
                assert_eq!(*value, digest.to_string().as_str());
            }
            assert!(Configuration::parse(bytes, &digest, layers + 1).is_err(), "a layer without its DiffID");
            outcome = 2;
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
            is_for_people(&error);
        }
    }
    STATS.count(outcome);
}

fn same(descriptor: &Descriptor, value: &Value) {
    assert!(is_same(descriptor, value), "{descriptor:?} is read out of {value}");
}

fn is_same(descriptor: &Descriptor, value: &Value) -> bool {
    assert!(!descriptor.digest.file_stem().contains(['/', '.', '\0']));
    value["digest"] == descriptor.digest.to_string().as_str() && value["size"] == descriptor.size
}
