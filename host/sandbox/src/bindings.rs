//! The generated side of `wit/`, version 0.1. The imports that move bytes are linked by hand
//! (`decoder.rs`, `extractor.rs`), so that a decoded chunk is copied once, from the guest's memory into ours.

#[allow(missing_docs, unreachable_pub, unused_qualifications, dead_code, clippy::pedantic, reason = "generated")]
mod decoder_world {
    wasmtime::component::bindgen!({ path: "../../wit", world: "decoder" });
}

#[allow(missing_docs, unreachable_pub, unused_qualifications, dead_code, clippy::pedantic, reason = "generated")]
mod extractor_world {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "extractor",
        with: {
            "cofferdam:layer/types@0.1.0": super::decoder_world::cofferdam::layer::types,
            "cofferdam:layer/log@0.1.0": super::decoder_world::cofferdam::layer::log,
            "cofferdam:layer/bounds@0.1.0": super::decoder_world::cofferdam::layer::bounds,
        },
    });
}

#[allow(missing_docs, unreachable_pub, unused_qualifications, dead_code, clippy::pedantic, reason = "generated")]
mod inspector_world {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "inspector",
        with: {
            "cofferdam:layer/types@0.1.0": super::decoder_world::cofferdam::layer::types,
            "cofferdam:layer/tree@0.1.0": super::extractor_world::cofferdam::layer::tree,
            "cofferdam:layer/log@0.1.0": super::decoder_world::cofferdam::layer::log,
        },
    });
}

#[allow(missing_docs, unreachable_pub, unused_qualifications, dead_code, clippy::pedantic, reason = "generated")]
mod verifier_world {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "verifier",
        with: {
            "cofferdam:layer/types@0.1.0": super::decoder_world::cofferdam::layer::types,
            "cofferdam:layer/log@0.1.0": super::decoder_world::cofferdam::layer::log,
        },
    });
}

pub(crate) use decoder_world::cofferdam::layer::bounds::EntryBounds;
pub(crate) use decoder_world::cofferdam::layer::log::Level;
pub(crate) use decoder_world::cofferdam::layer::types::Failure;

/// An entry as an extractor declares it, unchecked, and as an inspector is called with it.
pub(crate) mod tree {
    pub(crate) use super::extractor_world::cofferdam::layer::tree::{
        Attribute, Device, Entry, Extent, Node, Sparse, Timestamp,
    };
}

/// What an inspector is called with, and what it answers.
pub(crate) mod inspection {
    pub(crate) use super::inspector_world::exports::cofferdam::layer::inspection::{Interest, Subject};
}

/// What a verifier is called with.
pub mod verification {
    pub use super::verifier_world::exports::cofferdam::layer::verification::Subject;
}

/// Names of the interfaces that are linked by hand.
pub(crate) mod interface {
    pub(crate) const INPUT: &str = "cofferdam:layer/input@0.1.0";
    pub(crate) const OUTPUT: &str = "cofferdam:layer/output@0.1.0";
    pub(crate) const TREE: &str = "cofferdam:layer/tree@0.1.0";
    pub(crate) const LOG: &str = "cofferdam:layer/log@0.1.0";
    pub(crate) const BOUNDS: &str = "cofferdam:layer/bounds@0.1.0";
    pub(crate) const SETTINGS: &str = "cofferdam:layer/settings@0.1.0";
    pub(crate) const INSPECTION: &str = "cofferdam:layer/inspection@0.1.0";
    pub(crate) const VERIFICATION: &str = "cofferdam:layer/verification@0.1.0";
}
