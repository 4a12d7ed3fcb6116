//! The host's parsers of what images and guests say, built from the host's own files.
//!
//! They are pure, and most of them are no part of the library's interface. To build them here opens no door in the library
//! that nobody but a fuzzer needs, and leaves out the WebAssembly engine, which would have to be built with coverage. The
//! modules stand where they stand in the host, so that their paths mean the same.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::pedantic,
    reason = "parts of a whole that is linted elsewhere"
)]

pub mod ambient;
#[path = "../../../host/src/digest.rs"]
pub mod digest;
#[path = "../../../host/src/error.rs"]
pub mod error;
#[path = "../../../host/src/limits.rs"]
pub mod limits;
#[path = "../../../host/src/plugin/mod.rs"]
pub mod plugin;
pub mod registry;
pub mod sandbox;
pub mod transport;
pub mod tree;
pub mod unpack;

pub use error::{Error, ErrorKind};
pub use limits::Limits;
