//! Cofferdam: an OCI image store in which no native code ever parses an untrusted byte of a layer.
//!
//! **Does**: fetch images from registries and OCI layouts, verify every byte against its digest, decode and unpack layers
//! in WebAssembly guests that hold no capability but one stream and one directory, keep blobs and trees in a crash-safe
//! store, and merge trees into root filesystems.
//!
//! **Does not**: run containers, mount anything, build or push images, read the environment, write to a terminal, or
//! start other programs.
//!
//! # Embedding
//!
//! `examples/embed.rs` is a whole embedder: it opens a store, pulls with progress, keeps the image, makes a root filesystem and a
//! list of directories for overlayfs, and can be given up at any time.
//!
//! | | calls |
//! |---|---|
//! | no I/O | the path functions of [`store::ImageStorage`], `limits`, [`Cancel::cancel`] |
//! | async, never block the executor | [`registry::pull()`], `begin_blob`, `stage_*_download` and what they return, `verify_layer`, `begin_async`, `set_aside`, [`rootfs::LocalImage::open`] |
//! | short disk I/O, block | opening a store, `publish`, `load_*`, `save_*`, `images`, `resolve`, `has_*` |
//! | long, block: give them a thread (`spawn_blocking`) | `extract_layer`, `ensure_tree`, [`rootfs::unpack`], [`rootfs::mount_spec`], `remove`, `gc`, `usage`, [`store::Trees::promote`], all of [`unpack`] |
//!
//! The async calls want a tokio runtime with time and I/O enabled; blocking work has threads of its own, up to six for each layer at once of a pull.
//!
//! **Threads.** [`store::ImageStorage`], [`unpack::Unpacker`], [`Progress`] and [`Cancel`] are cheap to clone and may be used by
//! many threads. Progress is called from several of them and must not block for long.
//!
//! **Processes.** Any number may use one store at once, with any calls. What one is at work on others wait for; when it dies its
//! locks are free at once, and what it had staged is removed by the next opening. The file system must have `flock`; over a network
//! that is the file system's promise, not ours.
//!
//! **`fork`.** A child that is forked and does not `exec` shares the locks of its parent for as long as it lives, and has none of
//! its threads: there, call nothing of this library, or fork before a store is opened. Every handle is closed by `exec`.
//!
//! **Giving up.** Work that takes a [`Cancel`] ends soon after it was set, with [`Error::Interrupted`], and leaves nothing behind.
//! Dropping the future of a pull also ends its work, but nobody waits for that end.
//!
//! **Keeping.** What a reference names stays. What none names may be freed by anybody, unless somebody holds
//! a [`store::Lease`] of it, a [`store::Tree`], or [`ImageStorage::in_use`](cofferdam_store::ImageStorage::in_use) (all of the store): take hold before you look, and
//! publish before you let go. [`ImageStorage::lease_image`](cofferdam_store::ImageStorage::lease_image) leases an image by name; a pull comes with a lease of its own.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "Cofferdam runs on Linux only: its trees are written by Linux' own calls for paths, attributes and locks"
);

pub mod confine;
pub mod policy;
pub mod rootfs;
pub mod store;
pub mod transport;

pub use cofferdam_core::{
    Algorithm, Cancel, Digest, Error, ErrorKind, Event, GuestFailure, Limits, Progress, Result, ambient, cancel,
    digest, error, limits, progress,
};
use cofferdam_core::{inherited, threads};
pub use cofferdam_documents::plugin;
pub use cofferdam_registry as registry;
pub use cofferdam_sandbox as sandbox;
pub use cofferdam_tree as tree;
pub use cofferdam_unpack as unpack;

/// The README's example must compile.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
