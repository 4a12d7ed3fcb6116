//! Removes blobs that are not what their name says, so that they can be fetched again.

use std::fs::File;

use cap_std::fs::Dir;
use rustix::io::Errno;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::store::file;
use crate::store::layout::BlobKind;
use crate::store::lock::{self, blocking, waiting};
use crate::store::names::{self, Staging};
use crate::store::stage::naming_lock;
use crate::store::storage::{ImageStorage, blob_lock};

impl ImageStorage {
    /// Removes a blob if its bytes do not hash to its digest, and says whether it did. A good one stays, whatever the
    /// caller thinks of it: somebody may have fetched it again meanwhile. Reads all of the blob.
    pub async fn set_aside(&self, kind: BlobKind, digest: &Digest) -> Result<bool> {
        self.writable()?;
        let (storage, digest) = (self.clone(), digest.clone());
        let (locks, name) = (self.locks().clone(), blob_lock(kind, &digest));
        let lock = waiting(move || locks.acquire(&name)).await?;
        blocking(move || {
            let _lock = lock;
            let (dir, name) = (storage.rooms().blobs(kind), kind.file_name(&digest));
            let Some(mut blob) = file::open(dir, &name)? else { return Ok(false) };
            let (actual, _) = file::hash(&mut blob, digest.algorithm(), &name)?;
            if actual == digest {
                return Ok(false);
            }
            // Who downloads without the blob's lock may have put a good one there since.
            let _naming = storage.locks().acquire(&naming_lock(kind, &digest))?;
            let removed = take_away(dir, &name, &names::fresh(Staging::Blob, Some(&digest)), &blob)?;
            if removed {
                tracing::warn!(expected = %digest, %actual, kind = kind.noun(), "removed a blob that is not what its name says");
            }
            Ok(removed)
        })
        .await
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
        let dir = crate::ambient::open_dir(temp.path()).unwrap();
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
