//! A layer's `DiffID`, checked without unpacking: the reference's interface.

use std::io::Read;
use std::path::Path;

use cofferdam_core::ambient;
use cofferdam_core::digest::{Digest, Hasher};
use cofferdam_core::error::{Error, Result};

use super::Layer;
use super::shared::shared;

/// Checks layers against a `DiffID` (image spec, `config.md`, `rootfs.diff_ids`).
#[derive(Clone, Debug)]
pub struct LayerVerifier {
    diff_id: Digest,
}

impl LayerVerifier {
    /// Checks against this `DiffID`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidDigest`].
    pub fn new(diff_id: &str) -> Result<Self> {
        Ok(Self { diff_id: diff_id.parse()? })
    }

    /// Whether the layer in a file, decoded by the guests, hashes to the `DiffID`. Blocks.
    ///
    /// # Errors
    ///
    /// Those of a layer that cannot be decoded, and of reading the file.
    pub fn verify_tarball(&self, path: impl AsRef<Path>) -> Result<bool> {
        let path = path.as_ref();
        let (blob, size) = ambient::open_blob(path)?;
        let mut layer = Layer::new(blob).named(path.display().to_string()).with_diff_id(self.diff_id.clone());
        if let Some(size) = size {
            layer = layer.with_size(size);
        }
        match shared()?.verify(layer) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.root(), Error::DigestMismatch { .. }) => {
                tracing::error!("{}: {}", path.display(), error.root());
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the bytes of a reader, which are decoded already, hash to the `DiffID`. `origin` is for messages. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] of the reader.
    pub fn verify_reader(&self, mut reader: impl Read, origin: Option<&Path>) -> Result<bool> {
        let mut hasher = Hasher::new(self.diff_id.algorithm());
        let mut buffer = vec![0; 256 << 10];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => hasher.update(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Io { action: "read the layer".into(), source }),
            }
        }
        let actual = hasher.finish();
        if actual != self.diff_id {
            let origin = origin.map_or_else(|| "the layer".into(), |path| path.display().to_string());
            tracing::error!("{origin} hashes to {actual}, not to {}", self.diff_id);
        }
        Ok(actual == self.diff_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_id_is_a_digest() {
        for text in ["", "md5:abc", "sha256:", "sha256:../../etc"] {
            assert!(LayerVerifier::new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn bytes_match_their_own_digest_only() {
        let verifier = LayerVerifier::new(&Digest::of(b"layer").to_string()).unwrap();
        assert!(verifier.verify_reader(&b"layer"[..], None).unwrap());
        assert!(!verifier.verify_reader(&b"another"[..], None).unwrap());
    }
}
