//! A descriptor: what one document says of another, or of a blob.
//!
//! Source: OCI image spec 1.1, `descriptor.md`. Of its optional fields `urls` is never read (a manifest must not choose
//! whom we connect to) and `data` is never trusted.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::media_type::MediaType;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// Digest, size and media type of something, as declared by a document that points to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// What it is said to be.
    pub media_type: MediaType,
    /// What its bytes must hash to.
    pub digest: Digest,
    /// How many bytes it must have.
    pub size: u64,
}

impl Descriptor {
    /// Checks that some bytes are what this descriptor says: the size first, then the hash.
    pub fn verify(&self, subject: &str, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 != self.size {
            return Err(Error::SizeMismatch {
                subject: subject.to_owned(),
                expected: self.size,
                actual: bytes.len() as u64,
            });
        }
        verify_digest(subject, &self.digest, bytes)
    }
}

/// Checks that some bytes hash to `expected`.
pub(crate) fn verify_digest(subject: &str, expected: &Digest, bytes: &[u8]) -> Result<()> {
    let mut hasher = crate::digest::Hasher::new(expected.algorithm());
    hasher.update(bytes);
    let actual = hasher.finish();
    if actual == *expected {
        Ok(())
    } else {
        Err(Error::DigestMismatch { subject: subject.to_owned(), expected: expected.clone(), actual })
    }
}

/// A descriptor as it stands in JSON, before it is checked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawDescriptor {
    #[serde(default)]
    pub(super) media_type: String,
    digest: String,
    size: i64,
    pub(super) platform: Option<super::platform::RawPlatform>,
    pub(super) annotations: Option<BTreeMap<String, String>>,
    pub(super) artifact_type: Option<String>,
}

impl RawDescriptor {
    /// The checked form. `subject` says where it stands, for the error.
    pub(super) fn check(&self, subject: &str) -> Result<Descriptor> {
        let digest = self.digest.parse::<Digest>().map_err(|error| error.context(subject.to_owned()))?;
        let size = u64::try_from(self.size).map_err(|_| Error::Refused {
            subject: subject.to_owned(),
            reason: format!("its size is negative: {}", self.size),
        })?;
        Ok(Descriptor { media_type: MediaType::new(&self.media_type), digest, size })
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }
}
