//! Mounts of overlayfs, taken away again.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// An overlay of trees, read-only, unmounted at the end.
#[derive(Debug)]
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts trees, topmost first, at an empty directory. Nothing where mounting is not allowed.
    pub fn new(trees: &[PathBuf], at: PathBuf) -> Result<Option<Self>> {
        if !crate::require::is_root() {
            return Ok(None);
        }
        let lower: Vec<_> = trees.iter().map(|tree| tree.to_string_lossy()).collect();
        let options = format!("lowerdir={}", lower.join(":"));
        let output = Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&at).output()?;
        if !output.status.success() {
            bail!("cannot mount the overlay: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(Some(Self(at)))
    }

    /// Mounts what `mount-spec` printed.
    pub fn by(spec: &serde_json::Value, at: PathBuf) -> Result<Option<Self>> {
        let lower = spec["lower"].as_array().context("no lower directories")?;
        let lower: Option<Vec<_>> = lower.iter().map(|path| path.as_str().map(PathBuf::from)).collect();
        Self::new(&lower.context("a lower directory that is no path")?, at)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: whoever looks at all mounts of the machine may hold it for a moment.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
