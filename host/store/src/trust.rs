//! The owners whose directories and files a store is made of.
//!
//! A store vouches for what it holds by small files of its own: records, references, grants. Whoever can write them decides what
//! is believed. So each directory that is relied on, and each such file, must belong to the effective user or to root, and be writable by
//! its owner alone. An access control list needs no look of its own: its mask stands where the mode has the group's
//! permissions.
//!
//! All looks are at open handles. Directories above the store are not judged: what takes the store's place there is
//! judged by itself, and what is open stays what it is.

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, Stat};
use rustix::process::geteuid;

use cofferdam_core::error::{Error, Escaped, Result};

/// The user id that stands for all users without an id in this user namespace, unless the machine was told otherwise.
const OVERFLOW: u32 = 65534;

/// Write permission of the group and of others.
const OTHERS_WRITE: u32 = 0o022;

/// Refuses a directory or file that another user owns, or that others may write to. `shown` is its path.
///
/// # Errors
///
/// [`Error::Untrusted`].
pub(super) fn ensure(handle: impl AsFd, shown: &[u8]) -> Result<()> {
    let stat = look(&handle, shown)?;
    if is_ours(&handle, &stat) && stat.st_mode & OTHERS_WRITE == 0 { Ok(()) } else { Err(untrusted(&stat, shown)) }
}

/// Refuses a directory that another user owns. The caller takes the permissions of others away, and believes nothing that lies in it.
///
/// # Errors
///
/// [`Error::Untrusted`].
pub(super) fn ensure_owner(handle: impl AsFd, shown: &[u8]) -> Result<()> {
    let stat = look(&handle, shown)?;
    if is_ours(&handle, &stat) { Ok(()) } else { Err(untrusted(&stat, shown)) }
}

fn look(handle: &impl AsFd, shown: &[u8]) -> Result<Stat> {
    rustix::fs::fstat(handle).map_err(|error| Error::io("look at", shown, error))
}

/// Returns true for what belongs to the effective user or to root.
fn is_ours(handle: &impl AsFd, stat: &Stat) -> bool {
    let user = geteuid().as_raw();
    match stat.st_uid {
        0 => true,
        // Users without an id here share this one. The kernel knows them apart: only an owner may open a file in this way.
        OVERFLOW if user == OVERFLOW => {
            let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let is_directory = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
            !is_directory || rustix::fs::openat(handle, ".", flags, Mode::empty()).is_ok()
        }
        owner => owner == user,
    }
}

fn untrusted(stat: &Stat, shown: &[u8]) -> Error {
    Error::Untrusted {
        path: Escaped(shown).to_string(),
        owner: stat.st_uid,
        mode: stat.st_mode & 0o7777,
        user: geteuid().as_raw(),
    }
}
