//! Removes blobs that are not what their name says, so that they can be fetched again.

use std::fs::File;

use cap_std::fs::Dir;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use rustix::io::Errno;

use crate::file;
use crate::layout::BlobKind;
use crate::lock::{self, Lock, blocking, waiting};
use crate::names::{self, Staging};
use crate::stage::naming_lock;
use crate::storage::{ImageStorage, blob_lock};

/// What became of a blob that somebody complained about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aside {
    /// Its bytes were wrong, and it was removed.
    Removed,
    /// It was no file at all, and was moved aside.
    Renamed,
    /// It is right.
    Good,
    /// It is not there.
    Gone,
    /// Somebody is at work on it.
    Busy,
}

impl ImageStorage {
    /// Removes a blob if its bytes do not hash to its digest, and says whether it did. A good one stays, whatever the
    /// caller thinks of it: somebody may have fetched it again meanwhile. Reads all of the blob.
    pub async fn set_aside(&self, kind: BlobKind, digest: &Digest) -> Result<bool> {
        self.writable()?;
        let (storage, digest) = (self.clone(), digest.clone());
        let (locks, name) = (self.locks().clone(), blob_lock(kind, &digest));
        let lock = waiting(move || locks.acquire(&name)).await?;
        let aside = blocking(move || storage.set_aside_locked(kind, &digest, lock)).await?;
        Ok(matches!(aside, Aside::Removed | Aside::Renamed))
    }

    /// The same, blocking the thread, unless somebody is at work on the blob.
    pub(super) fn set_aside_now(&self, kind: BlobKind, digest: &Digest) -> Result<Aside> {
        self.writable()?;
        match self.locks().try_acquire(&blob_lock(kind, digest))? {
            Some(lock) => self.set_aside_locked(kind, digest, lock),
            None => Ok(Aside::Busy),
        }
    }

    /// Sees to it that a blob which somebody could not use is fetched again, if that is the blob's fault. Says what was wrong with it.
    pub(super) fn complain(&self, kind: BlobKind, digest: &Digest) -> Option<&'static str> {
        if self.looking {
            return None;
        }
        match self.set_aside_now(kind, digest) {
            Ok(Aside::Removed) => Some("its bytes were not what its name says, and it was set aside"),
            Ok(Aside::Renamed) => Some("it was no file, and was set aside"),
            Ok(Aside::Good | Aside::Gone | Aside::Busy) => None,
            Err(error) => {
                tracing::debug!(%digest, %error, "cannot set aside what may be damaged");
                None
            }
        }
    }

    fn set_aside_locked(&self, kind: BlobKind, digest: &Digest, _lock: Lock) -> Result<Aside> {
        let (dir, name) = (self.rooms().blobs(kind), kind.file_name(digest));
        let Some(mut blob) = file::open(dir, &name)? else {
            let _naming = self.locks().acquire(&naming_lock(kind, digest))?;
            // Under the lock that everybody has who gives the name to a file.
            if file::open(dir, &name)?.is_some() {
                return Ok(Aside::Busy);
            }
            return Ok(if file::set_aside(dir, &name)?.is_some() { Aside::Renamed } else { Aside::Gone });
        };
        let (actual, _) = file::hash(&mut blob, digest.algorithm(), &name)?;
        if actual == *digest || (kind == BlobKind::Manifest && self.is_as_saved(digest)?) {
            return Ok(Aside::Good);
        }
        // Who downloads without the blob's lock may have put a good one there since.
        let _naming = self.locks().acquire(&naming_lock(kind, digest))?;
        if take_away(dir, &name, &names::fresh(Staging::Blob, Some(digest)), &blob)? {
            tracing::warn!(expected = %digest, %actual, kind = kind.noun(), "removed a blob that is not what its name says");
            return Ok(Aside::Removed);
        }
        Ok(Aside::Busy)
    }
}

/// Removes what has a name, if that is the open file `judged`. A program that takes no locks may give the name to another
/// file at any time: so the name is taken first, and then it is seen whose it was.
fn take_away(dir: &Dir, name: &str, aside: &str, judged: &File) -> Result<bool> {
    let failed = |e: Errno| Error::io("set aside", name.as_bytes(), e);
    // Before it has a staging name: what has one and is not locked is swept.
    lock::try_lock_exclusively(judged).map_err(|e| Error::io("lock", name.as_bytes(), e))?;
    match rustix::fs::renameat(dir, name, dir, aside) {
        Err(Errno::NOENT) => return Ok(false),
        other => other.map_err(failed)?,
    }
    // Locked as a staged file is: nobody sweeps it away before it is known what it is.
    let taken = file::open(dir, aside)?;
    if let Some(taken) = &taken {
        lock::try_lock_exclusively(taken).map_err(|e| Error::io("lock", aside.as_bytes(), e))?;
    }
    let inode = |file: &File| rustix::fs::fstat(file).map(|stat| (stat.st_dev, stat.st_ino)).map_err(failed);
    let judged = inode(judged)?;
    if taken.as_ref().map(inode).transpose()? == Some(judged) {
        return file::remove(dir, aside);
    }
    // If the name has been given away once more, that one stays, and this one is swept.
    file::publish_new(dir, aside, name)?;
    file::sync_dir(dir)?;
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_judged_is_taken_away() {
        let temp = tempfile::tempdir().unwrap();
        let dir = cofferdam_core::ambient::open_dir(temp.path()).unwrap();
        dir.write("name", "bad").unwrap();
        let judged = file::open(&dir, "name").unwrap().unwrap();
        // Replaced since.
        dir.write("other", "good").unwrap();
        dir.rename("other", &dir, "name").unwrap();
        assert!(!take_away(&dir, "name", "aside", &judged).unwrap());
        assert_eq!(dir.read("name").unwrap(), b"good");
        assert!(!dir.exists("aside"));
        let judged = file::open(&dir, "name").unwrap().unwrap();
        assert!(take_away(&dir, "name", "aside", &judged).unwrap());
        assert!(!dir.exists("name") && !dir.exists("aside"));
        assert!(!take_away(&dir, "name", "aside", &judged).unwrap());
    }
}
