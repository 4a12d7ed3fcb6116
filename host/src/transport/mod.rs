//! Where images come from, whatever carries them: one trait, the documents that describe an image, and OCI layouts.
//!
//! A source delivers bytes and promises nothing about them. What makes an image of those bytes is here too and shared by
//! all sources: media types, the strict reading of manifests, indexes and configurations, the choice of a platform. What
//! leaves this room has been checked against the digest and the size that somebody else declared; blobs, which are
//! streams, are checked in size here and hashed where they are stored.
//!
//! Registries implement the trait in the `registry` room.

mod oci_layout;
mod source;
#[cfg(test)]
mod tests;

pub use cofferdam_documents::{
    Configuration, Descriptor, Document, DocumentKind, Documents, ImageConfig, Index, IndexEntry, LayoutName,
    LayoutSelector, Manifest, MediaType, OddEntry, Platform, PlatformChoice, RawDocument, Resolved, StatedPlatform,
    resolve_image,
};
pub(crate) use cofferdam_documents::{foreign, verify_digest};
pub use oci_layout::{OciLayout, layout_reference};
pub(crate) use source::wrong_size;
pub use source::{Blob, Failure, ImageSource, Retry, Server};
