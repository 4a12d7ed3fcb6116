//! From claim to entry: the small, pure check between what a guest says and what the tree writer does.
//!
//! The guest is taken for hostile here. What passes is a [`tree::entry::Entry`](crate::tree::entry::Entry): a canonical
//! path that no marker hides in, numbers in range, lists within the limits, and no attribute that is the runtime's own.

use crate::error::{Error, Escaped, Result};
use crate::limits::Limits;
use crate::sandbox::claim;
use crate::tree::entry::{Device, Entry, Extent, Metadata, Node, Timestamp, TreePath, Xattr};

/// `symlink(2)` takes targets below `PATH_MAX`.
const MAX_TARGET: usize = 4095;

/// The kernel's limit on the name of an attribute (`XATTR_NAME_MAX`).
const MAX_XATTR_NAME: usize = 255;

/// Ids are 32 bits, and the last one means "unchanged" to `chown(2)`.
const MAX_ID: u32 = u32::MAX - 1;

/// What a marker's name begins with.
const MARKER: &[u8] = b".wh.";

/// How many bytes the layer may still decode to, and what they are called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub(super) bytes: u64,
    pub(super) what: &'static str,
}

/// Checks a claimed entry.
pub(super) fn check(claimed: claim::Entry, limits: &Limits, budget: Budget) -> Result<Entry> {
    let claim::Entry { path, node, mode, uid, gid, modified, attributes } = claimed;
    let path = checked_path(path, limits)?;
    let refuse = |reason: &str| Err(Error::refused(path.as_bytes(), reason));
    if path.is_root() && !matches!(node, claim::Node::Directory | claim::Node::Opaque) {
        return refuse("the root can only be a directory");
    }
    if mode > 0o7777 {
        return refuse("more than 12 bits of permissions");
    }
    if uid > MAX_ID || gid > MAX_ID {
        return refuse("an owner out of range");
    }
    if modified.nanoseconds >= 1_000_000_000 {
        return refuse("a time out of range");
    }
    let node = checked_node(node, &path, limits, budget)?;
    let xattrs = checked_attributes(attributes, &path, limits)?;
    let mtime = Timestamp { seconds: modified.seconds, nanoseconds: modified.nanoseconds };
    #[expect(clippy::cast_possible_truncation, reason = "12 bits, checked above")]
    let mode = mode as u16;
    Ok(Entry { path, node, metadata: Metadata { mode, uid, gid, mtime, xattrs } })
}

/// How many bytes of names, targets and attributes a claim holds.
pub(super) fn bytes(claimed: &claim::Entry) -> u64 {
    let target = match &claimed.node {
        claim::Node::Symlink(target) | claim::Node::HardLink(target) => target.len(),
        _ => 0,
    };
    let attributes = claimed.attributes.iter().map(|attribute| attribute.name.len() + attribute.value.len());
    (claimed.path.len() + target + attributes.sum::<usize>()) as u64
}

/// A canonical path. Names that begin with `.wh.` are the markers' own: whoever means one says so with its node.
fn checked_path(bytes: Vec<u8>, limits: &Limits) -> Result<TreePath> {
    let path = TreePath::parse(bytes, limits)?;
    if path.components().any(|component| component.starts_with(MARKER)) {
        return Err(Error::refused(path.as_bytes(), "a whiteout marker in a path"));
    }
    Ok(path)
}

fn checked_node(node: claim::Node, path: &TreePath, limits: &Limits, budget: Budget) -> Result<Node> {
    let refuse = |reason: &str| Err(Error::refused(path.as_bytes(), reason));
    Ok(match node {
        claim::Node::Directory => Node::Directory,
        claim::Node::File(size) => {
            content_fits(size, path, budget)?;
            size_fits(size, path, limits)?;
            Node::File { size }
        }
        claim::Node::SparseFile(sparse) => {
            size_fits(sparse.size, path, limits)?;
            let extents = checked_extents(&sparse, path, limits)?;
            content_fits(extents.iter().map(|extent| extent.length).sum(), path, budget)?;
            Node::Sparse { size: sparse.size, extents }
        }
        claim::Node::Symlink(target) => match target.len() {
            0 => return refuse("a symbolic link without a target"),
            1..=MAX_TARGET if target.contains(&0) => return refuse("a NUL byte in a link's target"),
            1..=MAX_TARGET => Node::Symlink { target },
            _ => return Err(over(path, "bytes in a link's target", MAX_TARGET as u64)),
        },
        claim::Node::HardLink(target) => {
            let target = checked_path(target, limits)?;
            if target.is_root() {
                return refuse("a hard link to the root");
            }
            Node::HardLink { target }
        }
        claim::Node::CharacterDevice(device) => Node::CharDevice(checked_device(device, path)?),
        claim::Node::BlockDevice(device) => Node::BlockDevice(checked_device(device, path)?),
        claim::Node::Fifo => Node::Fifo,
        claim::Node::Whiteout => {
            // The marker is a name of its own: in the archive, and in a tree that preserves it.
            let victim = path.components().next_back().map_or(0, <[u8]>::len);
            if victim + MARKER.len() > limits.component_bytes {
                return Err(over(path, "bytes in a component of a path", limits.component_bytes as u64));
            }
            Node::Whiteout
        }
        claim::Node::Opaque => Node::Opaque,
    })
}

/// Linux has 12 bits for the major number and 20 for the minor; larger ones would be cut (containerd 0205398ac).
fn checked_device(device: claim::Device, path: &TreePath) -> Result<Device> {
    if device.major >= 1 << 12 || device.minor >= 1 << 20 {
        return Err(Error::refused(path.as_bytes(), "a device number out of range"));
    }
    Ok(Device { major: device.major, minor: device.minor })
}

fn size_fits(size: u64, path: &TreePath, limits: &Limits) -> Result<()> {
    if size > limits.file_bytes { Err(over(path, "bytes in a file", limits.file_bytes)) } else { Ok(()) }
}

/// A size beyond what the layer may still decode to is refused before a byte of it is written.
fn content_fits(size: u64, path: &TreePath, budget: Budget) -> Result<()> {
    if size > budget.bytes { Err(over(path, budget.what, budget.bytes)) } else { Ok(()) }
}

fn checked_extents(sparse: &claim::Sparse, path: &TreePath, limits: &Limits) -> Result<Vec<Extent>> {
    if sparse.extents.len() > limits.sparse_extents {
        return Err(over(path, "extents in a sparse file", limits.sparse_extents as u64));
    }
    let mut end = 0;
    for extent in &sparse.extents {
        let next = extent.offset.checked_add(extent.length).filter(|&next| next <= sparse.size);
        match next {
            Some(next) if extent.offset >= end => end = next,
            _ => return Err(Error::refused(path.as_bytes(), "extents that overlap, run backwards or leave the file")),
        }
    }
    Ok(sparse.extents.iter().map(|extent| Extent { offset: extent.offset, length: extent.length }).collect())
}

/// What a sparse file takes on disk beyond its data: it takes whole blocks of 4 KiB, of which one may hold several extents.
pub(super) fn beyond_data(extents: &[Extent]) -> u64 {
    const BLOCK: u64 = 4096;
    let mut free = 0;
    let mut blocks = 0_u64;
    for extent in extents.iter().filter(|extent| extent.length > 0) {
        let first = (extent.offset / BLOCK).max(free);
        // Extents end within a file's size, which is far below the end of 64 bits.
        let end = extent.offset.saturating_add(extent.length).div_ceil(BLOCK);
        blocks = blocks.saturating_add(end.saturating_sub(first));
        free = free.max(end);
    }
    let data = extents.iter().fold(0_u64, |sum, extent| sum.saturating_add(extent.length));
    blocks.saturating_mul(BLOCK).saturating_sub(data)
}

fn checked_attributes(attributes: Vec<claim::Attribute>, path: &TreePath, limits: &Limits) -> Result<Vec<Xattr>> {
    if attributes.len() > limits.xattrs {
        return Err(over(path, "extended attributes", limits.xattrs as u64));
    }
    let bytes: usize = attributes.iter().map(|attribute| attribute.name.len() + attribute.value.len()).sum();
    if bytes > limits.xattr_bytes {
        return Err(over(path, "bytes of extended attributes", limits.xattr_bytes as u64));
    }
    for attribute in &attributes {
        if attribute.name.is_empty() || attribute.name.len() > MAX_XATTR_NAME || attribute.name.contains(&0) {
            return Err(Error::refused(path.as_bytes(), "an extended attribute without a valid name"));
        }
    }
    Ok(attributes
        .into_iter()
        .filter(|attribute| !is_reserved(&attribute.name))
        .map(|attribute| Xattr { name: attribute.name, value: attribute.value })
        .collect())
}

/// Attributes that mean something to overlayfs, to fuse-overlayfs, to rootless storage or to the store: a layer that could set
/// them would forge whiteouts, redirects, owners and marks. The list of the tree writer, once more.
fn is_reserved(name: &[u8]) -> bool {
    const RESERVED: [&[u8]; 5] =
        [b"trusted.overlay.", b"user.overlay.", b"user.fuseoverlayfs.", b"security.fuseoverlayfs.", b"user.cofferdam."];
    RESERVED.iter().any(|prefix| name.starts_with(prefix)) || name == b"user.containers.override_stat"
}

fn over(path: &TreePath, what: &'static str, limit: u64) -> Error {
    Error::Limit { subject: format!("`{}`", Escaped(path.as_bytes())), what, limit }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn check(claimed: claim::Entry, limits: &Limits, bytes: u64) -> Result<Entry> {
        super::check(claimed, limits, Budget { bytes, what: "bytes that the layer may still decode to" })
    }

    fn entry(path: &[u8], node: claim::Node) -> claim::Entry {
        claim::Entry {
            path: path.to_vec(),
            node,
            mode: 0o644,
            uid: 0,
            gid: 0,
            modified: claim::Timestamp { seconds: 0, nanoseconds: 0 },
            attributes: Vec::new(),
        }
    }

    fn refused(claimed: claim::Entry) {
        let shown = format!("{claimed:?}");
        match check(claimed, &Limits::default(), 1000) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Refused, "{error}"),
            Ok(entry) => panic!("{entry:?} passed from {shown:.300}"),
        }
    }

    fn sparse(size: u64, extents: &[(u64, u64)]) -> claim::Node {
        let extents = extents.iter().map(|&(offset, length)| claim::Extent { offset, length }).collect();
        claim::Node::SparseFile(claim::Sparse { size, extents })
    }

    #[test]
    fn an_honest_entry_passes() {
        let checked = check(entry(b"a/b", claim::Node::File(1000)), &Limits::default(), 1000).unwrap();
        assert_eq!(checked.path.as_bytes(), b"a/b");
        assert_eq!(checked.node, Node::File { size: 1000 });
    }

    #[test]
    fn paths_that_are_not_canonical_are_refused() {
        let long = vec![b'a'; 1 << 20];
        let deep = b"d/".repeat(1_000_000);
        for path in [
            &b".."[..],
            b"a/..",
            b"../a",
            b"/a",
            b"a/",
            b"a//b",
            b".",
            b"a\0b",
            b".wh.a",
            b".wh..wh..opq",
            b"a/.wh.b/c",
        ]
        .into_iter()
        .chain([&long[..], &deep[..]])
        {
            refused(entry(path, claim::Node::Directory));
            refused(entry(b"link", claim::Node::HardLink(path.to_vec())));
        }
    }

    #[test]
    fn the_root_is_a_directory() {
        assert!(check(entry(b"", claim::Node::Directory), &Limits::default(), 0).is_ok());
        assert!(check(entry(b"", claim::Node::Opaque), &Limits::default(), 0).is_ok());
        for node in
            [claim::Node::File(0), claim::Node::Symlink(b"/etc".to_vec()), claim::Node::Whiteout, claim::Node::Fifo]
        {
            refused(entry(b"", node));
        }
        refused(entry(b"link", claim::Node::HardLink(Vec::new())));
    }

    #[test]
    fn a_marker_has_a_name_too() {
        assert!(check(entry(&[b'n'; 251], claim::Node::Whiteout), &Limits::default(), 0).is_ok());
        refused(entry(&[b'n'; 252], claim::Node::Whiteout));
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        refused(claim::Entry { mode: 0o10000, ..entry(b"a", claim::Node::Fifo) });
        refused(claim::Entry { uid: u32::MAX, ..entry(b"a", claim::Node::Fifo) });
        refused(claim::Entry { gid: u32::MAX, ..entry(b"a", claim::Node::Fifo) });
        let modified = claim::Timestamp { seconds: 0, nanoseconds: 1_000_000_000 };
        refused(claim::Entry { modified, ..entry(b"a", claim::Node::Fifo) });
        refused(entry(b"a", claim::Node::CharacterDevice(claim::Device { major: 1 << 12, minor: 0 })));
        refused(entry(b"a", claim::Node::BlockDevice(claim::Device { major: 0, minor: 1 << 20 })));
    }

    #[test]
    fn sizes_beyond_the_budget_are_refused() {
        refused(entry(b"a", claim::Node::File(1001)));
        refused(entry(b"a", claim::Node::File(u64::MAX)));
        refused(entry(b"a", sparse(2000, &[(0, 1001)])));
        refused(entry(b"a", sparse((1 << 40) + 1, &[])));
        assert!(check(entry(b"a", sparse(1 << 40, &[(5000, 1000)])), &Limits::default(), 1000).is_ok());
    }

    #[test]
    fn a_block_that_extents_share_counts_once() {
        let extents = |all: &[(u64, u64)]| {
            beyond_data(&all.iter().map(|&(offset, length)| Extent { offset, length }).collect::<Vec<_>>())
        };
        assert_eq!(extents(&[]), 0);
        assert_eq!(extents(&[(5, 0)]), 0);
        assert_eq!(extents(&[(0, 1), (10, 1), (4095, 1)]), 4096 - 3);
        assert_eq!(extents(&[(0, 1), (4095, 2), (8191, 1)]), 8192 - 4);
        assert_eq!(extents(&[(0, 1), (8192, 1), (1 << 30, 4097)]), 4 * 4096 - 4099);
    }

    #[test]
    fn extents_must_be_in_order_and_inside() {
        for extents in
            [&[(0, 11)][..], &[(11, 0)], &[(5, 2), (6, 1)], &[(5, 2), (0, 1)], &[(u64::MAX, 2)], &[(1, u64::MAX)]]
        {
            refused(entry(b"a", sparse(10, extents)));
        }
        refused(entry(b"a", sparse(1 << 30, &vec![(0, 0); 10_001])));
    }

    #[test]
    fn targets_have_a_length() {
        refused(entry(b"a", claim::Node::Symlink(Vec::new())));
        refused(entry(b"a", claim::Node::Symlink(vec![b'a'; 4096])));
        refused(entry(b"a", claim::Node::Symlink(b"a\0b".to_vec())));
        assert!(check(entry(b"a", claim::Node::Symlink(b"../../../etc".to_vec())), &Limits::default(), 0).is_ok());
    }

    #[test]
    fn attributes_of_the_runtime_are_dropped_and_bad_ones_refused() {
        let attribute = |name: &[u8], size| claim::Attribute { name: name.to_vec(), value: vec![0; size] };
        let with = |attributes| claim::Entry { attributes, ..entry(b"a", claim::Node::Fifo) };
        let reserved = [
            "trusted.overlay.opaque",
            "user.overlay.whiteout",
            "user.fuseoverlayfs.override_stat",
            "security.fuseoverlayfs.override_stat",
            "user.cofferdam.tree",
            "user.containers.override_stat",
            "user.note",
        ];
        for name in reserved {
            assert_eq!(is_reserved(name.as_bytes()), crate::tree::xattr::is_reserved(name.as_bytes()), "{name}");
        }
        let checked =
            check(with(reserved.map(|name| attribute(name.as_bytes(), 1)).to_vec()), &Limits::default(), 0).unwrap();
        assert_eq!(checked.metadata.xattrs.len(), 1);
        assert_eq!(checked.metadata.xattrs[0].name, b"user.note");
        refused(with(vec![attribute(b"", 0)]));
        refused(with(vec![attribute(b"user.a\0b", 0)]));
        refused(with(vec![attribute(&[b'n'; 256], 0)]));
        refused(with(vec![attribute(b"user.a", (64 << 10) + 1)]));
        refused(with((0..257).map(|n| attribute(format!("user.{n}").as_bytes(), 0)).collect()));
    }
}
