//! A decoder for xz: concatenated streams with padding between them, all filters, and each check (CRC32, CRC64, SHA-256)
//! verified; also the index, which repeats what the blocks say.
//!
//! What is cut short, altered, or followed by garbage is corrupt. A stream without a check is taken: the image's DiffID
//! covers it. A dictionary larger than the host's bound for windows crosses a limit.

use std::io::BufRead;

use cofferdam_sdk::{Decoder, Failure, Input, Output, bounds};
use xz4rust::{XzDecoder, XzError, XzNextBlockResult};

cofferdam_sdk::decoder!(Xz);

struct Xz;

/// How many bytes are decoded at a time.
const CHUNK: usize = 256 << 10;

/// Dictionaries beyond this do not fit into a decoder's memory, whatever the host allows.
const DICTIONARY: u64 = 192 << 20;

impl Decoder for Xz {
    fn decode(input: &mut Input, output: &mut Output) -> Result<(), Failure> {
        let dictionary = usize::try_from(bounds::window().min(DICTIONARY)).unwrap_or(usize::MAX);
        let mut decoder = XzDecoder::in_heap_with_alloc_dict_size(0, dictionary);
        let mut decoded = vec![0; CHUNK];
        loop {
            stream(&mut decoder, input, output, &mut decoded)?;
            if !next_stream(input)? {
                return Ok(());
            }
            decoder.reset();
        }
    }
}

/// Decodes one stream, from its header to its footer.
fn stream(
    decoder: &mut XzDecoder<'_>,
    input: &mut Input,
    output: &mut Output,
    decoded: &mut [u8],
) -> Result<(), Failure> {
    let mut filled = 0;
    loop {
        let result = decoder.decode(input.fill_buf()?, &mut decoded[filled..]).map_err(failure)?;
        input.consume(result.input_consumed());
        filled += result.output_produced();
        let ended = matches!(result, XzNextBlockResult::EndOfStream(..));
        let stuck = !result.made_progress() && !ended;
        if stuck && filled == 0 {
            let reason = if input.is_at_end() { "the stream is cut short" } else { "the decoder does not go on" };
            return Err(Failure::corrupt(reason));
        }
        if ended || stuck || filled == decoded.len() {
            if filled > 0 {
                output.put(&decoded[..filled]);
            }
            filled = 0;
        }
        if ended {
            return Ok(());
        }
    }
}

/// Reads the padding behind a stream, zeros in fours. Says whether there is another stream.
fn next_stream(input: &mut Input) -> Result<bool, Failure> {
    let mut padding = 0_usize;
    loop {
        let bytes = input.fill_buf()?;
        let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
        let (ended, whole) = (bytes.is_empty(), zeros == bytes.len());
        input.consume(zeros);
        padding = (padding + zeros) % 4;
        if ended || !whole {
            return if padding == 0 { Ok(!ended) } else { Err(Failure::corrupt("padding that is not in fours")) };
        }
    }
}

fn failure(error: XzError) -> Failure {
    match error {
        XzError::DictionaryTooLarge(bytes) => {
            Failure::limit(format!("a dictionary of {bytes} bytes is larger than is allowed"))
        }
        XzError::StreamHeaderMagicNumberMismatch => Failure::corrupt("not an xz stream where one should begin"),
        XzError::UnsupportedCheckType(check) => Failure::refused(format!("a check of unknown type {check}")),
        XzError::UnsupportedBcjFilter(filter) => Failure::refused(format!("an unknown filter {filter}")),
        XzError::UnsupportedBlockHeaderOption | XzError::UnsupportedStreamHeaderOption => {
            Failure::refused("an option that is not known")
        }
        other => Failure::corrupt(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
