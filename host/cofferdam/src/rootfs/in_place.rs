//! A destination that is a mount point: a rename cannot replace it, so it is filled in place, by one at a time.
//!
//! A new file system may have a `lost+found`. It is no part of an image: it is taken away meanwhile, and put back unless the image has one.
//!
//! A failure leaves it as it was found: empty, with the metadata it had. A process that is killed cannot see to that, and
//! what it leaves there is not swept: nothing tells it from somebody's files.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{AtFlags, FlockOperation, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::stage;
use crate::error::{Error, Escaped, Result};
use crate::tree::entry::Xattr;
use crate::tree::xattr::{self, Target};

/// A mount point that is being filled, or is emptied again. The advisory lock on it is held meanwhile.
#[derive(Debug)]
pub(super) struct InPlace {
    root: OwnedFd,
    before: Before,
    /// The `lost+found` of a new file system, as it was.
    lost: Option<Box<Before>>,
    done: bool,
}

/// What the root was like.
#[derive(Debug)]
struct Before {
    stat: Stat,
    xattrs: Vec<Xattr>,
}

impl InPlace {
    /// Takes the empty directory `root`, which messages call `dest`.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] while somebody else fills it, [`Error::Usage`] if it holds something.
    pub(super) fn take(root: OwnedFd, dest: &[u8]) -> Result<Self> {
        match rustix::fs::flock(&root, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::Busy { what: format!("the destination `{}`", Escaped(dest)) });
            }
            Err(error) => return Err(Error::io("lock", dest, error)),
        }
        // Only now: until it was locked, somebody else may have been at work in it.
        if !stage::is_fresh(&root)? {
            return Err(stage::taken(dest));
        }
        let before = Before::of(&root, dest)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lost = match rustix::fs::openat(&root, stage::LOST, flags, Mode::empty()) {
            Ok(lost) => Some(Box::new(Before::of(&lost, stage::LOST)?)),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(Error::io("open", stage::LOST, error)),
        };
        let taken = Self { root, before, lost, done: false };
        if taken.lost.is_some() {
            // Only an empty one goes.
            rustix::fs::unlinkat(&taken.root, stage::LOST, AtFlags::REMOVEDIR)
                .map_err(|error| Error::io("take away", stage::LOST, error))?;
        }
        stage::plain(&taken.root).map_err(|error| Error::io("prepare", dest, error))?;
        Ok(taken)
    }

    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Says that it is whole.
    pub(super) fn publish(mut self) {
        self.done = true;
    }

    /// Puts the file system's own directory back, unless there is something of its name.
    pub(super) fn complete(&self) -> Result<()> {
        let Some(before) = &self.lost else { return Ok(()) };
        let failed = |error: Errno| Error::io("put back", stage::LOST, error);
        let root = rustix::fs::fstat(&self.root).map_err(failed)?;
        match rustix::fs::mkdirat(&self.root, stage::LOST, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(()),
            Err(error) => return Err(failed(error)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lost = rustix::fs::openat(&self.root, stage::LOST, flags, Mode::empty()).map_err(failed)?;
        before.restore(&lost)?;
        // What the image says of its root stays.
        rustix::fs::futimens(&self.root, &times_of(&root)).map_err(failed)
    }
}

impl Drop for InPlace {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        if let Err(error) = stage::clear(&self.root).and_then(|()| self.complete()) {
            tracing::warn!(%error, "cannot empty the destination again; what is left there has to be removed by hand");
        }
        if let Err(error) = self.before.restore(&self.root) {
            tracing::warn!(%error, "cannot give the destination the metadata back that it had");
        }
    }
}

impl Before {
    fn of(dir: &OwnedFd, shown: &[u8]) -> Result<Self> {
        let stat = rustix::fs::fstat(dir).map_err(|error| Error::io("look at", shown, error))?;
        Ok(Self { stat, xattrs: xattr::read_all(Target::Open(dir.as_fd()), shown)? })
    }

    fn restore(&self, root: &OwnedFd) -> Result<()> {
        let failed = |error: Errno| Error::io("restore", b"the destination", error);
        let now = rustix::fs::fstat(root).map_err(failed)?;
        let (uid, gid) = (self.stat.st_uid, self.stat.st_gid);
        if (now.st_uid, now.st_gid) != (uid, gid) {
            rustix::fs::fchown(root, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(failed)?;
        }
        rustix::fs::fchmod(root, Mode::from_raw_mode(self.stat.st_mode & 0o7777)).map_err(failed)?;
        let xattrs = xattr::read_all(Target::Open(root.as_fd()), b"the destination")?;
        for Xattr { name, .. } in xattrs.iter().filter(|now| self.before(&now.name).is_none()) {
            rustix::fs::fremovexattr(root, name.as_slice()).map_err(failed)?;
        }
        for Xattr { name, value } in self.xattrs.iter().filter(|before| !xattrs.contains(before)) {
            rustix::fs::fsetxattr(root, name.as_slice(), value, XattrFlags::empty()).map_err(failed)?;
        }
        rustix::fs::futimens(root, &times_of(&self.stat)).map_err(failed)
    }

    fn before(&self, name: &[u8]) -> Option<&Xattr> {
        self.xattrs.iter().find(|before| before.name == name)
    }
}

fn times_of(stat: &Stat) -> Timestamps {
    let stamp = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
    };
    Timestamps {
        last_access: stamp(stat.st_atime, stat.st_atime_nsec),
        last_modification: stamp(stat.st_mtime, stat.st_mtime_nsec),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests arrange the world by path")]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::path::Path;

    use super::*;

    fn take(path: &Path) -> Result<InPlace> {
        InPlace::take(crate::ambient::open_dir(path)?.into_std_file().into(), b"dest")
    }

    #[test]
    fn one_at_a_time_fills_a_mount_point() {
        let temp = tempfile::tempdir().unwrap();
        let first = take(temp.path()).unwrap();
        std::fs::write(temp.path().join("theirs"), "x").unwrap();
        assert!(matches!(take(temp.path()), Err(Error::Busy { .. })));
        assert!(temp.path().join("theirs").exists(), "who came second takes nothing away");
        first.publish();
        assert!(matches!(take(temp.path()), Err(Error::Usage { .. })));
        assert!(temp.path().join("theirs").exists());
    }

    #[test]
    fn a_new_file_systems_own_directory_is_nobodys_content() {
        let temp = tempfile::tempdir().unwrap();
        let (path, lost) = (temp.path(), temp.path().join("lost+found"));
        let mode = |mode| std::fs::Permissions::from_mode(mode);
        std::fs::create_dir(&lost).unwrap();
        std::fs::set_permissions(&lost, mode(0o700)).unwrap();
        for of_image in [false, true] {
            let taken = take(path).unwrap();
            assert_eq!(path.read_dir().unwrap().count(), 0, "an image begins with nothing");
            if of_image {
                std::fs::write(&lost, "x").unwrap();
            }
            taken.complete().unwrap();
            assert_eq!(lost.is_file(), of_image);
            assert!(of_image || path.metadata().unwrap().mtime() == 0, "the root's time is the image's");
            drop(taken);
            assert_eq!(path.read_dir().unwrap().count(), 1, "it is left as it was found");
            assert_eq!((lost.read_dir().unwrap().count(), lost.metadata().unwrap().mode() & 0o7777), (0, 0o700));
        }
        // What was found by a check of the file system is somebody's.
        std::fs::write(lost.join("#12"), "x").unwrap();
        assert!(matches!(take(path), Err(Error::Usage { .. })));
        std::fs::remove_dir_all(&lost).unwrap();
        std::fs::write(&lost, "x").unwrap();
        assert!(matches!(take(path), Err(Error::Usage { .. })), "a file of that name is one");
    }

    #[test]
    fn a_failure_leaves_a_mount_point_as_it_was() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o1770)).unwrap();
        let kept = rustix::fs::setxattr(path, "user.mine", b"1", XattrFlags::empty()).is_ok();
        let before = path.metadata().unwrap();
        let taken = take(path).unwrap();
        let plain = path.metadata().unwrap();
        assert_eq!((plain.mode() & 0o7777, plain.mtime()), (0o755, 0), "as a root that no layer lists");
        std::fs::create_dir_all(path.join("a/b")).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
        if kept {
            rustix::fs::setxattr(path, "user.mine", b"2", XattrFlags::empty()).unwrap();
            rustix::fs::setxattr(path, "user.theirs", b"", XattrFlags::empty()).unwrap();
        }
        drop(taken);
        let after = path.metadata().unwrap();
        assert_eq!(path.read_dir().unwrap().count(), 0);
        assert_eq!(
            (after.mode(), after.mtime(), after.mtime_nsec()),
            (before.mode(), before.mtime(), before.mtime_nsec())
        );
        if kept {
            let handle: OwnedFd = std::fs::File::open(path).unwrap().into();
            let xattrs = xattr::read_all(Target::Open(handle.as_fd()), b"").unwrap();
            let mine: Vec<_> = xattrs.into_iter().filter(|xattr| xattr.name.starts_with(b"user.")).collect();
            assert_eq!(mine, [Xattr { name: b"user.mine".to_vec(), value: b"1".to_vec() }]);
        }
    }
}
