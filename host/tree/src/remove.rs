//! Removes a tree, however deep, wide or closed to its owner.

use std::os::fd::{AsFd, BorrowedFd};

use cofferdam_core::cancel::Cancel;
use cofferdam_core::error::Result;
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::ids::{IdSet, Ids, PathId};
use super::mounts::{self, open_within};
use super::strict::ambiguous;
use super::sweep::{Left, Sweep, Visitor};
use super::sys::{self, Explain as _};

/// Removes `name` in `dir` with all that is in it; a link is removed and not followed. Nothing there is no error.
///
/// Needs neither stack nor path length in the tree's depth, and opens directories that their modes close to the owner.
///
/// # Errors
///
/// [`Error::Mounted`](cofferdam_core::Error::Mounted) if something is mounted on it or inside of it; then nothing was touched.
pub fn remove_tree(dir: impl AsFd, name: &[u8]) -> Result<()> {
    remove_tree_unless(dir, name, None)
}

/// Does the same until it is given up, which leaves part of the tree.
pub fn remove_tree_unless(dir: impl AsFd, name: &[u8], cancel: Option<&Cancel>) -> Result<()> {
    let ids = Ids::default();
    let root = ids.root();
    remove(dir, name, name, &ids, root, None, cancel)
}

/// Removes what lies at a place. A merge watches what that is.
pub(super) fn remove(
    dir: impl AsFd,
    name: &[u8],
    path: &[u8],
    ids: &Ids,
    id: PathId,
    mut watch: Option<&mut Watch<'_>>,
    cancel: Option<&Cancel>,
) -> Result<()> {
    let dir = dir.as_fd();
    for _ in 0..sys::RETRIES {
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // POSIX has EPERM for directories.
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(errno) => return Err(sys::failed("remove", path, errno)),
        }
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ACCESS) => {}
            // It is no directory any more.
            Err(Errno::NOTDIR) => continue,
            Err(errno) => return Err(sys::failed("remove", path, errno)),
        }
        empty(dir, name, path, ids, id, watch.as_deref_mut(), cancel)?;
    }
    Err(sys::contended(path))
}

fn empty(
    dir: BorrowedFd<'_>,
    name: &[u8],
    path: &[u8],
    ids: &Ids,
    id: PathId,
    watch: Option<&mut Watch<'_>>,
    cancel: Option<&Cancel>,
) -> Result<()> {
    let opened = match sys::open_directory(dir, name) {
        Err(Errno::ACCESS) => {
            let held = open_within(dir, name, sys::HOLD).explain("hold", path)?;
            rustix::fs::chmod(sys::through_proc(held), rustix::fs::Mode::RWXU).explain("open up", path)?;
            sys::open_directory(dir, name)
        }
        other => other,
    };
    match opened {
        Ok(fd) => {
            // All of it before the first thing goes.
            mounts::check(fd.as_fd(), path, ids, id, None, cancel)?;
            Sweep::new(ids, path).unless(cancel).inside(fd, id, &mut Remove { path, watch })
        }
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
        Err(errno) => Err(sys::failed("open", path, errno)),
    }
}

/// What a merge wants to know about a removal.
pub(super) struct Watch<'a> {
    /// What must not be among what is removed.
    pub(super) own: Option<&'a IdSet>,
    /// The symbolic links that were.
    pub(super) links: Vec<PathId>,
}

struct Remove<'a, 'w> {
    path: &'a [u8],
    watch: Option<&'a mut Watch<'w>>,
}

impl Remove<'_, '_> {
    fn unlink(&self, dir: BorrowedFd<'_>, name: &[u8], id: PathId, flags: AtFlags) -> Result<()> {
        if self.watch.as_ref().and_then(|watch| watch.own).is_some_and(|own| own.contains(&id)) {
            return Err(ambiguous(self.path));
        }
        match rustix::fs::unlinkat(dir, name, flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // Somebody keeps filling it: the caller tries again.
            Err(Errno::NOTEMPTY | Errno::EXIST) if flags == AtFlags::REMOVEDIR => Ok(()),
            Err(errno) => Err(sys::failed("remove something in", self.path, errno)),
        }
    }
}

impl Visitor for Remove<'_, '_> {
    fn leaf(&mut self, dir: BorrowedFd<'_>, name: &[u8], id: PathId, kind: FileType) -> Result<()> {
        if let Some(watch) = &mut self.watch
            && kind == FileType::Symlink
        {
            watch.links.push(id);
        }
        self.unlink(dir, name, id, AtFlags::empty())
    }

    fn enter(&mut self, _id: PathId) -> Result<bool> {
        Ok(true)
    }

    fn leave(&mut self, left: Left<'_>) -> Result<()> {
        self.unlink(left.parent, left.name, left.id, AtFlags::REMOVEDIR)
    }

    fn may_widen(&self) -> bool {
        true
    }
}
