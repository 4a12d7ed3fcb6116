//! The reserved bits in a frame's blocks, RFC 8878, 3.1.1.2 and 3.1.1.3: the decoder reads over some of them.
//!
//! The blocks are looked at on their way to the decoder. Nothing is kept of them but the few bytes of a header.

use std::io::{self, Read};

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The header of a block.
    Block,
    /// The header of a literals section.
    Literals,
    /// The header of a sequences section; its last byte says how symbols are compressed.
    Sequences,
    /// What has no reserved bits.
    Data,
    /// What stands behind the last block.
    End,
}

/// A source of the blocks of one frame.
pub(super) struct Blocks<R> {
    source: R,
    part: Part,
    /// The bytes of a header so far, and how many they are.
    header: [u8; 5],
    have: usize,
    /// Bytes left in this block.
    block: u64,
    /// Bytes left in front of the sequences section, if there is one.
    literals: Option<u64>,
    last: bool,
    refused: bool,
}

impl<R: Read> Blocks<R> {
    pub(super) fn new(source: R) -> Self {
        let (part, header) = (Part::Block, [0; 5]);
        Self { source, part, header, have: 0, block: 0, literals: None, last: false, refused: false }
    }

    /// What stands behind the frame.
    pub(super) fn into_source(self) -> R {
        self.source
    }

    /// Whether a reserved bit was set in what was read.
    pub(super) fn refused(&self) -> bool {
        self.refused
    }

    /// Looks at bytes. That sizes contradict each other is the decoder's to find.
    fn look(&mut self, mut bytes: &[u8]) {
        while let (false, Some((&byte, rest))) = (self.refused, bytes.split_first()) {
            match self.part {
                Part::End => return,
                Part::Data => {
                    let here = self.literals.unwrap_or(self.block).min(self.block);
                    let now = here.min(bytes.len() as u64);
                    bytes = bytes.get(usize::try_from(now).unwrap_or(usize::MAX)..).unwrap_or_default();
                    self.block -= now;
                    self.literals = self.literals.map(|left| left.saturating_sub(now));
                    if now == here {
                        let sequences = self.literals.take().is_some() && self.block > 0;
                        self.part = if sequences { Part::Sequences } else { self.behind_block() };
                    }
                }
                Part::Block | Part::Literals | Part::Sequences => {
                    bytes = rest;
                    if let Some(place) = self.header.get_mut(self.have) {
                        *place = byte;
                    }
                    self.have += 1;
                    if self.part != Part::Block {
                        self.block = self.block.saturating_sub(1);
                    }
                    if self.have == self.wanted() {
                        self.part = self.behind_header();
                    } else if self.part != Part::Block && self.block == 0 {
                        self.part = self.behind_block();
                    } else {
                        continue;
                    }
                    (self.header, self.have) = ([0; 5], 0);
                }
            }
        }
    }

    /// How many bytes the header has, as its first says.
    fn wanted(&self) -> usize {
        let first = self.header[0];
        match (self.part, first & 3, first >> 2 & 3) {
            (Part::Literals, 0 | 1, 0 | 2) => 1,
            (Part::Literals, 0 | 1, 1) => 2,
            (Part::Literals, 2 | 3, 2) => 4,
            (Part::Literals, 2 | 3, 3) => 5,
            (Part::Sequences, ..) => match first {
                0 => 1,
                1..=127 => 2,
                128..=254 => 3,
                255 => 4,
            },
            _ => 3,
        }
    }

    /// Takes a whole header. Returns what stands behind it.
    fn behind_header(&mut self) -> Part {
        let [first, second, third, fourth, fifth] = self.header;
        let value = u64::from_le_bytes([first, second, third, fourth, fifth, 0, 0, 0]);
        match self.part {
            Part::Block => {
                let (kind, size) = (value >> 1 & 3, value >> 3);
                self.last = value & 1 == 1;
                self.block = if kind == 1 { 1 } else { size };
                self.refused = kind == 3;
                match (kind, self.block) {
                    (_, 0) => self.behind_block(),
                    (2, _) => Part::Literals,
                    _ => Part::Data,
                }
            }
            Part::Literals => {
                self.literals = Some(match (first & 3, first >> 2 & 3) {
                    (0, 0 | 2) => value >> 3,
                    (0, _) => value >> 4,
                    (1, _) => 1,
                    (_, 0 | 1) => value >> 14 & 0x3ff,
                    (_, 2) => value >> 18 & 0x3fff,
                    _ => value >> 22 & 0x3_ffff,
                });
                Part::Data
            }
            Part::Sequences | Part::Data | Part::End => {
                let modes = self.have.checked_sub(1).and_then(|last| self.header.get(last)).copied();
                self.refused = first != 0 && modes.is_some_and(|modes| modes & 3 != 0);
                Part::Data
            }
        }
    }

    fn behind_block(&self) -> Part {
        if self.last { Part::End } else { Part::Block }
    }
}

impl<R: Read> Read for Blocks<R> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(target)?;
        self.look(target.get(..count).unwrap_or_default());
        if self.refused { Err(io::Error::other("a reserved bit is set")) } else { Ok(count) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block header of a kind and a size, perhaps of the last block, and what stands in it.
    fn block(kind: u8, size: usize, last: bool, body: &[u8]) -> Vec<u8> {
        let value = u32::try_from(size).unwrap() << 3 | u32::from(kind) << 1 | u32::from(last);
        [&value.to_le_bytes()[..3], body].concat()
    }

    fn refused(bytes: &[u8]) -> bool {
        let results = [1, 2, 3, 7, usize::MAX].map(|piece| {
            let mut blocks = Blocks::new(io::empty());
            bytes.chunks(piece.min(bytes.len().max(1))).for_each(|piece| blocks.look(piece));
            blocks.refused()
        });
        assert!(results.iter().all(|&result| result == results[0]), "the result depends on how the input is cut");
        results[0]
    }

    /// All shapes of literals, in front of a sequences section whose modes are these.
    fn with_modes(modes: u8) -> Vec<Vec<u8>> {
        let literals: [Vec<u8>; 8] = [
            [&[0b10_1000][..], b"abcde"].concat(),
            [&[0b0101_0100, 0][..], b"abcde"].concat(),
            [&[0b0101_1100, 0, 0][..], b"abcde"].concat(),
            vec![0b10_1001, b'x'],
            vec![0],
            // Compressed, of five bytes: 10, 14 and 18 bits of size behind 10, 14 and 18 of the size that it stands for.
            [&(2_u32 | 9 << 4 | 5 << 14).to_le_bytes()[..3], b"abcde"].concat(),
            [&(2_u32 | 2 << 2 | 9 << 4 | 5 << 18).to_le_bytes()[..4], b"abcde"].concat(),
            [&(3_u64 | 3 << 2 | 9 << 4 | 5 << 22).to_le_bytes()[..5], b"abcde"].concat(),
        ];
        let counts: [&[u8]; 3] = [&[1], &[0x81, 2], &[0xff, 1, 0]];
        let mut all = Vec::new();
        for literals in &literals {
            for count in counts {
                let body = [&literals[..], count, &[modes], b"\xff\xff\xff"].concat();
                let raw = block(0, 4, false, b"\xff\xff\xff\xff");
                let rle = block(1, 70_000, false, b"\xff");
                // What follows the last block is a checksum, whatever it looks like.
                let end = [block(0, 0, true, b""), vec![0xff; 4]].concat();
                all.push([raw, rle, block(2, body.len(), false, &body), end].concat());
            }
        }
        all
    }

    #[test]
    fn reserved_bits_of_sequences_are_found() {
        for modes in 0..=255 {
            for bytes in with_modes(modes) {
                assert_eq!(refused(&bytes), modes & 3 != 0, "{modes:08b} in {bytes:02x?}");
            }
        }
    }

    #[test]
    fn a_block_of_the_reserved_kind_is_found() {
        assert!(refused(&block(3, 1, true, b"x")));
    }

    #[test]
    fn a_block_without_sequences_has_no_modes() {
        let body = [&[0b10_1000][..], b"abcde", &[0]].concat();
        let next = block(0, 1, true, b"\xff");
        assert!(!refused(&[block(2, body.len(), false, &body), next.clone()].concat()));
        // One that is too short for what it says is the decoder's to refuse.
        for size in 1..body.len() {
            refused(&[block(2, size, false, &body[..size]), next.clone()].concat());
        }
    }
}
