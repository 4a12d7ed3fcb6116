//! Entries made of a fuzzer's bytes, in the shape of [`claim::Entry`], which itself depends on no fuzzing library.

use arbitrary::Arbitrary;
use cofferdam_tree::claim;

#[derive(Arbitrary, Clone, Debug)]
pub struct Timestamp {
    pub seconds: i64,
    pub nanoseconds: u32,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Device {
    pub major: u32,
    pub minor: u32,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Extent {
    pub offset: u64,
    pub length: u64,
}

#[derive(Arbitrary, Clone, Debug)]
pub struct Sparse {
    pub size: u64,
    pub extents: Vec<Extent>,
}

#[derive(Arbitrary, Clone, Debug)]
pub struct Attribute {
    pub name: Vec<u8>,
    pub value: Vec<u8>,
}

#[derive(Arbitrary, Clone, Debug)]
pub enum Node {
    Directory,
    File(u64),
    SparseFile(Sparse),
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    CharacterDevice(Device),
    BlockDevice(Device),
    Fifo,
    Whiteout,
    Opaque,
}

#[derive(Arbitrary, Clone, Debug)]
pub struct Entry {
    pub path: Vec<u8>,
    pub node: Node,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub modified: Timestamp,
    pub attributes: Vec<Attribute>,
}

impl From<Entry> for claim::Entry {
    fn from(entry: Entry) -> Self {
        let device = |device: Device| claim::Device { major: device.major, minor: device.minor };
        let extent = |extent: Extent| claim::Extent { offset: extent.offset, length: extent.length };
        let node = match entry.node {
            Node::Directory => claim::Node::Directory,
            Node::File(size) => claim::Node::File(size),
            Node::SparseFile(Sparse { size, extents }) => {
                claim::Node::SparseFile(claim::Sparse { size, extents: extents.into_iter().map(extent).collect() })
            }
            Node::Symlink(target) => claim::Node::Symlink(target),
            Node::HardLink(target) => claim::Node::HardLink(target),
            Node::CharacterDevice(numbers) => claim::Node::CharacterDevice(device(numbers)),
            Node::BlockDevice(numbers) => claim::Node::BlockDevice(device(numbers)),
            Node::Fifo => claim::Node::Fifo,
            Node::Whiteout => claim::Node::Whiteout,
            Node::Opaque => claim::Node::Opaque,
        };
        let attribute = |attribute: Attribute| claim::Attribute { name: attribute.name, value: attribute.value };
        Self {
            path: entry.path,
            node,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            modified: claim::Timestamp { seconds: entry.modified.seconds, nanoseconds: entry.modified.nanoseconds },
            attributes: entry.attributes.into_iter().map(attribute).collect(),
        }
    }
}
