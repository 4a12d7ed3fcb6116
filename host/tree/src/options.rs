//! How a tree is to be written.

use cofferdam_core::cancel::Cancel;
use cofferdam_core::limits::Limits;

use super::left_out::Lossy;

/// What becomes of a layer's markers, and what the destination holds at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Onto a directory that holds the lower layers: markers remove. Layers may follow each other on one writer.
    Apply,
    /// One layer alone, into an empty directory: markers are kept as empty files. The store's cache form.
    Preserve,
    /// One layer alone, into an empty directory, in the form that overlayfs mounts.
    Overlay,
}

/// Where owners, modes and devices go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ownership {
    /// [`Ownership::Real`] when the process may give files away (root, also of a user namespace with several ids),
    /// else [`Ownership::Recorded`].
    #[default]
    Auto,
    /// Into the inodes.
    Real,
    /// Into `user.containers.override_stat`. In the inodes, files and directories belong to the process and stay
    /// readable for it: a file has its mode's permission bits and `0400`, a directory those and `0700`; set-uid, set-gid
    /// and sticky are only recorded. Devices and pipes are empty regular files. A symlink's owner is lost, since the kernel
    /// takes no user attribute there.
    Recorded,
}

/// How a path is resolved when several of its components are new to the writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Resolver {
    /// [`Resolver::Openat2`] where the kernel has it, else [`Resolver::Walk`].
    #[default]
    Auto,
    /// `openat2` with every link and every way out forbidden; a way with links on it is walked.
    Openat2,
    /// Component by component.
    Walk,
}

/// What a [`crate::TreeWriter`] needs to know.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// What becomes of markers.
    pub mode: Mode,
    /// Bounds.
    pub limits: Limits,
    /// Where owners go.
    pub ownership: Ownership,
    /// How paths are resolved.
    pub resolver: Resolver,
    /// What may be lost where the file system or the process cannot hold it.
    pub lossy: Lossy,
    /// Looked at before each entry.
    pub cancel: Cancel,
    /// Whether a layer that makes no sense alone, but may on top of others, is noted as such instead of refused. For
    /// [`Mode::Preserve`].
    pub defers: bool,
}

impl WriterOptions {
    /// This mode, and the default of everything else.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            limits: Limits::default(),
            ownership: Ownership::Auto,
            resolver: Resolver::Auto,
            lossy: Lossy::default(),
            cancel: Cancel::new(),
            defers: false,
        }
    }
}
