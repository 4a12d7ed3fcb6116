//! Removes what the dead left behind: staged blobs, staged trees, lock files.
//!
//! What is alive is known by locks: a staged file of ours is locked by its owner, a staged tree by the lock of its layer.
//! The reference takes no locks. Its staging names (see [`super::names`]) are left alone until nobody has written there
//! for [`GRACE`].

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use cap_std::fs::Dir;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::ambient;
use crate::error::{Error, Result};
use crate::store::layout::{self, BlobKind};
use crate::store::names::{self, Staging};
use crate::store::storage::ImageStorage;
use crate::store::{bundle, lock};

/// How long nobody has written to a staged thing whose owner takes no locks, before it is taken for abandoned.
const GRACE: Duration = Duration::from_hours(1);

impl ImageStorage {
    /// Removes what dead processes left in staging, and nothing that a living one is at work on. Done at every opening;
    /// a process that lives for long may call it now and then.
    pub fn sweep(&self) -> Result<()> {
        self.writable()?;
        let rooms = self.rooms();
        let blobs = BlobKind::ALL.into_iter().map(|kind| rooms.blobs(kind));
        for dir in blobs.chain([&rooms.refs, &rooms.records, &rooms.root]) {
            sweep_files(dir)?;
        }
        self.trees().sweep()?;
        for trees in bundle::all(self)? {
            trees.sweep()?;
        }
        self.locks().sweep()
    }
}

fn sweep_files(dir: &Arc<Dir>) -> Result<()> {
    for name in layout::names(dir, "a directory of the store")? {
        let Some(staged) = names::parse(&name) else { continue };
        if staged.staging == Staging::Tree {
            continue;
        }
        let failed = |e: std::io::Error| Error::io("sweep", name.as_bytes(), e);
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&**dir, &name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(failed(error.into())),
        };
        // The lock is kept until the name is gone: an owner that has just made the file and not locked it yet will find,
        // when it gets the lock, that the file has no name, and makes another.
        if lock::try_lock_exclusively(&file).map_err(failed)? && (staged.ours || is_abandoned(dir, &name)) {
            match rustix::fs::unlinkat(&**dir, &name, AtFlags::empty()) {
                Ok(()) => tracing::debug!(name, "swept a staged file whose owner is gone"),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
    }
    Ok(())
}

/// Whether nobody has written to a staged thing for so long that its owner, who takes no locks, must be gone.
pub(super) fn is_abandoned(dir: &Dir, name: &str) -> bool {
    let Ok(stat) = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else { return false };
    let now = ambient::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // A time far in the future is no sign of life either.
    now.as_secs().abs_diff(u64::try_from(stat.st_mtime).unwrap_or(0)) > GRACE.as_secs()
}
