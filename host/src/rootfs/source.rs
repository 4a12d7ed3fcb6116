//! Reads one thing of a preserved tree: what the layer said it is, wherever the tree keeps that.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat};

use crate::error::{Error, Result};
use crate::tree::entry::{Device, Metadata};
use crate::tree::xattr::{self, Target};
use crate::tree::{Explain as _, HOLD, OverrideKind, OverrideStat, kind_of, stamp_of};

/// Something of a tree that is no directory.
pub(super) enum Thing {
    /// A regular file, open for reading.
    File(OwnedFd, Stat),
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// A device or a pipe.
    Special(FileType, Device),
}

/// Reads what lies at a name that is no directory.
pub(super) fn read(dir: &OwnedFd, name: &[u8], kind: FileType, path: &[u8]) -> Result<(Thing, Metadata)> {
    if kind == FileType::RegularFile {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir, name, flags, Mode::empty()).explain("open", path)?;
        let stat = rustix::fs::fstat(&file).explain("examine", path)?;
        if kind_of(&stat) != kind {
            return Err(Error::Busy { what: format!("`{}`", crate::error::Escaped(path)) });
        }
        let (metadata, kind) = metadata(Target::Open(file.as_fd()), &stat, path)?;
        let thing = match kind {
            Some(OverrideKind::Char(device)) => Thing::Special(FileType::CharacterDevice, device),
            Some(OverrideKind::Block(device)) => Thing::Special(FileType::BlockDevice, device),
            Some(OverrideKind::Pipe) => Thing::Special(FileType::Fifo, Device { major: 0, minor: 0 }),
            _ => Thing::File(file, stat),
        };
        return Ok((thing, metadata));
    }
    let held = rustix::fs::openat(dir, name, HOLD, Mode::empty()).explain("hold", path)?;
    let stat = rustix::fs::fstat(&held).explain("examine", path)?;
    let (metadata, _) = metadata(Target::Held(held.as_fd()), &stat, path)?;
    let thing = match kind_of(&stat) {
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(&held, "", Vec::new()).explain("read the link", path)?;
            Thing::Symlink(target.into_bytes())
        }
        kind @ (FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo) => {
            let device = Device { major: rustix::fs::major(stat.st_rdev), minor: rustix::fs::minor(stat.st_rdev) };
            Thing::Special(kind, device)
        }
        _ => return Err(Error::refused(path, "something that no layer makes is in its tree")),
    };
    Ok((thing, metadata))
}

/// Reads the metadata of an open directory.
pub(super) fn directory(dir: &OwnedFd, path: &[u8]) -> Result<Metadata> {
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
