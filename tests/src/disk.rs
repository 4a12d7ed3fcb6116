//! Small file systems, mounted for one test. Needs root.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::registry::run;

/// A mounted file system, which is unmounted when this goes out of scope.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// A file system in memory with these options, such as `size=1m`.
    pub fn tmpfs(dir: &Path, options: &str) -> Result<Self> {
        run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir))?;
        Ok(Self(dir.to_path_buf()))
    }

    /// An ext4 of so many bytes in a file, by a loop device.
    pub fn ext4(dir: &Path, file: &Path, bytes: u64) -> Result<Self> {
        File::create(file)?.set_len(bytes)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-b", "1024"]).arg(file))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(file).arg(dir))?;
        Ok(Self(dir.to_path_buf()))
    }

    /// A directory once more in its own place, for reading only.
    pub fn read_only(dir: &Path) -> Result<Self> {
        run(Command::new("mount").arg("--bind").arg(dir).arg(dir))?;
        let mounted = Self(dir.to_path_buf());
        mounted.remount("bind,ro")?;
        Ok(mounted)
    }

    /// Changes its options.
    pub fn remount(&self, options: &str) -> Result<()> {
        run(Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: what a failed test left open must not keep it.
        if let Err(error) = run(Command::new("umount").arg("-l").arg(&self.0)) {
            eprintln!("cannot unmount {}: {error:#}", self.0.display());
        }
    }
}
