//! What our parser promises of an entry: the contract in `wit/layer.wit`, and that the host's check lets it pass.

use cofferdam_core::{Error, Limits};
use cofferdam_layer::{Entry, Node};
use cofferdam_tree::claim::{self, Budget};

/// Panics if an entry breaks the contract, or if the host would refuse it other than for a size.
pub fn check(entry: &Entry<'_>) {
    let limits = Limits::default();
    assert!(entry.modified.nanoseconds < 1_000_000_000, "{entry:?}");
    let mut names: Vec<_> = entry.attributes.iter().map(|attribute| attribute.name).collect();
    let count = names.len();
    names.dedup();
    assert!(names.is_sorted() && names.len() == count, "{entry:?}");
    if let Node::Sparse { extents, .. } = entry.node {
        assert!(extents.iter().all(|extent| extent.length > 0), "{entry:?}");
    }
    match claim::check(claim(entry), &limits, Budget::new(u64::MAX)) {
        Ok(checked) => {
            assert_eq!(checked.path.as_bytes(), entry.path);
            assert_eq!(checked.metadata.xattrs.len(), count, "an attribute was dropped by the host only: {entry:?}");
        }
        Err(Error::Limit { what: "bytes in a file", .. }) => {}
        Err(error) => panic!("the host refuses what the parser says: {error}: {entry:?}"),
    }
}

/// The entry as the guest claims it to the host.
fn claim(entry: &Entry<'_>) -> claim::Entry {
    let device = |device: cofferdam_layer::Device| claim::Device { major: device.major, minor: device.minor };
    let node = match entry.node {
        Node::Directory => claim::Node::Directory,
        Node::File { size } => claim::Node::File(size),
        Node::Sparse { size, extents } => {
            let extents = extents.iter().map(|&e| claim::Extent { offset: e.offset, length: e.length }).collect();
            claim::Node::SparseFile(claim::Sparse { size, extents })
        }
        Node::Symlink { target } => claim::Node::Symlink(target.to_vec()),
        Node::HardLink { target } => claim::Node::HardLink(target.to_vec()),
        Node::CharacterDevice(number) => claim::Node::CharacterDevice(device(number)),
        Node::BlockDevice(number) => claim::Node::BlockDevice(device(number)),
        Node::Fifo => claim::Node::Fifo,
        Node::Whiteout => claim::Node::Whiteout,
        Node::Opaque => claim::Node::Opaque,
    };
    let attributes = entry.attributes.iter();
    claim::Entry {
        path: entry.path.to_vec(),
        node,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        modified: claim::Timestamp { seconds: entry.modified.seconds, nanoseconds: entry.modified.nanoseconds },
        attributes: attributes.map(|a| claim::Attribute { name: a.name.to_vec(), value: a.value.to_vec() }).collect(),
    }
}
