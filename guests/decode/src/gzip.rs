//! Gzip, RFC 1952: one or more members, each with its CRC-32 and size verified, and nothing behind the last.

use flate2::{Crc, Decompress, FlushDecompress, Status};

use crate::reader::Reader;
use crate::{Decode, Failure, Source, Target, WRITE};

/// FLG bits of RFC 1952, 2.3.1.
mod flag {
    pub(super) const HEADER_CRC: u8 = 1 << 1;
    pub(super) const EXTRA: u8 = 1 << 2;
    pub(super) const NAME: u8 = 1 << 3;
    pub(super) const COMMENT: u8 = 1 << 4;
    pub(super) const RESERVED: u8 = 0b1110_0000;
}

/// Decodes every member of `source` into `target`. A stream without a member is corrupt.
pub fn decode(source: &mut impl Source, target: &mut impl Target) -> Result<(), Failure> {
    let mut decoder = Decoder::new(source);
    while decoder.step(target)? {}
    Ok(())
}

/// A stream of members that is decoded piece by piece.
pub struct Decoder<S> {
    reader: Reader<S>,
    inflater: Inflater,
    /// Of the member at work, the checksum so far; between two members nothing.
    member: Option<Crc>,
    first: bool,
}

impl<S: Source> Decoder<S> {
    /// Nothing is read yet.
    pub fn new(source: S) -> Self {
        Self { reader: Reader::new(source), inflater: Inflater::new(), member: None, first: true }
    }
}

impl<S: Source> Decode for Decoder<S> {
    fn step(&mut self, target: &mut impl Target) -> Result<bool, Failure> {
        let Some(crc) = &mut self.member else {
            if !self.first && self.reader.at_end() {
                self.inflater.flush(target);
                return Ok(false);
            }
            header(&mut self.reader, self.first)?;
            self.inflater.state.reset(false);
            (self.member, self.first) = (Some(Crc::new()), false);
            return Ok(true);
        };
        if self.inflater.inflate(&mut self.reader, crc, target)? {
            trailer(&mut self.reader, crc)?;
            self.member = None;
        }
        Ok(true)
    }
}

/// Reads a member's header. The CRC of it covers every byte read so far, so bytes are gathered when it is there.
fn header<S: Source>(reader: &mut Reader<S>, first: bool) -> Result<(), Failure> {
    let fixed: [u8; 10] = reader.array()?;
    let [0x1f, 0x8b, method, flags, ..] = fixed else {
        let place = if first { "at the start" } else { "behind the last member" };
        return Err(Failure::corrupt(format!("there is no gzip member {place}")));
    };
    if method != 8 && !first {
        return Err(Failure::corrupt("there is no gzip member behind the last member"));
    }
    if method != 8 {
        return Err(Failure::Refused(format!("gzip compression method {method} is unknown")));
    }
    if flags & flag::RESERVED != 0 {
        return Err(Failure::Refused("reserved gzip flags are set".into()));
    }
    let mut crc = Crc::new();
    crc.update(&fixed);
    if flags & flag::EXTRA != 0 {
        let length: [u8; 2] = reader.array()?;
        crc.update(&length);
        for _ in 0..u16::from_le_bytes(length) {
            crc.update(&[reader.byte()?]);
        }
    }
    for present in [flag::NAME, flag::COMMENT] {
        if flags & present != 0 {
            zero_terminated(reader, &mut crc)?;
        }
    }
    if flags & flag::HEADER_CRC != 0 {
        let expected = u16::from_le_bytes(reader.array()?);
        if crc.sum() & 0xffff != u32::from(expected) {
            return Err(Failure::corrupt("the checksum of a gzip header is wrong"));
        }
    }
    Ok(())
}

/// A name or comment may be long, but a megabyte of it is an attack.
fn zero_terminated<S: Source>(reader: &mut Reader<S>, crc: &mut Crc) -> Result<(), Failure> {
    for _ in 0..1 << 20 {
        let byte = reader.byte()?;
        crc.update(&[byte]);
        if byte == 0 {
            return Ok(());
        }
    }
    Err(Failure::Limit("a name or comment in a gzip header is longer than 1 MiB".into()))
}

/// The inflate state and its output buffer, which members share.
struct Inflater {
    state: Decompress,
    output: Vec<u8>,
    filled: usize,
}

impl Inflater {
    fn new() -> Self {
        Self { state: Decompress::new(false), output: vec![0; WRITE], filled: 0 }
    }

    /// Decodes some of a member's deflate stream. Says whether that was its end.
    fn inflate<S: Source>(
        &mut self,
        reader: &mut Reader<S>,
        crc: &mut Crc,
        target: &mut impl Target,
    ) -> Result<bool, Failure> {
        if self.filled == self.output.len() {
            self.flush(target);
        }
        let input = reader.peek();
        let at_end = input.is_empty();
        let (read, written) = (self.state.total_in(), self.state.total_out());
        let free = &mut self.output[self.filled..];
        let status = self
            .state
            .decompress(input, free, FlushDecompress::None)
            .map_err(|_| Failure::corrupt("the deflate data is broken"))?;
        let read = usize::try_from(self.state.total_in() - read).unwrap_or(usize::MAX);
        let written = usize::try_from(self.state.total_out() - written).unwrap_or(usize::MAX);
        reader.consume(read);
        crc.update(&self.output[self.filled..self.filled + written]);
        self.filled += written;
        match status {
            Status::StreamEnd => Ok(true),
            _ if at_end && written == 0 => Err(Failure::corrupt("the stream is cut short")),
            Status::Ok | Status::BufError => Ok(false),
        }
    }

    fn flush(&mut self, target: &mut impl Target) {
        if self.filled > 0 {
            target.write(&self.output[..self.filled]);
            self.filled = 0;
        }
    }
}

/// Checks what stands behind a member's deflate stream.
fn trailer<S: Source>(reader: &mut Reader<S>, crc: &Crc) -> Result<(), Failure> {
    let expected = u32::from_le_bytes(reader.array()?);
    if crc.sum() != expected {
        return Err(Failure::corrupt("the checksum of a gzip member is wrong"));
    }
    // ISIZE is the size modulo 2³².
    let size = u32::from_le_bytes(reader.array()?);
    if crc.amount() != size {
        return Err(Failure::corrupt("the size of a gzip member is wrong"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Pieces;
    use std::io::Write as _;

    fn member(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn decoded(bytes: &[u8]) -> Result<Vec<u8>, Failure> {
        let whole = run(bytes, usize::MAX);
        assert_eq!(whole, run(bytes, 1), "the result depends on how the input is cut");
        whole
    }

    fn run(bytes: &[u8], piece: usize) -> Result<Vec<u8>, Failure> {
        let mut target = Vec::new();
        decode(&mut Pieces { bytes, piece }, &mut target).map(|()| target)
    }

    #[test]
    fn every_member_counts_and_empty_ones_too() {
        let bytes = [member(b"one "), member(b""), member(b"two"), member(b"")].concat();
        assert_eq!(decoded(&bytes).unwrap(), b"one two");
    }

    #[test]
    fn large_content_passes_the_buffer_many_times() {
        let content: Vec<u8> = (0..2_000_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        assert_eq!(run(&member(&content), usize::MAX).unwrap(), content);
    }

    #[test]
    fn any_cut_is_corrupt() {
        let bytes = [member(b"first"), member(b"second")].concat();
        let boundary = member(b"first").len();
        for cut in 0..bytes.len() {
            let result = decoded(&bytes[..cut]);
            if cut == boundary {
                assert_eq!(result.unwrap(), b"first");
            } else {
                assert!(matches!(result, Err(Failure::Corrupt(_))), "a cut at {cut} gave {result:?}");
            }
        }
    }

    #[test]
    fn no_flipped_bit_in_data_or_trailer_changes_the_content() {
        let content = b"some content that is long enough to be compressed, compressed, compressed";
        let good = member(content);
        let mut noticed = 0;
        for at in 10..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                match decoded(&bad) {
                    Err(_) => noticed += 1,
                    // The bits that pad the last byte of the deflate data mean nothing.
                    Ok(same) => assert_eq!(same, content, "bit {bit} of byte {at}"),
                }
            }
        }
        assert!(noticed >= (good.len() - 10) * 8 - 7);
    }

    #[test]
    fn garbage_behind_the_last_member_is_corrupt() {
        for garbage in [&b"\0"[..], b"\0\0\0\0\0\0\0\0\0\0\0\0", b"garbage and more of it", b"\x1f\x8b"] {
            let result = decoded(&[member(b"x").as_slice(), garbage].concat());
            assert!(matches!(result, Err(Failure::Corrupt(_))), "{garbage:?} gave {result:?}");
        }
    }

    #[test]
    fn optional_fields_are_read_and_checked() {
        let plain = member(b"content");
        let mut crc = Crc::new();
        let header = [&plain[..3], &[0b1_1110], &plain[4..10], &[3, 0], b"abc", b"name\0", b"comment\0"].concat();
        crc.update(&header);
        let sum = u16::try_from(crc.sum() & 0xffff).unwrap();
        let good = [&header, &sum.to_le_bytes()[..], &plain[10..]].concat();
        assert_eq!(decoded(&good).unwrap(), b"content");
        let bad = [&header, &(sum ^ 1).to_le_bytes()[..], &plain[10..]].concat();
        assert!(matches!(decoded(&bad), Err(Failure::Corrupt(_))));
    }

    #[test]
    fn reserved_flags_and_methods_are_refused() {
        let mut bytes = member(b"x");
        bytes[3] = 0x20;
        assert!(matches!(decoded(&bytes), Err(Failure::Refused(_))));
        let mut bytes = member(b"x");
        bytes[2] = 7;
        assert!(matches!(decoded(&bytes), Err(Failure::Refused(_))));
    }

    #[test]
    fn an_endless_name_is_a_limit() {
        let mut bytes = member(b"x");
        bytes[3] = 8;
        bytes.splice(10..10, std::iter::repeat_n(b'n', (1 << 20) + 1));
        assert!(matches!(run(&bytes, usize::MAX), Err(Failure::Limit(_))));
    }
}
