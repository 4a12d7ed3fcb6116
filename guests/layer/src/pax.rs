//! PAX extended headers: records of `length key=value\n`, read to the last byte.
//!
//! Readers of other tools disagree about records that are not quite right, so nothing but exact ones is read: a decimal
//! length without sign or leading zero, one space, a key that is not empty and has no NUL, `=`, a value, a newline where the
//! length says. An empty value would delete a header field (POSIX) or keep it (Go): where a value is used, it must be
//! one.

use crate::entry::Timestamp;
use crate::failure::Fault;
use crate::limits::Limits;
use crate::number::{self, NumberError};
use crate::sparse;

/// A part of a payload that outlives the borrow of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    start: usize,
    end: usize,
}

impl Span {
    /// The bytes, given the payload that the span was made for.
    pub(crate) fn of<'a>(&self, payload: &'a [u8]) -> &'a [u8] {
        payload.get(self.start..self.end).unwrap_or_default()
    }
}

/// One record. The spans are of the whole payload.
struct Record {
    key: Span,
    value: Span,
}

/// Takes the record at `start`. Returns where the next begins, too.
fn record(payload: &[u8], start: usize) -> Result<(Record, usize), Fault> {
    let malformed = |reason| Fault::corrupt(format!("an extended header holds {reason}"));
    let rest = payload.get(start..).unwrap_or_default();
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let length = match number::decimal(&rest[..digits]) {
        Ok(length) if rest.first() != Some(&b'0') && rest.get(digits) == Some(&b' ') => length,
        _ => return Err(malformed("a record without a length")),
    };
    let length = usize::try_from(length).ok().filter(|&length| length <= rest.len());
    let length = length.ok_or_else(|| malformed("a record that is longer than the header"))?;
    let Some(body) = rest[..length].strip_suffix(b"\n").and_then(|record| record.get(digits + 1..)) else {
        return Err(malformed("a record that does not end in a newline"));
    };
    let Some(equals) = body.iter().position(|&byte| byte == b'=') else {
        return Err(malformed("a record without `=`"));
    };
    if equals == 0 {
        return Err(malformed("a record without a key"));
    }
    if matches!(body[0], b' ' | b'\t') {
        // GNU tar reads over these, others take them for a part of the key.
        return Err(malformed("blanks in front of a key"));
    }
    if body[..equals].contains(&0) {
        return Err(malformed("a key with a NUL"));
    }
    let from = start + digits + 1;
    let key = Span { start: from, end: from + equals };
    let value = Span { start: key.end + 1, end: start + length - 1 };
    Ok((Record { key, value }, start + length))
}

/// Checks a `g` header. What it says is ignored, unless that would change which bytes are whose.
pub(crate) fn check_global(payload: &[u8]) -> Result<(), Fault> {
    let mut at = 0;
    while at < payload.len() {
        let (record, next) = record(payload, at)?;
        let key = record.key.of(payload);
        if matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(sparse::KEYS) {
            let key = key.escape_ascii();
            return Err(Fault::refused(format!("a global extended header sets `{key}` for all members")));
        }
        at = next;
    }
    Ok(())
}

/// What the `x` header of a member says.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) path: Option<Span>,
    pub(crate) linkpath: Option<Span>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<i64>,
    pub(crate) gid: Option<i64>,
    pub(crate) modified: Option<Timestamp>,
    /// Names and values, ordered by name.
    pub(crate) attributes: Vec<(Span, Span)>,
    pub(crate) sparse: sparse::Records,
}

const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";

impl Records {
    /// Forgets the last member.
    pub(crate) fn clear(&mut self) {
        self.path = None;
        self.linkpath = None;
        self.size = None;
        self.uid = None;
        self.gid = None;
        self.modified = None;
        self.attributes.clear();
        self.sparse.clear();
    }

    /// Reads all records. Of two with the same key the last counts; the first must be right all the same.
    pub(crate) fn parse(&mut self, payload: &[u8], limits: &Limits) -> Result<(), Fault> {
        let mut attribute_bytes = 0;
        let mut at = 0;
        while at < payload.len() {
            let (record, next) = record(payload, at)?;
            let value = record.value.of(payload);
            match record.key.of(payload) {
                b"path" => self.path = Some(path(record.value, value)?),
                b"linkpath" => self.linkpath = Some(path(record.value, value)?),
                b"size" => self.size = Some(size(value)?),
                b"uid" => self.uid = Some(owner(value)?),
                b"gid" => self.gid = Some(owner(value)?),
                b"mtime" => self.modified = Some(time(value)?),
                // Not kept, but times all the same; an empty value takes one back.
                b"atime" | b"ctime" if !value.is_empty() => drop(time(value)?),
                key if key.starts_with(sparse::KEYS) => {
                    self.sparse.set(&key[sparse::KEYS.len()..], record.value, value, limits)?;
                }
                key if key.starts_with(ATTRIBUTE) => {
                    let name = Span { start: record.key.start + ATTRIBUTE.len(), end: record.key.end };
                    self.set_attribute(payload, name, record.value, &mut attribute_bytes, limits)?;
                }
                _ => {}
            }
            at = next;
        }
        Ok(())
    }

    fn set_attribute(
        &mut self,
        payload: &[u8],
        name: Span,
        value: Span,
        bytes: &mut usize,
        limits: &Limits,
    ) -> Result<(), Fault> {
        let text = name.of(payload);
        if text.is_empty() {
            return Err(Fault::refused("an extended attribute without a name"));
        }
        if is_reserved(text) {
            return Ok(());
        }
        if text.len() > 255 {
            return Err(Fault::limit(255, "bytes in the name of an extended attribute"));
        }
        match self.attributes.binary_search_by(|(other, _)| other.of(payload).cmp(text)) {
            Ok(at) => {
                let slot = &mut self.attributes[at].1;
                *bytes = *bytes - slot.of(payload).len() + value.of(payload).len();
                *slot = value;
            }
            Err(at) => {
                *bytes += text.len() + value.of(payload).len();
                self.attributes.insert(at, (name, value));
            }
        }
        if self.attributes.len() > limits.xattrs {
            return Err(Fault::limit(limits.xattrs, "extended attributes"));
        }
        if *bytes > limits.xattr_bytes {
            return Err(Fault::limit(limits.xattr_bytes, "bytes of extended attributes"));
        }
        Ok(())
    }
}

/// Attributes that say what a file is to overlayfs or to rootless tools. They are ours to set, never a layer's.
fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.")
        || name.starts_with(b"user.overlay.")
        || name.starts_with(b"user.fuseoverlayfs.")
        || name.starts_with(b"security.fuseoverlayfs.")
        || name == b"user.containers.override_stat"
}

/// CVE-2026-59875: what is in front of the NUL is what a C program sees.
fn path(span: Span, value: &[u8]) -> Result<Span, Fault> {
    if value.contains(&0) { Err(Fault::refused("a path with a NUL")) } else { Ok(span) }
}

fn size(value: &[u8]) -> Result<u64, Fault> {
    match number::decimal(value) {
        Ok(size) if i64::try_from(size).is_ok() => Ok(size),
        Ok(_) | Err(NumberError::Range) => Err(Fault::refused("the size in an extended header is out of range")),
        Err(NumberError::Syntax) => Err(Fault::corrupt("the size in an extended header is not a number")),
    }
}

/// The range is checked with that of the header's field; here only what cannot be expressed.
fn owner(value: &[u8]) -> Result<i64, Fault> {
    let owner = match value.strip_prefix(b"-") {
        Some(magnitude) => number::decimal(magnitude).and(Err(NumberError::Range)),
        None => number::decimal(value).and_then(|owner| i64::try_from(owner).map_err(|_| NumberError::Range)),
    };
    owner.map_err(|error| match error {
        NumberError::Range => Fault::refused("an owner or group that is negative or out of range"),
        NumberError::Syntax => Fault::corrupt("an owner or group in an extended header is not a number"),
    })
}

fn time(value: &[u8]) -> Result<Timestamp, Fault> {
    number::time(value).map_err(|error| match error {
        NumberError::Range => Fault::refused("a time in an extended header is out of range"),
        NumberError::Syntax => Fault::corrupt("a time in an extended header is not a number"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(payload: &[u8]) -> Result<Records, Fault> {
        let mut records = Records::default();
        records.parse(payload, &Limits::default()).map(|()| records)
    }

    fn with(key: &str, value: &[u8]) -> Vec<u8> {
        let body = key.len() + value.len() + 3;
        let mut length = body + 1;
        while length != body + length.to_string().len() {
            length = body + length.to_string().len();
        }
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    }

    /// CVE-2026-32766: a reader that stops at a malformed record sees another archive.
    #[test]
    fn records_are_exact() {
        assert!(parse(b"").is_ok());
        assert!(parse(b"5 a=\n").is_ok());
        assert!(parse(b"8 a=b=c\n").is_ok());
        assert!(parse(b"8 a=\n\n=\n").is_ok());
        assert!(parse(b"9 a b c=\n").is_ok());
        for payload in [
            &b"x"[..],
            b"\0",
            b"5 a=\n\0",
            b"5 a=\n ",
            b"5 a=\n5",
            b"+5 a=\n",
            b"05 a=\n",
            b" 5 a=\n",
            b"0 a=\n",
            b"-5 a=\n",
            b"5  =\n",
            b"9  path=\n",
            b"9 \tpath=\n",
            b"4 a=\n",
            b"6 a=\n",
            b"5\ta=\n",
            b"5 a=x",
            b"3 \n",
            b"2 ",
            b"1",
            b"5 ab\n",
            b"4 =\n",
            b"6 a\0=\n",
            b"99999999999999999999999999 a=\n",
            b"5 a=\r",
        ] {
            assert!(matches!(parse(payload), Err(Fault::Corrupt(_))), "{}", payload.escape_ascii());
        }
    }

    #[test]
    fn values_are_checked() {
        for (key, value) in [
            ("path", &b"a\0b"[..]),
            ("linkpath", b"\0"),
            ("size", b""),
            ("size", b"-1"),
            ("size", b"+1"),
            ("size", b"1.0"),
            ("size", b"9223372036854775808"),
            ("uid", b""),
            ("uid", b"-1"),
            ("gid", b"0x0"),
            ("gid", b"99999999999999999999"),
            ("mtime", b""),
            ("mtime", b"1e5"),
            ("mtime", b"18446744073709551615"),
            ("atime", b"zz"),
            ("ctime", b"1e5"),
            ("SCHILY.xattr.", b"x"),
        ] {
            assert!(parse(&with(key, value)).is_err(), "{key}={}", value.escape_ascii());
        }
        for (key, value) in [
            ("comment", &b"\0\xff"[..]),
            ("hdrcharset", b"BINARY"),
            ("uname", b""),
            ("atime", b""),
            ("ctime", b"1.5"),
            ("SCHILY.acl.access", b"user::rwx"),
            ("size", b"9223372036854775807"),
        ] {
            assert!(parse(&with(key, value)).is_ok(), "{key}={}", value.escape_ascii());
        }
    }

    #[test]
    fn the_last_of_a_key_counts_and_each_is_checked() {
        let payload = [with("size", b"1"), with("path", b"a"), with("size", b"2"), with("path", b"b")].concat();
        let records = parse(&payload).unwrap();
        assert_eq!(records.size, Some(2));
        assert_eq!(records.path.unwrap().of(&payload), b"b");
        assert!(parse(&[with("size", b"x"), with("size", b"2")].concat()).is_err());
    }

    #[test]
    fn attributes_are_byte_exact_ordered_and_unique() {
        let payload = [
            with("SCHILY.xattr.user.b", b"1\0=\n\xff"),
            with("SCHILY.xattr.user.a", b"old"),
            with("SCHILY.xattr.user.a", b""),
            with("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            with("SCHILY.xattr.user.overlay.opaque", b"y"),
            with("SCHILY.xattr.user.containers.override_stat", b"0:0:4755:file"),
            with("SCHILY.xattr.user.fuseoverlayfs.override_stat", b"0:0:4755"),
            with("SCHILY.xattr.security.fuseoverlayfs.override_stat", b"0:0:4755"),
            with("SCHILY.xattr.user.overlayed", b"kept"),
        ]
        .concat();
        let records = parse(&payload).unwrap();
        let found: Vec<_> =
            records.attributes.iter().map(|(name, value)| (name.of(&payload), value.of(&payload))).collect();
        assert_eq!(found, [(&b"user.a"[..], &b""[..]), (b"user.b", b"1\0=\n\xff"), (b"user.overlayed", b"kept"),]);
    }

    /// GHSA-g3rx-2m58-rr63: over-long names and values.
    #[test]
    fn attributes_are_limited() {
        let name = |length| format!("SCHILY.xattr.{}", "n".repeat(length));
        assert!(parse(&with(&name(255), b"")).is_ok());
        assert!(matches!(parse(&with(&name(256), b"")), Err(Fault::Limit(_))));
        let many = |count| (0..count).flat_map(|i| with(&format!("SCHILY.xattr.user.{i}"), b"")).collect::<Vec<_>>();
        assert!(parse(&many(256)).is_ok());
        assert!(matches!(parse(&many(257)), Err(Fault::Limit(_))));
        assert!(parse(&with("SCHILY.xattr.user.x", &vec![0; 65536 - 6])).is_ok());
        assert!(matches!(parse(&with("SCHILY.xattr.user.x", &vec![0; 65536 - 5])), Err(Fault::Limit(_))));
        // What is replaced does not count twice.
        let again = with("SCHILY.xattr.user.x", &vec![0; 40000]);
        assert!(parse(&[again.clone(), again].concat()).is_ok());
    }

    #[test]
    fn global_headers_must_not_move_bytes() {
        assert!(check_global(&with("comment", b"0123456789abcdef")).is_ok());
        assert!(check_global(&with("uid", b"nonsense, and ignored")).is_ok());
        for key in ["path", "linkpath", "size", "GNU.sparse.major", "GNU.sparse."] {
            assert!(matches!(check_global(&with(key, b"")), Err(Fault::Refused(_))), "{key}");
        }
        assert!(matches!(check_global(b"7 a=b\n"), Err(Fault::Corrupt(_))));
    }
}
