//! Checked entries: what a guest's claims become before the tree writer sees them.
//!
//! A value of these types cannot express an escape: a [`TreePath`] has no empty, `.`, `..` or NUL-bearing component and is
//! within the limits. `unpack/claim.rs` makes them from what a guest says.

use std::fmt;

use cofferdam_core::error::{Error, Escaped, Result};
use cofferdam_core::limits::Limits;

/// A path inside a tree: relative, canonical, in bytes. Empty for the root.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    /// The root.
    pub fn root() -> Self {
        Self(Vec::new())
    }

    /// Checks that `bytes` is canonical: components joined by single slashes, none of them empty, `.`, `..` or holding a
    /// NUL, none longer than the limits. Says nothing of whiteout names.
    pub fn parse(bytes: Vec<u8>, limits: &Limits) -> Result<Self> {
        if bytes.is_empty() {
            return Ok(Self::root());
        }
        let over =
            |what, limit: usize| Error::Limit { subject: format!("`{}`", Escaped(&bytes)), what, limit: limit as u64 };
        if bytes.len() > limits.path_bytes {
            return Err(over("bytes in a path", limits.path_bytes));
        }
        if bytes.contains(&0) {
            return Err(Error::refused(&bytes, "a NUL byte in a path"));
        }
        let mut depth = 0;
        for component in bytes.split(|&b| b == b'/') {
            depth += 1;
            match component {
                b"" => return Err(Error::refused(&bytes, "an empty component in a path")),
                b"." | b".." => return Err(Error::refused(&bytes, "`.` or `..` in a path")),
                long if long.len() > limits.component_bytes => {
                    return Err(over("bytes in a component of a path", limits.component_bytes));
                }
                _ => {}
            }
        }
        if depth > limits.depth {
            return Err(over("components in a path", limits.depth));
        }
        Ok(Self(bytes))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components, outermost first; none for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|c| !c.is_empty())
    }

    /// Parent and last component; nothing for the root.
    pub fn split_last(&self) -> Option<(&[u8], &[u8])> {
        if self.0.is_empty() {
            return None;
        }
        match self.0.iter().rposition(|&b| b == b'/') {
            Some(at) => Some((&self.0[..at], &self.0[at + 1..])),
            None => Some((&[], &self.0)),
        }
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("/") } else { Escaped(&self.0).fmt(f) }
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

/// An instant in the way of `timespec`: `nanoseconds` < 10⁹ counts forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Timestamp {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds on top.
    pub nanoseconds: u32,
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    /// Full name, such as `user.note`: 1 to 255 bytes, no NUL.
    pub name: Vec<u8>,
    /// Value.
    pub value: Vec<u8>,
}

/// Owner, permissions, times and attributes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Metadata {
    /// 12 permission bits.
    pub mode: u16,
    /// Owner, below 2³² − 1.
    pub uid: u32,
    /// Group, below 2³² − 1.
    pub gid: u32,
    /// Time of modification.
    pub mtime: Timestamp,
    /// Extended attributes, without those that a layer may not set.
    pub xattrs: Vec<Xattr>,
}

/// A stretch of data in a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
}

/// The number of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// At most 12 bits on Linux.
    pub major: u32,
    /// At most 20 bits on Linux.
    pub minor: u32,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Directory,
    /// A regular file whose content follows, this many bytes.
    File {
        /// Size in bytes.
        size: u64,
    },
    /// A regular file with holes; the content of its extents follows.
    Sparse {
        /// Size in bytes, holes included.
        size: u64,
        /// Ordered, apart, inside of `size`.
        extents: Vec<Extent>,
    },
    /// A symbolic link: a target of 1 to 4095 bytes without NUL, kept as it is.
    Symlink {
        /// The target.
        target: Vec<u8>,
    },
    /// A hard link.
    HardLink {
        /// What it links to.
        target: TreePath,
    },
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// The path is removed from what lower layers made.
    Whiteout,
    /// The directory at the path loses what lower layers put into it.
    Opaque,
}

impl Node {
    /// The bytes of content that follow the entry.
    pub(super) fn content_bytes(&self) -> u64 {
        match self {
            Self::File { size } => *size,
            Self::Sparse { extents, .. } => extents.iter().fold(0, |sum, extent| extent.length.saturating_add(sum)),
            _ => 0,
        }
    }
}

/// One checked entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub path: TreePath,
    /// What.
    pub node: Node,
    /// Owner, mode and so on; meaningless for hard links and markers.
    pub metadata: Metadata,
}

/// The content of a file that is being put: a forward-only view of the layer's decoded bytes.
pub trait Content {
    /// The next decoded bytes, at least one; [`Error::Corrupt`] when the stream has ended.
    fn chunk(&mut self) -> Result<&[u8]>;

    /// Marks the first `count` bytes of the last chunk as used.
    fn advance(&mut self, count: usize);
}

/// Where checked entries go, in the layer's order: a tree writer, or a listing.
pub trait Sink: Send {
    /// Takes an entry. For a file it must consume exactly the declared content from `content`.
    fn put(&mut self, entry: Entry, content: &mut dyn Content) -> Result<()>;
}
