//! Extracting as an ordinary user: who that is, and what its trees really say.
//!
//! Owners, modes and devices that such a user cannot make are noted in `user.containers.override_stat`, as
//! `uid:gid:mode:type`; a tree is compared as if the notes were true.

use std::os::unix::fs::chown;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::tree::{Entry, Node, Snapshot};

/// Nobody.
const ID: u32 = 65534;

/// The words that make a command this user's.
pub const DROP: &[&str] = &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];

/// The same, as the root of a user namespace in which there is nobody else.
pub const NAMESPACE: &[&str] = &[
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--",
    "unshare",
    "--user",
    "--map-root-user",
    "--",
];

const NOTE: &[u8] = b"user.containers.override_stat";

/// Gives a directory to the user.
pub fn give(path: &Path) -> Result<()> {
    chown(path, Some(ID), Some(ID)).with_context(|| format!("cannot give {} away", path.display()))
}

/// The tree that its notes tell of.
#[must_use]
pub fn revealed(mut tree: Snapshot) -> Snapshot {
    for entry in tree.entries.values_mut() {
        if let Some(note) = entry.xattrs.remove(NOTE) {
            // A note that is none stays as it is, and is complained about.
            if reveal(entry, &note).is_none() {
                entry.xattrs.insert(NOTE.to_vec(), note);
            }
        }
    }
    tree
}

fn reveal(entry: &mut Entry, note: &[u8]) -> Option<()> {
    let text = std::str::from_utf8(note).ok()?;
    let [uid, gid, mode, kind] = text.split(':').collect::<Vec<_>>()[..] else { return None };
    let device = |text: &str| -> Option<(u32, u32)> {
        let (major, minor) = text.split_once('-')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let node = match (kind, &entry.node) {
        ("file", Node::File { .. }) | ("dir", Node::Directory) => entry.node.clone(),
        ("pipe", Node::File { size: 0, .. }) => Node::Fifo,
        (kind, Node::File { size: 0, .. }) => {
            let (character, block) = (kind.strip_prefix("char-"), kind.strip_prefix("block-"));
            let (major, minor) = device(character.or(block)?)?;
            if character.is_some() { Node::CharDevice(major, minor) } else { Node::BlockDevice(major, minor) }
        }
        _ => return None,
    };
    (entry.uid, entry.gid) = (uid.parse().ok()?, gid.parse().ok()?);
    entry.mode = u32::from_str_radix(mode, 8).ok()?;
    entry.node = node;
    Some(())
}
