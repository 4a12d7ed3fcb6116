//! Whiteouts, decided by name (OCI image spec 1.1, `layer.md`, "Whiteouts").

use crate::failure::Fault;
use crate::limits::Limits;

const PREFIX: &[u8] = b".wh.";
const AUFS: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// An object of that name.
    Object,
    /// The path, without the marker's prefix now, is removed from lower layers.
    Whiteout,
    /// The path, without the marker now, is a directory whose lower content is removed.
    Opaque,
    /// AUFS's own bookkeeping (`.wh..wh.*`), or something below it.
    Ignored,
}

/// Whether a component is a marker: AUFS's own names are not.
pub(crate) fn is_marker(component: &[u8]) -> bool {
    component.starts_with(PREFIX) && !is_of_aufs(component)
}

fn is_of_aufs(component: &[u8]) -> bool {
    component.starts_with(AUFS) && component != OPAQUE
}

/// Decides what a canonical path stands for, takes the marker out of it, and applies the limits on paths to the rest.
pub(crate) fn interpret(path: &mut Vec<u8>, limits: &Limits) -> Result<Meaning, Fault> {
    let mut start = 0;
    let mut depth = 0;
    let mut meaning = Meaning::Object;
    for component in path.split(|&byte| byte == b'/') {
        let mut length = component.len();
        if component.starts_with(PREFIX) {
            let last = start + length == path.len();
            if is_of_aufs(component) {
                return Ok(Meaning::Ignored);
            }
            if !last {
                return Err(Fault::refused("a whiteout in the middle of a path"));
            }
            if component == OPAQUE {
                meaning = Meaning::Opaque;
                break;
            }
            match &component[PREFIX.len()..] {
                b"" | b"." | b".." => return Err(Fault::refused("a whiteout of nothing, of `.` or of `..`")),
                victim => length = victim.len(),
            }
            meaning = Meaning::Whiteout;
        }
        depth += 1;
        if length > limits.component_bytes {
            return Err(Fault::limit(limits.component_bytes, "bytes in a component of a path"));
        }
        if meaning == Meaning::Whiteout {
            break;
        }
        start += length + 1;
    }
    match meaning {
        // `start` is where the marker begins; in front of it lies a slash, or nothing.
        Meaning::Opaque => path.truncate(start.saturating_sub(1)),
        Meaning::Whiteout => drop(path.drain(start..start + PREFIX.len())),
        Meaning::Object | Meaning::Ignored => {}
    }
    if depth > limits.depth {
        return Err(Fault::limit(limits.depth, "components in a path"));
    }
    if path.len() > limits.path_bytes {
        return Err(Fault::limit(limits.path_bytes, "bytes in a path"));
    }
    Ok(meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &[u8]) -> Result<(Meaning, Vec<u8>), Fault> {
        let mut path = path.to_vec();
        interpret(&mut path, &Limits::default()).map(|meaning| (meaning, path))
    }

    #[test]
    fn names_decide() {
        for (path, meaning, victim) in [
            (&b""[..], Meaning::Object, &b""[..]),
            (b"a/b", Meaning::Object, b"a/b"),
            (b"a.wh.b/x.wh.", Meaning::Object, b"a.wh.b/x.wh."),
            (b".wh", Meaning::Object, b".wh"),
            (b".Wh.a", Meaning::Object, b".Wh.a"),
            (b".wh.a", Meaning::Whiteout, b"a"),
            (b"a/.wh.b", Meaning::Whiteout, b"a/b"),
            (b"a/.wh..hidden", Meaning::Whiteout, b"a/.hidden"),
            (b".wh.\xff", Meaning::Whiteout, b"\xff"),
            (b".wh....", Meaning::Whiteout, b"..."),
            (b".wh..wh", Meaning::Whiteout, b".wh"),
            (b".wh..wh..opq", Meaning::Opaque, b""),
            (b"a/b/.wh..wh..opq", Meaning::Opaque, b"a/b"),
        ] {
            assert_eq!(of(path), Ok((meaning, victim.to_vec())), "{}", path.escape_ascii());
        }
        for path in [
            &b".wh..wh.aufs"[..],
            b".wh..wh.",
            b".wh..wh..opq2",
            b".wh..wh.plnk/1.2",
            b"a/.wh..wh.orph/.wh.x/y",
            b".wh..wh.plnk/.wh.",
        ] {
            assert_eq!(of(path).map(|(meaning, _)| meaning), Ok(Meaning::Ignored), "{}", path.escape_ascii());
        }
    }

    /// Scenario 8: moby wipes the parent directory, containerd and boxlite make the directory.
    #[test]
    fn malformed_markers_are_refused() {
        for path in [
            &b".wh."[..],
            b"etc/.wh..",
            b"etc/.wh...",
            b".wh.etc/somefile",
            b"a/.wh.etc/b/c",
            b".wh..wh..opq/x",
            b".wh.a/.wh.b",
            b".wh.a/.wh..wh.plnk",
        ] {
            assert!(matches!(of(path), Err(Fault::Refused(_))), "{}", path.escape_ascii());
        }
    }

    #[test]
    fn limits_hold_for_what_is_named() {
        let long = |length| vec![b'x'; length];
        assert!(of(&long(255)).is_ok());
        assert!(matches!(of(&long(256)), Err(Fault::Limit(_))));
        // A whiteout of the longest name is longer than any name can be.
        assert_eq!(of(&[PREFIX, &long(255)].concat()), Ok((Meaning::Whiteout, long(255))));
        assert!(matches!(of(&[PREFIX, &long(256)].concat()), Err(Fault::Limit(_))));
        assert!(of(&[&b"x"[..]; 256].join(&b'/')).is_ok());
        assert!(matches!(of(&[&b"x"[..]; 257].join(&b'/')), Err(Fault::Limit(_))));
        let path = |tail| [vec![long(255); 15].join(&b'/'), b"/".to_vec(), long(tail)].concat();
        assert_eq!(path(255).len(), 4095);
        assert!(of(&path(255)).is_ok());
        assert!(of(&[path(250), b"/abcde".to_vec()].concat()).is_ok());
        assert!(matches!(of(&[path(250), b"/abcdef".to_vec()].concat()), Err(Fault::Limit(_))));
    }
}
