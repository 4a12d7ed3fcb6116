//! Names: from whatever an archive spells to the one canonical path.

use crate::failure::Fault;
use crate::marker;

/// What `..` at the root does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Climb {
    /// It refuses the entry: names (CVE-2021-21272).
    Refuse,
    /// It stays at the root, as in a chroot: targets of hard links.
    Clamp,
}

/// Writes the canonical form of `raw` into `path`, which it replaces: empty and `.` components vanish, `x/..` cancels.
pub(crate) fn clean(raw: &[u8], climb: Climb, path: &mut Vec<u8>) -> Result<(), Fault> {
    path.clear();
    for component in raw.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." if path.is_empty() => {
                if climb == Climb::Refuse {
                    return Err(Fault::refused("the name climbs above the root"));
                }
            }
            b".." => {
                let last = path.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
                // What cancels a marker's name has one in the middle.
                if marker::is_marker(path.get(last..).unwrap_or_default()) {
                    return Err(Fault::refused("a whiteout in the middle of a path"));
                }
                path.truncate(last.saturating_sub(1));
            }
            component => {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(component);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(raw: &[u8], climb: Climb) -> Option<Vec<u8>> {
        let mut path = b"left from before".to_vec();
        clean(raw, climb, &mut path).ok().map(|()| path)
    }

    #[test]
    fn names_have_one_form() {
        for (raw, path) in [
            (&b"a"[..], &b"a"[..]),
            (b"./a", b"a"),
            (b"/a", b"a"),
            (b"//a//b/", b"a/b"),
            (b"a/./b/.", b"a/b"),
            (b"a/../b", b"b"),
            (b"a/b/..", b"a"),
            (b"a/b/../..", b""),
            (b"a/b/../../c", b"c"),
            (b"abc/de/../f", b"abc/f"),
            (b".", b""),
            (b"./", b""),
            (b"/", b""),
            (b"...", b"..."),
            (b"..gitme", b"..gitme"),
            (b"a/..b/c..", b"a/..b/c.."),
            (b"\xff\n/\xc3\xa9", b"\xff\n/\xc3\xa9"),
            (b"a\\..\\b", b"a\\..\\b"),
        ] {
            assert_eq!(cleaned(raw, Climb::Refuse).as_deref(), Some(path), "{}", raw.escape_ascii());
        }
    }

    /// CVE-2021-21272.
    #[test]
    fn names_do_not_climb() {
        for raw in [&b".."[..], b"../a", b"/..", b"/../a", b"./../a", b"a/../..", b"a/../../a", b"//.//..//", b"../"] {
            assert_eq!(cleaned(raw, Climb::Refuse), None, "{}", raw.escape_ascii());
        }
    }

    #[test]
    fn a_marker_is_not_cancelled() {
        for raw in [&b".wh.a/../b"[..], b"a/.wh.b/../c", b".wh..wh..opq/..", b"x/../.wh.a/.."] {
            assert_eq!(cleaned(raw, Climb::Refuse), None, "{}", raw.escape_ascii());
        }
    }

    #[test]
    fn targets_clamp() {
        assert_eq!(cleaned(b"../../etc/passwd", Climb::Clamp).as_deref(), Some(&b"etc/passwd"[..]));
        assert_eq!(cleaned(b"/etc/../../x", Climb::Clamp).as_deref(), Some(&b"x"[..]));
        assert_eq!(cleaned(b"..", Climb::Clamp).as_deref(), Some(&b""[..]));
    }
}
