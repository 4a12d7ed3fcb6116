//! Who may look into a store.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use cofferdam_tests::layers::{self, Item};
use cofferdam_tests::{Cofferdam, require, store};

use super::Bench;

/// The directories of a store, but for what is inside of trees: their own directory closes those to others.
fn directories(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    found.push(dir.to_path_buf());
    for name in store::list(dir)? {
        let path = dir.join(name);
        if fs::symlink_metadata(&path)?.is_dir() {
            if dir.file_name().is_some_and(|name| name == "extracted") {
                found.push(path);
            } else {
                directories(&path, found)?;
            }
        }
    }
    Ok(())
}

#[test]
fn cve_2021_41091_cve_2024_25621_directories_of_the_store_are_private() -> Result<()> {
    require!("root", "gzip");
    let mut bench = Bench::new()?;
    let layer = bench.layout.add_gzip(&layers::tar(&[Item::Dir("d/"), Item::File("d/f", b"x".to_vec())])?)?;
    bench.layout.add_image("v1", &[layer])?;
    let image = bench.layout.source("v1");
    let open = Cofferdam::new(bench.cofferdam.store())?.by(&["sh", "-c", "umask 000; exec \"$@\"", "sh"]);
    let ensure_private = |when: &str, skipped: usize| -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        directories(bench.cofferdam.store(), &mut found)?;
        // The store's own directory is closed if the store made it: one that was there is its owner's business.
        for dir in found.iter().skip(skipped) {
            let mode = fs::metadata(dir)?.permissions().mode() & 0o7777;
            let tree = dir.parent().and_then(Path::file_name).is_some_and(|name| name == "extracted");
            // A tree's root has the mode that the image gives it: what is above closes it.
            ensure!(tree || mode == 0o700, "{when}: {} has {mode:o}", dir.display());
        }
        ensure!(found.len() > 5, "{when}: only {found:?}");
        Ok(found)
    };
    open.ok(["pull", &image])?;
    open.ok(["unpack", &image, &bench.path("out/dest")])?;
    let found = ensure_private("made without a umask", 0)?;
    ensure!(found.iter().any(|dir| dir.ends_with("extracted")), "no trees: {found:?}");
    // A store of another program's, or of an older version's, is closed when it is opened.
    for dir in ["", "manifests", "configs", "layers", "extracted"] {
        fs::set_permissions(bench.cofferdam.store().join(dir), Permissions::from_mode(0o755))?;
    }
    open.ok(["gc"])?;
    ensure_private("opened again", 1).map(drop)
}
