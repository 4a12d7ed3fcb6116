//! Layers in a short notation: `F a/b 0755 "content", S l->t, H h->a/b, D d, C c 1 3, P p, W d/.wh.x`.
//!
//! Further words: `uid:gid`, `@seconds` of the mtime, `name=value` of an attribute. Unless told, the n-th entry has the
//! mtime 1000 + n.

use cofferdam_core::limits::Limits;

use crate::entry::{Device, Entry, Metadata, Node, Timestamp, TreePath, Xattr};

/// An entry and its content.
pub(crate) type Item = (Entry, Vec<u8>);

pub(crate) fn layer(text: &str) -> Vec<Item> {
    let items = text.split(", ").filter(|item| !item.is_empty());
    items.enumerate().map(|(index, item)| parse(item, 1000 + i64::try_from(index).unwrap(), true)).collect()
}

/// An entry whose `.wh.` names are taken as they are.
pub(crate) fn literal(text: &str) -> Item {
    parse(text, 1000, false)
}

pub(crate) fn path(text: &str) -> TreePath {
    let text = if text == "." { "" } else { text };
    let bytes = text.replace("\\xff", "\u{fffd}").into_bytes();
    // A byte that is no UTF-8, written as in Rust.
    let bytes = if text.contains("\\xff") { replace(&bytes, "\u{fffd}".as_bytes(), b"\xff") } else { bytes };
    TreePath::parse(bytes, &Limits::default()).unwrap()
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        if let Some(tail) = rest.strip_prefix(from) {
            out.extend_from_slice(to);
            rest = tail;
        } else {
            out.push(rest[0]);
            rest = &rest[1..];
        }
    }
    out
}

fn parse(item: &str, mtime: i64, markers: bool) -> Item {
    let mut words = item.split(' ').filter(|word| !word.is_empty());
    let kind = words.next().unwrap();
    let place = words.next().unwrap_or_else(|| panic!("{item:?} has no path"));
    let (place, target) = place.split_once("->").unwrap_or((place, ""));
    let mut metadata = Metadata {
        mode: if kind == "D" { 0o755 } else { 0o644 },
        mtime: Timestamp { seconds: mtime, nanoseconds: 0 },
        ..Metadata::default()
    };
    let mut content = Vec::new();
    let mut numbers = Vec::new();
    for word in words {
        if let Some(text) = word.strip_prefix('"') {
            content = text.trim_end_matches('"').as_bytes().to_vec();
        } else if let Some(seconds) = word.strip_prefix('@') {
            metadata.mtime.seconds = seconds.parse().unwrap();
        } else if let Some((name, value)) = word.split_once('=') {
            metadata.xattrs.push(Xattr { name: name.into(), value: value.into() });
        } else if let Some((uid, gid)) = word.split_once(':') {
            (metadata.uid, metadata.gid) = (uid.parse().unwrap(), gid.parse().unwrap());
        } else if matches!(kind, "C" | "B") && numbers.len() < 2 {
            numbers.push(word.parse().unwrap());
        } else {
            metadata.mode = u16::from_str_radix(word, 8).unwrap();
        }
    }
    let device = || Device { major: numbers[0], minor: numbers[1] };
    let node = match kind {
        "D" => Node::Directory,
        "F" => Node::File { size: content.len() as u64 },
        "S" => Node::Symlink { target: target.into() },
        "H" => Node::HardLink { target: path(target) },
        "C" => Node::CharDevice(device()),
        "B" => Node::BlockDevice(device()),
        "P" => Node::Fifo,
        "W" if markers => return (marker(place), content),
        _ => panic!("{item:?} is of no kind"),
    };
    (Entry { path: path(place), node, metadata }, content)
}

fn marker(place: &str) -> Entry {
    let (parent, name) = place.rsplit_once('/').unwrap_or(("", place));
    let (path, node) = match name.strip_prefix(".wh.").unwrap() {
        ".wh..opq" => (path(parent), Node::Opaque),
        victim if parent.is_empty() => (path(victim), Node::Whiteout),
        victim => (path(&format!("{parent}/{victim}")), Node::Whiteout),
    };
    Entry { path, node, metadata: Metadata::default() }
}
