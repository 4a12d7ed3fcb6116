//! Reads one thing of a preserved tree: what the layer said it is, wherever the tree keeps that.

use std::os::fd::{AsFd as _, OwnedFd};

use cofferdam_core::error::{Error, Result};
use rustix::fs::{FileType, Mode, OFlags, Stat};

use crate::entry::{Device, Metadata};
use crate::xattr::{self, Target};
use crate::{Explain as _, HOLD, OverrideKind, OverrideStat, kind_of, stamp_of};

/// Something of a tree that is no directory, and what it is in the file system.
pub(super) struct Source {
    handle: OwnedFd,
    /// What the file system says about it.
    pub(super) stat: Stat,
}

/// What it is in the layer.
pub(super) enum Thing {
    /// A regular file, open for reading.
    File(OwnedFd),
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// A device or a pipe.
    Special(FileType, Device),
}

impl Source {
    /// Takes hold of what lies at a name. Only regular files are opened.
    pub(super) fn open(dir: &OwnedFd, name: &[u8], kind: FileType, path: &[u8]) -> Result<Self> {
        let reading = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let flags = if kind == FileType::RegularFile { reading } else { HOLD };
        let handle = rustix::fs::openat(dir, name, flags, Mode::empty()).explain("open", path)?;
        let stat = rustix::fs::fstat(&handle).explain("examine", path)?;
        if kind_of(&stat) == kind {
            return Ok(Self { handle, stat });
        }
        Err(Error::Busy { what: format!("`{}`", cofferdam_core::error::Escaped(path)) })
    }

    /// Reads what the layer said.
    pub(super) fn read(self, path: &[u8]) -> Result<(Thing, Metadata)> {
        let Self { handle, stat } = self;
        let kind = kind_of(&stat);
        let target = match kind {
            FileType::RegularFile => Target::Open(handle.as_fd()),
            _ => Target::Held(handle.as_fd()),
        };
        let (metadata, recorded) = metadata(target, &stat, path)?;
        let thing = match (kind, recorded) {
            (_, Some(OverrideKind::Char(device))) => Thing::Special(FileType::CharacterDevice, device),
            (_, Some(OverrideKind::Block(device))) => Thing::Special(FileType::BlockDevice, device),
            (_, Some(OverrideKind::Pipe)) => Thing::Special(FileType::Fifo, Device { major: 0, minor: 0 }),
            (FileType::RegularFile, _) => Thing::File(handle),
            (FileType::Symlink, _) => {
                let link = rustix::fs::readlinkat(&handle, "", Vec::new()).explain("read the link", path)?;
                Thing::Symlink(link.into_bytes())
            }
            (FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo, _) => {
                let device = Device { major: rustix::fs::major(stat.st_rdev), minor: rustix::fs::minor(stat.st_rdev) };
                Thing::Special(kind, device)
            }
            _ => return Err(Error::refused(path, "something that no layer makes is in its tree")),
        };
        Ok((thing, metadata))
    }
}

/// Reads the metadata of an open directory.
pub fn directory(dir: &OwnedFd, path: &[u8]) -> Result<Metadata> {
    let stat = rustix::fs::fstat(dir).explain("examine", path)?;
    metadata(Target::Open(dir.as_fd()), &stat, path).map(|(metadata, _)| metadata)
}

/// Metadata as the layer said it; from the record beside the file if there is one.
fn metadata(target: Target<'_>, stat: &Stat, path: &[u8]) -> Result<(Metadata, Option<OverrideKind>)> {
    let xattrs = xattr::read_all(target, path)?;
    let recorded = match target {
        Target::Open(fd) if xattrs.iter().any(|x| xattr::is_reserved(&x.name)) => OverrideStat::read(fd)?,
        _ => None,
    };
    let (mode, uid, gid) = match recorded {
        Some(recorded) => (recorded.mode, recorded.uid, recorded.gid),
        None => (u16::try_from(stat.st_mode & 0o7777).unwrap_or(0), stat.st_uid, stat.st_gid),
    };
    let metadata = Metadata { mode, uid, gid, mtime: stamp_of(stat), xattrs };
    Ok((metadata, recorded.map(|recorded| recorded.kind)))
}
