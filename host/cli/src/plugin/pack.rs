//! `plugin pack`: a component and its manifest as one file, or as an artifact in an OCI layout.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use cofferdam::plugin::World;
use cofferdam::registry::{COMPONENT_TYPE, CONFIG_TYPE};
use cofferdam::{Digest, ambient};
use serde_json::{Value, json};

use super::source::{Found, Source};
use crate::args::AccessArgs;
use crate::failure::{Failure, usage};
use crate::output;
use crate::session::{Session, shown};

pub(crate) fn run(session: &Session, plugin: &Path, target: &str) -> Result<(), Failure> {
    let source = Source::File(plugin.to_owned());
    let made = match layout_of(target) {
        Some((directory, _)) => directory,
        None => parent_of(Path::new(target)),
    };
    session.wall()?.read(plugin)?.make(made)?.enforce()?;
    let found = source.read(session, &AccessArgs::default())?;
    let digest = Digest::of(&found.component);
    let (path, manifest) = if let Some((directory, tag)) = layout_of(target) {
        let manifest = into_layout(session, &found, directory, tag)?;
        (directory.to_owned(), Some(manifest))
    } else {
        let path = PathBuf::from(target);
        let name = path.file_name().and_then(OsStr::to_str);
        let name = name.ok_or_else(|| usage(format!("{target:?} names no file"), None))?;
        ambient::write_file(parent_of(&path), name, &found.component)?;
        (path, None)
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

/// The directory and the tag of a target that is a layout.
fn layout_of(target: &str) -> Option<(&Path, &str)> {
    let layout = target.strip_prefix("oci:")?;
    let (directory, tag) = match layout.rsplit_once(':') {
        Some((directory, tag)) if !tag.contains('/') => (directory, tag),
        _ => (layout, "latest"),
    };
    Some((Path::new(directory), tag))
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}

/// Writes a layout that holds one artifact: the plugin. Gives the digest of its manifest.
fn into_layout(session: &Session, plugin: &Found, dir: &Path, tag: &str) -> Result<Digest, Failure> {
    const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
    if !ambient::is_absent_or_empty(dir)? {
        let hint = "give the name of a directory that is absent or empty";
        return Err(usage(format!("{} holds something", shown(dir)), Some(hint.into())));
    }
    let Found { component, manifest, .. } = plugin;
    let interfaces = session.unpacker()?.sandbox().interfaces(&manifest.name, component)?;
    let config = json!({
        // Nothing that is the same differs: an artifact has one digest, whenever it is made.
        "created": "1970-01-01T00:00:00Z",
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [Digest::of(component)],
        "component": {
            "exports": interfaces.exports,
            "imports": interfaces.imports,
            "target": format!("cofferdam:layer/{}@{}", manifest.world, World::VERSION),
        },
    });
    let blobs = dir.join("blobs/sha256");
    let part = |bytes: &[u8], media_type: &str| -> Result<Value, Failure> {
        let digest = Digest::of(bytes);
        ambient::write_file(&blobs, digest.hex(), bytes)?;
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
    };
    let document = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": part(config.to_string().as_bytes(), CONFIG_TYPE)?,
        "layers": [part(component, COMPONENT_TYPE)?],
        "annotations": {
            "org.opencontainers.image.title": manifest.name,
            "org.opencontainers.image.version": manifest.version,
            "org.opencontainers.image.description": manifest.description,
        },
    })
    .to_string();
    let mut entry = part(document.as_bytes(), MANIFEST_TYPE)?;
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    ambient::write_file(dir, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    ambient::write_file(dir, "index.json", index.to_string().as_bytes())?;
    Ok(Digest::of(document.as_bytes()))
}
