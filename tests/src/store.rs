//! A store seen from outside: what its directories hold, by the names of the store contract.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

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
