//! Paths as a layer's entries have them: components that are divided by single slashes.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};

/// The directories on the way to a path, from the root on.
pub(crate) fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|&(_, &byte)| byte == b'/').map(|(at, _)| &path[..at])
}

/// The directory in which a path lies; empty for the root's entries.
pub(crate) fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&byte| byte == b'/').map_or(&[], |at| &path[..at])
}

/// Whether any key begins with this path: without one, none is it or lies below it. Much cheaper than to look for those.
pub(crate) fn have_prefix<T>(map: &BTreeMap<Vec<u8>, T>, path: &[u8]) -> bool {
    let mut from = map.range::<[u8], _>((Bound::Included(path), Bound::Unbounded));
    from.next().is_some_and(|(key, _)| key.starts_with(path))
}

/// The last component.
pub(crate) fn name(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}

/// All paths below this one, as they are sorted.
pub(crate) fn below(path: &[u8]) -> Range<Vec<u8>> {
    [path, b"/"].concat()..[path, &[b'/' + 1]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        assert_eq!(ancestors(b"a/b/c").collect::<Vec<_>>(), [&b"a"[..], b"a/b"]);
        assert_eq!(ancestors(b"a").count() + ancestors(b"").count(), 0);
        assert_eq!((parent(b"a/b/c"), parent(b"a"), parent(b"")), (&b"a/b"[..], &b""[..], &b""[..]));
        let map = BTreeMap::from([(b"a/b".to_vec(), 1), (b"b-".to_vec(), 2)]);
        for (path, some) in [("a", true), ("a/b", true), ("a/b/c", false), ("b", true), ("c", false), ("", true)] {
            assert_eq!(have_prefix(&map, path.as_bytes()), some, "{path}");
        }
        assert_eq!((name(b"a/b"), name(b"a"), name(b"")), (&b"b"[..], &b"a"[..], &b""[..]));
        for (path, inside) in
            [("a/b", true), ("a/\u{1}", true), ("a/b/c", true), ("a", false), ("a-", false), ("a0", false)]
        {
            assert_eq!(below(b"a").contains(&path.as_bytes().to_vec()), inside, "{path}");
        }
    }
}
