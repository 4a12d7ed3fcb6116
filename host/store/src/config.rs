//! Image configurations.

use std::path::PathBuf;

use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};

use crate::layout::{self, BlobKind};
use crate::storage::ImageStorage;

impl ImageStorage {
    /// Returns true if [`ImageStorage::load_config`] would load the config. Reads and hashes it.
    pub fn has_config(&self, digest: &str) -> bool {
        digest.parse().is_ok_and(|digest| self.read_config(&digest).is_ok())
    }

    /// The exact text of a config, verified against its digest. [`Error::NotFound`] if there is none: its image was never
    /// pulled. One that is damaged is set aside, so that it is fetched again.
    pub fn load_config(&self, digest: &str) -> Result<String> {
        let digest: Digest = digest.parse()?;
        let config = self.read_config(&digest);
        if config.is_err() {
            self.complain(BlobKind::Config, &digest);
        }
        config
    }

    /// The same, leaving what is damaged where it is.
    pub(super) fn read_config(&self, digest: &Digest) -> Result<String> {
        let bytes = self.read_document(BlobKind::Config, digest)?.ok_or_else(|| Error::NotFound {
            what: format!("config {digest} (did you pull its image first?)"),
            hint: Some("pull the image first: cofferdam pull REF".into()),
        })?;
        String::from_utf8(bytes).map_err(|e| Error::Refused {
            subject: format!("config {digest}"),
            reason: format!("it is not UTF-8: {}", e.utf8_error()),
        })
    }

    /// The bytes of a config if they are there and hash to the digest. Others count as absent: to be fetched again.
    pub fn config_bytes(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        self.read_verified(BlobKind::Config, digest)
    }

    /// The path of a config blob. No I/O.
    pub fn config_path(&self, digest: &str) -> PathBuf {
        layout::blob_path(self.images_dir(), BlobKind::Config, digest)
    }

    /// Whether a regular file is there under a blob's name.
    pub(super) fn has_blob(&self, kind: BlobKind, digest: &str) -> bool {
        digest
            .parse()
            .is_ok_and(|digest| layout::file_size(self.rooms().blobs(kind), &kind.file_name(&digest)).is_some())
    }
}
