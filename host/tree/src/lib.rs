//! Writes a layer's tree: in-root, by directory handle only.
//!
//! [`TreeWriter`] takes checked entries ([`entry`]) in a layer's order and makes them below one directory handle. Nothing
//! in here knows where that directory lies, and no path is ever handed to the kernel in a way that could leave it: each
//! step goes from a directory handle to a name inside of it that is not followed, links are followed by the writer
//! itself as a `chroot` would, and what was opened is changed through its handle.
//!
//! What a tree cannot show by itself (directories that were only implied, removals, links into lower layers) is in the
//! [`LayerRecord`]. [`SafeRoot`] reads a finished tree under the same rules, and [`remove_tree`] takes one away.

mod cache;
pub mod claim;
mod create;
mod displace;
pub mod entry;
mod handle;
mod ids;
mod left_out;
mod links;
pub mod merge;
mod metadata;
mod mounts;
mod options;
mod overlay;
mod override_stat;
mod prune;
mod record;
mod remove;
mod resolve;
mod root;
mod strict;
mod sweep;
mod sys;
#[cfg(test)]
mod tests;
mod times;
mod unpacker;
mod usage;
mod whiteout;
mod writer;
pub mod xattr;

pub use left_out::{LeftOut, Lossy};
pub use merge::{PreservedLayer, merge};
pub use metadata::keeps_owners;
pub use mounts::check_tree;
pub use options::{Mode, Ownership, Resolver, WriterOptions};
pub use override_stat::{OverrideKind, OverrideStat};
pub use record::{Counts, LayerRecord, Marker};
pub use remove::remove_tree;
pub use remove::remove_tree_unless;
pub use root::SafeRoot;
pub use strict::ambiguous;
pub use sys::{Explain, HOLD, is_marker_name, join, kind_of, stamp_of};
pub use unpacker::{LayerUnpacker, UnpackedLayer};
pub use usage::disk_usage;
pub use writer::TreeWriter;
