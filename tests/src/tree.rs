//! Complete snapshots of directory trees, and what differs between two of them.
//!
//! A snapshot holds all that a layer can say about an entry: type, mode, owner, modification time to the nanosecond,
//! content, link target, device number, every extended attribute, and which names share an inode. Names are bytes, and
//! everything is read relative to directory handles, so that a hostile tree is compared as it is.

mod diff;
mod read;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use diff::{Differences, Field, differences, ensure_same};
pub use read::Options;

/// A name or path of a tree, in bytes; relative, empty for the root.
pub type Name = Vec<u8>;

/// A tree as it was at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Every entry by its path; the root has the empty path.
    pub entries: BTreeMap<Name, Entry>,
}

/// One entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub node: Node,
    /// The 12 permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes of all namespaces that the kernel shows.
    pub xattrs: BTreeMap<Name, Vec<u8>>,
    /// The paths that share its inode, itself included; empty for directories and for what has one name only.
    pub links: BTreeSet<Name>,
    /// How many more names its inode has outside of the tree; 0 for directories.
    pub outside_links: u64,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// In bytes.
        size: u64,
        /// SHA-256 of the content.
        hash: [u8; 32],
        /// Stretches of data as offset and length, if they were asked for.
        extents: Option<Vec<(u64, u64)>>,
    },
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A character device: major and minor number.
    CharDevice(u32, u32),
    /// A block device: major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Node {
    /// The type's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::File { .. } => "file",
            Self::Symlink(_) => "symlink",
            Self::CharDevice(..) => "character device",
            Self::BlockDevice(..) => "block device",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
        }
    }
}

impl Snapshot {
    /// Drops the entries that this function names.
    #[must_use]
    pub fn without(mut self, mut drop: impl FnMut(&[u8], &Entry) -> bool) -> Self {
        self.entries.retain(|path, entry| !drop(path, entry));
        self
    }

    /// The sum of the sizes of all regular files, each inode counted once.
    pub fn content_bytes(&self) -> u64 {
        let first = |path: &Name, entry: &Entry| entry.links.first().is_none_or(|first| first == path);
        let size = |entry: &Entry| if let Node::File { size, .. } = entry.node { size } else { 0 };
        self.entries.iter().filter(|(path, entry)| first(path, entry)).map(|(_, entry)| size(entry)).sum()
    }
}

/// Shows bytes to people: printable ASCII as it is, everything else as `\xNN`.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.0 {
            match byte {
                b'\\' => f.write_str("\\\\")?,
                b' '..=b'~' => write!(f, "{}", char::from(byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        Ok(())
    }
}
