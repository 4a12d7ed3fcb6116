//! The few system calls that every file of this room needs, and how their errors read.

use std::fmt::Write as _;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use cofferdam_core::error::{Error, Result};
use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::entry::Timestamp;
use super::mounts::{mounted, open_within};

/// How a directory is opened: for reading, itself and not what a link in its place points at.
pub(crate) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How an object is held that must not be opened: a symlink, a device, a pipe.
pub const HOLD: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How often an operation is tried again when somebody else keeps changing the directory.
pub(super) const RETRIES: usize = 16;

/// Whether a name is one that only markers have.
pub fn is_marker_name(name: &[u8]) -> bool {
    name.starts_with(b".wh.")
}

/// Opens the directory `name` in `dir`; a link is not followed, and what is mounted there not entered.
pub(super) fn open_directory(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    open_within(dir, name, DIRECTORY)
}

/// What is at `name` in `dir`; a link is not followed. Nothing if there is nothing.
pub(super) fn look(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The type that a `stat` tells.
pub fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Which inode a `stat` tells.
pub(super) fn inode_of(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// The time of modification that a `stat` tells.
pub fn stamp_of(stat: &Stat) -> Timestamp {
    Timestamp { seconds: stat.st_mtime, nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}

/// Whether a `stat` is that of an overlayfs whiteout: a character device numbered 0:0.
pub(super) fn is_whiteout_device(stat: &Stat) -> bool {
    kind_of(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// The name by which calls that take only paths reach an object that is held: `/proc` leads to exactly this object,
/// wherever it lies now, without opening it.
pub(super) fn through_proc(held: impl AsFd) -> String {
    let mut name = String::with_capacity(24);
    let _ = write!(name, "/proc/self/fd/{}", held.as_fd().as_raw_fd());
    name
}

/// The error of a failed call on a path of the tree. What the file system cannot represent is the layer's fault.
pub(super) fn failed(verb: &str, path: &[u8], errno: Errno) -> Error {
    match errno {
        Errno::NAMETOOLONG => Error::refused(path, "the file system takes no name or target this long"),
        Errno::LOOP => Error::refused(path, "too many symbolic links"),
        // Unless it was this process that may write none.
        Errno::FBIG if getrlimit(Resource::Fsize).current.is_none() => {
            Error::refused(path, "the file system takes no file this large")
        }
        Errno::ILSEQ => Error::refused(path, "the file system does not take this name"),
        Errno::MLINK => Error::refused(path, "the file system takes no further links to this file"),
        // How the kernel keeps mount points from being entered, replaced and removed.
        Errno::XDEV | Errno::BUSY => mounted(path, path),
        _ => Error::io(verb, path, errno),
    }
}

/// The error of an operation that another process kept undoing.
pub(super) fn contended(path: &[u8]) -> Error {
    Error::Busy { what: format!("`{}`", cofferdam_core::error::Escaped(path)) }
}

/// Joins a directory's path and a name; the root's path is empty.
pub fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(dir.len() + 1 + name.len());
    path.extend_from_slice(dir);
    if !dir.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// Splits a path into what its directory is called and its own name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (&[], path),
    }
}

/// The range of all paths inside of a directory other than the root, in their order: from `place/` up to `place0`, since
/// `0` is the byte after the slash.
pub(super) fn within(place: &[u8]) -> Range<Vec<u8>> {
    [place, b"/"].concat()..[place, b"0"].concat()
}

/// Adds what was being done to a failed call.
pub trait Explain<T> {
    /// Turns an error number into an [`Error`] that names the path.
    fn explain(self, verb: &str, path: &[u8]) -> Result<T>;
}

impl<T> Explain<T> for rustix::io::Result<T> {
    fn explain(self, verb: &str, path: &[u8]) -> Result<T> {
        self.map_err(|errno| failed(verb, path, errno))
    }
}
