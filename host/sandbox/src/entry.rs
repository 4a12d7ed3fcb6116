//! Entries between the types of the contract (`wit/layer.wit`) and those of the tree's own check.

use cofferdam_tree::claim;

use super::bindings::tree;

/// Returns the entry that an extractor declared.
pub(super) fn declared(entry: tree::Entry) -> claim::Entry {
    let device = |device: tree::Device| claim::Device { major: device.major, minor: device.minor };
    let extent = |extent: tree::Extent| claim::Extent { offset: extent.offset, length: extent.length };
    let node = match entry.node {
        tree::Node::Directory => claim::Node::Directory,
        tree::Node::File(size) => claim::Node::File(size),
        tree::Node::SparseFile(tree::Sparse { size, extents }) => {
            claim::Node::SparseFile(claim::Sparse { size, extents: extents.into_iter().map(extent).collect() })
        }
        tree::Node::Symlink(target) => claim::Node::Symlink(target),
        tree::Node::HardLink(target) => claim::Node::HardLink(target),
        tree::Node::CharacterDevice(numbers) => claim::Node::CharacterDevice(device(numbers)),
        tree::Node::BlockDevice(numbers) => claim::Node::BlockDevice(device(numbers)),
        tree::Node::Fifo => claim::Node::Fifo,
        tree::Node::Whiteout => claim::Node::Whiteout,
        tree::Node::Opaque => claim::Node::Opaque,
    };
    let attribute = |attribute: tree::Attribute| claim::Attribute { name: attribute.name, value: attribute.value };
    claim::Entry {
        path: entry.path,
        node,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        modified: claim::Timestamp { seconds: entry.modified.seconds, nanoseconds: entry.modified.nanoseconds },
        attributes: entry.attributes.into_iter().map(attribute).collect(),
    }
}

/// Returns an entry in the form in which an inspector is called with it.
pub(super) fn shown(entry: claim::Entry) -> tree::Entry {
    let device = |device: claim::Device| tree::Device { major: device.major, minor: device.minor };
    let extent = |extent: claim::Extent| tree::Extent { offset: extent.offset, length: extent.length };
    let node = match entry.node {
        claim::Node::Directory => tree::Node::Directory,
        claim::Node::File(size) => tree::Node::File(size),
        claim::Node::SparseFile(claim::Sparse { size, extents }) => {
            tree::Node::SparseFile(tree::Sparse { size, extents: extents.into_iter().map(extent).collect() })
        }
        claim::Node::Symlink(target) => tree::Node::Symlink(target),
        claim::Node::HardLink(target) => tree::Node::HardLink(target),
        claim::Node::CharacterDevice(numbers) => tree::Node::CharacterDevice(device(numbers)),
        claim::Node::BlockDevice(numbers) => tree::Node::BlockDevice(device(numbers)),
        claim::Node::Fifo => tree::Node::Fifo,
        claim::Node::Whiteout => tree::Node::Whiteout,
        claim::Node::Opaque => tree::Node::Opaque,
    };
    let attribute = |attribute: claim::Attribute| tree::Attribute { name: attribute.name, value: attribute.value };
    tree::Entry {
        path: entry.path,
        node,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        modified: tree::Timestamp { seconds: entry.modified.seconds, nanoseconds: entry.modified.nanoseconds },
        attributes: entry.attributes.into_iter().map(attribute).collect(),
    }
}
