//! What a container layer means: the one strict tar parser of Cofferdam, and the layer rules that need no filesystem.
//!
//! **Does**: read the headers of a tar stream (v7, ustar, GNU, PAX, the four sparse formats), clean names, recognise
//! whiteouts, check owners, times, device numbers and extended attributes, and hand out one [`Entry`] per object to make.
//! Reading is strict: where two well-known tar implementations would see different archives, this one refuses.
//!
//! **Does not**: do IO (bytes come from a [`Source`]), look at the content of files (who consumes the entries takes it
//! from the source), decompress, resolve links, or know of Wasm.
//!
//! # Reading a layer
//!
//! ```
//! use cofferdam_layer::{Failure, Layer, Limits, Node};
//!
//! fn count(mut source: &[u8]) -> Result<usize, Failure> {
//!     let mut layer = Layer::new(Limits::default());
//!     let mut files = 0;
//!     while let Some(entry) = layer.next(&mut source)? {
//!         files += usize::from(matches!(entry.node, Node::File { .. }));
//!         layer.skip_content(); // or take `entry.content_bytes()` bytes from the source
//!     }
//!     Ok(files)
//! }
//!
//! assert_eq!(count(&[0; 1024]), Ok(0));
//! ```
//!
//! # What comes from `tar-core`
//!
//! The layout of header blocks. Its parser is not used: it continues behind a lone zero block, treats `x` and `L` in a v7
//! header as files, reads over a malformed PAX length (CVE-2026-32766), takes the first of two `GNU.sparse.*` versions,
//! lets `path` and `L` stand together, knows neither signed checksums nor negative or fractional times, and truncates
//! modes and device numbers to 32 bits. Each of these is a way to show one archive to a scanner and another to us.

mod entry;
mod extension;
mod failure;
mod header;
mod layer;
mod limits;
mod marker;
mod member;
mod name;
mod number;
mod pax;
mod source;
mod sparse;

pub use entry::{Attribute, Attributes, Device, Entry, Extent, Node, Timestamp};
pub use failure::Failure;
pub use layer::Layer;
pub use limits::Limits;
pub use source::Source;

/// Bytes in a block of tar: headers are one, bodies are padded to whole ones.
pub(crate) const BLOCK: usize = 512;
