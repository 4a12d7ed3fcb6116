//! Arbitrary and damaged archives: no panic, no entry out of contract, the same result however the bytes arrive.

use cofferdam_layer::{Entry, Failure, Node};

use crate::archive::*;

/// xorshift64*: the same archives every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % limit
    }
}

fn canonical(path: &[u8]) -> bool {
    let ok = |c: &[u8]| !c.is_empty() && c != b"." && c != b".." && c.len() <= 255 && !c.contains(&0);
    path.len() <= 4096 && path.split(|&b| b == b'/').all(ok)
}

/// What `wit/layer.wit` says of an entry.
fn check(entry: &Entry<'_>) {
    let marked = |path: &[u8]| path.split(|&b| b == b'/').any(|c| c.starts_with(b".wh."));
    let root = entry.path.is_empty();
    assert!(root || canonical(entry.path), "{entry:?}");
    assert!(!marked(entry.path), "{entry:?}");
    assert!(!root || matches!(entry.node, Node::Directory | Node::Opaque), "{entry:?}");
    assert!(entry.mode <= 0o7777 && entry.uid < u32::MAX && entry.gid < u32::MAX, "{entry:?}");
    assert!(entry.modified.nanoseconds < 1_000_000_000, "{entry:?}");
    assert!(entry.attributes.len() <= 256);
    for attribute in entry.attributes.iter() {
        assert!((1..=255).contains(&attribute.name.len()) && !attribute.name.contains(&0), "{entry:?}");
        assert!(!attribute.name.starts_with(b"trusted.overlay."), "{entry:?}");
    }
    match entry.node {
        Node::Symlink { target } => assert!((1..=4095).contains(&target.len()) && !target.contains(&0), "{entry:?}"),
        Node::HardLink { target } => assert!(canonical(target) && !marked(target), "{entry:?}"),
        Node::CharacterDevice(d) | Node::BlockDevice(d) => assert!(d.major < 1 << 12 && d.minor < 1 << 20, "{entry:?}"),
        Node::Sparse { size, extents } => {
            let mut end = 0;
            for extent in extents {
                assert!(extent.offset >= end && extent.length > 0, "{entry:?}");
                end = extent.offset + extent.length;
            }
            assert!(end <= size && extents.len() <= 10_000, "{entry:?}");
        }
        _ => {}
    }
}

fn run(bytes: &[u8], chunk: usize) -> (Vec<String>, Result<(), Failure>) {
    let mut lines = Vec::new();
    let result = read(bytes, chunk, |entry, content| {
        check(entry);
        lines.push(format!("{} {:?} {:?}", line(entry, content), entry.modified, (entry.mode, entry.uid, entry.gid)));
    });
    (lines, result)
}

/// Reads an archive in one piece and in pieces, and expects the same. Says whether it was read to its end.
fn exercise(bytes: &[u8], chunk: usize) -> bool {
    let whole = run(bytes, usize::MAX);
    assert_eq!(whole, run(bytes, chunk), "pieces of {chunk} bytes");
    whole.1.is_ok()
}

/// An archive with something of everything.
fn seed() -> Vec<u8> {
    let sparse: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"sparse/1.0"),
        ("GNU.sparse.realsize", b"5000"),
    ];
    let text = [b"2\n10\n3\n4000\n2\n".to_vec(), vec![0; 498], b"abcde".to_vec()].concat();
    let mut old = Block::new(b'S', "sparse/old");
    old.gnu().octal(386, 12, 10).octal(398, 12, 3).octal(410, 12, 100).octal(422, 12, 0).octal(483, 12, 100);
    Archive::new()
        .global(&[("comment", b"made by hand")])
        .dir("./")
        .dir("dir/")
        .file("dir/file", "content")
        .long_name(format!("{}/x", "long".repeat(50)))
        .file("short", [b'y'; 600])
        .long_link("t".repeat(150))
        .symlink("dir/link", "t")
        .hard_link("hard", "../dir/file")
        .block(Block::new(b'3', "dev/null").device(1, 3))
        .block(&Block::new(b'6', "fifo"))
        .file("dir/.wh.gone", "")
        .file("dir/.wh..wh..opq", "")
        .file(".wh..wh.plnk/1", "ignored")
        .pax(&[
            ("path", b"pax/name"),
            ("mtime", b"-1.25"),
            ("uid", b"100000"),
            ("SCHILY.xattr.user.a", b"1"),
            ("SCHILY.xattr.security.capability", b"\0\x01"),
            ("size", b"4"),
        ])
        .file("x", "body")
        .pax(sparse)
        .file("x", text)
        .pax(&[("GNU.sparse.size", b"50"), ("GNU.sparse.numblocks", b"1"), ("GNU.sparse.map", b"8,4")])
        .file("sparse/0.1", "data")
        .body(&mut old, "xyz")
        .block(Block::new(0, "v7/").v7())
        .end()
}

/// Makes the checksum right again, so that what is behind it is reached.
fn repair(bytes: &mut [u8], at: usize) {
    let start = at / 512 * 512;
    if let Some(block) = bytes.get_mut(start..start + 512) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

#[test]
fn the_seed_is_read() {
    let (lines, result) = run(&seed(), usize::MAX);
    assert_eq!(result, Ok(()));
    assert_eq!(lines.len(), 15, "{lines:#?}");
}

#[test]
fn any_pieces_give_the_same() {
    let seed = seed();
    for chunk in [1, 2, 3, 7, 100, 511, 512, 513, 1000, 4096] {
        assert!(exercise(&seed, chunk), "{chunk}");
    }
}

#[test]
fn arbitrary_bytes_do_no_harm() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..3000 {
        let mut bytes: Vec<u8> = (0..random.below(4096)).map(|_| random.next().to_be_bytes()[0]).collect();
        // Headers that are right but for what they say.
        for block in 0..bytes.len() / 512 {
            let at = block * 512;
            bytes[at + 124..at + 136].copy_from_slice(format!("{:011o}\0", random.below(1500)).as_bytes());
            bytes[at + 156] = b"\x0001234567xgLKS"[random.below(14)];
            if random.below(4) > 0 {
                bytes[at + 257..at + 265].copy_from_slice(if random.below(2) == 0 {
                    b"ustar\x0000"
                } else {
                    b"ustar  \0"
                });
                for (field, width) in [(100, 8), (108, 8), (116, 8), (136, 12), (329, 8), (337, 8)] {
                    bytes[at + field..at + field + width].fill(b'0');
                }
            }
            repair(&mut bytes, at);
        }
        exercise(&bytes, 1 + random.below(700));
    }
}

#[test]
fn damaged_archives_do_no_harm() {
    let seed = seed();
    let mut random = Random(0x0123_4567_89ab_cdef);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..8000 {
        let mut bytes = seed.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            match random.below(6) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = b"\0 0179/.=\n,-\x80\xff"[random.below(14)],
                2 => bytes.truncate(at / 512 * 512),
                3 => bytes.truncate(at),
                4 => drop(bytes.drain(at / 512 * 512..at / 512 * 512 + 512)),
                _ => {
                    let block = bytes[at / 512 * 512..][..512].to_vec();
                    let to = random.below(bytes.len()) / 512 * 512;
                    bytes.splice(to..to, block);
                }
            }
            if random.below(4) > 0 {
                repair(&mut bytes, at);
            }
            if bytes.len() < 512 {
                break;
            }
            bytes.truncate(bytes.len() / 512 * 512);
        }
        if exercise(&bytes, 1 + random.below(1200)) { read += 1 } else { refused += 1 }
    }
    // Neither may be rare, or the loop proves nothing.
    assert!(read > 1000 && refused > 1000, "{read} read, {refused} refused");
}
