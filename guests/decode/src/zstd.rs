//! Zstandard, RFC 8878: one or more frames, skippable ones anywhere, with checksums and sizes verified.

use std::io::{self, Write};

use structured_zstd::decoding::errors::{
    FrameDecoderError, FrameDescriptorError, FrameHeaderError, ReadFrameHeaderError,
};
use structured_zstd::decoding::{BlockDecodingStrategy, ContentChecksum, FrameDecoder};

use self::reserved::Blocks;
use crate::reader::Reader;
use crate::{Decode, Failure, Source, Target, WRITE};

mod reserved;

const FRAME: u32 = 0xFD2F_B528;

/// RFC 8878, 3.1.2: the low four bits are free.
const SKIPPABLE: u32 = 0x184D_2A50;

/// The reserved bit of a frame header's descriptor, RFC 8878, 3.1.1.1.1.4.
const RESERVED: u8 = 1 << 3;

/// The largest window that Cofferdam's host admits unless it is told otherwise, in bytes: `zstd --long=27`.
pub const MAX_WINDOW: u64 = 128 << 20;

/// Decodes every frame of `source` into `target`. A stream without any frame is corrupt.
pub fn decode(source: &mut impl Source, target: &mut impl Target) -> Result<(), Failure> {
    decode_within(source, target, MAX_WINDOW)
}

/// [`decode`], with another bound on the window of a frame.
pub fn decode_within(source: &mut impl Source, target: &mut impl Target, window: u64) -> Result<(), Failure> {
    let mut decoder = Decoder::new(source, window)?;
    while decoder.step(target)? {}
    Ok(())
}

/// A stream of frames that is decoded piece by piece.
pub struct Decoder<S> {
    frames: FrameDecoder,
    input: Input<S>,
    /// Decoded bytes that are too few to be handed over.
    gathered: Vec<u8>,
    first: bool,
}

/// Where in the stream the decoder is.
enum Input<S> {
    /// In front of a frame, or at the end.
    Between(Reader<S>),
    /// Within a frame.
    Frame(Blocks<Reader<S>>),
    /// Nowhere: it has failed.
    Failed,
}

impl<S: Source> Decoder<S> {
    /// Nothing is read yet. No frame may have a larger window than this, in bytes.
    pub fn new(source: S, window: u64) -> Result<Self, Failure> {
        let mut frames = FrameDecoder::new();
        frames.set_content_checksum(ContentChecksum::Verify);
        frames.set_magicless(true); // the magic number is read here, to tell frames from what may be skipped
        // What the decoder takes for a bound; no frame has a smaller window.
        frames
            .set_max_window_size(window.clamp(1 << 10, 1 << 30))
            .map_err(|error| Failure::Limit(error.to_string()))?;
        let input = Input::Between(Reader::new(source));
        Ok(Self { frames, input, gathered: Vec::with_capacity(WRITE), first: true })
    }

    /// Reads up to the blocks of the next frame, or over what is skipped. Nothing at the end of the stream.
    fn between(&mut self, mut reader: Reader<S>) -> Result<Option<Input<S>>, Failure> {
        if !self.first && reader.at_end() {
            return Ok(None);
        }
        let first = std::mem::replace(&mut self.first, false);
        match u32::from_le_bytes(reader.array()?) {
            FRAME => {
                if reader.peek().first().is_some_and(|descriptor| descriptor & RESERVED != 0) {
                    return Err(reserved_bit());
                }
                self.frames.init(&mut reader).map_err(failure)?;
                Ok(Some(Input::Frame(Blocks::new(reader))))
            }
            magic if magic & !0xf == SKIPPABLE => {
                let length = u32::from_le_bytes(reader.array()?);
                reader.skip(u64::from(length))?;
                Ok(Some(Input::Between(reader)))
            }
            _ => {
                let place = if first { "at the start" } else { "behind the last frame" };
                Err(Failure::corrupt(format!("there is no zstd frame {place}")))
            }
        }
    }

    /// Decodes a block: the decoder sizes its buffer for the window and little more, and would double it for more.
    fn block(&mut self, mut blocks: Blocks<Reader<S>>, target: &mut impl Target) -> Result<Input<S>, Failure> {
        let result = self.frames.decode_blocks(&mut blocks, BlockDecodingStrategy::UptoBlocks(1));
        if blocks.refused() {
            return Err(reserved_bit());
        }
        let finished = result.map_err(failure)?;
        let mut output = Output { target, buffer: &mut self.gathered };
        self.frames.collect_to_writer(&mut output).map_err(|error| Failure::corrupt(error.to_string()))?;
        if !(finished && self.frames.is_finished()) {
            return Ok(Input::Frame(blocks));
        }
        self.frames.verify_content_size().map_err(failure)?;
        self.frames.verify_content_checksum().map_err(failure)?;
        Ok(Input::Between(blocks.into_source()))
    }
}

impl<S: Source> Decode for Decoder<S> {
    fn step(&mut self, target: &mut impl Target) -> Result<bool, Failure> {
        match std::mem::replace(&mut self.input, Input::Failed) {
            Input::Between(reader) => {
                let Some(input) = self.between(reader)? else {
                    Output { target, buffer: &mut self.gathered }.hand_over();
                    return Ok(false);
                };
                self.input = input;
            }
            Input::Frame(blocks) => self.input = self.block(blocks, target)?,
            Input::Failed => return Err(Failure::corrupt("the stream was given up before")),
        }
        Ok(true)
    }
}

fn reserved_bit() -> Failure {
    Failure::Refused("a reserved bit of a zstd frame is set".into())
}

fn failure(error: FrameDecoderError) -> Failure {
    match error {
        FrameDecoderError::WindowSizeTooBig { requested, limit, .. } => {
            // In the words by which the host knows this limit.
            Failure::Limit(format!("{requested}, so more than {limit} bytes in the window of a zstd frame"))
        }
        FrameDecoderError::DictNotProvided { dict_id } => {
            Failure::Refused(format!("a zstd frame needs dictionary {dict_id}"))
        }
        FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::InvalidFrameDescriptor(
            FrameDescriptorError::ReservedBitSet,
        )) => Failure::Refused("the reserved bit of a zstd frame is set".into()),
        FrameDecoderError::FrameHeaderError(FrameHeaderError::WindowTooBig { got })
        | FrameDecoderError::FailedToInitialize(FrameHeaderError::WindowTooBig { got }) => {
            Failure::Limit(format!("a zstd frame wants a window of {got} bytes"))
        }
        other => Failure::corrupt(one_line(&other)),
    }
}

fn one_line(error: &FrameDecoderError) -> String {
    error.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

/// Gathers decoded bytes into large pieces.
struct Output<'a, T> {
    target: &'a mut T,
    buffer: &'a mut Vec<u8>,
}

impl<T: Target> Output<'_, T> {
    fn hand_over(&mut self) {
        if !self.buffer.is_empty() {
            self.target.write(self.buffer);
            self.buffer.clear();
        }
    }
}

impl<T: Target> Write for Output<'_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() >= WRITE / 2 {
            // Large already: not worth a copy.
            self.hand_over();
            bytes.chunks(WRITE).for_each(|chunk| self.target.write(chunk));
        } else {
            if self.buffer.len() + bytes.len() > WRITE {
                self.hand_over();
            }
            self.buffer.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Pieces;
    use structured_zstd::encoding::{CompressionLevel, StreamingEncoder, compress_to_vec};

    fn compressed(content: &[u8]) -> Vec<u8> {
        compress_to_vec(content, CompressionLevel::from_level(3))
    }

    fn skippable(content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap();
        [&(SKIPPABLE + 7).to_le_bytes()[..], &length.to_le_bytes(), content].concat()
    }

    fn run(bytes: &[u8], piece: usize) -> Result<Vec<u8>, Failure> {
        let mut target = Vec::new();
        decode(&mut Pieces { bytes, piece }, &mut target).map(|()| target)
    }

    fn decoded(bytes: &[u8]) -> Result<Vec<u8>, Failure> {
        let whole = run(bytes, usize::MAX);
        assert_eq!(whole, run(bytes, 1), "the result depends on how the input is cut");
        whole
    }

    #[test]
    fn every_frame_counts_and_skippable_ones_are_skipped() {
        let bytes = [
            skippable(b"lead"),
            compressed(b"one "),
            skippable(b""),
            compressed(b""),
            compressed(b"two"),
            skippable(b"x"),
        ]
        .concat();
        assert_eq!(decoded(&bytes).unwrap(), b"one two");
    }

    #[test]
    fn large_content_passes_the_window_many_times() {
        let content: Vec<u8> = (0..2_000_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        assert_eq!(run(&compressed(&content), usize::MAX).unwrap(), content);
    }

    #[test]
    fn any_cut_is_corrupt() {
        let frame = compressed(b"some content, some content, some content");
        let bytes = [frame.clone(), skippable(b"tail")].concat();
        for cut in 0..bytes.len() {
            let result = decoded(&bytes[..cut]);
            if cut == frame.len() {
                assert!(result.is_ok());
            } else {
                assert!(matches!(result, Err(Failure::Corrupt(_))), "a cut at {cut} gave {result:?}");
            }
        }
    }

    #[test]
    fn garbage_behind_the_last_frame_is_corrupt() {
        for garbage in [&b"\0"[..], b"\0\0\0\0\0\0\0\0", b"\x28\xb5\x2f"] {
            let result = decoded(&[compressed(b"x").as_slice(), garbage].concat());
            assert!(matches!(result, Err(Failure::Corrupt(_))), "{garbage:?} gave {result:?}");
        }
    }

    #[test]
    fn an_old_format_is_corrupt() {
        assert!(matches!(decoded(b"\x27\xb5\x2f\xfd rest of a v0.7 frame"), Err(Failure::Corrupt(_))));
    }

    /// The header's descriptor is 0; in the window's, exponent 18 is 256 MiB.
    #[test]
    fn a_window_above_the_limit_is_refused() {
        let header = [&FRAME.to_le_bytes()[..], &[0, 18 << 3]].concat();
        assert!(matches!(decoded(&header), Err(Failure::Limit(_))));
    }

    #[test]
    fn a_dictionary_is_refused() {
        let header = [&FRAME.to_le_bytes()[..], &[0b0000_0001, 0, 42, 1, 0, 0]].concat();
        assert!(matches!(decoded(&header), Err(Failure::Refused(_))), "{:?}", decoded(&header));
    }

    /// The last is what fuzzing found: the reserved bits of a sequences section, which the reference implementation refuses
    /// since 1.5.5.
    #[test]
    fn reserved_bits_are_refused() {
        let sequences = b"\x28\xb5\x2f\xfd\x04\x48\xed\0\0\x78some content, \n\x04\x03\xe0\x98\xaa\0\xc8\xe0\xd3\xbe\xc2\x9e\x4a\x3e\
            \x02\x81\xd5";
        let header = [&FRAME.to_le_bytes()[..], &[0b0000_1000, 0, 1, 0, 0]].concat();
        let kind = [&FRAME.to_le_bytes()[..], &[0, 0, 0b0000_1111, 0, 0, 0]].concat();
        for bytes in [&header[..], &kind, sequences] {
            assert!(matches!(decoded(bytes), Err(Failure::Refused(_))), "{:?}", decoded(bytes));
        }
    }

    #[test]
    fn the_largest_window_that_a_frame_can_name_is_refused() {
        let header = [&FRAME.to_le_bytes()[..], &[0, 0xff, 1, 0, 0]].concat();
        assert!(matches!(decoded(&header), Err(Failure::Limit(_))));
    }

    #[test]
    fn a_wrong_checksum_is_noticed() {
        let mut encoder = StreamingEncoder::new(Vec::new(), CompressionLevel::from_level(3));
        encoder.set_content_checksum(true).unwrap();
        encoder.write_all(&b"content ".repeat(1000)).unwrap();
        let mut bytes = encoder.finish().unwrap();
        assert_ne!(bytes[4] & 4, 0, "the encoder wrote no checksum");
        assert_eq!(decoded(&bytes).unwrap(), b"content ".repeat(1000));
        *bytes.last_mut().unwrap() ^= 1;
        assert!(matches!(decoded(&bytes), Err(Failure::Corrupt(_))));
    }
}
