//! Writes a layer's tree: in-root, by directory handle only.

pub mod entry;
