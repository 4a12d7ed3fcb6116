//! Where the headers of an archive are: enough to mutate archives, and to know which oracles understand one.
//!
//! The walk is lenient. It stops at what it does not understand; in an archive that our parser reads it finds everything.

/// Bytes in a block.
pub const BLOCK: usize = 512;

/// A header block and what belongs to it.
#[derive(Clone, Debug)]
pub struct Header {
    /// Where it begins.
    pub at: usize,
    /// Its type flag.
    pub flag: u8,
    /// Where its body begins, behind the continuation blocks of an old sparse map.
    pub body: usize,
    /// Where its body ends, without padding.
    pub end: usize,
}

/// The headers of an archive, extended ones among them, up to the first zero block.
pub fn headers(bytes: &[u8]) -> Vec<Header> {
    let mut found = Vec::new();
    let mut at = 0;
    let mut pax_size = None;
    let mut name: Option<&[u8]> = None;
    while let Some(block) = bytes.get(at..at + BLOCK) {
        if block.iter().all(|&byte| byte == 0) {
            break;
        }
        let flag = block[156];
        let Some(size) = number(&block[124..136]) else { break };
        let mut body = at + BLOCK;
        let mut more = flag == b'S' && block[482] != 0;
        while more {
            let Some(slots) = bytes.get(body..body + BLOCK) else { break };
            more = slots[504] != 0;
            body += BLOCK;
        }
        let extends = matches!(flag, b'x' | b'g' | b'L' | b'K');
        let size = if extends { size } else { pax_size.take().unwrap_or(size) };
        let bodiless = !extends && is_bodiless(flag, block, name.take());
        let size = if bodiless { 0 } else { size };
        let end = usize::try_from(size).ok().and_then(|size| body.checked_add(size));
        let Some(end) = end.filter(|&end| end <= bytes.len()) else {
            found.push(Header { at, flag, body: body.min(bytes.len()), end: bytes.len() });
            break;
        };
        match flag {
            b'L' => name = Some(until_nul(&bytes[body..end])),
            b'x' => {
                let records = records(&bytes[body..end]);
                let last =
                    |wanted: &[u8]| records.iter().rev().find(|(key, _)| *key == wanted).map(|(_, value)| *value);
                pax_size = last(b"size").and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
                name = records.iter().rev().find(|(key, _)| is_name(key)).map(|(_, value)| *value).or(name);
            }
            _ => {}
        }
        found.push(Header { at, flag, body, end });
        at = end.next_multiple_of(BLOCK);
    }
    found
}

/// Returns true for a member without a body, whatever size its header states (CONFORMANCE 12): a link, a directory, a device, a
/// named pipe. `name` is that of extended headers.
fn is_bodiless(flag: u8, block: &[u8], name: Option<&[u8]>) -> bool {
    matches!(flag, b'1'..=b'6') || flag == 0 && ends_in_slash(block, name)
}

/// Returns true if the name that counts ends in a slash. `name` is that of extended headers.
fn ends_in_slash(block: &[u8], name: Option<&[u8]>) -> bool {
    let in_header = until_nul(&block[..100]);
    // With a prefix in front, no name at all ends in a slash too.
    name.unwrap_or(in_header).ends_with(b"/") || in_header.is_empty()
}

/// Returns true for the keys that name the member.
fn is_name(key: &[u8]) -> bool {
    key == b"path" || key == b"GNU.sparse.name"
}

/// The records of an extended header, up to the first that is malformed.
pub fn records(mut payload: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut found = Vec::new();
    while let Some(record) = record(payload) {
        let (length, key, value) = record;
        found.push((key, value));
        payload = &payload[length..];
    }
    found
}

fn record(payload: &[u8]) -> Option<(usize, &[u8], &[u8])> {
    let space = payload.iter().position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(&payload[..space]).ok()?.parse().ok()?;
    let body = payload.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|&byte| byte == b'=')?;
    Some((length, &body[..equals], &body[equals + 1..]))
}

/// A size: octal, or base-256 of no more than 64 bits.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let (high, low) = field.split_at(4);
        let zeros = high[0] == 0x80 && high[1..].iter().all(|&byte| byte == 0);
        return zeros.then(|| low.iter().fold(0, |value, &byte| (value << 8) | u64::from(byte)));
    }
    let text = field.trim_ascii_start();
    let digits = text.iter().take_while(|byte| matches!(byte, b'0'..=b'7'));
    Some(digits.fold(0, |value: u64, &byte| (value << 3) | u64::from(byte - b'0')))
}

/// What an archive holds that some implementations are known to read in other ways than the rules say.
#[expect(clippy::struct_excessive_bools, reason = "each is a thing of its own")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Oddities {
    /// `ustar` with other version bytes than `00`. CONFORMANCE 8 reads them all.
    pub version: bool,
    /// A key twice in one extended header. CONFORMANCE 9 takes the last.
    pub duplicate: bool,
    /// A newline in the value of a record.
    pub newline: bool,
    /// `L` or `K` in front of `g`. CONFORMANCE 10 keeps them for the next member.
    pub long_before_global: bool,
    /// A time before 1970 with a fraction. CONFORMANCE 22: what is behind the point counts with the sign.
    pub negative: bool,
    /// `g` at all. CONFORMANCE 11 ignores it, others apply it.
    pub global: bool,
    /// `path` beside `GNU.sparse.name`, which is the name of the file.
    pub sparse_path: bool,
    /// The type NUL, where one of two names ends in a slash. CONFORMANCE 12: the one that counts decides.
    pub untyped: bool,
    /// `K` in front of a link whose header has no target.
    pub no_link: bool,
    /// A regular file, by its type `0`, `7` or `S`, whose name ends in a slash. CONFORMANCE 12 makes it a file.
    pub slash: bool,
    /// Something where ustar has its prefix, in a header that is not ustar. CONFORMANCE 8 reads a prefix in ustar only.
    pub prefix: bool,
    /// A size on a member without a body. CONFORMANCE 12 takes it for nothing, others skip as many bytes.
    pub void_size: bool,
    /// Records of other tools that change what a member is: star, Solaris. CONFORMANCE 9 ignores unknown keys.
    pub vendor: bool,
}

/// Looks for them.
pub fn oddities(bytes: &[u8]) -> Oddities {
    let mut odd = Oddities::default();
    let mut long = false;
    let mut name: Option<&[u8]> = None;
    let mut pax_size = false;
    for header in headers(bytes) {
        let block = &bytes[header.at..header.at + BLOCK];
        odd.version |= block[257..].starts_with(b"ustar\0") && &block[263..265] != b"00";
        odd.prefix |= !block[257..].starts_with(b"ustar\0") && block[345..500].iter().any(|&byte| byte != 0);
        let payload = &bytes[header.body..header.end];
        match header.flag {
            b'L' | b'K' => {
                long = true;
                if header.flag == b'L' {
                    name = Some(until_nul(payload));
                }
            }
            b'x' | b'g' => {
                odd.long_before_global |= header.flag == b'g' && long;
                odd.global |= header.flag == b'g';
                let records = records(payload);
                let has = |wanted: &[u8]| records.iter().any(|(key, _)| *key == wanted);
                pax_size |= header.flag == b'x' && has(b"size");
                odd.sparse_path |= has(b"path") && has(b"GNU.sparse.name");
                for (index, (key, value)) in records.iter().enumerate() {
                    odd.newline |= value.contains(&b'\n') || key.contains(&b'\n');
                    odd.negative |= *key == b"mtime" && value.starts_with(b"-") && value.contains(&b'.');
                    let vendor: [&[u8]; 5] =
                        [b"SCHILY.realsize", b"SCHILY.dev", b"SCHILY.filetype", b"SUN.", b"LIBARCHIVE."];
                    odd.vendor |= vendor.iter().any(|vendor| key.starts_with(vendor));
                    // The pairs of a sparse map are meant to repeat.
                    let repeats = matches!(*key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes");
                    odd.duplicate |= !repeats && records[..index].iter().any(|(other, _)| other == key);
                    if is_name(key) {
                        name = Some(value);
                    }
                }
            }
            flag => {
                long = false;
                let name = name.take();
                odd.void_size |= is_bodiless(flag, block, name) && (pax_size || number(&block[124..136]) != Some(0));
                pax_size = false;
                let slash = ends_in_slash(block, name);
                odd.slash |= matches!(flag, b'0' | b'7' | b'S') && slash;
                odd.untyped |= flag == 0 && slash != until_nul(&block[..100]).ends_with(b"/");
                odd.no_link |= matches!(flag, b'1' | b'2') && block[157] == 0;
            }
        }
    }
    odd
}

/// What stands in front of the first NUL.
pub fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}
