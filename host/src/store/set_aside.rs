//! Removes blobs that are not what their name says, so that they can be fetched again.

use rustix::fs::AtFlags;
use rustix::io::Errno;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::store::file;
use crate::store::layout::BlobKind;
use crate::store::lock::{blocking, waiting};
use crate::store::names::{self, Staging};
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
            // Who downloads without a lock may have put a good blob there since. So the name is taken first, and then it
            // is seen whether it was the bad one's.
            let aside = names::fresh(Staging::Blob, Some(&digest));
            let failed = |e: Errno| Error::io("set aside", name.as_bytes(), e);
            match rustix::fs::renameat(&**dir, &name, &**dir, &aside) {
                Err(Errno::NOENT) => return Ok(false),
                other => other.map_err(failed)?,
            }
            let taken = rustix::fs::statat(&**dir, &aside, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            let judged = rustix::fs::fstat(&blob).map_err(failed)?;
            if (taken.st_dev, taken.st_ino) != (judged.st_dev, judged.st_ino) {
                rustix::fs::renameat(&**dir, &aside, &**dir, &name).map_err(failed)?;
                file::sync_dir(dir)?;
                return Ok(false);
            }
            tracing::warn!(expected = %digest, %actual, kind = kind.noun(), "removing a blob that is not what its name says");
            file::remove(dir, &aside)
        })
        .await
    }
}
