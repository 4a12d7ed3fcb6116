#![doc = include_str!("../README.md")]

#[cfg(target_family = "wasm")]
mod bindings;
pub mod bounds;
mod decoder;
mod entry;
mod extractor;
mod failure;
mod host;
#[cfg(feature = "http")]
pub mod http;
mod inspector;
pub mod log;
mod macros;
pub mod settings;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
mod verifier;

pub use decoder::{Decoder, Input, Output};
pub use entry::{Attribute, Device, Entry, Extent, Node, Timestamp};
pub use extractor::{Archive, Extractor, Tree};
pub use failure::Failure;
pub use inspector::{Inspector, Interest, Layer};
pub use verifier::{Image, Verifier};

/// What the macros need, and nobody else.
#[doc(hidden)]
pub mod private {
    pub use crate::decoder::run as decode;
    pub use crate::extractor::run as extract;

    #[cfg(all(target_family = "wasm", feature = "decoder"))]
    pub use crate::bindings::decoder;
    #[cfg(all(target_family = "wasm", feature = "extractor"))]
    pub use crate::bindings::extractor;
    #[cfg(target_family = "wasm")]
    pub use crate::bindings::imports::types::Failure;
    #[cfg(all(target_family = "wasm", feature = "inspector"))]
    pub use crate::{bindings::inspector, bindings::inspector::exports::cofferdam::layer::inspection, inspector::Slot};
    #[cfg(all(target_family = "wasm", feature = "verifier"))]
    pub use crate::{bindings::verifier, bindings::verifier::exports::cofferdam::layer::verification};
}
