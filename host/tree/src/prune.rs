//! Removes from a directory what lower layers put there, and keeps what the layer at work has.
//!
//! Each directory is walked once a layer: afterwards it is *fresh* (it holds nothing of lower layers) and further markers
//! for it or anything inside cost nothing. So the work is linear in what is there, however many markers there are
//! (CVE-2026-95838).

use std::os::fd::{AsFd as _, BorrowedFd};

use cofferdam_core::error::Result;
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::entry::Metadata;
use super::handle::Dir;
use super::ids::{IdSet, PathId};
use super::metadata::{IMPLIED, Owners, UNLISTED};
use super::mounts;
use super::sweep::{Left, Sweep, Visitor};
use super::sys::{self, Explain as _, join, open_directory};
use super::times::Budget;
use super::writer::TreeWriter;

impl TreeWriter {
    /// Removes what lower layers put into a directory, which stays.
    pub(super) fn prune(&mut self, dir: &Dir) -> Result<()> {
        if self.own.is_none() || self.is_within_fresh(dir) {
            return Ok(());
        }
        self.note(dir)?;
        let Self { own: Some(own), fresh, ids, owners, budget, strict, options, .. } = self else { return Ok(()) };
        let cancel = Some(&options.cancel);
        mounts::check(dir.as_fd(), &dir.path, ids, dir.id, Some(fresh), cancel)?;
        let mut pruning = Prune {
            own,
            fresh,
            owners,
            budget,
            path: &dir.path,
            watch_links: strict.is_some(),
            kept: Vec::new(),
            links: Vec::new(),
            removed_any: false,
            visited: 0,
        };
        Sweep::new(ids, &dir.path).unless(cancel).inside(dir, dir.id, &mut pruning)?;
        let Prune { kept, links, removed_any, visited, .. } = pruning;
        self.visited += visited;
        self.watch_links(&links, &dir.path)?;
        if removed_any {
            self.cache.forget_within(&dir.path);
        }
        for (id, path) in kept {
            self.set_due(id, &join(&dir.path, &path), UNLISTED)?;
        }
        self.fresh.insert(dir.id);
        Ok(())
    }

    /// A lower directory whose removal left the layer's own content inside: it is now what that content implies.
    pub(super) fn disown(&mut self, dir: &Dir) -> Result<()> {
        self.owners.restamp(&dir.fd, &implied(), &dir.path)?;
        if let Some(own) = &mut self.own {
            own.insert(dir.id);
        }
        self.fresh.insert(dir.id);
        self.set_due(dir.id, &dir.path, UNLISTED)
    }

    /// Whether a directory, or one that it lies in, holds nothing of lower layers.
    fn is_within_fresh(&self, dir: &Dir) -> bool {
        let mut id = self.ids.root();
        let mut fresh = self.fresh.contains(&id);
        for name in dir.path.split(|&b| b == b'/').filter(|name| !name.is_empty()) {
            id = self.ids.child(id, name);
            fresh |= self.fresh.contains(&id);
        }
        fresh
    }
}

fn implied() -> Metadata {
    Metadata { mode: IMPLIED, mtime: UNLISTED, ..Metadata::default() }
}

struct Prune<'a> {
    own: &'a mut IdSet,
    fresh: &'a mut IdSet,
    owners: &'a Owners,
    /// Pays for what is kept: one deep entry of the layer's own keeps many lower directories.
    budget: &'a mut Budget,
    path: &'a [u8],
    watch_links: bool,
    /// Lower directories that stay because something of the layer's own lies in them.
    kept: Vec<(PathId, Vec<u8>)>,
    /// Symbolic links that were removed, if anybody wants to know.
    links: Vec<PathId>,
    removed_any: bool,
    /// Things that were looked at.
    visited: u64,
}

impl Visitor for Prune<'_> {
    fn leaf(&mut self, dir: BorrowedFd<'_>, name: &[u8], id: PathId, kind: FileType) -> Result<()> {
        self.visited += 1;
        if self.own.contains(&id) {
            return Ok(());
        }
        if self.watch_links && kind == FileType::Symlink {
            self.links.push(id);
        }
        self.removed_any = true;
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(sys::failed("remove something in", self.path, errno)),
        }
    }

    fn enter(&mut self, id: PathId) -> Result<bool> {
        Ok(!self.fresh.contains(&id))
    }

    fn leave(&mut self, left: Left<'_>) -> Result<()> {
        self.visited += 1;
        if self.own.contains(&left.id) {
            self.fresh.insert(left.id);
            return Ok(());
        }
        match rustix::fs::unlinkat(left.parent, left.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {
                self.removed_any = true;
                Ok(())
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                let fd = open_directory(left.parent, left.name).explain("open a directory in", self.path)?;
                self.owners.restamp(&fd, &implied(), self.path)?;
                self.own.insert(left.id);
                self.fresh.insert(left.id);
                let path = left.path();
                self.budget.charge(&path)?;
                self.kept.push((left.id, path));
                Ok(())
            }
            Err(errno) => Err(sys::failed("remove something in", self.path, errno)),
        }
    }
}
