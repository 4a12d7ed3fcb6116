//! A document as its source delivered it.

use bytes::Bytes;
use cofferdam_core::digest::Digest;

use super::media_type::MediaType;

/// A manifest or an index, exactly as it was received.
#[derive(Clone, Debug)]
pub struct RawDocument {
    /// The bytes, never written anew.
    pub bytes: Bytes,
    /// What they hash to.
    pub digest: Digest,
    /// What the source says that they are, apart from what they say themselves.
    pub media_type: Option<MediaType>,
}
