//! gzip: our decoder beside flate2's reader of members (another reading of headers and trailers) and `miniz_oxide` (another
//! inflate).

use std::io::Read as _;

use cofferdam_decode::{Failure, gzip};
use flate2::bufread::{GzDecoder, MultiGzDecoder};

use crate::stats::Stats;

static STATS: Stats<4> = Stats::new(["decoded by both", "decoded here only", "refused by both", "refused here only"]);

/// Decodes a stream that arrives whole, and in pieces.
pub fn run(stream: &[u8]) {
    let piece = crate::random::piece(stream, 300);
    let whole = decode(stream, usize::MAX);
    let pieces = decode(stream, piece);
    match (&whole, &pieces) {
        (Ok(whole), Ok(pieces)) => assert!(whole == pieces, "the content depends on how the input is cut"),
        (Err(whole), Err(pieces)) => assert_eq!(whole, pieces, "the failure depends on how the input is cut"),
        _ => panic!("the result depends on how the input is cut: {:?}, {:?}", whole.err(), pieces.err()),
    }
    let mut there = Vec::new();
    let oracle = MultiGzDecoder::new(stream).read_to_end(&mut there);
    match (whole, oracle) {
        (Ok(here), Ok(_)) => {
            assert!(here == there, "{} bytes here, {} there", here.len(), there.len());
            first_member(stream, &here);
            STATS.count(0);
        }
        (Ok(_), Err(error)) => panic!("decoded here, refused there: {error}"),
        (Err(_), Err(_)) => STATS.count(2),
        (Err(_), Ok(_)) => STATS.count(3),
    }
}

/// What another inflate makes of the first member must be how the content begins.
fn first_member(stream: &[u8], content: &[u8]) {
    let first = GzDecoder::new(stream);
    assert!(first.header().is_some());
    let deflated = first.into_inner();
    let (compressed, end) = inflate(deflated).expect("another inflate refuses the data");
    let trailer = deflated.get(compressed..compressed + 8).expect("there is a trailer");
    let size = u32::from_le_bytes([trailer[4], trailer[5], trailer[6], trailer[7]]);
    assert_eq!(end.len(), size as usize);
    assert!(content.starts_with(&end), "another inflate gives other content");
}

/// The bytes of a deflate stream, and what it decodes to.
fn inflate(deflated: &[u8]) -> Option<(usize, Vec<u8>)> {
    use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
    let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let mut output = vec![0; 8 << 20];
    let (status, read, written) = decompress(&mut DecompressorOxide::new(), deflated, &mut output, 0, flags);
    output.truncate(written);
    (status == miniz_oxide::inflate::TINFLStatus::Done).then_some((read, output))
}

/// Changes a stream as the fuzzer does by itself, `plain`, and then mostly makes the trailers of its members right again.
pub fn mutate(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    plain: impl Fn(&mut [u8], usize, usize) -> usize,
) -> usize {
    let size = plain(data, size, max_size);
    if !seed.is_multiple_of(8) {
        let mut at = 0;
        while let Some((from, content)) = member(&data[at..size]) {
            let mut crc = flate2::Crc::new();
            crc.update(&content);
            let Some(trailer) = data[..size].get_mut(at + from..at + from + 8) else { break };
            trailer[..4].copy_from_slice(&crc.sum().to_le_bytes());
            trailer[4..].copy_from_slice(&crc.amount().to_le_bytes());
            at += from + 8;
        }
    }
    size
}

/// Where the trailer of a stream's first member is, and what the member decodes to.
fn member(stream: &[u8]) -> Option<(usize, Vec<u8>)> {
    let first = GzDecoder::new(stream);
    first.header()?;
    let deflated = first.into_inner();
    let (compressed, content) = inflate(deflated)?;
    Some((stream.len() - deflated.len() + compressed, content))
}

fn decode(stream: &[u8], piece: usize) -> Result<Vec<u8>, Failure> {
    let mut target = Target::default();
    gzip::decode(&mut Pieces { rest: stream, piece }, &mut target).map(|()| target.0)
}

/// A source that hands out few bytes at a time.
pub(crate) struct Pieces<'a> {
    pub(crate) rest: &'a [u8],
    pub(crate) piece: usize,
}

impl cofferdam_decode::Source for Pieces<'_> {
    fn read(&mut self, max: u32) -> Vec<u8> {
        let count = self.rest.len().min(self.piece).min(max as usize);
        let (now, later) = self.rest.split_at(count);
        self.rest = later;
        now.to_vec()
    }
}

/// What was decoded. Pieces must be as the contract says.
#[derive(Default)]
struct Target(Vec<u8>);

impl cofferdam_decode::Target for Target {
    fn write(&mut self, bytes: &[u8]) {
        assert!((1..=256 << 10).contains(&bytes.len()), "a write of {} bytes", bytes.len());
        self.0.extend_from_slice(bytes);
    }
}
