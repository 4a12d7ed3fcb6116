//! Where images come from, whatever carries them: one trait, the documents that describe an image, and OCI layouts.
//!
//! A source delivers bytes and promises nothing about them. What makes an image of those bytes is here too and shared by
//! all sources: media types, the strict reading of manifests, indexes and configurations, the choice of a platform. What
//! leaves this room has been checked against the digest and the size that somebody else declared; blobs, which are
//! streams, are checked in size here and hashed where they are stored.
//!
//! Registries implement the trait in the `registry` room.

mod config;
mod descriptor;
mod json;
mod layout_name;
mod manifest;
mod media_type;
mod oci_layout;
mod platform;
mod select;
mod source;
#[cfg(test)]
mod tests;

pub use config::{Configuration, ImageConfig};
pub use descriptor::Descriptor;
pub(crate) use descriptor::{foreign, verify_digest};
pub use layout_name::{LayoutName, LayoutSelector};
pub use manifest::{Document, Index, IndexEntry, Manifest, OddEntry};
pub use media_type::{DocumentKind, MediaType};
pub use oci_layout::OciLayout;
pub use platform::{Platform, StatedPlatform};
pub use select::{Documents, PlatformChoice, Resolved, resolve_image};
pub(crate) use source::wrong_size;
pub use source::{Blob, Failure, ImageSource, RawDocument, Retry, Server};
