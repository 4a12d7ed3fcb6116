//! The `untar` guest: reads the decoded layer as `cofferdam_layer` understands it and has the host make each entry.
//!
//! Two host calls for an ordinary entry: one reads the padding of the member before and a header, less than 1 KiB; one
//! puts the entry, with paths borrowed from the parser's buffers. A file's content never comes here.

/// What `wit-bindgen` makes of `wit/layer.wit`. Borrowing, so that an entry is passed without a copy of its parts. That
/// file alone: an inspector takes entries, and where any world of the package does that they are owned in all of them.
mod bindings {
    #![allow(missing_docs, unreachable_pub, unsafe_code, clippy::pedantic)]

    use super::Untar;

    // This file alone: a world that exports what takes an entry, as an inspector's does, would make entries owned here too.
    wit_bindgen::generate!({
        path: "../../wit/layer.wit",
        world: "extractor",
        ownership: Borrowing { duplicate_if_necessary: false },
    });
    export!(Untar with_types_in self);
}

use bindings::cofferdam::layer::{bounds, input, tree, types};
use cofferdam_layer::{Device, Entry, Failure, Layer, Limits, Node, Source};

struct Untar;

impl bindings::Guest for Untar {
    fn extract() -> Result<(), types::Failure> {
        extract().map_err(|failure| match failure {
            Failure::Corrupt(reason) => types::Failure::Corrupt(reason),
            Failure::Refused { path, reason } => types::Failure::Refused(types::Refusal { path, reason }),
            Failure::Limit(reason) => types::Failure::Limit(reason),
        })
    }
}

fn extract() -> Result<(), Failure> {
    let mut layer = Layer::new(limits());
    while let Some(entry) = layer.next(&mut Input)? {
        put(&entry);
    }
    Ok(())
}

/// The limits that the host was told to keep.
fn limits() -> Limits {
    let bounds = bounds::entry();
    Limits {
        metadata_bytes: bounds.metadata as usize,
        path_bytes: bounds.path as usize,
        component_bytes: bounds.component as usize,
        depth: bounds.depth as usize,
        xattr_bytes: bounds.attribute_bytes as usize,
        xattrs: bounds.attributes as usize,
        sparse_extents: bounds.extents as usize,
    }
}

/// The host's stream. The host ends this guest if the stream ends within skipped bytes.
struct Input;

impl Source for Input {
    type Error = Failure;

    fn read(&mut self, skip: u64, max: u32, into: &mut Vec<u8>) -> Result<(), Failure> {
        let bytes = input::read(skip, max);
        if into.is_empty() {
            *into = bytes;
        } else {
            into.extend_from_slice(&bytes);
        }
        Ok(())
    }
}

fn put(entry: &Entry<'_>) {
    let device = |Device { major, minor }| tree::Device { major, minor };
    let extents: Vec<_>;
    let node = match entry.node {
        Node::Directory => tree::Node::Directory,
        Node::File { size } => tree::Node::File(size),
        Node::Sparse { size, extents: list } => {
            extents = list.iter().map(|e| tree::Extent { offset: e.offset, length: e.length }).collect();
            tree::Node::SparseFile(tree::Sparse { size, extents: &extents })
        }
        Node::Symlink { target } => tree::Node::Symlink(target),
        Node::HardLink { target } => tree::Node::HardLink(target),
        Node::CharacterDevice(number) => tree::Node::CharacterDevice(device(number)),
        Node::BlockDevice(number) => tree::Node::BlockDevice(device(number)),
        Node::Fifo => tree::Node::Fifo,
        Node::Whiteout => tree::Node::Whiteout,
        Node::Opaque => tree::Node::Opaque,
    };
    // No attributes, no allocation: almost every entry.
    let attributes: Vec<_> =
        entry.attributes.iter().map(|a| tree::Attribute { name: a.name, value: a.value }).collect();
    tree::put(tree::Entry {
        path: entry.path,
        node,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        modified: tree::Timestamp { seconds: entry.modified.seconds, nanoseconds: entry.modified.nanoseconds },
        attributes: &attributes,
    });
}
