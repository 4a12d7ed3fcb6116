//! Where images come from: the sources, and the documents that describe an image.

pub use cofferdam_documents::{
    Configuration, Descriptor, Document, DocumentKind, Documents, ImageConfig, Index, IndexEntry, LayoutName,
    LayoutSelector, Manifest, MediaType, OddEntry, Platform, PlatformChoice, RawDocument, Resolved, StatedPlatform,
    resolve_image,
};
pub use cofferdam_registry::{Blob, Failure, ImageSource, OciLayout, Retry, Server, layout_reference};
