//! Lists of trees: `records/sha256-<hex>.mtree`, from which it can be told later whether a tree still is what was extracted.
//!
//! A list is made of a tree that was extracted and verified during this boot, before the sync that lets the tree outlive one
//! ([`Trees::promote`]): never of one whose files a power cut may have emptied. It is a file of its own, which the record names by
//! its hash. A record without one vouches all the same: making lists takes time (each file is read), is done in the background, and
//! is given up when the store is closed; the next process that opens the store goes on.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cofferdam_core::cancel::Cancel;
use cofferdam_core::digest::{Algorithm, Digest, Hasher};
use cofferdam_core::error::{Error, Result};

use crate::file::{self, Flush, Slot};
use crate::mtree;
use crate::names::Staging;
use crate::promote;
use crate::record::{FilePart, TreeRecord};
use crate::trees::Trees;

/// How often the listing of a tree is begun in the background. Processes that end sooner than a large tree is listed would
/// read it again and again for nothing; after that, its list is left to a check of the store, or to [`Trees::promote`].
pub(super) const INTERRUPTIONS: u32 = 3;

/// How the names of lists end.
pub(super) const SUFFIX: &str = ".mtree";

pub(super) fn list_name(digest: &Digest) -> String {
    format!("{}{SUFFIX}", digest.file_stem())
}

/// Work on lists in the background, which ends before its store is closed, so that it leaves nothing staged.
#[derive(Debug, Default)]
pub(super) struct Background {
    cancel: Cancel,
    busy: Mutex<()>,
}

impl Background {
    /// Lists trees, unless the store is closed. At the lowest priority: nobody waits for it.
    pub(super) fn list(&self, trees: &Trees, age: Duration) {
        let _busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = rustix::process::nice(19);
        match trees.list_older(age, INTERRUPTIONS, &self.cancel) {
            Ok(_) => {}
            Err(error) if error.is_interrupted() => {
                tracing::debug!("trees are left without a list: the store is closed");
            }
            Err(error) => tracing::debug!(%error, "cannot list trees"),
        }
    }

    /// Gives it up, and waits for that.
    pub(super) fn end(&self) {
        self.cancel.cancel();
        drop(self.busy.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Trees {
    /// Lists the trees that were made that long ago, during this boot, and have no list yet. One that cannot be listed stays
    /// without, and so does one whose listing was interrupted `interruptions` times. Returns how many were listed.
    pub(super) fn list_older(&self, age: Duration, interruptions: u32, cancel: &Cancel) -> Result<usize> {
        self.0.access.writable()?;
        let mut listed = 0;
        for digest in self.unlisted(age, interruptions)? {
            match self.list(&digest, cancel) {
                Ok(done) => listed += usize::from(done),
                Err(error) if error.is_interrupted() => {
                    self.note_interruption(&digest)?;
                    return Err(error);
                }
                Err(error) => tracing::warn!(%digest, %error, "a tree cannot be listed"),
            }
        }
        Ok(listed)
    }

    /// Notes that the listing of a tree was interrupted. Where that cannot be noted, it is not.
    fn note_interruption(&self, digest: &Digest) -> Result<()> {
        let Some(_lock) = self.0.locks.try_acquire(&self.lock_name(digest))? else { return Ok(()) };
        let Some((_, mut record)) = self.vouched(digest)?.filter(|(_, record)| record.list.is_none()) else {
            return Ok(());
        };
        record.interruptions = record.interruptions.saturating_add(1);
        self.write_record(&record)
    }

    /// The trees of this boot without a list that were written that long ago, and whose listing was interrupted fewer than
    /// `interruptions` times.
    pub(super) fn unlisted(&self, age: Duration, interruptions: u32) -> Result<Vec<Digest>> {
        let now = promote::seconds();
        let mut found = Vec::new();
        for digest in self.recorded()? {
            if let Some((_, record)) = self.vouched(&digest)?
                && record.list.is_none()
                && record.interruptions < interruptions
                && record.boot_id.is_some()
                && record.boot_id == self.0.boot_id
                && now.abs_diff(record.written_at) >= age.as_secs()
            {
                found.push(digest);
            }
        }
        Ok(found)
    }

    /// Lists one tree now. One that cannot be listed stays without.
    pub(super) fn list_now(&self, digest: &Digest, cancel: &Cancel) -> Result<()> {
        match self.list(digest, cancel) {
            Ok(_) => Ok(()),
            Err(error) if error.is_interrupted() => Err(error),
            Err(error) => {
                tracing::warn!(%digest, %error, "a tree cannot be listed");
                Ok(())
            }
        }
    }

    /// Lists a tree, outside of all locks, and has its record name the list, if it is the same tree then.
    fn list(&self, digest: &Digest, cancel: &Cancel) -> Result<bool> {
        let Some((directory, record)) = self.vouched(digest)?.filter(|(_, record)| record.list.is_none()) else {
            return Ok(false);
        };
        let draft = self.draft_list(directory.as_fd(), cancel)?;
        let Some(_lock) = self.0.locks.try_acquire(&self.lock_name(digest))? else { return Ok(false) };
        match self.vouched(digest)? {
            Some((_, now)) if now.mark == record.mark => self.keep_list(draft, now).map(|()| true),
            _ => Ok(false),
        }
    }

    /// Writes the list of a tree under a name that is not final.
    pub(super) fn draft_list(&self, root: BorrowedFd<'_>, cancel: &Cancel) -> Result<ListDraft> {
        let (slot, file) = Slot::create(&self.0.records, Staging::Small, None)?;
        let hasher = Hasher::new(Algorithm::Sha256);
        let mut out = BufWriter::with_capacity(128 << 10, Hashed { file, hasher, bytes: 0 });
        mtree::write(root, &mut out, cancel)?;
        let failed = |error: io::Error| Error::io("write", slot.name().as_bytes(), error);
        let Hashed { file, hasher, bytes } = out.into_inner().map_err(|e| failed(e.into_error()))?;
        Ok(ListDraft { part: FilePart { digest: hasher.finish(), bytes }, file, slot })
    }

    /// Gives a list its name and has the record name it. The tree's lock is held.
    pub(super) fn keep_list(&self, draft: ListDraft, mut record: TreeRecord) -> Result<()> {
        let ListDraft { part, file, mut slot } = draft;
        let name = list_name(&record.digest);
        // A tree that outlives a power cut has a list that does.
        let flush = if record.synced { Flush::Now } else { Flush::Later };
        if flush == Flush::Now {
            file::sync_file(&file, slot.name())?;
        }
        slot.publish_over(&name, flush)?;
        record.list = Some(part);
        self.write_record(&record)
    }

    /// Has a record name no list, if it is that of the tree with this mark, and its list is not what was written. Says whether it could.
    pub(super) fn forget_list(&self, digest: &Digest, mark: Option<&str>) -> Result<bool> {
        let Some(_lock) = self.0.locks.try_acquire(&self.lock_name(digest))? else { return Ok(false) };
        let same = |record: &TreeRecord| Some(&*record.mark) == mark;
        let Some((_, mut record)) = self.vouched(digest)?.filter(|(_, record)| same(record)) else { return Ok(false) };
        if self.open_list(&record)?.is_some() {
            return Ok(true);
        }
        record.list = None;
        self.write_record(&record)?;
        file::remove(&self.0.records, &list_name(digest)).map(|_| true)
    }

    /// The list that a record names, standing at its beginning: nothing if it is not there, or not what was written.
    pub(super) fn open_list(&self, record: &TreeRecord) -> Result<Option<BufReader<File>>> {
        let Some(part) = &record.list else { return Ok(None) };
        let name = list_name(&record.digest);
        let Some(mut list) = file::open(&self.0.records, &name)? else { return Ok(None) };
        let (digest, bytes) = file::hash(&mut list, part.digest.algorithm(), &name)?;
        if digest != part.digest || bytes != part.bytes {
            return Ok(None);
        }
        io::Seek::rewind(&mut list).map_err(|e| Error::io("read", name.as_bytes(), e))?;
        Ok(Some(BufReader::with_capacity(128 << 10, list)))
    }
}

/// A list that was written and has no name yet. Dropping it removes it.
#[derive(Debug)]
pub(super) struct ListDraft {
    part: FilePart,
    file: File,
    slot: Slot,
}

impl ListDraft {
    /// The list, to be read from its beginning.
    pub(super) fn reader(&self) -> Result<BufReader<File>> {
        let failed = |e| Error::io("read", self.slot.name().as_bytes(), e);
        let mut file = self.file.try_clone().map_err(failed)?;
        io::Seek::rewind(&mut file).map_err(failed)?;
        Ok(BufReader::with_capacity(128 << 10, file))
    }
}

/// Writes to a file, and hashes what it took.
struct Hashed {
    file: File,
    hasher: Hasher,
    bytes: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests arrange the world by path")]
mod tests {
    use super::*;
    use crate::tests::Fixture;

    /// An interruption within a file comes with the file's name. It is no failure, and it is not begun again for ever.
    #[test]
    fn a_listing_that_is_interrupted_again_and_again_is_left_to_others() {
        let fixture = Fixture::new();
        let layer = fixture.add_layer(b"content");
        let path = fixture.storage.layer_tarball_path(&layer.digest.to_string());
        fixture.storage.extract_layer(&layer.digest.to_string(), &path).unwrap();
        let trees = fixture.storage.trees();
        let cancel = Cancel::new();
        cancel.cancel();
        for _ in 0..INTERRUPTIONS {
            assert_eq!(trees.unlisted(Duration::ZERO, INTERRUPTIONS).unwrap(), std::slice::from_ref(&layer.digest));
            let error = trees.list_older(Duration::ZERO, INTERRUPTIONS, &cancel).unwrap_err();
            assert!(error.is_interrupted(), "{error}");
        }
        assert_eq!(trees.list_older(Duration::ZERO, INTERRUPTIONS, &cancel).unwrap(), 0, "it is begun once more");
        assert!(trees.list_now(&layer.digest, &cancel).unwrap_err().is_interrupted());
        assert_eq!(trees.list_older(Duration::ZERO, u32::MAX, &Cancel::new()).unwrap(), 1, "asked for, it is made");
        assert_eq!(std::fs::read_dir(fixture.path("records")).unwrap().count(), 3);
    }
}
