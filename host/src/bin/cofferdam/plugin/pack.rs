//! `plugin pack`: a component and its manifest as one file, or as an artifact in an OCI layout.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use cofferdam::{Digest, ambient};
use serde_json::{Value, json};

use super::source::Source;
use crate::args::AccessArgs;
use crate::failure::{Failure, usage};
use crate::output;
use crate::session::{Session, shown};

pub(crate) fn run(session: &Session, plugin: &Path, target: &str) -> Result<(), Failure> {
    let source = Source::File(plugin.to_owned());
    let found = source.read(session, &AccessArgs::default())?;
    let digest = Digest::of(&found.component);
    let (path, manifest) = match target.strip_prefix("oci:") {
        Some(layout) => {
            let interfaces = session.unpacker()?.sandbox().interfaces(&found.manifest.name, &found.component)?;
            let world = format!("cofferdam:layer/{}@{}", found.manifest.world, cofferdam::plugin::World::VERSION);
            let config = json!({
                "created": "1970-01-01T00:00:00Z",
                "architecture": "wasm",
                "os": "wasip2",
                "layerDigests": [digest],
                "component": { "exports": interfaces.exports, "imports": interfaces.imports, "target": world },
            });
            let (directory, tag) = match layout.rsplit_once(':') {
                Some((directory, tag)) if !tag.contains('/') => (directory, tag),
                _ => (layout, "latest"),
            };
            let annotations = json!({
                "org.opencontainers.image.title": found.manifest.name,
                "org.opencontainers.image.version": found.manifest.version,
                "org.opencontainers.image.description": found.manifest.description,
            });
            let manifest = layout_of(Path::new(directory), tag, &found.component, &config, &annotations)?;
            (PathBuf::from(directory), Some(manifest))
        }
        None => {
            let path = PathBuf::from(target);
            let name = path.file_name().and_then(OsStr::to_str);
            let name = name.ok_or_else(|| usage(format!("{target:?} names no file"), None))?;
            let parent = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
            ambient::write_file(parent, name, &found.component)?;
            (path, None)
        }
    };
    if session.json() {
        return output::json(&json!({
            "schema": "cofferdam/plugin-pack/v1",
            "path": shown(&path),
            "component": digest,
            "manifest": manifest,
        }));
    }
    output::line(&format!("{}: {} {digest}", shown(&path), found.manifest.name))
}

/// Writes a new layout that holds one artifact; gives the digest of its manifest.
fn layout_of(dir: &Path, tag: &str, component: &[u8], config: &Value, annotations: &Value) -> Result<Digest, Failure> {
    use cofferdam::registry::{COMPONENT_TYPE, CONFIG_TYPE};
    const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
    let blobs = dir.join("blobs/sha256");
    let part = |bytes: &[u8], media_type: &str| -> Result<Value, Failure> {
        let digest = Digest::of(bytes);
        ambient::write_file(&blobs, digest.hex(), bytes)?;
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": part(config.to_string().as_bytes(), CONFIG_TYPE)?,
        "layers": [part(component, COMPONENT_TYPE)?],
        "annotations": annotations,
    });
    let manifest = manifest.to_string();
    let mut entry = part(manifest.as_bytes(), MANIFEST_TYPE)?;
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    ambient::write_file(dir, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    ambient::write_file(dir, "index.json", index.to_string().as_bytes())?;
    Ok(Digest::of(manifest.as_bytes()))
}
