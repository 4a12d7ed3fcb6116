//! Zstandard: our decoder beside the reference implementation, with the same limit on windows.

use std::hash::{DefaultHasher, Hasher as _};
use std::io::Read as _;

use cofferdam_decode::{Failure, zstd};

use crate::gzip::Pieces;
use crate::stats::Stats;

static STATS: Stats<5> = Stats::new([
    "decoded by both",
    "decoded here only",
    "refused by both",
    "refused here only",
    "too large to compare",
]);

/// Inputs that decode to more are not compared; a block of four bytes stands for 128 KiB.
const CONTENT: u64 = 32 << 20;

/// Decodes a stream that arrives whole, and in pieces.
pub fn run(stream: &[u8]) {
    let piece = crate::random::piece(stream, 300);
    let here = decode(stream, usize::MAX);
    if matches!(&here, Ok(content) if content.length > CONTENT) {
        STATS.count(4);
        return;
    }
    let pieces = decode(stream, piece);
    assert_eq!(here, pieces, "the result depends on how the input is cut");
    let there = reference(stream);
    match (here, there) {
        (Ok(here), Ok(there)) => {
            assert_eq!(here, there, "the reference implementation decodes to something else");
            STATS.count(0);
        }
        (Ok(_), Err(error)) => panic!("decoded here, refused there: {error}"),
        (Err(_), Err(_)) => STATS.count(2),
        (Err(_), Ok(_)) => STATS.count(3),
    }
}

/// What was decoded, in short: how much, and a hash of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Content {
    length: u64,
    hash: u64,
}

#[derive(Default)]
struct Target {
    length: u64,
    hasher: DefaultHasher,
}

impl cofferdam_decode::Target for Target {
    fn write(&mut self, bytes: &[u8]) {
        assert!((1..=256 << 10).contains(&bytes.len()), "a write of {} bytes", bytes.len());
        self.length += bytes.len() as u64;
        self.hasher.write(bytes);
    }
}

impl Target {
    fn content(&self) -> Content {
        Content { length: self.length, hash: self.hasher.finish() }
    }
}

fn decode(stream: &[u8], piece: usize) -> Result<Content, Failure> {
    let mut target = Target::default();
    zstd::decode(&mut Pieces { rest: stream, piece }, &mut target).map(|()| target.content())
}

/// `ZSTD_decompressStream` to the end, over all frames.
fn reference(stream: &[u8]) -> std::io::Result<Content> {
    let mut decoder = ::zstd::stream::read::Decoder::with_buffer(stream)?;
    decoder.window_log_max(zstd::MAX_WINDOW.ilog2())?;
    let mut target = Target::default();
    let mut buffer = vec![0; 128 << 10];
    loop {
        let read = decoder.read(&mut buffer)?;
        if read == 0 {
            return Ok(target.content());
        }
        cofferdam_decode::Target::write(&mut target, &buffer[..read]);
    }
}
