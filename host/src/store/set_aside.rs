//! Removes blobs that are not what their name says, so that they can be fetched again.

use crate::digest::Digest;
use crate::error::Result;
use crate::store::file;
use crate::store::layout::BlobKind;
use crate::store::lock::{blocking, waiting};
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
            tracing::warn!(expected = %digest, %actual, kind = kind.noun(), "removing a blob that is not what its name says");
            file::remove(dir, &name)
        })
        .await
    }
}
