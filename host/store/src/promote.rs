//! Promotion: trees that a power cut could have emptied become trees that outlive one.
//!
//! A pull does not wait for its trees to reach the disk: that takes as long again as writing them, and a tree is derived
//! data. The kernel writes them within about half a minute by itself. After [`AGE`], a sync of the file system finds little left
//! to write; then it is done, on a thread of its own: by the process that made the trees if it still lives, else by the
//! next one that opens the store. Whoever needs it at once calls [`Trees::promote`].

use std::sync::{Arc, Weak};
use std::time::{Duration, UNIX_EPOCH};

use cofferdam_core::ambient;
use cofferdam_core::cancel::Cancel;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use cofferdam_core::threads;
use cofferdam_tree::Lossy;

use crate::bundle;
use crate::file;
use crate::storage::ImageStorage;
use crate::trace::step;
use crate::tree_list::{INTERRUPTIONS, list_name};
use crate::trees::Trees;

/// How long after its commit a tree is synced. Twice the age at which the kernel writes by itself, by default.
const AGE: Duration = Duration::from_mins(1);

/// How many directories of trees one opening of the store looks after.
const AT_ONCE: usize = 16;

/// A tree as it was before a sync.
pub(super) struct Unsynced {
    digest: Digest,
    mark: String,
}

impl Trees {
    /// Lists what is in the trees of this boot, syncs the file system once and notes in their records that they outlive a power
    /// cut. To be called outside of all locks. Reads each file of a tree that has no list yet. Returns how many trees were promoted.
    pub fn promote(&self) -> Result<usize> {
        self.list_older(Duration::ZERO, u32::MAX, &Cancel::new())?;
        self.promote_older(Duration::ZERO)
    }

    pub(super) fn promote_older(&self, age: Duration) -> Result<usize> {
        self.0.access.writable()?;
        let written = self.unsynced(age)?;
        if written.is_empty() {
            return Ok(0);
        }
        if let Err(error) = self.sync_all() {
            self.give_up(&written)?;
            return Err(error);
        }
        self.confirm(written)
    }

    /// Believes in these trees no more. The kernel tells once only that it could not write something, and not what: the next
    /// sync would claim to have worked, and part of a tree might be missing all the same.
    fn give_up(&self, written: &[Unsynced]) -> Result<()> {
        let mut outcome = Ok(());
        for Unsynced { digest, mark } in written {
            // Whoever has the lock for a moment must not keep it trusted.
            let lock = self.0.locks.acquire(&self.lock_name(digest));
            outcome = outcome.and(lock.and_then(|_lock| self.distrust_locked(digest, mark)));
        }
        outcome
    }

    /// Syncs the file system in which the trees are.
    pub(super) fn sync_all(&self) -> Result<()> {
        step("sync all of", &*self.0.extracted, "");
        rustix::fs::syncfs(&*self.0.extracted).map_err(|e| Error::io("sync", b"the extracted layers", e))
    }

    /// Makes the names of trees and of their records durable.
    pub(super) fn sync_names(&self) -> Result<()> {
        file::sync_dir(&self.0.records)?;
        file::sync_dir(&self.0.extracted)
    }

    /// The trees that count and are not synced, and were written that long ago.
    pub(super) fn unsynced(&self, age: Duration) -> Result<Vec<Unsynced>> {
        let now = seconds();
        let mut written = Vec::new();
        for digest in self.recorded()? {
            if let Some((_, record)) = self.vouched(&digest)?
                && !record.synced
                && now.abs_diff(record.written_at) >= age.as_secs()
            {
                written.push(Unsynced { digest, mark: record.mark });
            }
        }
        Ok(written)
    }

    /// Notes that these trees were synced, unless another has taken their place since.
    pub(super) fn confirm(&self, written: Vec<Unsynced>) -> Result<usize> {
        let mut promoted = 0;
        for Unsynced { digest, mark } in written {
            // Who holds the lock may replace the tree; the new one was not synced.
            let _lock = self.0.locks.acquire(&self.lock_name(&digest))?;
            let Some((_, mut record)) = self.vouched(&digest)?.filter(|(_, record)| record.mark == mark) else {
                continue;
            };
            record.synced = true;
            // It may have been written after the sync.
            if record.list.is_some() && !file::sync(&self.0.records, &list_name(&digest)).unwrap_or(false) {
                record.list = None;
            }
            record.disk_bytes = Some(self.measure(&digest));
            self.write_record(&record)?;
            promoted += 1;
        }
        file::sync_dir(&self.0.records)?;
        Ok(promoted)
    }
}

impl ImageStorage {
    /// Promotes what was pulled, later and in the background, if somebody in this process still holds the store then. What
    /// it leaves, the next opening of the store does.
    pub fn promote_later(&self) {
        let (trees, background) = (Arc::downgrade(&self.trees().0), self.background());
        in_background(move || {
            std::thread::sleep(AGE);
            let Some(trees) = Weak::upgrade(&trees).map(|inner| Trees(inner, Lossy::default())) else { return Ok(0) };
            background.list(&trees, AGE);
            trees.promote_older(AGE)
        });
    }

    /// Promotes, in the background, the trees of those that did not live long enough to do it, and lists them. Lists come second
    /// here: they take longest, this process may not live long either, and promotion must not wait for one that does.
    pub(super) fn promote_old(&self) {
        // Local layouts without the lock on them, so that they can be collected meanwhile: each tree is looked at again under
        // its own.
        let local = bundle::keys(self).unwrap_or_default().into_iter();
        let local = local.filter_map(|key| bundle::look(self, &key).ok().flatten());
        let overlay = self.overlay_trees_made().unwrap_or_default();
        let mut todo = Vec::new();
        for trees in [self.trees().clone()].into_iter().chain(overlay).chain(local) {
            match trees
                .unsynced(AGE)
                .and_then(|old| Ok(old.is_empty() && trees.unlisted(AGE, INTERRUPTIONS)?.is_empty()))
            {
                Ok(true) => {}
                // The others at another opening: each takes descriptors.
                Ok(false) if todo.len() == AT_ONCE => break,
                Ok(false) => todo.push(trees),
                Err(error) => tracing::warn!(%error, "cannot look for trees that a power cut could damage"),
            }
        }
        if todo.is_empty() {
            return;
        }
        let background = self.background();
        in_background(move || {
            let promoted = todo.iter().map(|trees| trees.promote_older(AGE)).sum();
            for trees in &todo {
                background.list(trees, AGE);
            }
            promoted
        });
    }
}

fn in_background(work: impl FnOnce() -> Result<usize> + Send + 'static) {
    let work = || match work() {
        Ok(promoted) => tracing::debug!(promoted, "trees outlive a power cut from now on"),
        Err(error) => tracing::warn!(%error, "cannot make trees outlive a power cut"),
    };
    if let Err(error) = threads::spawn("cofferdam-sync", work) {
        tracing::debug!(%error, "cannot start a thread that syncs trees");
    }
}

/// Seconds since 1970, UTC.
pub(super) fn seconds() -> u64 {
    ambient::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
