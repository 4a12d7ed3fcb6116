//! What a tree takes on disk.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};

use cofferdam_core::error::Result;
use rustix::fs::{AtFlags, FileType, Mode, Stat};
use rustix::io::Errno;

use super::ids::{Ids, PathId};
use super::sweep::{Left, Sweep, Visitor};
use super::sys::{self, DIRECTORY};

/// Bytes in one of the blocks that a file's are counted in.
const BLOCK: u64 = 512;

/// The bytes on disk of `name` in `dir` with all that is in it, each file counted once however many names it has, as `du`
/// counts. Nothing there is 0 bytes; of what cannot be read, or goes away meanwhile, what was seen counts.
pub fn disk_usage(dir: impl AsFd, name: &[u8]) -> u64 {
    let dir = dir.as_fd();
    let Ok(Some(stat)) = sys::look(dir, name) else { return 0 };
    let mut measure = Measure { bytes: bytes_of(&stat), linked: HashSet::new() };
    if sys::kind_of(&stat) == FileType::Directory
        && let Ok(opened) = rustix::fs::openat(dir, name, DIRECTORY, Mode::empty())
    {
        let ids = Ids::default();
        let root = ids.root();
        if let Err(error) = Sweep::new(&ids, name).inside(opened, root, &mut measure) {
            tracing::debug!(%error, "a tree could not be measured to the end");
        }
    }
    measure.bytes
}

fn bytes_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(BLOCK)
}

struct Measure {
    bytes: u64,
    /// Files of several names that were counted.
    linked: HashSet<(u64, u64)>,
}

impl Measure {
    fn add(&mut self, dir: BorrowedFd<'_>, name: &[u8]) {
        let Ok(stat) = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else { return };
        let several = stat.st_nlink > 1 && sys::kind_of(&stat) != FileType::Directory;
        if !several || self.linked.insert(sys::inode_of(&stat)) {
            self.bytes = self.bytes.saturating_add(bytes_of(&stat));
        }
    }
}

impl Visitor for Measure {
    fn leaf(&mut self, dir: BorrowedFd<'_>, name: &[u8], _id: PathId, _kind: FileType) -> Result<()> {
        self.add(dir, name);
        Ok(())
    }

    fn enter(&mut self, _id: PathId) -> Result<bool> {
        Ok(true)
    }

    fn leave(&mut self, left: Left<'_>) -> Result<()> {
        self.add(left.parent, left.name);
        Ok(())
    }

    /// What is mounted in a tree is not of it.
    fn unopened(&mut self, _dir: BorrowedFd<'_>, _name: &[u8], _errno: Errno, _path: &[u8]) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_two_names_counts_once() {
        let temp = tempfile::tempdir().unwrap();
        let dir = cofferdam_core::ambient::open_dir(temp.path()).unwrap();
        dir.create_dir("tree").unwrap();
        let empty = disk_usage(&dir, b"tree");
        dir.write("tree/a", vec![1; 100_000]).unwrap();
        let one = disk_usage(&dir, b"tree");
        assert!(one >= empty + 100_000);
        dir.hard_link("tree/a", &dir, "tree/b").unwrap();
        assert_eq!(disk_usage(&dir, b"tree"), one);
        dir.create_dir("tree/below").unwrap();
        dir.write("tree/below/c", vec![1; 100_000]).unwrap();
        dir.symlink("c", "tree/below/d").unwrap();
        assert!(disk_usage(&dir, b"tree") >= one + 100_000);
        assert_eq!(disk_usage(&dir, b"tree/a"), disk_usage(&dir, b"tree/b"));
        assert_eq!(disk_usage(&dir, b"absent"), 0);
    }
}
