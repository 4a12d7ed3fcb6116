//! Removes what the dead left behind: staged blobs, staged trees, lock files.
//!
//! What is alive is known by locks: a staged file of ours is locked by its owner, a staged tree by the lock of its layer.
//! The reference takes no locks. Its staging names (see [`super::names`]) are left alone until nothing has happened to the
//! file, or to the top of the tree, for [`GRACE`]. That is a guess: a program that takes no locks and writes for an hour deep
//! inside of a tree, or into one file that it does not extend, may lose what it stages. It must not share the directory.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use cap_std::fs::Dir;
use cofferdam_core::cancel::Cancel;
use cofferdam_core::error::{Error, Result};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::layout::{self, BlobKind};
use crate::names;
use crate::storage::ImageStorage;
use crate::{bundle, lease, lock, promote};

/// How long nothing has happened to a staged thing whose owner takes no locks, before it is taken for abandoned.
const GRACE: Duration = Duration::from_hours(1);

/// A sweep under way. One bad entry does not keep the others.
#[derive(Debug)]
pub(super) struct Sweep {
    /// Seconds since 1970, UTC.
    now: u64,
    /// The first thing that could not be swept.
    failed: Option<Error>,
    /// How the caller gives up.
    cancel: Option<Cancel>,
}

impl Sweep {
    pub(super) fn new(now: u64) -> Self {
        Self { now, failed: None, cancel: None }
    }

    /// How the caller gives up, if it can.
    pub(super) fn cancel(&self) -> Option<&Cancel> {
        self.cancel.as_ref()
    }

    pub(super) fn note(&mut self, outcome: Result<()>) {
        if let Err(error) = outcome {
            if matches!(error.root(), Error::Interrupted) {
                self.failed = Some(error);
                return;
            }
            tracing::warn!(%error, cause = std::error::Error::source(&error), "cannot sweep part of the store");
            self.failed.get_or_insert(error);
        }
    }

    pub(super) fn list<T>(&mut self, found: Result<Vec<T>>) -> Vec<T> {
        found.unwrap_or_else(|error| {
            self.note(Err(error));
            Vec::new()
        })
    }

    /// Whether nothing has happened to a staged thing for so long that its owner, who takes no locks, must be gone. Its time
    /// of change counts too: whoever extracts sets times of modification as the layer has them, but nobody can set that one.
    pub(super) fn is_abandoned(&self, dir: &Dir, name: &str) -> bool {
        let Ok(stat) = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else { return false };
        // A time far in the future is no sign of life either.
        let long_ago = |time: i64| self.now.abs_diff(u64::try_from(time).unwrap_or(0)) > GRACE.as_secs();
        long_ago(stat.st_mtime) && long_ago(stat.st_ctime)
    }
}

impl ImageStorage {
    /// Removes what dead processes left in staging, and nothing that a living one is at work on. Done at every opening;
    /// a process that lives for long may call it now and then. Goes on after what cannot be removed, and returns the first
    /// such error.
    pub fn sweep(&self) -> Result<()> {
        self.sweep_at(promote::seconds())
    }

    /// Does the same until it is given up. What is left is swept the next time.
    pub(super) fn sweep_unless(&self, cancel: &Cancel) -> Result<()> {
        self.sweep_with(Sweep { cancel: Some(cancel.clone()), ..Sweep::new(promote::seconds()) })
    }

    pub(super) fn sweep_at(&self, now: u64) -> Result<()> {
        self.sweep_with(Sweep::new(now))
    }

    fn sweep_with(&self, mut sweep: Sweep) -> Result<()> {
        self.writable()?;
        let rooms = self.rooms();
        let blobs = BlobKind::ALL.into_iter().map(|kind| rooms.blobs(kind));
        self.sweep_scratch(&mut sweep);
        if let Ok(plugins) = layout::open_dir(&rooms.root, super::plugins::ROOM) {
            sweep_files(&Arc::new(plugins), &mut sweep);
        }
        for dir in blobs.chain([&rooms.refs, &rooms.root]) {
            sweep_files(dir, &mut sweep);
        }
        self.trees().sweep(&mut sweep);
        for key in sweep.list(bundle::keys(self)) {
            match bundle::open(self, &key) {
                Ok(trees) => trees.sweep(&mut sweep),
                Err(error) => sweep.note(Err(error)),
            }
        }
        match self.overlay_trees_made() {
            Ok(trees) => trees.iter().for_each(|trees| trees.sweep(&mut sweep)),
            Err(error) => sweep.note(Err(error)),
        }
        self.locks().sweep(&mut sweep);
        lease::sweep(self.locks(), &mut sweep);
        sweep.failed.map_or(Ok(()), Err)
    }
}

/// Removes the staged files of the dead from a directory.
pub(super) fn sweep_files(dir: &Arc<Dir>, sweep: &mut Sweep) {
    for name in sweep.list(layout::names(dir, "a directory of the store")) {
        let swept = sweep_file(dir, &name, sweep);
        sweep.note(swept);
    }
}

/// Whether nobody works on a staged file any more. Changes nothing.
pub(super) fn is_dead(dir: &Dir, name: &str, ours: bool, sweep: &Sweep) -> bool {
    let unlocked = |file| lock::try_lock_exclusively(&file).unwrap_or(false);
    super::file::open(dir, name).ok().flatten().is_some_and(unlocked) && (ours || sweep.is_abandoned(dir, name))
}

fn sweep_file(dir: &Dir, name: &str, sweep: &Sweep) -> Result<()> {
    let Some(staged) = names::parse(name).filter(|staged| !staged.staging.is_tree()) else { return Ok(()) };
    let failed = |e: std::io::Error| Error::io("sweep", name.as_bytes(), e);
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(failed(error.into())),
    };
    // The lock is kept until the name is gone: an owner that has just made the file and not locked it yet will find,
    // when it gets the lock, that the file has no name, and makes another.
    if lock::try_lock_exclusively(&file).map_err(failed)? && (staged.ours || sweep.is_abandoned(dir, name)) {
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) => tracing::debug!(name, "swept a staged file whose owner is gone"),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(failed(error.into())),
        }
    }
    Ok(())
}
