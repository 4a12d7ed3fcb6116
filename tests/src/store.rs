//! A store seen from outside: what its directories hold, by the names of the store contract.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::layers;

/// Names of whole trees: under `extracted/`, and under the `extracted/` of each local layout.
pub fn trees(store: &Path) -> Result<Vec<String>> {
    let mut names = list(&store.join("extracted"))?;
    for bundle in list(&store.join("local"))? {
        names.extend(list(&store.join("local").join(bundle).join("extracted"))?);
    }
    names.retain(|name| is_digest(name));
    Ok(names)
}

/// Names under `layers/` that are whole blobs.
pub fn blobs(store: &Path) -> Result<Vec<String>> {
    let mut names = list(&store.join("layers"))?;
    names.retain(|name| name.strip_suffix(".tar.gz").is_some_and(is_digest));
    Ok(names)
}

/// Everything in the store that is still staged, wherever it is: `*.downloading`, `*.extracting`, `*.writing`.
pub fn staged(store: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    walk(store, &mut found)?;
    Ok(found)
}

/// Fails unless each blob under `layers/` hashes to its name.
pub fn ensure_blobs_are_whole(store: &Path) -> Result<()> {
    for name in blobs(store)? {
        let digest = layers::digest_of_file(&store.join("layers").join(&name))?;
        ensure!(name == format!("{}.tar.gz", digest.replace(':', "-")), "{name} holds {digest}");
    }
    Ok(())
}

/// Fails unless each manifest and configuration hashes to its name.
pub fn ensure_documents_are_whole(store: &Path) -> Result<()> {
    for room in ["manifests", "configs"] {
        for name in list(&store.join(room))? {
            let Some(stem) = name.strip_suffix(".json").filter(|stem| is_digest(stem)) else { continue };
            let digest = layers::digest_of_file(&store.join(room).join(&name))?;
            ensure!(stem == digest.replace(':', "-"), "{room}/{name} holds {digest}");
        }
    }
    Ok(())
}

/// Fails unless all that each reference needs is there: manifest, configuration, and each layer as a blob of the declared
/// size. Returns the digests of the references' manifests.
pub fn ensure_images_are_complete(store: &Path) -> Result<Vec<String>> {
    let json = |path: PathBuf| -> Result<Value> {
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("{} is no JSON", path.display()))
    };
    let stem = |digest: &Value| digest.as_str().unwrap_or_default().replace(':', "-");
    let mut manifests = Vec::new();
    for name in list(&store.join("refs"))? {
        if name.strip_suffix(".json").is_none() {
            continue;
        }
        let reference = json(store.join("refs").join(&name))?;
        let digest = &reference["manifest"];
        let manifest = json(store.join("manifests").join(format!("{}.json", stem(digest))))?;
        json(store.join("configs").join(format!("{}.json", stem(&manifest["config"]["digest"]))))?;
        for layer in manifest["layers"].as_array().context("a manifest without layers")? {
            let path = store.join("layers").join(format!("{}.tar.gz", stem(&layer["digest"])));
            let size = fs::metadata(&path).with_context(|| format!("{name} needs {}", path.display()))?.len();
            ensure!(layer["size"] == size, "{} has {size} bytes", path.display());
        }
        manifests.push(digest.as_str().unwrap_or_default().to_owned());
    }
    Ok(manifests)
}

/// The trees beside which there is a record, as paths.
pub fn recorded_trees(store: &Path) -> Result<Vec<PathBuf>> {
    let local = list(&store.join("local"))?;
    let rooms = local.iter().map(|bundle| store.join("local").join(bundle)).chain([store.to_path_buf()]);
    let mut trees = Vec::new();
    for room in rooms {
        let names = list(&room.join("extracted"))?.into_iter().filter(|name| is_digest(name));
        let recorded = names.filter(|name| room.join("records").join(format!("{name}.json")).exists());
        trees.extend(recorded.map(|name| room.join("extracted").join(name)));
    }
    Ok(trees)
}

/// Fails if a lock of a layer or a document was left for which nobody lives: all that stays are the store's own.
pub fn ensure_no_lock_is_left(store: &Path) -> Result<()> {
    let mut found = list(&store.join("locks"))?;
    found.retain(|name| name.contains("sha256-") || name.contains("sha512-"));
    ensure!(found.is_empty(), "left in locks/: {found:?}");
    Ok(())
}

/// Fails if anything is staged.
pub fn ensure_nothing_staged(store: &Path) -> Result<()> {
    let found = staged(store)?;
    ensure!(found.is_empty(), "left in the store: {found:?}");
    Ok(())
}

/// Fails unless a directory (the parent of a destination) holds exactly these names: staging left beside a destination
/// shows here.
pub fn ensure_holds(dir: &Path, names: &[&str]) -> Result<()> {
    let found = list(dir)?;
    ensure!(found == names, "{} holds {found:?}, not {names:?}", dir.display());
    Ok(())
}

/// The names in a directory, sorted; none if it does not exist.
pub fn list(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot list {}", dir.display()))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// `sha256-` and hex: the name of something whole.
fn is_digest(name: &str) -> bool {
    let hex = name.strip_prefix("sha256-").or_else(|| name.strip_prefix("sha512-"));
    hex.is_some_and(|hex| matches!(hex.len(), 64 | 128) && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for name in list(dir)? {
        let path = dir.join(&name);
        if name.ends_with(".downloading") || name.ends_with(".extracting") || name.ends_with(".writing") {
            found.push(path);
        } else if !is_digest(&name) && fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
            // Trees themselves are not entered: what an image calls its files is its own business.
            walk(&path, found)?;
        }
    }
    Ok(())
}
