//! The store room: images on disk, safe against crashes, against each other's processes, and against digest text.
//!
//! ```text
//! <images>/                                 0700, as is every directory below
//!   meta.json                               version and feature flags of the store           (meta.rs)
//!   keep-unreferenced                       there if others keep content that no reference names (keep.rs)
//!   layers/sha256-<hex>.tar.gz              a layer's blob, exactly as fetched               (stage.rs, layer.rs)
//!   configs/sha256-<hex>.json               an image configuration, exact bytes              (config.rs)
//!   manifests/sha256-<hex>.json             a manifest or an index, exact bytes              (manifest.rs)
//!   <dir>/sha256-<hex>.<uuid>.downloading   a blob that is being written                     (stage.rs)
//!   extracted/sha256-<hex>/                 a layer's tree, markers kept as files            (trees.rs)
//!   extracted/sha256-<hex>.<uuid>.extracting/   a tree that is being written                 (stage_tree.rs)
//!   extracted/sha256-<hex>.<uuid>.replaced/     a tree that was replaced, until the machine is started again (trees.rs)
//!   records/sha256-<hex>.json               what vouches for a tree                          (record.rs)
//!   records/sha256-<hex>.layer.json         what a merge must know beside the tree           (record.rs)
//!   records/sha256-<hex>.mtree              all that is in a tree, so that it can be checked         (tree_list.rs)
//!   records/manifest.sha256-<hex>.json      what vouches for a re-serialised manifest        (manifest.rs)
//!   refs/<escaped reference>.json           which manifest a name stands for                 (refs.rs)
//!   locks/…                                 who is at work on what                           (lock.rs)
//!   locks/<uuid>.lease                      what somebody relies on                          (lease.rs)
//!   local/<key>/extracted/…, records/…      trees of local OCI layouts                       (bundle.rs)
//!   overlay/extracted/…, records/…          trees that are made for overlayfs                (overlay.rs)
//!   <dir>/<name>.<uuid>.damaged             what was found under a name and is not what that says    (file.rs)
//!   guests/                                 compiled guests, of the store's own unpacker     (sandboxed.rs)
//!   plugins/<name>.json                     what was added under a name, and its grants      (plugins.rs)
//!   plugins/sha256-<hex>.wasm               the component of a plugin                        (plugins.rs, components.rs)
//! ```
//!
//! # Invariants
//!
//! * A path is made from a parsed [`Digest`](cofferdam_core::Digest) and never from other text.
//! * A blob gets its name by [`Verified::commit`](stage::Verified::commit) alone: what was not verified cannot be
//!   committed, because that does not compile.
//! * The order of every commit: write, sync the file, rename without replacing, sync the directory; a reference comes
//!   last. What a reader finds under a final name is whole.
//! * A staged file is locked by its owner for as long as it lives, a staged tree by its layer's lock. The system frees
//!   both when the owner dies; the next [`ImageStorage::open`] or [`ImageStorage::sweep`] removes what is left. An open tree is locked by its readers.
//! * Manifests and configurations are verified each time they are read, layers each time they are extracted. So a
//!   directory that another runtime wrote can be taken over as it is: nothing in it is believed.
//! * A tree is derived data. It counts only when its record vouches for it: see `record.rs`.
//! * Locks are taken in one order: the use of the store, then the gate, then a tree, then a blob, then a blob's name. No code
//!   waits for a second lock of the same kind while it holds one. Who has the gate alone waits for no other lock.
//! * What somebody relies on is leased before it is looked for, and what is leased is not freed: see `lease.rs`.

mod bundle;
mod census;
mod collect;
mod components;
mod config;
mod costs;
mod decision;
mod download;
mod durability;
mod ensure;
mod file;
mod fsck;
mod gc;
mod hashing;
mod images;
mod keep;
mod layer;
mod layout;
mod lease;
mod lock;
mod manifest;
mod meta;
mod migrate;
mod mtree;
mod names;
mod overlay;
mod plugins;
mod promote;
mod reach;
mod record;
mod refs;
mod remove;
mod reports;
mod scratch;
mod set_aside;
mod space;
mod stage;
mod stage_tree;
mod storage;
mod sweep;
#[cfg(test)]
mod tests;
mod trace;
mod tree_list;
mod trees;
mod trust;
mod unpacker;
mod usage;
mod withdraw;

pub use census::Kind;
pub use cofferdam_core::Watch;
pub use cofferdam_documents::{ImageConfig, ImageObject, LayerDescriptor};
pub use cofferdam_tree::{LayerUnpacker, UnpackedLayer};
pub use decision::{Decision, Verdict};
pub use download::StagedDownload;
pub use durability::Durability;
pub use fsck::{Counts, Finding, FsckOptions, FsckReport, Part, Problem, TreeDifference};
pub use gc::{Collected, Freed, GcOptions, Kept, RemovedImage, Why};
pub use hashing::HashingWriter;
pub use layout::BlobKind;
pub use lease::{Keeps, Lease};
pub use lock::InUse;
pub use overlay::{links_name, merged_name, overlay_name, plain_root_name, readers_of, root_name, trees_identity};
pub use plugins::{Added, InstalledPlugin, Plugins};
pub use record::{TreeRecord, check_claims};
pub use refs::ImageRef;
pub use refs::check_reference;
pub use remove::Removed;
pub use stage::{Claim, Committed, Staged, Verified};
pub use stage_tree::{StagedTree, VerifiedTree};
pub use storage::ImageStorage;
pub use trees::{Tree, Trees};
pub use unpacker::{Measured, StoredBlob, Unpacked, measured};
pub use usage::{ImageUsage, LayerUsage, Usage};
