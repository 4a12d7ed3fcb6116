//! What a layer says: one entry per object to make. The types mirror the WIT interface `tree`, borrowed.

use crate::pax::Span;

/// An instant. `nanoseconds` is below 10⁹ and counts forward from `seconds`, also before 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamp {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds on top.
    pub nanoseconds: u32,
}

/// A stretch of data in a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes; never 0.
    pub length: u64,
}

/// The number of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// At most 12 bits.
    pub major: u32,
    /// At most 20 bits.
    pub minor: u32,
}

/// An extended attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Full name, such as `user.note`: 1 to 255 bytes, no NUL.
    pub name: &'a [u8],
    /// Value, any bytes.
    pub value: &'a [u8],
}

/// The extended attributes of an entry, ordered by name, each name once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) spans: &'a [(Span, Span)],
}

impl<'a> Attributes<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The attributes.
    pub fn iter(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        let payload = self.payload;
        self.spans.iter().map(move |(name, value)| Attribute { name: name.of(payload), value: value.of(payload) })
    }
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node<'a> {
    /// A directory. With an empty path: the root itself, which takes the metadata.
    Directory,
    /// A regular file.
    File {
        /// Its size in bytes; so many bytes of content follow in the source.
        size: u64,
    },
    /// A regular file with holes.
    Sparse {
        /// Its size in bytes, holes included.
        size: u64,
        /// Where its data lies: ordered, apart, inside of `size`. The content of the extents, one after another, follows
        /// in the source.
        extents: &'a [Extent],
    },
    /// A symbolic link.
    Symlink {
        /// The target as the archive has it: not empty, no NUL.
        target: &'a [u8],
    },
    /// A hard link. Only the link is made; the entry's metadata is meaningless.
    HardLink {
        /// What it links to, in the form of [`Entry::path`]; never the root.
        target: &'a [u8],
    },
    /// A character device.
    CharacterDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// The removal of what lower layers hold at this path. Metadata is meaningless.
    Whiteout,
    /// The removal of all that lower layers hold inside of this directory. Metadata is meaningless.
    Opaque,
}

/// One entry of a layer. It borrows from the [`crate::Layer`] until the next is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Relative to the root; components joined by single slashes, none of them empty, `.`, `..` or beginning with `.wh.`;
    /// no NUL. Empty for the root.
    pub path: &'a [u8],
    /// What it is.
    pub node: Node<'a>,
    /// Permission bits with set-uid, set-gid and sticky: 12 bits.
    pub mode: u32,
    /// Owner, below 2³² − 1.
    pub uid: u32,
    /// Group, below 2³² − 1.
    pub gid: u32,
    /// Time of modification.
    pub modified: Timestamp,
    /// Extended attributes, without those that a layer may not set.
    pub attributes: Attributes<'a>,
}

impl Entry<'_> {
    /// How many bytes of the source are this entry's content.
    pub fn content_bytes(&self) -> u64 {
        match self.node {
            Node::File { size } => size,
            Node::Sparse { extents, .. } => extents.iter().map(|extent| extent.length).sum(),
            _ => 0,
        }
    }
}
