//! Whether there is room, asked before anything is fetched.

use std::os::unix::ffi::OsStrExt as _;

use cofferdam_core::error::{Error, Escaped, Result};
use cofferdam_documents::LayerDescriptor;

use crate::layout::{self, BlobKind};
use crate::storage::ImageStorage;

const KIND: BlobKind = BlobKind::Layer;

impl ImageStorage {
    /// Whether the blobs of these layers fit on the disk, those left out that are there, as blob or as tree. What their trees
    /// will take is not known before they are made. Blocks the thread for a moment.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`]; [`Error::Limit`] for a layer that declares more than a layer may have.
    pub fn check_space<'a>(&self, layers: impl IntoIterator<Item = &'a LayerDescriptor>) -> Result<()> {
        let dir = self.rooms().blobs(KIND);
        let mut needed = 0_u64;
        for LayerDescriptor { digest, size, .. } in layers {
            self.expect(KIND, digest.clone(), *size)?;
            let size = size.unwrap_or_default();
            if layout::file_size(dir, &KIND.file_name(digest)) != Some(size) && !self.trees().is_ready(digest) {
                needed = needed.saturating_add(size);
            }
        }
        if needed == 0 {
            return Ok(());
        }
        let stat = rustix::fs::fstatvfs(&**dir).map_err(|e| Error::io("ask for the free space of", b"layers", e))?;
        // Some file systems do not tell.
        if stat.f_blocks == 0 {
            return Ok(());
        }
        let available = stat.f_bavail.saturating_mul(stat.f_frsize);
        if needed <= available {
            return Ok(());
        }
        let path = Escaped(self.images_dir().as_os_str().as_bytes()).to_string();
        Err(Error::NoSpace { what: "the download".into(), path, needed, available })
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_core::digest::Digest;
    use cofferdam_core::limits::Limits;

    use super::*;

    fn layer(content: &[u8], size: u64) -> LayerDescriptor {
        LayerDescriptor { size: Some(size), ..LayerDescriptor::of(Digest::of(content)) }
    }

    #[tokio::test]
    async fn what_does_not_fit_is_refused_and_what_is_there_needs_no_room() {
        let temp = tempfile::tempdir().unwrap();
        let limits = Limits::default().with(|limits| limits.layer_bytes = u64::MAX);
        let storage = crate::tests::try_open(temp.path().join("store")).unwrap().with_limits(limits);
        let (small, huge) = (layer(b"small", 5), layer(b"huge", u64::MAX));
        storage.check_space([&small]).unwrap();
        let error = storage.check_space([&small, &huge]).unwrap_err();
        let Error::NoSpace { needed, available, .. } = error else { panic!("{error}") };
        assert!(needed == u64::MAX && available < needed);
        assert!(error.hint().unwrap().contains("cofferdam gc"));
        // A blob of another size is fetched again.
        let there = layer(b"there", 5);
        storage.rooms().blobs(KIND).write(KIND.file_name(&there.digest), b"there").unwrap();
        storage.check_space([&there]).unwrap();
        assert!(storage.check_space([&layer(b"there", u64::MAX)]).is_err());
        let error = storage.with_limits(Limits::default()).check_space([&huge]).unwrap_err();
        assert!(matches!(error, Error::Limit { .. }), "{error}");
    }
}
