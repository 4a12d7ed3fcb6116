//! Compares a tree with the one that a scenario expects.
//!
//! The expected tree is complete: what it does not list must not be there, except for directories on the way to what it
//! lists, which must be 0755 and root's, as implied ones are. Mode (directories 0755, others 0644), owner (0:0), content,
//! and attributes (none) are compared whether they are listed or not; times and the root's metadata where they are.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use super::member::Member;
use crate::tree::{Entry, Name, Node, Shown, Snapshot};

/// What can be seen through a way of extracting.
#[derive(Clone, Copy, Debug)]
pub struct Lens {
    /// Which names share an inode.
    pub links: bool,
    /// Owners of symlinks, which have no place for a note about it.
    pub symlink_owners: bool,
    /// Modes, owners and attributes.
    pub metadata: bool,
    /// Which attributes there are.
    pub xattrs: Xattrs,
}

/// Which attributes are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Xattrs {
    /// All that a layer may set.
    All,
    /// Those of overlayfs too.
    WithOverlay,
    /// Those that need no privileges.
    User,
}

impl Lens {
    /// All of it.
    pub const CLEAR: Self = Self { links: true, symlink_owners: true, metadata: true, xattrs: Xattrs::All };
}

/// What is wrong with a tree; empty if nothing is.
pub fn complaints(expected: &[Member], found: &Snapshot, lens: Lens) -> Vec<String> {
    let mut wanted: BTreeMap<Name, &Member> = BTreeMap::new();
    let mut groups: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
    for member in expected {
        let path = canonical(&member.path);
        if member.kind == 'H' {
            let target = canonical(&member.target);
            groups.entry(target.clone()).or_insert_with(|| BTreeSet::from([target])).insert(path.clone());
        }
        wanted.insert(path, member);
    }
    let implied = Member { kind: 'D', ..Member::default() };
    for path in wanted.keys().cloned().collect::<Vec<_>>() {
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            wanted.entry(path[..at].to_vec()).or_insert(&implied);
        }
    }
    let mut wrong = Vec::new();
    for (path, member) in &wanted {
        let first = if member.kind == 'H' { canonical(&member.target) } else { path.clone() };
        let described = wanted.get(&first).copied().unwrap_or(member);
        match found.entries.get(path) {
            None => wrong.push(format!("/{} is missing", Shown(path))),
            Some(entry) => {
                let complain = |what: String| wrong.push(format!("/{}: {what}", Shown(path)));
                check(described, path.is_empty(), entry, groups.get(&first), lens, complain);
            }
        }
    }
    for (path, entry) in found.entries.iter().filter(|(path, _)| !path.is_empty() && !wanted.contains_key(*path)) {
        wrong.push(format!("/{} is there, a {}", Shown(path), entry.node.kind()));
    }
    wrong
}

/// Without empty and `.` components.
pub(super) fn canonical(path: &[u8]) -> Name {
    let parts: Vec<_> = path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    parts.join(&b'/')
}

fn check(
    member: &Member,
    is_root: bool,
    entry: &Entry,
    group: Option<&BTreeSet<Name>>,
    lens: Lens,
    mut complain: impl FnMut(String),
) {
    if !same_node(member, &entry.node) {
        return complain(format!("is {}, not {}", shown(&entry.node), wanted(member)));
    }
    if let (Some(most), Node::File { extents: Some(extents), .. }) = (member.data, &entry.node) {
        let data: u64 = extents.iter().map(|extent| extent.1).sum();
        if data > most {
            complain(format!("holds {data} bytes of data, not at most {most}: its holes are filled"));
        }
    }
    // The root's own metadata is the caller's, unless a layer lists it.
    let listed = lens.metadata && (!is_root || member.mode.is_some());
    let mode = member.mode.unwrap_or(if member.kind == 'D' { 0o755 } else { 0o644 });
    if listed && !matches!(member.kind, 'S' | 'W') && entry.mode != mode {
        complain(format!("has mode {:04o}, not {mode:04o}", entry.mode));
    }
    let owner = (u64::from(entry.uid), u64::from(entry.gid));
    let wanted = member.owner.unwrap_or_default();
    if listed && member.kind != 'W' && owner != wanted && (member.kind != 'S' || lens.symlink_owners) {
        complain(format!("belongs to {}:{}, not {}:{}", owner.0, owner.1, wanted.0, wanted.1));
    }
    if let Some(mtime) = member.mtime.filter(|mtime| *mtime != entry.mtime) {
        let show = |time: (i64, u32)| format!("{}.{:09}", time.0, time.1);
        complain(format!("is of {}, not {}", show(entry.mtime), show(mtime)));
    }
    let xattrs = seen_xattrs(entry, lens);
    let mut expected: BTreeMap<&[u8], &[u8]> = member.xattrs.iter().map(|(n, v)| (&n[..], &v[..])).collect();
    if member.opaque {
        expected.insert(b"trusted.overlay.opaque", b"y");
    }
    expected.retain(|name, _| is_seen(name, lens.xattrs));
    if listed && xattrs != expected {
        let show = |all: &BTreeMap<&[u8], &[u8]>| {
            all.iter().map(|(n, v)| format!("{}={}", Shown(n), Shown(v))).collect::<Vec<_>>().join(" ")
        };
        complain(format!("has the attributes [{}], not [{}]", show(&xattrs), show(&expected)));
    }
    if lens.links && member.kind != 'D' {
        let none = BTreeSet::new();
        let group = group.unwrap_or(&none);
        let show = |set: &BTreeSet<Name>| set.iter().map(|n| Shown(n).to_string()).collect::<Vec<_>>().join(" ");
        if entry.links != *group {
            complain(format!("shares its inode with [{}], not [{}]", show(&entry.links), show(group)));
        }
        if entry.outside_links > 0 {
            complain(format!("shares its inode with {} names outside", entry.outside_links));
        }
    }
}

fn seen_xattrs(entry: &Entry, lens: Lens) -> BTreeMap<&[u8], &[u8]> {
    let all = entry.xattrs.iter().map(|(name, value)| (&name[..], &value[..]));
    all.filter(|(name, _)| is_seen(name, lens.xattrs)).collect()
}

fn is_seen(name: &[u8], seen: Xattrs) -> bool {
    let overlay = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    match seen {
        // The system sets labels on everything.
        Xattrs::All => !overlay && name != b"security.selinux",
        Xattrs::WithOverlay => name != b"security.selinux",
        Xattrs::User => !overlay && name.starts_with(b"user."),
    }
}

fn same_node(member: &Member, node: &Node) -> bool {
    match (member.kind, node) {
        ('D', Node::Directory) | ('P', Node::Fifo) | ('W', Node::CharDevice(0, 0)) => true,
        ('F', Node::File { size, hash, .. }) => {
            let expected: [u8; 32] = Sha256::digest(&member.content).into();
            *size == member.content.len() as u64 && *hash == expected
        }
        ('S', Node::Symlink(target)) => *target == member.target,
        ('C', Node::CharDevice(major, minor)) | ('B', Node::BlockDevice(major, minor)) => {
            member.device == [u64::from(*major), u64::from(*minor)]
        }
        _ => false,
    }
}

fn shown(node: &Node) -> String {
    match node {
        Node::File { size, .. } => format!("a file of {size} bytes"),
        Node::Symlink(target) => format!("a symlink to `{}`", Shown(target)),
        Node::CharDevice(major, minor) | Node::BlockDevice(major, minor) => {
            format!("a {} {major}:{minor}", node.kind())
        }
        other => format!("a {}", other.kind()),
    }
}

fn wanted(member: &Member) -> String {
    match member.kind {
        'D' => "a directory".into(),
        'F' => format!("a file `{}`", Shown(&member.content[..member.content.len().min(40)])),
        'S' => format!("a symlink to `{}`", Shown(&member.target)),
        'P' => "a fifo".into(),
        'W' => "an overlay's whiteout".into(),
        kind => format!("a device {kind} {:?}", member.device),
    }
}
