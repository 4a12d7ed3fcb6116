//! An open directory of the tree.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::ids::PathId;

/// An open directory, and where it lies: its path holds no link.
#[derive(Debug)]
pub(super) struct Dir {
    pub(super) fd: OwnedFd,
    pub(super) path: Box<[u8]>,
    pub(super) id: PathId,
    /// The layer that has noted its times last; see `times.rs`.
    noted: AtomicU32,
}

impl Dir {
    pub(super) fn new(fd: OwnedFd, path: impl Into<Box<[u8]>>, id: PathId) -> Arc<Self> {
        Arc::new(Self { fd, path: path.into(), id, noted: AtomicU32::new(0) })
    }

    /// Whether this handle was marked as noted in this layer; marks it.
    pub(super) fn mark_noted(&self, layer: u32) -> bool {
        self.noted.swap(layer, Ordering::Relaxed) == layer
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A name in an open directory: where an entry is made.
#[derive(Clone, Debug)]
pub(super) struct Spot<'a> {
    pub(super) dir: Arc<Dir>,
    pub(super) name: &'a [u8],
    pub(super) id: PathId,
    /// The entry's path, for messages.
    pub(super) path: &'a [u8],
}
