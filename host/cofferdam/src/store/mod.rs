//! The store with the sandboxed unpacker: [`cofferdam_store`], and [`ImageStorage::new`].

mod deferred;
mod image_storage;

pub use cofferdam_core::Watch;
pub use cofferdam_documents::{ImageConfig, ImageObject, LayerDescriptor};
pub use cofferdam_store::*;
pub use cofferdam_tree::{LayerUnpacker, UnpackedLayer};
pub use image_storage::ImageStorage;
