//! A directory for one test, on the same file system as the images, gone at the end.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::paths;

/// A directory that is removed when it goes out of scope, unless `COFFERDAM_KEEP` is set.
#[derive(Debug)]
pub struct Scratch(Option<TempDir>);

impl Scratch {
    /// Creates an empty directory in [`paths::scratch`] (and not in `/tmp`, which may be a tmpfs: that knows fewer attributes).
    pub fn new() -> Result<Self> {
        Self::new_in(&paths::scratch())
    }

    /// A new, empty directory in another one, which is made if it is missing.
    pub fn new_in(base: &Path) -> Result<Self> {
        fs::create_dir_all(base).with_context(|| format!("cannot create {}", base.display()))?;
        let dir = TempDir::with_prefix_in("t-", base).with_context(|| format!("no scratch in {}", base.display()))?;
        Ok(Self(Some(dir)))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.0.as_ref().map_or(Path::new(""), TempDir::path)
    }

    /// A path inside.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// A new directory inside.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(dir) = self.0.take() else { return };
        if std::env::var_os("COFFERDAM_KEEP").is_some() {
            eprintln!("kept: {}", dir.keep().display());
        } else {
            remove_tree(dir.path());
        }
    }
}

/// Removes a tree, also one with directories that their owner may not write to. Failing to is no reason to fail a test.
pub fn remove_tree(path: &Path) {
    if fs::remove_dir_all(path).is_err() {
        open_up(path);
        let _ = fs::remove_dir_all(path);
    }
}

fn open_up(dir: &Path) {
    let _ = fs::set_permissions(dir, Permissions::from_mode(0o700));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}
