//! A root filesystem on its way: under a name of its own beside the destination, then under the destination's.
//!
//! ```text
//! PARENT/.NAME.<uuid>.staging/     being written; its owner holds an advisory lock on it
//! PARENT/NAME/                     absent, or an empty directory, until the one rename
//! ```
//!
//! A rename says nothing about what is in the directory: after a power cut it may have its name and files without content,
//! unless the file system was synced before the rename. Who wants that asks for it ([`After`]).
//!
//! A destination that is a mount point is filled in place: see `in_place.rs`.
//!
//! A staging directory that nobody holds belongs to the dead, and whoever stages beside it next removes it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, RawDir, RenameFlags, StatxAttributes, StatxFlags, Timespec, Timestamps,
};
use rustix::io::Errno;

use super::in_place::InPlace;
use crate::ambient;
use crate::error::{Error, Result};
use crate::inherited;
use crate::tree::remove_tree;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

const SUFFIX: &[u8] = b".staging";

/// The directory that ext4 and its kin make in the root of a new file system, for what a check of it finds.
pub(super) const LOST: &[u8] = b"lost+found";

/// What is on disk when a destination has been published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Nothing for certain.
    Nothing,
    /// All of it, before it has its name; and the name.
    Sync,
}

/// A directory that becomes the destination, or disappears.
#[derive(Debug)]
pub(super) enum StagedRoot {
    /// A directory of its own.
    Beside(Beside),
    /// The destination itself.
    InPlace(InPlace),
}

/// A staging directory.
#[derive(Debug)]
pub(super) struct Beside {
    parent: OwnedFd,
    dest: Vec<u8>,
    staging: Vec<u8>,
    root: OwnedFd,
    done: bool,
}

impl StagedRoot {
    /// Stages beside `dest`, which must be absent or an empty directory. Its parent must exist.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for a destination that holds something or is no directory, [`Error::Busy`] for a mount point that
    /// somebody else fills.
    pub(super) fn create(dest: &Path) -> Result<Self> {
        let (parent, name) = ambient::open_parent(dest)?;
        let parent: OwnedFd = parent.into_std_file().into();
        sweep(&parent);
        let dest = name.as_bytes().to_vec();
        if let Some(root) = directory(&parent, &dest)? {
            if is_mount_point(&root)? {
                tracing::info!("the destination is a mount point: it is filled in place, not in one step");
                return InPlace::take(root, &dest).map(Self::InPlace);
            }
            if !is_empty(&root)? {
                return Err(taken(&dest));
            }
        }
        let (staging, root) = make(&parent, &name)?;
        Ok(Self::Beside(Beside { parent, dest, staging, root, done: false }))
    }

    /// The empty directory to fill.
    pub(super) fn root(&self) -> Result<OwnedFd> {
        let root = match self {
            Self::Beside(beside) => &beside.root,
            Self::InPlace(in_place) => in_place.root(),
        };
        root.try_clone().map_err(|error| Error::io("open", b"the destination", error))
    }

    /// Gives the directory the destination's name, in one step, unless it has it already.
    pub(super) fn publish(self, after: After) -> Result<()> {
        if let Self::InPlace(in_place) = &self {
            in_place.complete()?;
        }
        if after == After::Sync {
            let root = self.root()?;
            rustix::fs::syncfs(&root).map_err(|error| Error::io("sync", b"the root filesystem", error))?;
        }
        match self {
            Self::Beside(beside) => beside.publish(after),
            Self::InPlace(in_place) => {
                in_place.publish();
                Ok(())
            }
        }
    }
}

impl Beside {
    fn publish(mut self, after: After) -> Result<()> {
        let Self { parent, dest, staging, .. } = &self;
        let renamed = match directory(parent, dest)? {
            // An empty directory is replaced; one that is not empty any more is not.
            Some(_) => rustix::fs::renameat(parent, staging.as_slice(), parent, dest.as_slice()),
            None => rename_new(parent, staging, dest),
        };
        renamed.map_err(|error| match error {
            Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR => taken(dest),
            other => Error::io("give its name to", dest, other),
        })?;
        self.done = true;
        if after == After::Sync {
            rustix::fs::fsync(&self.parent)
                .map_err(|error| Error::io("sync the directory that holds", &self.dest, error))?;
        }
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.done
            && let Err(error) = remove_tree(&self.parent, &self.staging)
        {
            tracing::warn!(%error, "cannot remove what was staged; the next run beside it will");
        }
    }
}

/// The destination, if it is a directory.
fn directory(parent: &OwnedFd, name: &[u8]) -> Result<Option<OwnedFd>> {
    match rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTDIR | Errno::LOOP) => Err(taken(name)),
        Err(error) => Err(Error::io("open", name, error)),
    }
}

/// Whether a directory holds nothing.
pub(super) fn is_empty(dir: &OwnedFd) -> Result<bool> {
    let mut empty = true;
    each(dir, |_| {
        empty = false;
        false
    })?;
    Ok(empty)
}

pub(super) fn taken(name: &[u8]) -> Error {
    Error::Usage {
        reason: format!("the destination `{}` is not an empty directory", crate::error::Escaped(name)),
        hint: Some("choose one that does not exist yet, or empty it".into()),
    }
}

fn is_mount_point(dir: &OwnedFd) -> Result<bool> {
    let stat = rustix::fs::statx(dir, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
        .map_err(|error| Error::io("look at", b"the destination", error))?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn rename_new(parent: &OwnedFd, from: &[u8], to: &[u8]) -> rustix::io::Result<()> {
    match rustix::fs::renameat_with(parent, from, parent, to, RenameFlags::NOREPLACE) {
        // Without the flag an empty directory is all that could be replaced.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => rustix::fs::renameat(parent, from, parent, to),
        other => other,
    }
}

/// Makes a staging directory and holds it. One that a sweep took before it was held is made again.
fn make(parent: &OwnedFd, name: &OsStr) -> Result<(Vec<u8>, OwnedFd)> {
    // The name may be as long as names can be; the staging name keeps the start of it.
    let shown = name.as_bytes().get(..150).unwrap_or(name.as_bytes());
    loop {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let staging = [b".", shown, b".", id.as_bytes(), SUFFIX].concat();
        let failed = |error: Errno| Error::io("stage", &staging, error);
        rustix::fs::mkdirat(parent, staging.as_slice(), Mode::RWXU).map_err(failed)?;
        let root = match rustix::fs::openat(parent, staging.as_slice(), DIRECTORY, Mode::empty()) {
            Ok(root) => root,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(failed(error)),
        };
        rustix::fs::flock(&root, FlockOperation::LockExclusive).map_err(failed)?;
        plain(&root).map_err(failed)?;
        if rustix::fs::fstat(&root).map_err(failed)?.st_nlink > 0 {
            return Ok((staging, root));
        }
    }
}

/// Makes a directory what a root is that no layer lists: as directories that are only implied, the process's own, 0755 and of
/// 1970, whatever umask, clock and the directory around say. What is made inside inherits nothing from it.
pub(super) fn plain(root: &OwnedFd) -> rustix::io::Result<()> {
    let owner = rustix::process::geteuid();
    if rustix::fs::fstat(root)?.st_uid != owner.as_raw() {
        rustix::fs::fchown(root, Some(owner), None)?;
    }
    inherited::disinherit(root)?;
    rustix::fs::fchmod(root, Mode::from_raw_mode(0o755))?;
    let never = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::fs::futimens(root, &Timestamps { last_access: never, last_modification: never })
}

/// Removes staging directories of the dead. What cannot be removed is somebody else's, and no concern of this run.
fn sweep(parent: &OwnedFd) {
    let mut found = Vec::new();
    let _ = each(parent, |name| {
        if is_staging(name) {
            found.push(name.to_vec());
        }
        true
    });
    for name in found {
        let Ok(dir) = rustix::fs::openat(parent, name.as_slice(), DIRECTORY, Mode::empty()) else { continue };
        if rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = remove_tree(parent, &name);
        }
    }
}

/// Whether a name is one that [`make`] gives: `.` something `.` 32 hex digits `.staging`.
fn is_staging(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(b".").and_then(|name| name.strip_suffix(SUFFIX)) else { return false };
    let Some(at) = rest.len().checked_sub(33) else { return false };
    rest[at] == b'.' && rest[at + 1..].iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether the root of a file system holds nothing but what a new one has: `lost+found`, with nothing in it.
pub(super) fn is_fresh(root: &OwnedFd) -> Result<bool> {
    let mut other = false;
    let mut lost = false;
    each(root, |name| {
        lost |= name == LOST;
        other |= name != LOST;
        !other
    })?;
    match (other, lost) {
        (true, _) => Ok(false),
        (false, false) => Ok(true),
        (false, true) => match rustix::fs::openat(root, LOST, DIRECTORY, Mode::empty()) {
            Ok(lost) => is_empty(&lost),
            // No directory, or not to be looked into: somebody's.
            Err(Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => Ok(false),
            Err(error) => Err(Error::io("open", LOST, error)),
        },
    }
}

/// Removes what is in a directory.
pub(super) fn clear(dir: &OwnedFd) -> Result<()> {
    let mut names = Vec::new();
    each(dir, |name| {
        names.push(name.to_vec());
        true
    })?;
    names.iter().try_for_each(|name| remove_tree(dir, name))
}

/// Shows the names in a directory until `visit` has seen enough.
fn each(dir: &OwnedFd, mut visit: impl FnMut(&[u8]) -> bool) -> Result<()> {
    let failed = |error: Errno| Error::io("list", b"the destination", error);
    // A handle of its own: reading moves the position.
    let dir = rustix::fs::openat(dir.as_fd(), c".", DIRECTORY, Mode::empty()).map_err(failed)?;
    let mut buffer = vec![std::mem::MaybeUninit::uninit(); 8 << 10];
    let mut entries = RawDir::new(&dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") && !visit(name) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests arrange the world by path")]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            dir.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn it_appears_at_once_or_not_at_all() {
        let temp = tempfile::tempdir().unwrap();
        for (name, there) in [("new", false), ("empty", true)] {
            let dest = temp.path().join(name);
            if there {
                std::fs::create_dir(&dest).unwrap();
            }
            drop(StagedRoot::create(&dest).unwrap());
            assert_eq!(dest.exists(), there, "dropping it changes nothing");
            let staged = StagedRoot::create(&dest).unwrap();
            rustix::fs::mkdirat(staged.root().unwrap(), "inside", Mode::RWXU).unwrap();
            staged.publish(if there { After::Sync } else { After::Nothing }).unwrap();
            assert_eq!(names(&dest), ["inside"]);
            let mode = std::os::unix::fs::PermissionsExt::mode(&dest.metadata().unwrap().permissions());
            assert_eq!(mode & 0o7777, 0o755);
        }
        assert_eq!(names(temp.path()), ["empty", "new"]);
    }

    /// Rule 26. A mount point that is filled in place gets back what it had if that fails.
    #[test]
    fn a_root_inherits_nothing() {
        use cofferdam_testing::inherited::{contaminate, contaminated};
        let temp = tempfile::tempdir().unwrap();
        contaminate(temp.path());
        let staged = StagedRoot::create(&temp.path().join("new")).unwrap();
        rustix::fs::mkdirat(staged.root().unwrap(), "inside", Mode::RWXU).unwrap();
        staged.publish(After::Nothing).unwrap();
        assert!(contaminated(&temp.path().join("new")).is_empty());
        let place = temp.path().join("mount-point");
        std::fs::create_dir(&place).unwrap();
        contaminate(&place);
        let take = || InPlace::take(ambient::open_dir(&place).unwrap().into_std_file().into(), b"dest").unwrap();
        let filled = take();
        std::fs::write(place.join("inside"), "").unwrap();
        assert!(contaminated(&place).is_empty());
        drop(filled);
        assert_eq!(contaminated(&place), [""], "it is as it was");
        take().publish();
        assert!(contaminated(&place).is_empty());
    }

    #[test]
    fn what_is_there_stays() {
        let temp = tempfile::tempdir().unwrap();
        let full = temp.path().join("full");
        std::fs::create_dir_all(full.join("mine")).unwrap();
        std::fs::write(temp.path().join("file"), "mine").unwrap();
        for dest in ["full", "file"] {
            let error = StagedRoot::create(&temp.path().join(dest)).unwrap_err();
            assert!(matches!(error, Error::Usage { .. }), "{error}");
        }
        // It may also come to hold something while the tree is written.
        let staged = StagedRoot::create(&temp.path().join("late")).unwrap();
        std::fs::create_dir_all(temp.path().join("late/theirs")).unwrap();
        assert!(matches!(staged.publish(After::Sync), Err(Error::Usage { .. })));
        assert_eq!(names(temp.path()), ["file", "full", "late"]);
    }

    #[test]
    fn the_dead_are_swept_and_the_living_are_not() {
        let temp = tempfile::tempdir().unwrap();
        let living = StagedRoot::create(&temp.path().join("a")).unwrap();
        let dead = temp.path().join(format!(".b.{}.staging", "0".repeat(32)));
        std::fs::create_dir_all(dead.join("x")).unwrap();
        std::fs::create_dir_all(temp.path().join(".mine.staging")).unwrap();
        drop(StagedRoot::create(&temp.path().join("c")).unwrap());
        assert!(!dead.exists() && temp.path().join(".mine.staging").exists());
        living.publish(After::Nothing).unwrap();
        assert_eq!(names(temp.path()), [".mine.staging", "a"]);
    }
}
