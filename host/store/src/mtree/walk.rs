//! Walks a tree by directory handles. One is open at a time, whatever the depth: the way back up is `..`, and what is found
//! there must be the directory that was come from.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use cofferdam_core::error::{Error, Escaped, Result};
use cofferdam_tree::{Explain as _, kind_of};
use rustix::fs::{AtFlags, Mode, OFlags, Stat};

use super::names::Names;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The longest path that is walked, in bytes. No layer's limits let one be nearly as long.
const LONGEST: usize = 1 << 20;

/// What is told of a tree.
pub(super) trait Visitor {
    /// An entry, each directory before what is in it.
    fn entry(&mut self, found: &Found<'_>) -> Result<()>;

    /// A directory whose content cannot be read.
    fn failed(&mut self, path: &[u8], error: Error) -> Result<()>;
}

/// An entry of a tree: a name in an open directory.
pub(super) struct Found<'a> {
    /// The directory; for the root of the tree, itself.
    pub(super) dir: BorrowedFd<'a>,
    /// Its name there; for the root of the tree, empty.
    pub(super) name: &'a [u8],
    /// Its path from the root, which is empty for the root.
    pub(super) path: &'a [u8],
    pub(super) stat: Stat,
}

/// A directory that is being walked.
struct Level {
    names: Names,
    inode: (u64, u64),
    /// The length of its path.
    path: usize,
}

/// Shows all of a tree.
pub(super) fn walk(root: BorrowedFd<'_>, visitor: &mut dyn Visitor) -> Result<()> {
    let mut path = Vec::new();
    let stat = rustix::fs::fstat(root).explain("look at", b"")?;
    visitor.entry(&Found { dir: root, name: b"", path: b"", stat })?;
    // A handle of its own: reading moves the position.
    let mut dir = rustix::fs::openat(root, c".", DIRECTORY, Mode::empty()).explain("open", b"")?;
    let mut levels = vec![Level { names: Names::of(dir.as_fd(), b"")?, inode: inode(&stat), path: 0 }];
    while let Some(level) = levels.last_mut() {
        path.truncate(level.path);
        if level.path > 0 {
            path.push(b'/');
        }
        let start = path.len();
        if !level.names.next_onto(&mut path) {
            path.truncate(level.path);
            levels.pop();
            if let Some(parent) = levels.last() {
                dir = up(&dir, parent.inode, &path)?;
            }
            continue;
        }
        if path.len() > LONGEST {
            return Err(Error::refused(&path, "it is too deep to be checked"));
        }
        let name = path.get(start..).unwrap_or_default();
        let stat = match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).explain("look at", &path) {
            Ok(stat) => stat,
            Err(error) => {
                visitor.failed(&path, error)?;
                continue;
            }
        };
        visitor.entry(&Found { dir: dir.as_fd(), name, path: &path, stat })?;
        if kind_of(&stat).is_dir() {
            match enter(&dir, name, &stat, level.inode.0, &path) {
                Ok((child, names)) => {
                    levels.push(Level { names, inode: inode(&stat), path: path.len() });
                    dir = child;
                }
                Err(error) => visitor.failed(&path, error)?,
            }
        }
    }
    Ok(())
}

fn enter(dir: &OwnedFd, name: &[u8], seen: &Stat, device: u64, path: &[u8]) -> Result<(OwnedFd, Names)> {
    let child = rustix::fs::openat(dir, name, DIRECTORY, Mode::empty()).explain("open", path)?;
    let stat = rustix::fs::fstat(&child).explain("look at", path)?;
    if inode(&stat) != inode(seen) {
        return Err(changed(path));
    }
    if stat.st_dev != device {
        return Err(Error::refused(path, "something is mounted there"));
    }
    let names = Names::of(child.as_fd(), path)?;
    Ok((child, names))
}

fn up(dir: &OwnedFd, expected: (u64, u64), path: &[u8]) -> Result<OwnedFd> {
    let parent = rustix::fs::openat(dir, c"..", DIRECTORY, Mode::empty()).explain("leave", path)?;
    let stat = rustix::fs::fstat(&parent).explain("look at", path)?;
    if inode(&stat) == expected { Ok(parent) } else { Err(changed(path)) }
}

fn changed(path: &[u8]) -> Error {
    Error::Busy { what: format!("`{}`, which was moved meanwhile,", Escaped(path)) }
}

pub(super) fn inode(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}
