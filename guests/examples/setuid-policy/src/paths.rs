//! Paths as a layer's entries have them: components that are divided by single slashes.

use std::ops::Range;

/// The directories on the way to a path, from the root on.
pub(crate) fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|&(_, &byte)| byte == b'/').map(|(at, _)| &path[..at])
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
        assert_eq!((name(b"a/b"), name(b"a"), name(b"")), (&b"b"[..], &b"a"[..], &b""[..]));
        for (path, inside) in
            [("a/b", true), ("a/\u{1}", true), ("a/b/c", true), ("a", false), ("a-", false), ("a0", false)]
        {
            assert_eq!(below(b"a").contains(&path.as_bytes().to_vec()), inside, "{path}");
        }
    }
}
