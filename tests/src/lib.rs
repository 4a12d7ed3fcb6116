//! What the tests, the demo and the benchmark share: complete snapshots of trees, a real registry, OCI layouts made by
//! hand, oracles, and a runner for the `cofferdam` binary.
//!
//! **Does**: start other programs, touch the file system, and say loudly what it skips.
//!
//! **Does not**: use the library `cofferdam`. Its tests see the product as others see it, through the command.

pub mod bombs;
#[cfg(test)]
mod citations;
pub mod cofferdam;
pub mod conformance;
mod denied;
pub mod disk;
pub mod guests;
pub mod images;
pub mod layers;
pub mod layout;
pub mod mounted;
pub mod operation;
pub mod oracle;
pub mod others;
pub mod paths;
pub mod plugins;
pub mod power;
pub mod proxy;
pub mod registry;
pub mod require;
pub mod scratch;
pub mod served;
pub mod small;
pub mod store;
pub mod terminal;
pub mod tracer;
pub mod tree;
pub mod usage;
pub mod wasi;

pub use cofferdam::{Cofferdam, Run};
pub use images::Images;
pub use layout::OciLayout;
pub use registry::Registry;
pub use scratch::Scratch;
pub use served::Served;
pub use tree::Snapshot;
