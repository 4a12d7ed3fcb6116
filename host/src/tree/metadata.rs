//! Owner, mode, attributes and times, set on what was made and never on what a name leads to.
//!
//! The order: owner first, since giving a file away takes its set-uid bit and its capabilities; then mode, attributes,
//! times. When owners are only recorded, the record comes before the mode is narrowed.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use super::entry::{Metadata, Timestamp};
use super::options::Ownership;
use super::override_stat::{OverrideKind, OverrideStat};
use super::sys::{Explain as _, kind_of, through_proc};
use super::xattr::{self, Target};
use crate::error::{Error, Result};

/// The time of what no layer lists: directories that are only implied, and markers. The same on every path to a tree.
pub(super) const UNLISTED: Timestamp = Timestamp { seconds: 0, nanoseconds: 0 };

/// The permissions of a directory that is only implied.
pub(super) const IMPLIED: u16 = 0o755;

/// Returns true if [`Ownership::Auto`] means [`Ownership::Real`] for this process in this directory.
pub(crate) fn keeps_owners(dir: impl AsFd) -> bool {
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(dir, ".", flags, Mode::empty()) else { return true };
    // Root of a user namespace with a single id cannot give files away.
    rustix::fs::fchown(file, Some(Uid::from_raw(1)), Some(Gid::from_raw(1))).is_ok()
}

/// Where owners go, decided: [`Ownership`] without `Auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owners {
    Real,
    Recorded,
}

impl Owners {
    /// Decides what [`Ownership::Auto`] means here, by giving away a file that has no name.
    pub(super) fn decide(ownership: Ownership, root: &OwnedFd) -> Self {
        match ownership {
            Ownership::Real => Self::Real,
            Ownership::Recorded => Self::Recorded,
            Ownership::Auto if keeps_owners(root) => Self::Real,
            Ownership::Auto => Self::Recorded,
        }
    }

    /// The permissions to create a file or directory with: what it will have, as far as creation can give it.
    pub(super) fn initial_mode(self, kind: OverrideKind, mode: u16) -> Mode {
        match (self, kind) {
            (Self::Real, _) => Mode::from_raw_mode((mode & 0o777).into()),
            (Self::Recorded, OverrideKind::Directory) => Mode::from_raw_mode(0o700),
            (Self::Recorded, _) => Mode::from_raw_mode(0o600),
        }
    }

    /// Gives an open file or directory its metadata, but for times.
    pub(super) fn stamp(self, fd: impl AsFd, metadata: &Metadata, kind: OverrideKind, path: &[u8]) -> Result<()> {
        self.own(&fd, metadata, path)?;
        xattr::set_all(Target::Open(fd.as_fd()), &metadata.xattrs, self == Self::Real, path)?;
        self.record(fd, metadata, kind, path)
    }

    /// The same for a directory that was there: what it had before is gone.
    pub(super) fn restamp(self, fd: impl AsFd, metadata: &Metadata, path: &[u8]) -> Result<()> {
        self.own(&fd, metadata, path)?;
        xattr::replace_all(&fd, &metadata.xattrs, self == Self::Real, path)?;
        self.record(fd, metadata, OverrideKind::Directory, path)
    }

    fn own(self, fd: impl AsFd, metadata: &Metadata, path: &[u8]) -> Result<()> {
        if self == Self::Recorded {
            return Ok(());
        }
        let stat = rustix::fs::fstat(&fd).explain("examine", path)?;
        let given = (stat.st_uid, stat.st_gid) != (metadata.uid, metadata.gid);
        if given {
            let (uid, gid) = owner(metadata, path)?;
            rustix::fs::fchown(&fd, Some(uid), Some(gid)).explain("set the owner of", path)?;
        }
        let mode = u32::from(metadata.mode & 0o7777);
        if stat.st_mode & 0o7777 != mode || (given && mode & 0o6000 != 0) {
            rustix::fs::fchmod(fd, Mode::from_raw_mode(mode)).explain("set the mode of", path)?;
        }
        Ok(())
    }

    fn record(self, fd: impl AsFd, metadata: &Metadata, kind: OverrideKind, path: &[u8]) -> Result<()> {
        if self == Self::Real {
            return Ok(());
        }
        let Metadata { mode, uid, gid, .. } = *metadata;
        let recorded = OverrideStat { uid, gid, mode: mode & 0o7777, kind };
        recorded.write(&fd).map_err(|error| error.context(format!("recording the owner of `{}`", show(path))))?;
        let mode = match kind {
            OverrideKind::Directory => mode & 0o777 | 0o700,
            _ => mode & 0o777 | 0o400,
        };
        rustix::fs::fchmod(fd, Mode::from_raw_mode(mode.into())).explain("set the mode of", path)
    }

    /// Gives all its metadata to something just made that must not be opened: a symlink, a device, a pipe. It is held by a
    /// handle first and must be what was made, so that nobody can slip in something else.
    pub(super) fn stamp_held(
        self,
        held: &OwnedFd,
        metadata: &Metadata,
        made: FileType,
        device: u64,
        path: &[u8],
    ) -> Result<()> {
        let stat: Stat = rustix::fs::fstat(held).explain("examine", path)?;
        if kind_of(&stat) != made || stat.st_nlink != 1 || (stat.st_rdev != device && made != FileType::Symlink) {
            return Err(super::sys::contended(path));
        }
        if self == Self::Real {
            let given = (stat.st_uid, stat.st_gid) != (metadata.uid, metadata.gid);
            if given {
                let (uid, gid) = owner(metadata, path)?;
                rustix::fs::chownat(held, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
                    .explain("set the owner of", path)?;
            }
            let mode = u32::from(metadata.mode & 0o7777);
            // The mode of a link means nothing.
            if made != FileType::Symlink && (stat.st_mode & 0o7777 != mode || (given && mode & 0o6000 != 0)) {
                rustix::fs::chmod(through_proc(held), Mode::from_raw_mode(mode)).explain("set the mode of", path)?;
            }
        }
        if !metadata.xattrs.is_empty() {
            xattr::set_all(Target::Held(held.as_fd()), &metadata.xattrs, self == Self::Real, path)?;
        }
        let times = timestamps(metadata.mtime);
        match rustix::fs::utimensat(held, "", &times, AtFlags::EMPTY_PATH) {
            // Kernels before 5.8.
            Err(Errno::INVAL) => rustix::fs::utimensat(rustix::fs::CWD, through_proc(held), &times, AtFlags::empty()),
            other => other,
        }
        .explain("set the times of", path)
    }
}

/// Sets the time of modification of an open file or directory.
pub(super) fn set_times(fd: impl AsFd, mtime: Timestamp) -> rustix::io::Result<()> {
    rustix::fs::futimens(fd, &timestamps(mtime))
}

fn timestamps(mtime: Timestamp) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.min(999_999_999).into() },
    }
}

/// Owner and group; 2³² − 1 means "unchanged" to the kernel and is nobody's.
fn owner(metadata: &Metadata, path: &[u8]) -> Result<(Uid, Gid)> {
    if metadata.uid == u32::MAX || metadata.gid == u32::MAX {
        return Err(Error::refused(path, "the owner 4294967295 does not exist"));
    }
    Ok((Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid)))
}

fn show(path: &[u8]) -> crate::error::Escaped<'_> {
    crate::error::Escaped(path)
}
