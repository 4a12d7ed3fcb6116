//! A file system of its own for each layer's rounds.
//!
//! ext4 does not reuse an inode for minutes after it was deleted, and looks past all of them whenever a file is made: after
//! the destination of one run was removed, the next run of whatever tool pays seconds for it. So nothing is removed between
//! the runs; the file system they share is thrown away with all that is in it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::sh;

/// Bytes that the file system may hold; the file behind it is sparse.
const SIZE: u64 = 48 << 30;

/// A mounted ext4 in a file. Unmounted and removed when dropped.
pub(super) struct Disk {
    file: PathBuf,
    mount: PathBuf,
}

impl Disk {
    pub(super) fn new(work: &Path) -> Result<Self> {
        let disk = Self { file: work.join("disk.img"), mount: work.join("disk") };
        fs::create_dir_all(&disk.mount)?;
        File::create(&disk.file)?.set_len(SIZE)?;
        sh::run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk.file))?;
        sh::run(Command::new("mount").args(["-o", "loop"]).arg(&disk.file).arg(&disk.mount))?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub(super) fn path(&self) -> &Path {
        &self.mount
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.mount).status();
        let _ = fs::remove_file(&self.file);
    }
}
