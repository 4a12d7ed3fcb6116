//! What a layer says: one entry per object. The owned form of the WIT interface `tree`.

use std::borrow::Cow;

/// An instant. `nanoseconds` is below 10⁹ and counts forward from `seconds`, also before 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds on top.
    pub nanoseconds: u32,
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Full name, such as `security.capability`.
    pub name: Vec<u8>,
    /// Value, any bytes.
    pub value: Vec<u8>,
}

/// A stretch of data in a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
}

/// The number of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// The driver.
    pub major: u32,
    /// The device among the driver's.
    pub minor: u32,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A directory. With an empty path: the root itself.
    Directory,
    /// A regular file of this size.
    File {
        /// In bytes.
        size: u64,
    },
    /// A regular file with holes.
    Sparse {
        /// In bytes, holes included.
        size: u64,
        /// Where its data lies: ordered, apart, inside of `size`.
        extents: Vec<Extent>,
    },
    /// A symbolic link.
    Symlink {
        /// As the archive has it.
        target: Vec<u8>,
    },
    /// A hard link. Its metadata is meaningless.
    HardLink {
        /// In the form of [`Entry::path`].
        target: Vec<u8>,
    },
    /// A character device.
    CharacterDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// The removal of what lower layers hold at this path. Its metadata is meaningless.
    Whiteout,
    /// The removal of all that lower layers hold inside of this directory. Its metadata is meaningless.
    Opaque,
}

/// One entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the root; components joined by single slashes, none of them empty, `.`, `..` or beginning with `.wh.`;
    /// no NUL. Empty for the root. Any bytes: tar promises no encoding.
    pub path: Vec<u8>,
    /// What it is.
    pub node: Node,
    /// Permission bits with set-uid, set-gid and sticky: 12 bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of modification.
    pub modified: Timestamp,
    /// Extended attributes.
    pub attributes: Vec<Attribute>,
}

impl Entry {
    /// An entry of root's, with mode 0755 for a directory and 0644 for the rest, and nothing else.
    pub fn new(path: impl Into<Vec<u8>>, node: Node) -> Self {
        let mode = if node == Node::Directory { 0o755 } else { 0o644 };
        Self { path: path.into(), node, mode, uid: 0, gid: 0, modified: Timestamp::default(), attributes: Vec::new() }
    }

    /// The path for people: what is no UTF-8 in it is replaced.
    pub fn path_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.path)
    }

    /// The path's last component.
    pub fn file_name(&self) -> &[u8] {
        self.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
    }

    /// Whether this is a regular file, with holes or without.
    pub fn is_file(&self) -> bool {
        matches!(self.node, Node::File { .. } | Node::Sparse { .. })
    }

    /// Whether this is a directory.
    pub fn is_directory(&self) -> bool {
        self.node == Node::Directory
    }

    /// Whether this removes something of lower layers, and is itself nothing.
    pub fn is_removal(&self) -> bool {
        matches!(self.node, Node::Whiteout | Node::Opaque)
    }

    /// Whether who executes this file becomes its owner.
    pub fn is_setuid(&self) -> bool {
        self.is_file() && self.mode & 0o4000 != 0
    }

    /// Whether who executes this file joins its group.
    pub fn is_setgid(&self) -> bool {
        self.is_file() && self.mode & 0o2000 != 0
    }

    /// Whether anybody may execute this file.
    pub fn is_executable(&self) -> bool {
        self.is_file() && self.mode & 0o111 != 0
    }

    /// Whether everybody may write to it.
    pub fn is_world_writable(&self) -> bool {
        let has_mode = !self.is_removal() && !matches!(self.node, Node::Symlink { .. } | Node::HardLink { .. });
        has_mode && self.mode & 0o002 != 0
    }

    /// The size of a regular file, 0 of all else.
    pub fn size(&self) -> u64 {
        match self.node {
            Node::File { size } | Node::Sparse { size, .. } => size,
            _ => 0,
        }
    }

    /// How many bytes of content the layer holds for this entry: those of the extents, of a sparse file.
    pub fn content_bytes(&self) -> u64 {
        match &self.node {
            Node::File { size } => *size,
            Node::Sparse { extents, .. } => extents.iter().map(|extent| extent.length).sum(),
            _ => 0,
        }
    }

    /// The value of an extended attribute, such as `security.capability`.
    pub fn attribute(&self, name: impl AsRef<[u8]>) -> Option<&[u8]> {
        let name = name.as_ref();
        self.attributes.iter().find(|attribute| attribute.name == name).map(|attribute| attribute.value.as_slice())
    }
}

#[cfg(not(target_family = "wasm"))]
impl From<&cofferdam_layer::Entry<'_>> for Entry {
    fn from(entry: &cofferdam_layer::Entry<'_>) -> Self {
        use cofferdam_layer::Node as Read;
        let device = |number: cofferdam_layer::Device| Device { major: number.major, minor: number.minor };
        Self {
            path: entry.path.to_vec(),
            node: match entry.node {
                Read::Directory => Node::Directory,
                Read::File { size } => Node::File { size },
                Read::Sparse { size, extents } => Node::Sparse {
                    size,
                    extents: extents.iter().map(|e| Extent { offset: e.offset, length: e.length }).collect(),
                },
                Read::Symlink { target } => Node::Symlink { target: target.to_vec() },
                Read::HardLink { target } => Node::HardLink { target: target.to_vec() },
                Read::CharacterDevice(number) => Node::CharacterDevice(device(number)),
                Read::BlockDevice(number) => Node::BlockDevice(device(number)),
                Read::Fifo => Node::Fifo,
                Read::Whiteout => Node::Whiteout,
                Read::Opaque => Node::Opaque,
            },
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            modified: Timestamp { seconds: entry.modified.seconds, nanoseconds: entry.modified.nanoseconds },
            attributes: entry
                .attributes
                .iter()
                .map(|a| Attribute { name: a.name.to_vec(), value: a.value.to_vec() })
                .collect(),
        }
    }
}

/// To and from the generated types. Nothing is copied but the list of attributes and of extents, element by element.
#[cfg(target_family = "wasm")]
mod wire {
    use super::{Attribute, Device, Entry, Extent, Node, Timestamp};
    use crate::bindings::imports::tree;

    impl From<tree::Device> for Device {
        fn from(device: tree::Device) -> Self {
            Self { major: device.major, minor: device.minor }
        }
    }

    impl From<Device> for tree::Device {
        fn from(device: Device) -> Self {
            Self { major: device.major, minor: device.minor }
        }
    }

    impl From<tree::Entry> for Entry {
        fn from(entry: tree::Entry) -> Self {
            Self {
                path: entry.path,
                node: match entry.node {
                    tree::Node::Directory => Node::Directory,
                    tree::Node::File(size) => Node::File { size },
                    tree::Node::SparseFile(sparse) => Node::Sparse {
                        size: sparse.size,
                        extents: sparse
                            .extents
                            .into_iter()
                            .map(|e| Extent { offset: e.offset, length: e.length })
                            .collect(),
                    },
                    tree::Node::Symlink(target) => Node::Symlink { target },
                    tree::Node::HardLink(target) => Node::HardLink { target },
                    tree::Node::CharacterDevice(device) => Node::CharacterDevice(device.into()),
                    tree::Node::BlockDevice(device) => Node::BlockDevice(device.into()),
                    tree::Node::Fifo => Node::Fifo,
                    tree::Node::Whiteout => Node::Whiteout,
                    tree::Node::Opaque => Node::Opaque,
                },
                mode: entry.mode,
                uid: entry.uid,
                gid: entry.gid,
                modified: Timestamp { seconds: entry.modified.seconds, nanoseconds: entry.modified.nanoseconds },
                attributes: entry.attributes.into_iter().map(|a| Attribute { name: a.name, value: a.value }).collect(),
            }
        }
    }

    impl From<Entry> for tree::Entry {
        fn from(entry: Entry) -> Self {
            Self {
                path: entry.path,
                node: match entry.node {
                    Node::Directory => tree::Node::Directory,
                    Node::File { size } => tree::Node::File(size),
                    Node::Sparse { size, extents } => tree::Node::SparseFile(tree::Sparse {
                        size,
                        extents: extents
                            .into_iter()
                            .map(|e| tree::Extent { offset: e.offset, length: e.length })
                            .collect(),
                    }),
                    Node::Symlink { target } => tree::Node::Symlink(target),
                    Node::HardLink { target } => tree::Node::HardLink(target),
                    Node::CharacterDevice(device) => tree::Node::CharacterDevice(device.into()),
                    Node::BlockDevice(device) => tree::Node::BlockDevice(device.into()),
                    Node::Fifo => tree::Node::Fifo,
                    Node::Whiteout => tree::Node::Whiteout,
                    Node::Opaque => tree::Node::Opaque,
                },
                mode: entry.mode,
                uid: entry.uid,
                gid: entry.gid,
                modified: tree::Timestamp { seconds: entry.modified.seconds, nanoseconds: entry.modified.nanoseconds },
                attributes: entry
                    .attributes
                    .into_iter()
                    .map(|a| tree::Attribute { name: a.name, value: a.value })
                    .collect(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_of_files_only() {
        let mut entry = Entry::new("usr/bin/su", Node::File { size: 3 });
        entry.mode = 0o6755;
        assert!(entry.is_setuid() && entry.is_setgid() && entry.is_executable() && !entry.is_world_writable());
        entry.node = Node::HardLink { target: b"bin/su".to_vec() };
        assert!(!entry.is_setuid() && !entry.is_setgid() && !entry.is_executable());
        let mut link = Entry::new("tmp/x", Node::Symlink { target: b"y".to_vec() });
        link.mode = 0o777;
        assert!(!link.is_world_writable() && !link.is_executable());
    }

    #[test]
    fn names_and_attributes_are_found() {
        let mut entry = Entry::new(b"a/\xffb".to_vec(), Node::Directory);
        assert_eq!((entry.file_name(), &*entry.path_lossy()), (&b"\xffb"[..], "a/\u{fffd}b"));
        entry.attributes.push(Attribute { name: b"user.note".to_vec(), value: b"x".to_vec() });
        assert_eq!((entry.attribute("user.note"), entry.attribute("user")), (Some(&b"x"[..]), None));
    }
}
