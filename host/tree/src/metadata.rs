//! Owner, mode, attributes and times, set on what was made and never on what a name leads to.
//!
//! The order: owner first, since giving a file away takes its set-uid bit and its capabilities; then mode, attributes,
//! times. When owners are only recorded, the record comes before the mode is narrowed.

use std::os::fd::{AsFd, OwnedFd};

use cofferdam_core::error::{Error, Result};
use cofferdam_core::inherited;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use super::entry::{Metadata, Timestamp};
use super::left_out::{LeftOut, Lossy};
use super::options::Ownership;
use super::override_stat::{self, OverrideKind, OverrideStat};
use super::sys::{Explain as _, kind_of, through_proc};
use super::xattr::{self, Holding, Target};

/// The time of what no layer lists: directories that are only implied, and markers. The same on every path to a tree.
pub(super) const UNLISTED: Timestamp = Timestamp { seconds: 0, nanoseconds: 0 };

/// The permissions of a directory that is only implied.
pub(super) const IMPLIED: u16 = 0o755;

/// Returns true if [`Ownership::Auto`] means [`Ownership::Real`] for this process in this directory.
pub fn keeps_owners(dir: impl AsFd) -> bool {
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(dir, ".", flags, Mode::empty()) else { return true };
    // Root of a user namespace with a single id cannot give files away.
    rustix::fs::fchown(file, Some(Uid::from_raw(1)), Some(Gid::from_raw(1))).is_ok()
}

/// Where owners go, decided, and what becomes of attributes that cannot be held.
#[derive(Debug)]
pub(super) struct Owners {
    /// Into a record beside each file; else into the inodes.
    recorded: bool,
    holding: Holding,
}

impl Owners {
    /// Decides what [`Ownership::Auto`] means here, by giving away a file that has no name.
    pub(super) fn decide(ownership: Ownership, lossy: Lossy, root: &OwnedFd) -> Self {
        let recorded = match ownership {
            Ownership::Real => false,
            Ownership::Recorded => true,
            Ownership::Auto => !keeps_owners(root),
        };
        Self { recorded, holding: Holding { lossy, ..Holding::default() } }
    }

    /// Returns true if owners are only recorded.
    pub(super) fn are_recorded(&self) -> bool {
        self.recorded
    }

    /// Takes the account of what was left out since this was last asked.
    pub(super) fn take_left_out(&mut self) -> LeftOut {
        self.holding.left_out.take()
    }

    /// The permissions to create a file or directory with: what it will have, as far as creation can give it.
    pub(super) fn initial_mode(&self, kind: OverrideKind, mode: u16) -> Mode {
        Mode::from_raw_mode(match (self.recorded, kind) {
            (false, _) => (mode & 0o777).into(),
            (true, OverrideKind::Directory) => 0o700,
            (true, _) => 0o600,
        })
    }

    /// Gives an open file or directory its metadata, but for times.
    pub(super) fn stamp(&self, fd: impl AsFd, metadata: &Metadata, kind: OverrideKind, path: &[u8]) -> Result<()> {
        self.own(&fd, metadata, path)?;
        xattr::set_all(Target::Open(fd.as_fd()), &metadata.xattrs, &self.holding, path)?;
        self.record(fd, metadata, kind, path)
    }

    /// The same for a directory that was there: what it had before is gone.
    pub(super) fn restamp(&self, fd: impl AsFd, metadata: &Metadata, path: &[u8]) -> Result<()> {
        self.own(&fd, metadata, path)?;
        xattr::replace_all(&fd, &metadata.xattrs, !self.recorded, &self.holding, path)?;
        self.record(fd, metadata, OverrideKind::Directory, path)
    }

    fn own(&self, fd: impl AsFd, metadata: &Metadata, path: &[u8]) -> Result<()> {
        if self.recorded {
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

    fn record(&self, fd: impl AsFd, metadata: &Metadata, kind: OverrideKind, path: &[u8]) -> Result<()> {
        if !self.recorded {
            return Ok(());
        }
        let Metadata { mode, uid, gid, .. } = *metadata;
        let recorded = OverrideStat { uid, gid, mode: mode & 0o7777, kind };
        let narrowed = match kind {
            OverrideKind::Directory => mode & 0o777 | 0o700,
            _ => mode & 0o777 | 0o400,
        };
        match recorded.set(&fd) {
            Ok(()) => {}
            Err(errno @ (Errno::OPNOTSUPP | Errno::NOSYS)) => {
                let stat = rustix::fs::fstat(&fd).explain("examine", path)?;
                let is_plain = matches!(kind, OverrideKind::File | OverrideKind::Directory);
                let says_all = is_plain && (stat.st_uid, stat.st_gid, narrowed) == (uid, gid, mode & 0o7777);
                if !says_all && !self.holding.lossy.owners {
                    let name = override_stat::NAME;
                    return Err(Error::CannotHold { subject: show(path).to_string(), name, source: errno.into() });
                }
                if !says_all {
                    self.holding.left_out.borrow_mut().note(override_stat::NAME.as_bytes());
                }
            }
            Err(errno) => return Err(Error::io("record the owner of", path, errno)),
        }
        rustix::fs::fchmod(fd, Mode::from_raw_mode(narrowed.into())).explain("set the mode of", path)
    }

    /// Gives all its metadata to something just made that must not be opened: a symlink, a device, a pipe. It is held by a
    /// handle first and must be what was made, so that nobody can slip in something else. Where it may have inherited something
    /// from its directory, that goes first.
    pub(super) fn stamp_held(
        &self,
        held: &OwnedFd,
        metadata: &Metadata,
        may_inherit: bool,
        (made, device): (FileType, u64),
        path: &[u8],
    ) -> Result<()> {
        let stat: Stat = rustix::fs::fstat(held).explain("examine", path)?;
        if kind_of(&stat) != made || stat.st_nlink != 1 || (stat.st_rdev != device && made != FileType::Symlink) {
            return Err(super::sys::contended(path));
        }
        if may_inherit {
            let name = through_proc(held);
            inherited::disinherit_held(held, &stat, &name).explain("set the owner of", path)?;
        }
        if !self.recorded {
            let stat = if may_inherit { rustix::fs::fstat(held).explain("examine", path)? } else { stat };
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
            xattr::set_all(Target::Held(held.as_fd()), &metadata.xattrs, &self.holding, path)?;
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

fn show(path: &[u8]) -> cofferdam_core::error::Escaped<'_> {
    cofferdam_core::error::Escaped(path)
}
