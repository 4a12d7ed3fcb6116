//! The system calls that change directories, and where each says what it changes.

use std::path::{Path, PathBuf};

use libc::c_long;

/// What a call does to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Makes a file, a directory, a device, or a link.
    Make,
    /// Writes content.
    Write,
    /// Waits until something is on disk.
    Sync,
    /// Gives something another name.
    Rename,
    /// Takes a name away.
    Remove,
    /// Changes owner, mode, times, or attributes.
    Metadata,
    /// Takes or frees a lock.
    Lock,
}

impl Class {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 7] =
        [Self::Make, Self::Write, Self::Sync, Self::Rename, Self::Remove, Self::Metadata, Self::Lock];

    /// The heading of its column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Make => "make",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::Metadata => "metadata",
            Self::Lock => "lock",
        }
    }
}

/// Where among its arguments a call says what it changes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// An open file.
    Fd(usize),
    /// A path from the current directory.
    Path(usize),
    /// A path from an open directory: the directory, the path.
    At(usize, usize),
}

/// A call that is watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) number: c_long,
    pub(super) name: &'static str,
    pub(super) class: Class,
    pub(super) place: Place,
}

const fn call(number: c_long, name: &'static str, class: Class, place: Place) -> Call {
    Call { number, name, class, place }
}

/// An `openat` counts only if it may make a file, an `ioctl` only if it shares content: the filter sees to that.
#[cfg(target_arch = "x86_64")]
pub(super) const CALLS: &[Call] = &[
    call(libc::SYS_openat, "openat", Class::Make, Place::At(0, 1)),
    call(libc::SYS_mkdir, "mkdir", Class::Make, Place::Path(0)),
    call(libc::SYS_mkdirat, "mkdirat", Class::Make, Place::At(0, 1)),
    call(libc::SYS_mknodat, "mknodat", Class::Make, Place::At(0, 1)),
    call(libc::SYS_symlinkat, "symlinkat", Class::Make, Place::At(1, 2)),
    call(libc::SYS_linkat, "linkat", Class::Make, Place::At(2, 3)),
    call(libc::SYS_write, "write", Class::Write, Place::Fd(0)),
    call(libc::SYS_pwrite64, "pwrite64", Class::Write, Place::Fd(0)),
    call(libc::SYS_writev, "writev", Class::Write, Place::Fd(0)),
    call(libc::SYS_pwritev, "pwritev", Class::Write, Place::Fd(0)),
    call(libc::SYS_copy_file_range, "copy_file_range", Class::Write, Place::Fd(2)),
    call(libc::SYS_sendfile, "sendfile", Class::Write, Place::Fd(0)),
    call(libc::SYS_ioctl, "ficlone", Class::Write, Place::Fd(0)),
    call(libc::SYS_ftruncate, "ftruncate", Class::Write, Place::Fd(0)),
    call(libc::SYS_fallocate, "fallocate", Class::Write, Place::Fd(0)),
    call(libc::SYS_fsync, "fsync", Class::Sync, Place::Fd(0)),
    call(libc::SYS_fdatasync, "fdatasync", Class::Sync, Place::Fd(0)),
    call(libc::SYS_syncfs, "syncfs", Class::Sync, Place::Fd(0)),
    call(libc::SYS_sync_file_range, "sync_file_range", Class::Sync, Place::Fd(0)),
    call(libc::SYS_rename, "rename", Class::Rename, Place::Path(1)),
    call(libc::SYS_renameat, "renameat", Class::Rename, Place::At(2, 3)),
    call(libc::SYS_renameat2, "renameat2", Class::Rename, Place::At(2, 3)),
    call(libc::SYS_unlink, "unlink", Class::Remove, Place::Path(0)),
    call(libc::SYS_rmdir, "rmdir", Class::Remove, Place::Path(0)),
    call(libc::SYS_unlinkat, "unlinkat", Class::Remove, Place::At(0, 1)),
    call(libc::SYS_chmod, "chmod", Class::Metadata, Place::Path(0)),
    call(libc::SYS_fchmod, "fchmod", Class::Metadata, Place::Fd(0)),
    call(libc::SYS_fchmodat, "fchmodat", Class::Metadata, Place::At(0, 1)),
    call(libc::SYS_fchown, "fchown", Class::Metadata, Place::Fd(0)),
    call(libc::SYS_fchownat, "fchownat", Class::Metadata, Place::At(0, 1)),
    call(libc::SYS_utimensat, "utimensat", Class::Metadata, Place::At(0, 1)),
    call(libc::SYS_setxattr, "setxattr", Class::Metadata, Place::Path(0)),
    call(libc::SYS_lsetxattr, "lsetxattr", Class::Metadata, Place::Path(0)),
    call(libc::SYS_fsetxattr, "fsetxattr", Class::Metadata, Place::Fd(0)),
    call(libc::SYS_removexattr, "removexattr", Class::Metadata, Place::Path(0)),
    call(libc::SYS_lremovexattr, "lremovexattr", Class::Metadata, Place::Path(0)),
    call(libc::SYS_fremovexattr, "fremovexattr", Class::Metadata, Place::Fd(0)),
    call(libc::SYS_flock, "flock", Class::Lock, Place::Fd(0)),
];

#[cfg(not(target_arch = "x86_64"))]
pub(super) const CALLS: &[Call] = &[];

pub(super) fn of(number: u64) -> Option<&'static Call> {
    CALLS.iter().find(|call| u64::try_from(call.number) == Ok(number))
}

/// A path as a table shows it: from the root that it is under, with what differs from run to run as `#`; nothing if it is
/// under none.
pub(super) fn shown(path: &Path, roots: &[PathBuf]) -> Option<String> {
    let (root, rest) = roots.iter().find_map(|root| Some((root, path.strip_prefix(root).ok()?)))?;
    let root = root.file_name().unwrap_or_default().to_string_lossy();
    let text = format!("{root}/{}", rest.display());
    // What is open without a name has a number for one.
    let text = text.split("/#").next().unwrap_or_default().trim_end_matches(" (deleted)");
    let mut plain = String::with_capacity(text.len());
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let (word, end) = match word.char_indices().last() {
            Some((at, end)) if !end.is_ascii_alphanumeric() => word.split_at(at),
            _ => (word, ""),
        };
        let number = word.len() >= 32 && word.bytes().all(|b| b.is_ascii_hexdigit());
        plain.push_str(if number { "#" } else { word });
        plain.push_str(end);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_shown_without_what_differs_from_run_to_run() {
        let roots = [PathBuf::from("/tmp/x/store"), PathBuf::from("/tmp/x/out")];
        let hex = "0123456789abcdef".repeat(4);
        let shown = |path: &str| shown(Path::new(path), &roots);
        assert_eq!(shown(&format!("/tmp/x/store/layers/sha256-{hex}.tar.gz")).unwrap(), "store/layers/sha256-#.tar.gz");
        let staged = format!("/tmp/x/store/layers/sha256-{hex}.{}.downloading (deleted)", &hex[..32]);
        assert_eq!(shown(&staged).unwrap(), "store/layers/sha256-#.#.downloading");
        assert_eq!(shown("/tmp/x/out/.rootfs/a b").unwrap(), "out/.rootfs/a b");
        assert_eq!(shown("/tmp/x/storey"), None);
        assert_eq!(shown("/tmp/x/store").unwrap(), "store/");
    }
}
