//! Mutations of archives that keep them archives: random bytes would never get past the checksum of the first header.
//!
//! Members, extended headers and fields are put in, exchanged, doubled and damaged; then checksums are made right again,
//! and mostly sizes too, so that what is behind them is reached.

use crate::archive::{self, BLOCK, Header};
use crate::random::Random;

/// Names that mean something to somebody.
const NAMES: &[&[u8]] = &[
    b"a",
    b"b",
    b"a/b",
    b"a/b/c",
    b"./",
    b"/",
    b".",
    b"a/",
    b"a//b",
    b"./a",
    b"/a",
    b"a/../b",
    b"..",
    b"../a",
    b"a/..",
    b".wh.a",
    b"a/.wh.b",
    b".wh..wh..opq",
    b"a/.wh..wh..opq",
    b".wh..wh.plnk/1",
    b".wh.",
    b".wh..",
    b".wh.a/b",
    b"\xff\xfe",
    b"\xc3\xa9",
    b"a\nb",
    b" a",
    b"a ",
    b"a\\b",
    b"../../etc/passwd",
    b"././@LongLink",
    b"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
];

/// Field of a header: where it begins, and its width.
const FIELDS: &[(usize, usize)] = &[
    (0, 100),
    (100, 8),
    (108, 8),
    (116, 8),
    (124, 12),
    (136, 12),
    (148, 8),
    (156, 1),
    (157, 100),
    (257, 6),
    (263, 2),
    (265, 32),
    (297, 32),
    (329, 8),
    (337, 8),
    (345, 155),
    (345, 12),
    (357, 12),
    (386, 12),
    (398, 12),
    (410, 12),
    (422, 12),
    (482, 1),
    (483, 12),
];

const TYPES: &[u8] = b"0000\x00\x00111222534667SSxxxggLLKK0000ADMNVX8\xffs";

const KEYS: &[&[u8]] = &[
    b"path",
    b"path",
    b"linkpath",
    b"size",
    b"uid",
    b"gid",
    b"mtime",
    b"atime",
    b"ctime",
    b"uname",
    b"gname",
    b"comment",
    b"charset",
    b"hdrcharset",
    b"SCHILY.xattr.user.a",
    b"SCHILY.xattr.security.capability",
    b"SCHILY.xattr.trusted.overlay.opaque",
    b"SCHILY.dev",
    b"SCHILY.ino",
    b"SCHILY.nlink",
    b"SCHILY.realsize",
    b"SCHILY.devmajor",
    b"SCHILY.devminor",
    b"SCHILY.fflags",
    b"SCHILY.acl.access",
    b"LIBARCHIVE.xattr.user.b",
    b"LIBARCHIVE.symlinktype",
    b"LIBARCHIVE.creationtime",
    b"SUN.holesdata",
    b"GNU.sparse.major",
    b"GNU.sparse.minor",
    b"GNU.sparse.name",
    b"GNU.sparse.realsize",
    b"GNU.sparse.size",
    b"GNU.sparse.numblocks",
    b"GNU.sparse.offset",
    b"GNU.sparse.numbytes",
    b"GNU.sparse.map",
    b"RHT.security.selinux",
    b"MSWINDOWS.rawsd",
    b"TYPEFLAG",
];

const VALUES: &[&[u8]] = &[
    b"",
    b"0",
    b"1",
    b"2",
    b"3",
    b"10",
    b"100",
    b"512",
    b"513",
    b"1024",
    b"4096",
    b"5000",
    b"-1",
    b"+1",
    b" 1",
    b"01",
    b"1.5",
    b"-1.5",
    b"1e3",
    b"1.",
    b"1350244992.023960108",
    b"4294967294",
    b"4294967295",
    b"9223372036854775807",
    b"18446744073709551616",
    b"0,5",
    b"0,1,4,1",
    b"0,512,1024,100",
    b"BINARY",
    b"x",
    b"user",
    b"a=b",
    b"AQI=",
];

/// Changes the archive in `data[..size]`, in at most `max_size` bytes; `plain` changes bytes as the fuzzer does without our help.
/// Returns the new size.
pub fn mutate(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    plain: impl Fn(&mut [u8], usize, usize) -> usize,
) -> usize {
    let mut random = Random::new(seed.into());
    if random.once_in(24) {
        return plain(data, size, max_size);
    }
    let mut bytes = data[..size].to_vec();
    for _ in 0..=random.below(3) {
        change(&mut bytes, &mut random, &plain);
    }
    if !random.once_in(40) {
        repair(&mut bytes, random.once_in(30));
    }
    let size = bytes.len().min(max_size);
    data[..size].copy_from_slice(&bytes[..size]);
    size
}

fn change(bytes: &mut Vec<u8>, random: &mut Random, plain: impl Fn(&mut [u8], usize, usize) -> usize) {
    let headers = archive::headers(bytes);
    let place = |random: &mut Random| {
        let end = headers.last().map_or(0, |last| last.end.next_multiple_of(BLOCK));
        let at = random.below(headers.len() + 1);
        headers.get(at).map_or(end, |header| header.at).min(bytes.len())
    };
    let Some(header) = headers.get(random.below(headers.len().max(1))).cloned() else {
        bytes.splice(0..0, member(random));
        return;
    };
    let blocks = bytes.len() / BLOCK;
    match random.below(14) {
        0..=2 => {
            let (at, width) = FIELDS[random.below(FIELDS.len())];
            let value = field(random, at, width);
            bytes[header.at + at..header.at + at + width].copy_from_slice(&value);
        }
        3 => bytes[header.at + 156] = TYPES[random.below(TYPES.len())],
        4 => {
            let at = place(random);
            bytes.splice(at..at, member(random));
        }
        5 => {
            let at = place(random);
            bytes.splice(at..at, extension(random));
        }
        6 => {
            let (at, magic) = (header.at + 257, magic(random));
            bytes[at..at + 8].copy_from_slice(magic);
        }
        7 => {
            // A member, or one block of something, once more or no more.
            let (from, to) = (header.at, header.end.next_multiple_of(BLOCK).min(bytes.len()));
            if random.once_in(3) {
                drop(bytes.drain(from..to));
            } else {
                let copy = bytes[from..to].to_vec();
                let at = place(random);
                bytes.splice(at..at, copy);
            }
        }
        8 if blocks > 0 => {
            let from = random.below(blocks) * BLOCK;
            let block = bytes[from..from + BLOCK].to_vec();
            let to = random.below(blocks + 1) * BLOCK;
            bytes.splice(to..to, block);
        }
        9 => match random.below(4) {
            0 => bytes.truncate(random.below(blocks + 1) * BLOCK),
            1 => bytes.truncate(random.below(bytes.len() + 1)),
            2 => bytes.resize(bytes.len() + BLOCK * (1 + random.below(2)), 0),
            _ => {
                let at = place(random);
                bytes.splice(at..at, [0; BLOCK]);
            }
        },
        10 if header.flag == b'x' || header.flag == b'g' => replace_body(bytes, &header, &records(random)),
        11 if header.end > header.body => {
            // The fuzzer's own, in a body.
            let mut body = bytes[header.body..header.end].to_vec();
            let room = body.len() + 64;
            let size = body.len();
            body.resize(room, 0);
            let size = plain(&mut body, size, room);
            body.truncate(size);
            replace_body(bytes, &header, &body);
        }
        12 => {
            let mut block = bytes[header.at..header.at + BLOCK].to_vec();
            plain(&mut block, BLOCK, BLOCK);
            bytes[header.at..header.at + BLOCK].copy_from_slice(&block[..BLOCK]);
        }
        _ => {
            let at = header.at + random.below(BLOCK);
            bytes[at] = b"\0 0179/.=\n,-\x80\xff"[random.below(14)];
        }
    }
}

fn replace_body(bytes: &mut Vec<u8>, header: &Header, body: &[u8]) {
    let mut padded = body.to_vec();
    padded.resize(body.len().next_multiple_of(BLOCK), 0);
    let end = header.end.next_multiple_of(BLOCK).min(bytes.len());
    bytes.splice(header.body..end, padded);
    bytes[header.at + 124..header.at + 136].copy_from_slice(format!("{:011o}\0", body.len()).as_bytes());
}

fn magic(random: &mut Random) -> &'static [u8] {
    random.of(&[
        b"ustar\x0000",
        b"ustar\x0000",
        b"ustar  \0",
        b"ustar  \0",
        &[0; 8],
        b"ustar\0\0\0",
        b"ustar 00",
        b"ustar\x00 \0",
    ])
}

/// What may stand in a field.
fn field(random: &mut Random, at: usize, width: usize) -> Vec<u8> {
    let mut value = vec![0; width];
    let mut put = |bytes: &[u8]| {
        let length = bytes.len().min(width);
        value[..length].copy_from_slice(&bytes[..length]);
    };
    match at {
        0 | 157 | 345 if width >= 100 => put(random.of(NAMES)),
        257 => put(&magic(random)[..6]),
        263 => put(random.of(&[b"00", b" \0", b"\0\0", b"  "])),
        156 => put(&[TYPES[random.below(TYPES.len())]]),
        265 | 297 => put(random.of(NAMES)),
        _ => put(&number(random, width)),
    }
    value
}

/// A number as somebody may write it.
fn number(random: &mut Random, width: usize) -> Vec<u8> {
    let small = [0, 1, 2, 5, 100, 511, 512, 513, 1000, 1024, 4095, 0o644, 0o4755, 0o10_0644, 65_534, 1 << 20];
    let value = match random.below(6) {
        0 => random.number() >> random.below(64),
        _ => small[random.below(small.len())],
    };
    let digits = width.saturating_sub(1);
    match random.below(12) {
        0..=4 => format!("{value:0digits$o}\0").into_bytes(),
        5 => format!("{value:o} \0").into_bytes(),
        6 => format!("{value:>digits$o} ").into_bytes(),
        7 => format!("{value:0width$o}").into_bytes(),
        8 => {
            let mut wide = [vec![0; 8], value.to_be_bytes().to_vec()].concat();
            let mut wide = wide.split_off(16_usize.saturating_sub(width).min(15));
            if random.once_in(3) {
                for byte in &mut wide {
                    *byte = !*byte;
                }
            }
            wide[0] |= 0x80;
            wide
        }
        9 => vec![b" \0"[random.below(2)]; width],
        10 => format!("-{value:o}\0").into_bytes(),
        _ => [random.of(VALUES), &b"\0"[..]].concat(),
    }
}

/// A whole member, mostly right.
fn member(random: &mut Random) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let flag = TYPES[random.below(TYPES.len())];
    if matches!(flag, b'x' | b'g' | b'L' | b'K') {
        return [extension(random), member(random)].concat();
    }
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    let name = random.of(NAMES);
    put(0, &name[..name.len().min(100)]);
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(136, b"14000000000\0");
    put(257, magic(random));
    put(329, b"0000001\0");
    put(337, b"0000003\0");
    put(156, &[flag]);
    if matches!(flag, b'1' | b'2') {
        let target = random.of(NAMES);
        put(157, &target[..target.len().min(100)]);
    }
    let mut body = Vec::new();
    let regular = matches!(flag, 0 | b'0' | b'7' | b'S');
    if regular && !name.starts_with(b".wh.") && !random.once_in(3) {
        body = vec![b'x'; random.below(700)];
        if random.once_in(4) {
            // Content that looks like a header.
            body = [member(random), body].concat();
        }
        if random.once_in(6) {
            body = [&b"1\n0\n5\n"[..], &[0; 506], b"abcde"].concat();
        }
    }
    put(124, format!("{:011o}\0", body.len()).as_bytes());
    if flag == b'S' {
        put(257, b"ustar  \0");
        put(345, &[0; 24]);
        put(386, format!("{:011o}\0{:011o}\0", 0, body.len()).as_bytes());
        put(483, format!("{:011o}\0", body.len() + random.below(2) * 100).as_bytes());
        if random.once_in(2) {
            put(410, format!("{:011o}\0{:011o}\0", body.len() + 100, 0).as_bytes());
            put(483, format!("{:011o}\0", body.len() + 100).as_bytes());
        }
    }
    block.extend_from_slice(&body);
    block.resize(block.len().next_multiple_of(BLOCK), 0);
    block
}

/// `x`, `g`, `L` or `K` with a payload.
fn extension(random: &mut Random) -> Vec<u8> {
    let flag = b"xxxxgLLK"[random.below(8)];
    let payload = match flag {
        b'x' | b'g' => records(random),
        _ => {
            let mut name = random.of(NAMES).to_vec();
            if random.once_in(2) {
                name = name.repeat(1 + random.below(8));
            }
            if !random.once_in(4) {
                name.push(0);
            }
            name
        }
    };
    let mut block = vec![0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"././@Extension");
    for at in [100, 108, 116] {
        put(at, b"0000000\0");
    }
    put(124, format!("{:011o}\0", payload.len()).as_bytes());
    put(136, b"00000000000\0");
    put(156, &[flag]);
    put(257, if matches!(flag, b'x' | b'g') { b"ustar\x0000" } else { b"ustar  \0" });
    block.extend_from_slice(&payload);
    block.resize(block.len().next_multiple_of(BLOCK), 0);
    block
}

/// Records, mostly right, sometimes of one of the sparse forms.
fn records(random: &mut Random) -> Vec<u8> {
    let sparse: [&[(&[u8], &[u8])]; 3] = [
        &[
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", b"s"),
            (b"GNU.sparse.realsize", b"100"),
        ],
        &[(b"GNU.sparse.size", b"100"), (b"GNU.sparse.numblocks", b"1"), (b"GNU.sparse.map", b"0,5")],
        &[
            (b"GNU.sparse.size", b"100"),
            (b"GNU.sparse.numblocks", b"1"),
            (b"GNU.sparse.offset", b"0"),
            (b"GNU.sparse.numbytes", b"5"),
        ],
    ];
    let mut payload = Vec::new();
    if random.once_in(5) {
        for (key, value) in sparse[random.below(3)] {
            record(&mut payload, key, value);
        }
    }
    for _ in 0..random.below(4) {
        let key = random.of(KEYS);
        let value = if random.once_in(2) { random.of(NAMES) } else { random.of(VALUES) };
        record(&mut payload, key, value);
    }
    if random.once_in(20) {
        payload.extend_from_slice(random.of(&[b"\0", b"\n", b"5 a=", b"3 x\n", b"6 a=b\n\0"]));
    }
    payload
}

fn record(payload: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let length = (rest + 1..rest + 20).find(|length| *length == rest + length.to_string().len()).unwrap_or(rest);
    payload.extend_from_slice(format!("{length} ").as_bytes());
    payload.extend_from_slice(key);
    payload.push(b'=');
    payload.extend_from_slice(value);
    payload.push(b'\n');
}

/// Makes checksums right: of the headers that the walk finds, one after the other.
fn repair(bytes: &mut [u8], signed: bool) {
    for header in archive::headers(bytes) {
        let block = &mut bytes[header.at..header.at + BLOCK];
        block[148..156].fill(b' ');
        let sum: i64 =
            block.iter().map(|&byte| if signed { i64::from(byte.cast_signed()) } else { i64::from(byte) }).sum();
        if sum >= 0 {
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}
