//! The generated side of `wit/layer.wit`, version 0.1. The imports that move bytes are linked by hand
//! (`decoder.rs`, `extractor.rs`), so that a decoded chunk is copied once, from the guest's memory into ours.

#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::pedantic, reason = "generated")]
mod decoder_world {
    wasmtime::component::bindgen!({ path: "../wit", world: "decoder" });
}

#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::pedantic, reason = "generated")]
mod extractor_world {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "extractor",
        with: {
            "cofferdam:layer/types@0.1.0": super::decoder_world::cofferdam::layer::types,
            "cofferdam:layer/log@0.1.0": super::decoder_world::cofferdam::layer::log,
            "cofferdam:layer/bounds@0.1.0": super::decoder_world::cofferdam::layer::bounds,
        },
    });
}

pub(crate) use decoder_world::Decoder;
pub(crate) use decoder_world::cofferdam::layer::bounds::EntryBounds;
pub(crate) use decoder_world::cofferdam::layer::log::Level;
pub(crate) use decoder_world::cofferdam::layer::types::Failure;
pub(crate) use extractor_world::Extractor;

/// What an extractor says: claims that nobody has checked yet.
pub mod claim {
    pub use super::extractor_world::cofferdam::layer::tree::{
        Attribute, Device, Entry, Extent, Node, Sparse, Timestamp,
    };
}

/// Names of the interfaces that are linked by hand.
pub(crate) mod interface {
    pub(crate) const INPUT: &str = "cofferdam:layer/input@0.1.0";
    pub(crate) const OUTPUT: &str = "cofferdam:layer/output@0.1.0";
    pub(crate) const TREE: &str = "cofferdam:layer/tree@0.1.0";
    pub(crate) const LOG: &str = "cofferdam:layer/log@0.1.0";
    pub(crate) const BOUNDS: &str = "cofferdam:layer/bounds@0.1.0";
}
