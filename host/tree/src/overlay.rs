//! Markers in the form of overlayfs: a removal is a character device numbered 0:0, a directory that hides what is below it
//! has an attribute. Source: the kernel's `Documentation/filesystems/overlayfs.rst`, "whiteouts and opaque directories".
//!
//! A layer's own content beats a removal at its path. A directory that is removed below and has own content is opaque. Inside
//! of an opaque directory nothing further is removed, whichever came first: what turns out to be too much is taken away
//! when the layer ends.

use std::os::fd::{AsFd, BorrowedFd};

use cofferdam_core::error::{Error, Result};
use rustix::fs::{AtFlags, FileType, Mode as Permissions, XattrFlags};
use rustix::io::Errno;

use super::entry::Metadata;
use super::handle::{Dir, Spot};
use super::ids::{IdMap, IdSet, PathId};
use super::metadata::{Owners, UNLISTED};
use super::sweep::{Left, Sweep, Visitor};
use super::sys::{self, Explain as _, is_whiteout_device, open_directory, split};
use super::writer::TreeWriter;

/// The attribute of an opaque directory, for mounts by root and for mounts in a user namespace (`userxattr`).
const ATTRIBUTES: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// An opaque directory.
#[derive(Debug)]
pub(super) struct Opaque {
    path: Box<[u8]>,
    /// Whether the directory itself is removed below, so that it is to be there only for own content.
    removed: bool,
}

impl TreeWriter {
    /// Makes a removal, unless the layer itself has something there.
    pub(super) fn make_whiteout(&mut self, spot: &Spot<'_>) -> Result<()> {
        self.note(&spot.dir)?;
        match whiteout(&spot.dir, spot.name) {
            Ok(()) => self.stamp_whiteout(spot),
            Err(Errno::EXIST) => match open_directory(&spot.dir, spot.name) {
                Ok(fd) => {
                    let place = self.place(&spot.dir, spot.name, spot.path)?;
                    self.make_opaque(&Dir::new(fd, place, spot.id), true)
                }
                Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => Ok(()),
                Err(errno) => Err(sys::failed("open", spot.path, errno)),
            },
            Err(errno) => Err(sys::failed("create", spot.path, errno)),
        }
    }

    fn stamp_whiteout(&self, spot: &Spot<'_>) -> Result<()> {
        self.stamp_made(spot, &Metadata { mtime: UNLISTED, ..Metadata::default() }, FileType::CharacterDevice, 0)
    }

    /// Makes a directory hide what is below it.
    pub(super) fn make_opaque(&mut self, dir: &Dir, removed: bool) -> Result<()> {
        if let Some(opaque) = self.opaque.get_mut(&dir.id) {
            opaque.removed |= removed;
            // It may be another directory by now.
            return set_opaque(dir, &self.owners, &dir.path);
        }
        self.budget.charge(&dir.path)?;
        self.opaque.insert(dir.id, Opaque { path: dir.path.clone(), removed });
        set_opaque(dir, &self.owners, &dir.path)
    }

    /// Takes away what opaque directories make superfluous.
    pub(super) fn settle_overlay(&mut self) -> Result<()> {
        let mut all: Vec<(PathId, Box<[u8]>, bool)> =
            self.opaque.iter().map(|(id, opaque)| (*id, opaque.path.clone(), opaque.removed)).collect();
        all.sort_unstable_by(|a, b| a.1.cmp(&b.1));
        for (id, path, removed) in all {
            if !self.is_outermost(&path) {
                continue;
            }
            let Some(dir) = self.open_resolved(&path)? else { continue };
            let Self { ids, opaque, marker_ids, options, .. } = &*self;
            Sweep::new(ids, &path).unless(Some(&options.cancel)).inside(
                &*dir,
                id,
                &mut Clean { opaque, marker_ids, path: &path },
            )?;
            if removed && marker_ids.contains(&id) {
                self.turn_into_whiteout(&path)?;
            }
        }
        Ok(())
    }

    /// Whether no directory around this one is opaque.
    fn is_outermost(&self, path: &[u8]) -> bool {
        let mut id = self.ids.root();
        let mut outermost = true;
        for name in path.split(|&b| b == b'/').filter(|name| !name.is_empty()) {
            outermost &= !self.opaque.contains_key(&id);
            id = self.ids.child(id, name);
        }
        outermost
    }

    /// Replaces a directory that only markers had made, and that is removed itself.
    fn turn_into_whiteout(&mut self, path: &[u8]) -> Result<()> {
        let (parent, name) = split(path);
        let Some(dir) = self.open_resolved(parent)? else { return Ok(()) };
        match rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR) {
            Ok(()) => {
                self.cache.forget_within(path);
                let spot = Spot { id: self.ids.child(dir.id, name), dir, name, path };
                whiteout(&spot.dir, name).explain("create", path)?;
                self.stamp_whiteout(&spot)
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            Err(errno) => Err(sys::failed("remove", path, errno)),
        }
    }
}

/// Makes the device. The kernel lets everybody make this one.
fn whiteout(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<()> {
    rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Permissions::empty(), 0)
}

fn set_opaque(dir: &Dir, owners: &Owners, path: &[u8]) -> Result<()> {
    let [trusted, user] = ATTRIBUTES;
    let set = |name: &str| rustix::fs::fsetxattr(dir, name, b"y", XattrFlags::empty());
    let done = if owners.are_recorded() {
        set(user)
    } else {
        // Root of a user namespace may not.
        match set(trusted) {
            Err(Errno::PERM) => set(user),
            other => other,
        }
    };
    done.map_err(|errno| Error::io("mark as opaque", path, errno))
}

/// Removes whiteouts, nested marks and directories made for markers.
struct Clean<'a> {
    opaque: &'a IdMap<Opaque>,
    marker_ids: &'a IdSet,
    path: &'a [u8],
}

impl Visitor for Clean<'_> {
    fn leaf(&mut self, dir: BorrowedFd<'_>, name: &[u8], _id: PathId, kind: FileType) -> Result<()> {
        let ours = kind == FileType::CharacterDevice
            && sys::look(dir, name).explain("examine something in", self.path)?.is_some_and(|s| is_whiteout_device(&s));
        if ours {
            rustix::fs::unlinkat(dir, name, AtFlags::empty()).explain("remove something in", self.path)?;
        }
        Ok(())
    }

    fn enter(&mut self, _id: PathId) -> Result<bool> {
        Ok(true)
    }

    fn leave(&mut self, left: Left<'_>) -> Result<()> {
        if self.marker_ids.contains(&left.id) {
            match rustix::fs::unlinkat(left.parent, left.name, AtFlags::REMOVEDIR) {
                Ok(()) => return Ok(()),
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(errno) => return Err(sys::failed("remove something in", self.path, errno)),
            }
        }
        if self.opaque.contains_key(&left.id) {
            let fd = open_directory(left.parent, left.name).explain("open a directory in", self.path)?;
            for name in ATTRIBUTES {
                match rustix::fs::fremovexattr(&fd, name) {
                    Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => {}
                    Err(errno) => return Err(sys::failed("unmark", self.path, errno)),
                }
            }
        }
        Ok(())
    }
}
