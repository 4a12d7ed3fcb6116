//! The documents around a layer, and the names of images and plugins: their grammars and strict readers.
//!
//! | module | holds |
//! |---|---|
//! | `manifest`, `config`, `descriptor` | [`Document`], [`Manifest`], [`Index`], [`Configuration`], [`Descriptor`] |
//! | [`image`] | [`ImageObject`] and [`LayerDescriptor`]: what a manifest and its configuration say together |
//! | `media_type`, `compression` | [`MediaType`], [`Compression`] |
//! | `platform`, `select` | [`Platform`], and the choice of one image from nested indexes: [`resolve_image`] |
//! | `reference`, `layout_name` | [`Reference`] of a registry, [`LayoutName`] of an OCI layout |
//! | [`plugin`] | a plugin's manifest, and the capabilities that it asks for |
//!
//! # Invariants
//!
//! * No I/O: a function gets text or bytes, and returns values. [`resolve_image`] asks a trait for documents.
//! * Every size, count and depth in a document is bounded by [`cofferdam_core::Limits`] before memory depends on it.

mod compression;
mod config;
mod descriptor;
pub mod image;
mod json;
mod layout_name;
mod manifest;
mod media_type;
mod platform;
pub mod plugin;
mod raw_document;
mod reference;
mod select;

pub use compression::Compression;
pub use config::{Configuration, ImageConfig};
pub use descriptor::{Descriptor, foreign, verify_digest};
pub use image::{ImageObject, LayerDescriptor};
pub use layout_name::{LayoutName, LayoutSelector};
pub use manifest::{Document, Index, IndexEntry, Manifest, OddEntry};
pub use media_type::{DocumentKind, MediaType};
pub use platform::{Platform, StatedPlatform};
pub use raw_document::RawDocument;
pub use reference::{Reference, RegistryHost};
pub use select::{Documents, PlatformChoice, Resolved, resolve_image};
