//! Times of directories: set when a layer is done, since everything made in a directory changes them.
//!
//! A directory that the layer lists gets the time that the layer says. One that it does not mention keeps the time it had
//! before the layer changed anything inside. Times belong to the directory and not to the path: making another directory
//! in its place overwrites what was remembered, and a place that holds something else by then is left alone.

use cofferdam_core::error::{Error, Result};

use super::entry::Timestamp;
use super::handle::Dir;
use super::ids::{IdMap, PathId};
use super::sys::{Explain as _, stamp_of};
use super::writer::TreeWriter;

/// What a directory's time will be.
#[derive(Debug)]
struct Due {
    path: Box<[u8]>,
    mtime: Timestamp,
}

/// Directories whose time is to be set.
#[derive(Debug, Default)]
pub(super) struct Times(IdMap<Due>);

/// Counts the bytes that a layer makes the writer remember, against [`cofferdam_core::Limits::deferred_bytes`].
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    used: usize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, used: 0 }
    }

    /// Counts a remembered name.
    pub(super) fn charge(&mut self, path: &[u8]) -> Result<()> {
        /// What a table takes for an item beside its bytes, roughly.
        const OVERHEAD: usize = 64;
        self.used = self.used.saturating_add(path.len()).saturating_add(OVERHEAD);
        if self.used > self.limit {
            return Err(Error::Limit {
                subject: "the layer".into(),
                what: "bytes of names to remember until its end",
                limit: self.limit as u64,
            });
        }
        Ok(())
    }

    /// Begins again: what was remembered is gone.
    pub(super) fn reset(&mut self) {
        self.used = 0;
    }
}

impl TreeWriter {
    /// Says that something in `dir` is about to change. Remembers its time unless another is due already.
    pub(super) fn note(&mut self, dir: &Dir) -> Result<()> {
        if dir.mark_noted(self.layer) || self.times.0.contains_key(&dir.id) {
            return Ok(());
        }
        let stat = rustix::fs::fstat(dir).explain("examine", &dir.path)?;
        self.set_due(dir.id, &dir.path, stamp_of(&stat))
    }

    /// Says which time a directory is to have.
    pub(super) fn set_due(&mut self, id: PathId, path: &[u8], mtime: Timestamp) -> Result<()> {
        if let Some(due) = self.times.0.get_mut(&id) {
            due.mtime = mtime;
            return Ok(());
        }
        self.budget.charge(path)?;
        self.times.0.insert(id, Due { path: path.into(), mtime });
        Ok(())
    }

    /// Sets all times. In the order of paths, so that each directory is reached from one that was just used.
    pub(super) fn settle_times(&mut self) -> Result<()> {
        let mut all: Vec<Due> = std::mem::take(&mut self.times.0).into_values().collect();
        all.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        for due in all {
            self.options.cancel.check()?;
            // Nothing there, or no directory: it was replaced, and its time went with it.
            if let Some(dir) = self.open_resolved(&due.path)? {
                super::metadata::set_times(&dir.fd, due.mtime).explain("set the times of", &due.path)?;
            }
        }
        Ok(())
    }
}
