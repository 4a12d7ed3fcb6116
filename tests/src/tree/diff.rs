//! What differs between two trees, for people.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use anyhow::{Result, bail};

use super::{Entry, Name, Node, Shown, Snapshot};

/// What can differ about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// It is in one tree only.
    Presence,
    /// Its type.
    Type,
    /// Size or content of a file.
    Content,
    /// Where the data of a file lies.
    Extents,
    /// Target of a symlink.
    Target,
    /// Number of a device.
    Device,
    /// Permission bits.
    Mode,
    /// User or group.
    Owner,
    /// Time of modification.
    Mtime,
    /// Extended attributes.
    Xattrs,
    /// The names that share its inode.
    Links,
}

/// All that differs, one line each.
#[derive(Clone, Debug, Default)]
pub struct Differences {
    /// Path, field, and the two values in words.
    pub lines: Vec<(Name, Field, String)>,
}

impl Differences {
    /// Whether the trees are the same.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 40;
        for (path, _, text) in self.lines.iter().take(SHOWN) {
            writeln!(f, "  /{}: {text}", Shown(path))?;
        }
        match self.lines.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => writeln!(f, "  … and {more} more"),
        }
    }
}

/// Compares two trees entry by entry. What `ignore` returns true for is left out.
pub fn differences(left: &Snapshot, right: &Snapshot, ignore: impl Fn(&[u8], Field) -> bool) -> Differences {
    let mut lines = Vec::new();
    let mut note = |path: &Name, field, text: String| {
        if !ignore(path, field) {
            lines.push((path.clone(), field, text));
        }
    };
    for (path, entry) in &left.entries {
        match right.entries.get(path) {
            Some(other) => entry_differences(entry, other, |field, text| note(path, field, text)),
            None => note(path, Field::Presence, format!("{} only on the left", entry.node.kind())),
        }
    }
    for (path, entry) in right.entries.iter().filter(|(path, _)| !left.entries.contains_key(*path)) {
        note(path, Field::Presence, format!("{} only on the right", entry.node.kind()));
    }
    lines.sort_by(|one, other| one.0.cmp(&other.0));
    Differences { lines }
}

/// Fails unless two named trees are the same, except for what `ignore` returns true for.
pub fn ensure_same(
    left: (&str, &Snapshot),
    right: (&str, &Snapshot),
    ignore: impl Fn(&[u8], Field) -> bool,
) -> Result<()> {
    let found = differences(left.1, right.1, ignore);
    if !found.is_empty() {
        bail!("{} (left) and {} (right) differ in {} places:\n{found}", left.0, right.0, found.lines.len());
    }
    Ok(())
}

fn entry_differences(left: &Entry, right: &Entry, mut note: impl FnMut(Field, String)) {
    node_differences(&left.node, &right.node, &mut note);
    if left.mode != right.mode {
        note(Field::Mode, format!("mode {:04o} | {:04o}", left.mode, right.mode));
    }
    if (left.uid, left.gid) != (right.uid, right.gid) {
        note(Field::Owner, format!("owner {}:{} | {}:{}", left.uid, left.gid, right.uid, right.gid));
    }
    if left.mtime != right.mtime {
        let show = |time: (i64, u32)| format!("{}.{:09}", time.0, time.1);
        note(Field::Mtime, format!("mtime {} | {}", show(left.mtime), show(right.mtime)));
    }
    if left.xattrs != right.xattrs {
        note(Field::Xattrs, xattr_differences(&left.xattrs, &right.xattrs));
    }
    if (&left.links, left.outside_links) != (&right.links, right.outside_links) {
        note(Field::Links, format!("hard links {} | {}", show_links(left), show_links(right)));
    }
}

fn node_differences(left: &Node, right: &Node, note: &mut impl FnMut(Field, String)) {
    match (left, right) {
        (Node::File { size, hash, extents }, Node::File { size: size2, hash: hash2, extents: extents2 }) => {
            if (size, hash) != (size2, hash2) {
                let text = format!("content {size} bytes {} | {size2} bytes {}", short(hash), short(hash2));
                note(Field::Content, text);
            }
            if let (Some(one), Some(other)) = (extents, extents2)
                && one != other
            {
                note(Field::Extents, format!("data at {one:?} | {other:?}"));
            }
        }
        (Node::Symlink(one), Node::Symlink(other)) if one != other => {
            note(Field::Target, format!("target `{}` | `{}`", Shown(one), Shown(other)));
        }
        (Node::CharDevice(a, b), Node::CharDevice(c, d)) | (Node::BlockDevice(a, b), Node::BlockDevice(c, d))
            if (a, b) != (c, d) =>
        {
            note(Field::Device, format!("device {a}:{b} | {c}:{d}"));
        }
        (one, other) if one.kind() != other.kind() => {
            note(Field::Type, format!("{} | {}", one.kind(), other.kind()));
        }
        _ => {}
    }
}

fn xattr_differences(left: &BTreeMap<Name, Vec<u8>>, right: &BTreeMap<Name, Vec<u8>>) -> String {
    let mut text = "attributes".to_owned();
    for (name, value) in left {
        match right.get(name) {
            Some(other) if other == value => {}
            Some(other) => {
                let _ = write!(text, " {}=`{}` | `{}`", Shown(name), Shown(value), Shown(other));
            }
            None => {
                let _ = write!(text, " {}=`{}` only on the left", Shown(name), Shown(value));
            }
        }
    }
    for (name, value) in right.iter().filter(|(name, _)| !left.contains_key(*name)) {
        let _ = write!(text, " {}=`{}` only on the right", Shown(name), Shown(value));
    }
    text
}

fn show_links(entry: &Entry) -> String {
    let names: Vec<_> = entry.links.iter().take(4).map(|name| format!("/{}", Shown(name))).collect();
    let more = if entry.links.len() > 4 { ", …" } else { "" };
    let outside = match entry.outside_links {
        0 => String::new(),
        count => format!(" and {count} outside"),
    };
    format!("{{{}{more}}}{outside}", names.join(", "))
}

fn short(hash: &[u8; 32]) -> String {
    hash.iter().take(4).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
