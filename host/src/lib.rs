//! Cofferdam: an OCI image store in which no native code ever parses an untrusted byte of a layer.
//!
//! **Does**: fetch images from registries and OCI layouts, verify every byte against its digest, decode and unpack layers
//! in WebAssembly guests that hold no capability but one stream and one directory, keep blobs and trees in a crash-safe
//! store, and merge trees into root filesystems.
//!
//! **Does not**: run containers, mount anything, build or push images, read the environment, write to a terminal, or
//! start other programs.

pub mod ambient;
pub mod cancel;
pub mod confine;
pub mod digest;
pub mod error;
pub mod limits;
pub mod progress;
pub mod registry;
pub mod rootfs;
pub mod sandbox;
pub mod store;
pub mod transport;
pub mod tree;
pub mod unpack;

pub use cancel::Cancel;
pub use digest::{Algorithm, Digest};
pub use error::{Error, ErrorKind, GuestFailure, Result};
pub use limits::Limits;
pub use progress::{Event, Progress};

/// The README's example must compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
