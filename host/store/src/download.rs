//! [`StagedDownload`]: the asynchronous form of staging, with the reference's signatures.

use std::path::{Path, PathBuf};

use cofferdam_core::error::{Error, ErrorKind, Result};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

use crate::file::Slot;
use crate::hashing::HashingWriter;
use crate::lock::{Locks, blocking};
use crate::stage::{Draft, Expected};

/// How far a download may run past its declared size, or the limit where none is declared, before writing fails, in bytes. It has failed already at the first
/// byte too many; this only leaves the verdict to [`StagedDownload::commit`], where callers of the reference expect it,
/// without letting an endless stream fill the disk.
const OVERRUN: u64 = 8 << 20;

/// A download into the store: the bytes go to a staged file, and get their name only if they are right.
///
/// Several downloads of one blob may run at once; each has a file of its own, and all of them succeed. Dropping one
/// removes its file. To download a blob once for all, use [`crate::ImageStorage::begin_blob`].
#[derive(Debug)]
pub struct StagedDownload {
    staged_path: PathBuf,
    final_path: PathBuf,
    // Before `slot`: the file is closed first.
    writer: HashingWriter<File>,
    slot: Slot,
    rest: Rest,
}

/// What is needed again at the end.
#[derive(Debug)]
struct Rest {
    dir: std::sync::Arc<cap_std::fs::Dir>,
    expected: Expected,
    locks: Locks,
}

impl StagedDownload {
    pub(super) fn new(draft: Draft, dir_path: &Path) -> Self {
        let Draft { slot, file, dir, expected, locks, lock: _ } = draft;
        let limit = expected.most().saturating_add(OVERRUN);
        Self {
            staged_path: dir_path.join(slot.name()),
            final_path: dir_path.join(expected.kind.file_name(&expected.digest)),
            writer: HashingWriter::bounded(File::from_std(file), expected.digest.algorithm(), limit),
            slot,
            rest: Rest { dir, expected, locks },
        }
    }

    /// Where the bytes go.
    pub fn file(&mut self) -> &mut HashingWriter<File> {
        &mut self.writer
    }

    /// The path of the staged file, for messages.
    pub fn staged_path(&self) -> &Path {
        &self.staged_path
    }

    /// The path that the blob gets.
    pub fn final_path(&self) -> &Path {
        &self.final_path
    }

    /// Verifies what was written and gives it its name. `Ok(true)`: it is right, and durable. `Ok(false)`: size or hash
    /// are wrong, and the staged file is gone. An error: the system failed, or nobody declared a size and there are more
    /// bytes than the limit allows ([`Error::Limit`]); the staged file is gone too.
    pub async fn commit(self) -> Result<bool> {
        let Self { staged_path, final_path: _, mut writer, slot, rest: Rest { dir, expected, locks } } = self;
        // What the file holds back is part of the verdict: a write that failed late is reported here.
        let failed = |e| Error::io("write", staged_path.as_os_str().as_encoded_bytes(), e);
        writer.flush().await.map_err(failed)?;
        let (file, digest, written) = writer.into_parts();
        let file = file.into_std().await;
        let subject = expected.subject();
        let draft = Draft { slot, file, dir, expected, locks, lock: None };
        blocking(move || match draft.verify(digest, written) {
            Ok(verified) => verified.commit().map(|_| true),
            Err(error) if error.kind() == ErrorKind::Integrity => {
                tracing::error!(blob = subject, %error, "the download is not what was asked for");
                Ok(false)
            }
            Err(error) => Err(error),
        })
        .await
    }

    /// Removes the staged file.
    pub async fn abort(self) {
        let Self { writer, slot, .. } = self;
        // A write may still be under way on another thread; it ends before the name goes.
        let file = writer.into_parts().0.into_std().await;
        let _ = blocking(move || {
            drop((file, slot));
            Ok(())
        })
        .await;
    }
}
