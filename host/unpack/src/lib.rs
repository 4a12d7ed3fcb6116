//! The pipeline that turns a layer's blob into a tree.
//!
//! ```text
//! blob ─▶ decode (guest, own thread) ─▶ bounded queue ─┬▶ hash (own thread): DiffID
//!                                                      └▶ untar (guest, caller's thread) ⇄ Sink
//! ```
//!
//! Decoded bytes travel in pooled buffers that both consumers share, so memory is constant in the layer's size and a byte is
//! copied once between the decoder's memory and the file that it ends in. The control plane is the untar guest's: it sees
//! headers, and the host moves contents. What it claims is checked in `claim.rs` before anything acts on it.

mod chunk;
mod decode;
mod extensions;
mod extract;
mod hash;
mod inspect;
mod layer;
mod layer_extractor;
mod layer_unpacker;
mod layer_verifier;
mod listing;
mod shared;
mod stream;
#[cfg(test)]
mod tests;

pub use cofferdam_core::ImageBudget;
pub use cofferdam_documents::Compression;
pub use cofferdam_documents::plugin::InspectorReport;
pub use extensions::Extensions;
pub use extract::Unpacker;
pub use layer::{Layer, LayerReport};
pub use layer_extractor::LayerExtractor;
pub use layer_unpacker::layer_of;
pub use layer_verifier::LayerVerifier;
pub use listing::Listing;
