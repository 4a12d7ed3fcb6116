//! What of an expected tree the command guest can make, since WASI has words for it.
//!
//! Left out: modes, owners and attributes of everything; devices, pipes and hard links to them; names and targets that are not
//! UTF-8. Different: absolute targets of symbolic links are made relative, and what is older than 1970 is of 1970. Everything
//! else has to be there: types, contents, holes, targets, times of files, directories and links, and which names share an
//! inode.

use std::collections::{BTreeMap, BTreeSet};

use super::expect::canonical;
use super::member::Member;
use crate::tree::{Name, Node, Snapshot};

/// The tree as it can be.
pub fn expressible(tree: &[Member]) -> Vec<Member> {
    let absolute: BTreeMap<Name, &[u8]> = tree
        .iter()
        .filter(|member| member.kind == 'S' && member.target.starts_with(b"/"))
        .map(|member| (canonical(&member.path), &member.target[..]))
        .collect();
    let mut gone: BTreeSet<Name> = BTreeSet::new();
    let mut made = Vec::new();
    for member in tree {
        let mut member = member.clone();
        let path = canonical(&member.path);
        let is_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
        if !is_text(&path) {
            gone.insert(path);
            continue;
        }
        let target = canonical(&member.target);
        let left_out = match member.kind {
            'C' | 'B' | 'P' => true,
            'S' => !is_text(&target),
            'H' => !is_text(&target) || gone.contains(&target),
            _ => false,
        };
        if left_out {
            // What it lies in is there all the same.
            if let Some(at) = path.iter().rposition(|&byte| byte == b'/') {
                made.push(Member { kind: 'D', path: path[..at].to_vec(), ..Member::default() });
            }
            gone.insert(path);
            continue;
        }
        if member.mtime.is_some_and(|(seconds, _)| seconds < 0) {
            member.mtime = Some((0, 0));
        }
        if let Some(own) = absolute.get(&path) {
            member.target = relative(&path, own);
        } else if let (Some(shared), 'H') = (absolute.get(&target), member.kind)
            && relative(&path, shared) != relative(&target, shared)
        {
            (member.kind, member.target) = ('S', relative(&path, shared));
        }
        made.push(member);
    }
    made
}

/// The tree that another way made of a layer, as it can be. What shares an inode with an absolute link from another depth
/// is not taken apart here.
pub fn expressible_snapshot(tree: Snapshot) -> Snapshot {
    let mut tree = tree.without(|path, entry| {
        let is_text = std::str::from_utf8(path).is_ok();
        !is_text || matches!(entry.node, Node::CharDevice(..) | Node::BlockDevice(..) | Node::Fifo | Node::Socket)
    });
    for (path, entry) in &mut tree.entries {
        if let Node::Symlink(target) = &mut entry.node
            && target.starts_with(b"/")
        {
            *target = relative(path, target);
        }
        if entry.mtime.0 < 0 {
            entry.mtime = (0, 0);
        }
    }
    tree
}

/// An absolute target, from where its link lies.
fn relative(path: &[u8], target: &[u8]) -> Vec<u8> {
    let depth = path.split(|&byte| byte == b'/').count() - 1;
    let mut rest = target;
    while let Some(at) = rest.iter().position(|&byte| byte == b'/').or((!rest.is_empty()).then_some(rest.len())) {
        if !matches!(&rest[..at], b"" | b"." | b"..") {
            break;
        }
        rest = rest.get(at + 1..).unwrap_or_default();
    }
    let up = b"../".repeat(depth);
    match (depth, rest) {
        (0, b"") => b".".to_vec(),
        (_, b"") => up[..up.len() - 1].to_vec(),
        _ => [&up, rest].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_targets_are_seen_from_their_links() {
        for (path, target, seen) in [
            (&b"l"[..], &b"/"[..], &b"."[..]),
            (b"l", b"/etc/", b"etc/"),
            (b"a/b/l", b"/", b"../.."),
            (b"a/b/l", b"/../.././/x/../y", b"../../x/../y"),
        ] {
            assert_eq!(relative(path, target), seen);
        }
    }
}
