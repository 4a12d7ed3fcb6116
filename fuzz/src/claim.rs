//! Claims: whatever a guest says of an entry, what passes the host's check keeps the promises of its type.

use arbitrary::{Arbitrary as _, Result, Unstructured};
use cofferdam_core::{Error, ErrorKind, Limits};
use cofferdam_tree::claim::{self, Attribute, Budget, Entry as Claim, Node as Claimed};
use cofferdam_tree::entry::{Entry, Node, TreePath};

use crate::claim_input;
use crate::stats::Stats;

static STATS: Stats<2> = Stats::new(["passed", "refused"]);

/// Makes a claim of the bytes and checks it.
pub fn run(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let Ok((claim, limits, budget)) = generate(&mut bytes) else { return };
    match claim::check(claim.clone(), &limits, Budget::new(budget)) {
        Ok(entry) => {
            holds(&claim, &entry, &limits, budget);
            STATS.count(0);
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
            is_for_people(&error);
            STATS.count(1);
        }
    }
}

/// A message is one line, cannot move the cursor of a terminal, and does not grow with what it is about.
pub fn is_for_people(error: &Error) {
    let text = error.to_string();
    assert!(text.len() <= 4096, "a message of {} bytes", text.len());
    assert!(!text.contains(|c: char| c.is_control()), "control characters in {text:?}");
}

fn generate(bytes: &mut Unstructured<'_>) -> Result<(Claim, Limits, u64)> {
    let mut claim = Claim::from(claim_input::Entry::arbitrary(bytes)?);
    if bytes.ratio(7, 8)? {
        claim.path = path(bytes)?;
        claim.mode &= 0o17777;
        claim.modified.nanoseconds %= 1_000_000_001;
    }
    match &mut claim.node {
        Claimed::HardLink(target) | Claimed::Symlink(target) if bytes.ratio(7, 8)? => *target = path(bytes)?,
        Claimed::SparseFile(sparse) if bytes.ratio(7, 8)? => {
            let mut end = 0_u64;
            for extent in &mut sparse.extents {
                extent.offset = end.wrapping_add(extent.offset % 5).wrapping_sub(u64::from(bytes.ratio(1, 50)?));
                extent.length %= 1 << bytes.int_in_range(0..=20)?;
                end = extent.offset.wrapping_add(extent.length);
            }
            sparse.size = end.wrapping_add(sparse.size % 3).wrapping_sub(1);
        }
        _ => {}
    }
    if bytes.ratio(1, 4)? {
        let names: [&[u8]; 7] = [
            b"user.note",
            b"trusted.overlay.opaque",
            b"user.overlay.redirect",
            b"user.fuseoverlayfs.opaque",
            b"user.containers.override_stat",
            b"security.capability",
            b"user.a\0b",
        ];
        claim.attributes.push(Attribute { name: bytes.choose(&names)?.to_vec(), value: Vec::arbitrary(bytes)? });
    }
    let mut limits = Limits::default();
    if bytes.arbitrary()? {
        limits.path_bytes = 40;
        limits.component_bytes = 12;
        limits.depth = 4;
        limits.xattrs = 3;
        limits.xattr_bytes = 48;
        limits.sparse_extents = 4;
        limits.file_bytes = 1 << 20;
    }
    let budget = if bytes.arbitrary()? { u64::MAX } else { bytes.int_in_range(0..=1 << 21)? };
    Ok((claim, limits, budget))
}

/// A path, canonical more often than not.
fn path(bytes: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let names: [&[u8]; 14] = [
        b"a",
        b"b",
        b"usr",
        b"\xff",
        b"...",
        b"..a",
        b".wh",
        b"a.wh.b",
        b".",
        b"..",
        b"",
        b".wh.a",
        b".wh..wh..opq",
        b"a\0b",
    ];
    let mut components = Vec::new();
    for _ in 0..bytes.int_in_range(0..=6)? {
        let common = bytes.ratio(15, 16)?;
        let name = if common { &names[..8] } else { &names[8..] };
        let mut name = bytes.choose(name)?.to_vec();
        if bytes.ratio(1, 16)? {
            name = name.repeat(bytes.int_in_range(1..=300)?);
        }
        components.push(name);
    }
    Ok(components.join(&b'/'))
}

fn holds(claim: &Claim, entry: &Entry, limits: &Limits, budget: u64) {
    path_holds(&entry.path, &claim.path, limits);
    let metadata = &entry.metadata;
    assert!(metadata.mode <= 0o7777 && u32::from(metadata.mode) == claim.mode);
    assert!(metadata.uid < u32::MAX && metadata.gid < u32::MAX);
    assert_eq!((metadata.uid, metadata.gid), (claim.uid, claim.gid));
    assert!(metadata.mtime.nanoseconds < 1_000_000_000);
    assert_eq!(metadata.mtime.seconds, claim.modified.seconds);
    let reserved = |name: &[u8]| {
        let text = String::from_utf8_lossy(name);
        text.starts_with("trusted.overlay.")
            || text.starts_with("user.overlay.")
            || text.starts_with("user.fuseoverlayfs.")
            || text.starts_with("security.fuseoverlayfs.")
            || text == "user.containers.override_stat"
    };
    let kept: Vec<_> = claim.attributes.iter().filter(|attribute| !reserved(&attribute.name)).collect();
    assert_eq!(kept.len(), metadata.xattrs.len());
    for (claimed, xattr) in kept.into_iter().zip(&metadata.xattrs) {
        assert_eq!((&claimed.name, &claimed.value), (&xattr.name, &xattr.value));
        assert!((1..=255).contains(&xattr.name.len()) && !xattr.name.contains(&0));
    }
    assert!(metadata.xattrs.len() <= limits.xattrs);
    assert!(metadata.xattrs.iter().map(|x| x.name.len() + x.value.len()).sum::<usize>() <= limits.xattr_bytes);
    if entry.path.is_root() {
        assert!(matches!(entry.node, Node::Directory | Node::Opaque), "the root became {:?}", entry.node);
    }
    match (&entry.node, &claim.node) {
        (Node::File { size }, Claimed::File(claimed)) => {
            assert!(size == claimed && *size <= budget && *size <= limits.file_bytes);
        }
        (Node::Sparse { size, extents }, Claimed::SparseFile(claimed)) => {
            assert!(*size == claimed.size && *size <= limits.file_bytes);
            assert!(extents.len() == claimed.extents.len() && extents.len() <= limits.sparse_extents);
            let mut end = 0_u128;
            let mut content = 0_u128;
            for extent in extents {
                assert!(u128::from(extent.offset) >= end, "extents overlap");
                end = u128::from(extent.offset) + u128::from(extent.length);
                content += u128::from(extent.length);
            }
            assert!(end <= u128::from(*size) && content <= u128::from(budget));
        }
        (Node::Symlink { target }, Claimed::Symlink(claimed)) => {
            assert!(target == claimed && (1..=4095).contains(&target.len()) && !target.contains(&0));
        }
        (Node::HardLink { target }, Claimed::HardLink(claimed)) => {
            path_holds(target, claimed, limits);
            assert!(!target.is_root());
        }
        (Node::CharDevice(device), Claimed::CharacterDevice(claimed))
        | (Node::BlockDevice(device), Claimed::BlockDevice(claimed)) => {
            assert_eq!((device.major, device.minor), (claimed.major, claimed.minor));
            assert!(device.major < 1 << 12 && device.minor < 1 << 20);
        }
        (Node::Directory, Claimed::Directory)
        | (Node::Fifo, Claimed::Fifo)
        | (Node::Whiteout, Claimed::Whiteout)
        | (Node::Opaque, Claimed::Opaque) => {}
        (node, claimed) => panic!("{claimed:?} became {node:?}"),
    }
}

fn path_holds(path: &TreePath, claimed: &[u8], limits: &Limits) {
    let bytes = path.as_bytes();
    assert_eq!(bytes, claimed);
    assert!(bytes.len() <= limits.path_bytes && !bytes.contains(&0));
    if bytes.is_empty() {
        return;
    }
    let components: Vec<_> = bytes.split(|&byte| byte == b'/').collect();
    assert!(components.len() <= limits.depth);
    for component in components {
        assert!(!matches!(component, b"" | b"." | b".."), "{path}");
        assert!(component.len() <= limits.component_bytes && !component.starts_with(b".wh."), "{path}");
    }
}
