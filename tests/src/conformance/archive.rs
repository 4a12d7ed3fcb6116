//! Writes archives byte for byte as a scenario says, right or wrong.

use anyhow::{Context as _, Result, bail, ensure};

use super::member::Member;
use super::words::Word;

/// The size of a header, and what bodies are padded to.
pub const BLOCK: usize = 512;

/// Field, offset and length in a ustar header.
const FIELDS: &[(&str, usize, usize)] = &[
    ("name", 0, 100),
    ("mode", 100, 8),
    ("uid", 108, 8),
    ("gid", 116, 8),
    ("size", 124, 12),
    ("mtime", 136, 12),
    ("chksum", 148, 8),
    ("typeflag", 156, 1),
    ("linkname", 157, 100),
    ("magic", 257, 8),
    ("uname", 265, 32),
    ("gname", 297, 32),
    ("devmajor", 329, 8),
    ("devminor", 337, 8),
    ("prefix", 345, 155),
    ("pad", 500, 12),
    // Of GNU's own format, in the place of the prefix.
    ("sparse", 386, 96),
    ("isextended", 482, 1),
    ("realsize", 483, 12),
];

/// A header under construction.
struct Header([u8; BLOCK]);

impl Header {
    fn new(typeflag: u8) -> Self {
        let mut header = Self([0; BLOCK]);
        header.0[156] = typeflag;
        header.0[257..265].copy_from_slice(b"ustar\x0000");
        header
    }

    /// Sets a field, and what remains of it to zeros.
    fn set(&mut self, field: &str, bytes: &[u8]) -> Result<()> {
        let &(_, at, length) = FIELDS.iter().find(|known| known.0 == field).with_context(|| format!("no `{field}`"))?;
        ensure!(bytes.len() <= length, "`{field}` has {length} bytes, not {}", bytes.len());
        self.0[at..at + length].fill(0);
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    /// Sets a number: octal, or base-256 where that does not fit.
    fn number(&mut self, field: &str, value: i128) -> Result<()> {
        let &(_, _, length) = FIELDS.iter().find(|known| known.0 == field).with_context(|| format!("no `{field}`"))?;
        let digits = length - 1;
        let text = format!("{value:0digits$o}");
        if value >= 0 && text.len() == digits {
            return self.set(field, text.as_bytes());
        }
        let mut bytes = value.to_be_bytes()[16 - length..].to_vec();
        bytes[0] |= 0x80;
        self.set(field, &bytes)
    }

    fn seal(&mut self) -> Result<()> {
        self.set("chksum", b"        ")?;
        let sum: u32 = self.0.iter().map(|&byte| u32::from(byte)).sum();
        self.set("chksum", format!("{sum:06o}\0 ").as_bytes())
    }
}

/// An archive under construction.
#[derive(Debug, Default)]
pub struct Archive {
    /// What is written so far.
    pub bytes: Vec<u8>,
    count: i64,
}

impl Archive {
    /// Adds an entry, behind an extended header where its fields cannot hold it. Unless told, the n-th one has the mtime
    /// 1 000 000 000 + n.
    pub fn member(&mut self, member: &Member) -> Result<()> {
        let typeflag = match member.kind {
            'D' => b'5',
            'F' | 'W' => b'0',
            'H' => b'1',
            'S' => b'2',
            'C' => b'3',
            'B' => b'4',
            'P' => b'6',
            other => bail!("no kind `{other}`"),
        };
        let mut records = Vec::new();
        let mut header = Header::new(typeflag);
        let mode = if member.kind == 'D' { 0o755 } else { 0o644 };
        header.number("mode", member.mode.unwrap_or(mode).into())?;
        let (uid, gid) = member.owner.unwrap_or_default();
        header.number("uid", uid.into())?;
        header.number("gid", gid.into())?;
        header.number("size", member.size.unwrap_or(member.content.len() as u64).into())?;
        let (seconds, nanoseconds) = member.mtime.unwrap_or((1_000_000_000 + self.count, 0));
        self.count += 1;
        header.number("mtime", seconds.max(0).into())?;
        if seconds < 0 || nanoseconds > 0 {
            ensure!(seconds >= 0 || nanoseconds == 0, "negative times with a fraction: write the record");
            records.push(record(b"mtime", format!("{seconds}.{nanoseconds:09}").as_bytes()));
        }
        for (name, path, key) in [("name", &member.path, b"path".as_slice()), ("linkname", &member.target, b"linkpath")]
        {
            header.set(name, &path[..path.len().min(100)])?;
            if path.len() > 100 {
                records.push(record(key, path));
            }
        }
        if let [major, minor] = member.device[..] {
            header.number("devmajor", major.into())?;
            header.number("devminor", minor.into())?;
        }
        for (name, value) in &member.xattrs {
            records.push(record(&[b"SCHILY.xattr.", &name[..]].concat(), value));
        }
        for (field, bytes) in &member.fields {
            header.set(field, bytes)?;
        }
        if !records.is_empty() {
            self.extension(b'x', &records.concat(), &[])?;
        }
        if !member.fields.iter().any(|(field, _)| field == "chksum") {
            header.seal()?;
        }
        self.bytes.extend_from_slice(&header.0);
        self.body(&member.content);
        Ok(())
    }

    /// Adds an extended header: type `x`, `g`, `L`, `K` or any other.
    pub fn extension(&mut self, typeflag: u8, body: &[u8], fields: &[(String, Vec<u8>)]) -> Result<()> {
        let mut header = Header::new(typeflag);
        header.set("name", b"././@Extension")?;
        for (field, value) in [("mode", 0o644), ("uid", 0), ("gid", 0), ("mtime", 0)] {
            header.number(field, value)?;
        }
        header.number("size", body.len() as i128)?;
        for (field, bytes) in fields {
            header.set(field, bytes)?;
        }
        header.seal()?;
        self.bytes.extend_from_slice(&header.0);
        self.body(body);
        Ok(())
    }

    /// Adds an extended header from a line's words: `KEY=VALUE` records, bodies in quotes, `FIELD:=BYTES`.
    pub fn extension_of(&mut self, typeflag: u8, words: &[Word]) -> Result<()> {
        let (mut body, mut fields) = (Vec::new(), Vec::new());
        for word in words {
            match word.pair() {
                Some((field, value)) if field.ends_with(':') => {
                    fields.push((field.trim_end_matches(':').to_owned(), value.to_vec()));
                }
                Some(("zeros", value)) => body.extend(vec![0; std::str::from_utf8(value)?.parse()?]),
                Some((key, value)) => body.extend(record(key.as_bytes(), value)),
                None => body.extend_from_slice(&word.bytes),
            }
        }
        self.extension(typeflag, &body, &fields)
    }

    fn body(&mut self, content: &[u8]) {
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len() + content.len().next_multiple_of(BLOCK) - content.len(), 0);
    }
}

/// A PAX record: its own length, the key, the value.
pub fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_itself() {
        assert_eq!(record(b"path", b"a"), b"9 path=a\n");
        for length in 0..300 {
            let bytes = record(b"key", &vec![b'v'; length]);
            let said: usize = std::str::from_utf8(&bytes).unwrap().split(' ').next().unwrap().parse().unwrap();
            assert_eq!(said, bytes.len());
        }
    }
}
