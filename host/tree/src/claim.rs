//! The check of the entries that an extractor guest declares, before the tree writer acts on them.
//!
//! The guest is assumed to be hostile. [`check`] returns an [`entry::Entry`]: its path is canonical and names no whiteout file, its numbers
//! are in range, its lists are within the limits, and it sets no attribute that is reserved for the runtime.

use cofferdam_core::error::{Error, Escaped, Result};
use cofferdam_core::limits::Limits;

use crate::entry::{self, TreePath};
use crate::xattr;

/// An entry of a layer as an extractor guest declares it: any value of these types, and none of it checked.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The path.
    pub path: Vec<u8>,
    /// The kind of file.
    pub node: Node,
    /// Permissions, with the set-id and sticky bits.
    pub mode: u32,
    /// The owner's user id.
    pub uid: u32,
    /// The owner's group id.
    pub gid: u32,
    /// The time of the last change of content.
    pub modified: Timestamp,
    /// Extended attributes.
    pub attributes: Vec<Attribute>,
}

/// The kind of a declared entry.
#[derive(Clone, Debug)]
pub enum Node {
    /// A directory.
    Directory,
    /// A regular file of this size in bytes.
    File(u64),
    /// A regular file with holes.
    SparseFile(Sparse),
    /// A symbolic link with this target.
    Symlink(Vec<u8>),
    /// A hard link to this path.
    HardLink(Vec<u8>),
    /// A character device.
    CharacterDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// The path is removed.
    Whiteout,
    /// All content that lower layers have in this directory is removed.
    Opaque,
}

/// A time since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Timestamp {
    /// Whole seconds, negative before 1970.
    pub seconds: i64,
    /// Nanoseconds that are added to the seconds.
    pub nanoseconds: u32,
}

/// The numbers of a device.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// The major number.
    pub major: u32,
    /// The minor number.
    pub minor: u32,
}

/// A file with holes.
#[derive(Clone, Debug)]
pub struct Sparse {
    /// The size in bytes, holes included.
    pub size: u64,
    /// The stretches that hold data.
    pub extents: Vec<Extent>,
}

/// A stretch of data in a sparse file.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// An extended attribute.
#[derive(Clone, Debug)]
pub struct Attribute {
    /// The name.
    pub name: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

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
pub struct Budget {
    /// The number of bytes.
    pub bytes: u64,
    /// The words for these bytes in [`Error::Limit`].
    pub what: &'static str,
}

impl Budget {
    /// A budget of this many decoded bytes.
    pub fn new(bytes: u64) -> Self {
        Self { bytes, what: "bytes that the layer may still decode to" }
    }
}

/// Checks a claimed entry.
pub fn check(claimed: Entry, limits: &Limits, budget: Budget) -> Result<entry::Entry> {
    let Entry { path, node, mode, uid, gid, modified, attributes } = claimed;
    let path = checked_path(path, limits)?;
    let refuse = |reason: &str| Err(Error::refused(path.as_bytes(), reason));
    if path.is_root() && !matches!(node, Node::Directory | Node::Opaque) {
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
    let mtime = entry::Timestamp { seconds: modified.seconds, nanoseconds: modified.nanoseconds };
    #[expect(clippy::cast_possible_truncation, reason = "12 bits, checked above")]
    let mode = mode as u16;
    Ok(entry::Entry { path, node, metadata: entry::Metadata { mode, uid, gid, mtime, xattrs } })
}

/// How many bytes of names, targets and attributes a claim holds.
pub fn bytes(claimed: &Entry) -> u64 {
    let target = match &claimed.node {
        Node::Symlink(target) | Node::HardLink(target) => target.len(),
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

fn checked_node(node: Node, path: &TreePath, limits: &Limits, budget: Budget) -> Result<entry::Node> {
    let refuse = |reason: &str| Err(Error::refused(path.as_bytes(), reason));
    Ok(match node {
        Node::Directory => entry::Node::Directory,
        Node::File(size) => {
            content_fits(size, path, budget)?;
            size_fits(size, path, limits)?;
            entry::Node::File { size }
        }
        Node::SparseFile(sparse) => {
            size_fits(sparse.size, path, limits)?;
            let extents = checked_extents(&sparse, path, limits)?;
            content_fits(extents.iter().map(|extent| extent.length).sum(), path, budget)?;
            entry::Node::Sparse { size: sparse.size, extents }
        }
        Node::Symlink(target) => match target.len() {
            0 => return refuse("a symbolic link without a target"),
            1..=MAX_TARGET if target.contains(&0) => return refuse("a NUL byte in a link's target"),
            1..=MAX_TARGET => entry::Node::Symlink { target },
            _ => return Err(over(path, "bytes in a link's target", MAX_TARGET as u64)),
        },
        Node::HardLink(target) => {
            let target = checked_path(target, limits)?;
            if target.is_root() {
                return refuse("a hard link to the root");
            }
            entry::Node::HardLink { target }
        }
        Node::CharacterDevice(device) => entry::Node::CharDevice(checked_device(device, path)?),
        Node::BlockDevice(device) => entry::Node::BlockDevice(checked_device(device, path)?),
        Node::Fifo => entry::Node::Fifo,
        Node::Whiteout => {
            // The marker is a name of its own: in the archive, and in a tree that preserves it.
            let victim = path.components().next_back().map_or(0, <[u8]>::len);
            if victim + MARKER.len() > limits.component_bytes {
                return Err(over(path, "bytes in a component of a path", limits.component_bytes as u64));
            }
            entry::Node::Whiteout
        }
        Node::Opaque => entry::Node::Opaque,
    })
}

/// Linux has 12 bits for the major number and 20 for the minor; larger ones would be cut (containerd 0205398ac).
fn checked_device(device: Device, path: &TreePath) -> Result<entry::Device> {
    if device.major >= 1 << 12 || device.minor >= 1 << 20 {
        return Err(Error::refused(path.as_bytes(), "a device number out of range"));
    }
    Ok(entry::Device { major: device.major, minor: device.minor })
}

fn size_fits(size: u64, path: &TreePath, limits: &Limits) -> Result<()> {
    if size > limits.file_bytes { Err(over(path, "bytes in a file", limits.file_bytes)) } else { Ok(()) }
}

/// A size beyond what the layer may still decode to is refused before a byte of it is written.
fn content_fits(size: u64, path: &TreePath, budget: Budget) -> Result<()> {
    if size > budget.bytes { Err(over(path, budget.what, budget.bytes)) } else { Ok(()) }
}

fn checked_extents(sparse: &Sparse, path: &TreePath, limits: &Limits) -> Result<Vec<entry::Extent>> {
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
    Ok(sparse.extents.iter().map(|extent| entry::Extent { offset: extent.offset, length: extent.length }).collect())
}

/// What a sparse file takes on disk beyond its data: it takes whole blocks of 4 KiB, of which one may hold several extents.
pub fn beyond_data(extents: &[entry::Extent]) -> u64 {
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

fn checked_attributes(attributes: Vec<Attribute>, path: &TreePath, limits: &Limits) -> Result<Vec<entry::Xattr>> {
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
        .filter(|attribute| !xattr::is_reserved(&attribute.name))
        .map(|attribute| entry::Xattr { name: attribute.name, value: attribute.value })
        .collect())
}

fn over(path: &TreePath, what: &'static str, limit: u64) -> Error {
    Error::Limit { subject: format!("`{}`", Escaped(path.as_bytes())), what, limit }
}

#[cfg(test)]
mod tests {
    use cofferdam_core::error::ErrorKind;

    use super::*;
    use crate::claim;
    use crate::entry::{Entry, Extent, Node};

    fn check(claimed: claim::Entry, limits: &Limits, bytes: u64) -> Result<Entry> {
        super::check(claimed, limits, Budget::new(bytes))
    }

    fn entry(path: &[u8], node: claim::Node) -> claim::Entry {
        claim::Entry {
            path: path.to_vec(),
            node,
            mode: 0o644,
            uid: 0,
            gid: 0,
            modified: Timestamp { seconds: 0, nanoseconds: 0 },
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
        claim::Node::SparseFile(Sparse { size, extents })
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
        let modified = Timestamp { seconds: 0, nanoseconds: 1_000_000_000 };
        refused(claim::Entry { modified, ..entry(b"a", claim::Node::Fifo) });
        refused(entry(b"a", claim::Node::CharacterDevice(Device { major: 1 << 12, minor: 0 })));
        refused(entry(b"a", claim::Node::BlockDevice(Device { major: 0, minor: 1 << 20 })));
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
        let attribute = |name: &[u8], size| Attribute { name: name.to_vec(), value: vec![0; size] };
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
