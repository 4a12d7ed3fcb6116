//! A blob on its way into the store: [`Staged`] → [`Verified`] → [`Committed`].
//!
//! Each step consumes the one before, and there is no other way to make a `Verified` or a `Committed`: what was not
//! verified cannot be committed. Dropping any but the last removes the staged file.
//!
//! ```compile_fail,E0599
//! fn skip_verification(staged: cofferdam::store::Staged) {
//!     let _ = staged.commit();
//! }
//! ```

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use cap_std::fs::Dir;
use cofferdam_core::digest::{Digest, Hasher};
use cofferdam_core::error::{Error, Result};

use crate::file::{self, Flush, Publication, Slot};
use crate::layout::BlobKind;
use crate::lock::{Lock, Locks};
use crate::names::Staging;

/// The answer of somebody who wanted to do a piece of work once.
#[derive(Debug)]
pub enum Claim<T> {
    /// It is done already.
    Present,
    /// It is the caller's to do, and nobody else does it meanwhile.
    Granted(T),
}

impl<T> Claim<T> {
    /// The work, unless it is done.
    pub fn granted(self) -> Option<T> {
        match self {
            Self::Present => None,
            Self::Granted(work) => Some(work),
        }
    }
}

/// What a blob must be.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) kind: BlobKind,
    pub(super) digest: Digest,
    /// Its size in bytes, if declared.
    pub(super) size: Option<u64>,
    /// The most bytes that it may have, declared or not.
    pub(super) limit: u64,
    /// Whether it is on disk before it has its name.
    pub(super) flush: Flush,
}

impl Expected {
    /// The most bytes that may be written.
    pub(super) fn most(&self) -> u64 {
        self.size.unwrap_or(self.limit).min(self.limit)
    }

    fn over_limit(&self) -> Error {
        Error::Limit { subject: self.subject(), what: self.kind.counted(), limit: self.limit }
    }

    pub(super) fn subject(&self) -> String {
        format!("{} {}", self.kind.noun(), self.digest)
    }
}

/// A blob that is being written, under a name of its own that nobody reads. Bytes are hashed as they are written; more
/// bytes than declared are refused at once.
#[derive(Debug)]
pub struct Staged {
    draft: Draft,
    hasher: Hasher,
    written: u64,
}

/// A staged file: its name, its handle, and the lock of its blob where the work is done by one only.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) slot: Slot,
    pub(super) file: File,
    pub(super) dir: Arc<Dir>,
    pub(super) expected: Expected,
    pub(super) locks: Locks,
    pub(super) lock: Option<Lock>,
}

/// A staged blob whose bytes hash to its digest and have the declared size.
#[derive(Debug)]
#[must_use = "a verified blob is removed unless it is committed"]
pub struct Verified {
    draft: Draft,
    size: u64,
}

/// A blob that is visible under its digest, and as durable as was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    digest: Digest,
    size: u64,
}

impl Draft {
    pub(super) fn create(dir: &Arc<Dir>, expected: Expected, locks: &Locks, lock: Option<Lock>) -> Result<Self> {
        let (slot, file) = Slot::create(dir, Staging::Blob, Some(&expected.digest))?;
        Ok(Self { slot, file, dir: Arc::clone(dir), expected, locks: locks.clone(), lock })
    }

    /// Judges what was written: `digest` and `written` are what the writer measured, and the file must agree.
    pub(super) fn verify(self, digest: Digest, written: u64) -> Result<Verified> {
        let subject = || self.expected.subject();
        if self.expected.size.is_none() && written > self.expected.limit {
            return Err(self.expected.over_limit());
        }
        let held = self.file.metadata().map_err(|e| Error::io("look at", self.slot.name().as_bytes(), e))?.len();
        let expected = self.expected.size.unwrap_or(written);
        for actual in [written, held] {
            if actual != expected {
                return Err(Error::SizeMismatch { subject: subject(), expected, actual });
            }
        }
        if digest != self.expected.digest {
            return Err(Error::DigestMismatch {
                subject: subject(),
                expected: self.expected.digest.clone(),
                actual: digest,
            });
        }
        Ok(Verified { draft: self, size: written })
    }
}

impl Staged {
    pub(super) fn new(draft: Draft) -> Self {
        let hasher = Hasher::new(draft.expected.digest.algorithm());
        Self { draft, hasher, written: 0 }
    }

    /// The digest that the bytes must hash to.
    pub fn digest(&self) -> &Digest {
        &self.draft.expected.digest
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// A second handle on the staged file, for reading while it is written: reading does not move the writer. What is
    /// read is not verified yet.
    pub fn reader(&self) -> Result<File> {
        let name = self.draft.slot.name();
        file::open(&self.draft.dir, name)?.ok_or_else(|| Error::NotFound { what: format!("`{name}`"), hint: None })
    }

    /// Compares size and hash. [`Error::SizeMismatch`] or [`Error::DigestMismatch`] if they differ; the staged file is
    /// gone then.
    pub fn verify(self) -> Result<Verified> {
        self.draft.verify(self.hasher.finish(), self.written)
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let expected = &self.draft.expected;
        let most = expected.most();
        if self.written.saturating_add(bytes.len() as u64) > most {
            let text = match expected.size {
                Some(size) => format!("{} has more than the declared {size} bytes", expected.subject()),
                None => expected.over_limit().to_string(),
            };
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        let count = self.draft.file.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Verified {
    /// Makes the blob durable, unless nobody wants that, and gives it its name. If the name is taken already, what has it is verified: it stays if
    /// it is right and is replaced if it is not.
    pub fn commit(self) -> Result<Committed> {
        let Draft { mut slot, file, dir, expected, locks, lock } = self.draft;
        let name = expected.kind.file_name(&expected.digest);
        if expected.flush == Flush::Now {
            file::sync_file(&file, &name)?;
        }
        // Held by whoever gives the name or takes it away, downloads without a lock of the blob included: never for long.
        let naming = locks.acquire(&naming_lock(expected.kind, &expected.digest))?;
        if slot.publish_new(&name, expected.flush)? == Publication::Taken {
            if holds(&dir, &name, &expected)? {
                // Ours goes; theirs may be so new that its name is not on disk yet.
                if expected.flush == Flush::Now {
                    file::sync_dir(&dir)?;
                }
            } else {
                tracing::warn!(blob = %expected.subject(), "replacing a blob that is not what its name says, or not on disk");
                slot.publish_over(&name, expected.flush)?;
            }
        }
        drop((naming, slot, file, lock));
        Ok(Committed { digest: expected.digest, size: self.size })
    }

    /// As [`Verified::commit`], in the place of whatever has the name.
    pub(super) fn commit_over(self) -> Result<()> {
        let Draft { mut slot, file, expected, locks, .. } = self.draft;
        let name = expected.kind.file_name(&expected.digest);
        file::sync_file(&file, &name)?;
        let _naming = locks.acquire(&naming_lock(expected.kind, &expected.digest))?;
        slot.publish_over(&name, Flush::Now)
    }
}

/// The name of the lock under which a blob gets its name or loses it.
pub(super) fn naming_lock(kind: BlobKind, digest: &Digest) -> String {
    format!("{}.{}.naming.lock", kind.directory(), digest.file_stem())
}

/// Whether the file of this name has the expected bytes, in memory and, as far as that is wanted, on disk.
fn holds(dir: &Dir, name: &str, expected: &Expected) -> Result<bool> {
    let Some(mut file) = file::open(dir, name)? else { return Ok(false) };
    let (digest, _) = file::hash(&mut file, expected.digest.algorithm(), name)?;
    // One that cannot be synced may not be on disk what it is in memory, and the system says so once only.
    let on_disk = expected.flush == Flush::Later || file::sync_file(&file, name).is_ok();
    Ok(on_disk && digest == expected.digest)
}

impl Committed {
    /// The digest under which it is visible.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}
