//! The seam between a pull and whoever decides which images may be used.

use bytes::Bytes;
use cofferdam_core::cancel::Cancel;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::Result;
use cofferdam_documents::Resolved;
use cofferdam_store::Decision;

use crate::image_source::Server;

/// Decides whether an image may be used.
pub trait Admission: Send + Sync {
    /// Accepts an image, with the decision that is kept with it, or refuses it. Called when the manifest is known and verified,
    /// and before any layer is fetched. Blocks; it should end with [`cofferdam_core::Error::Interrupted`] soon after it was cancelled,
    /// which is what a pull waits for that is given up.
    fn admit(&self, candidate: &Candidate, cancel: &Cancel) -> Result<Option<Decision>>;
}

/// An image that asks to be let in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Candidate {
    /// The name in full, under which it will be in the store.
    pub reference: String,
    /// Where it comes from; nothing for a local layout.
    pub server: Option<Server>,
    /// The digest that the name stands for.
    pub digest: Digest,
    /// What hashes to it: an index or a manifest.
    pub document: Bytes,
    /// The digest of the platform's manifest.
    pub manifest_digest: Digest,
    /// What hashes to that.
    pub manifest: Bytes,
}

impl Candidate {
    /// The image to which a name was resolved.
    pub fn of(reference: &str, server: Option<Server>, resolved: &Resolved) -> Self {
        let (top, raw) = (resolved.top(), &resolved.raw);
        Self {
            reference: reference.to_owned(),
            server,
            digest: top.digest.clone(),
            document: top.bytes.clone(),
            manifest_digest: raw.digest.clone(),
            manifest: raw.bytes.clone(),
        }
    }
}
