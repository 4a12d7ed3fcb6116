//! The compressed form of a layer: members and frames where a scenario cuts, damaged where it says so.

use std::io::Write as _;

use anyhow::{Context as _, Result, bail, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::words::Word;
use crate::layout;

/// How a layer is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Not at all.
    #[default]
    Plain,
    /// As gzip members.
    Gzip,
    /// As zstd frames, of raw blocks.
    Zstd,
}

/// What the line `layer …` says.
#[derive(Clone, Debug, Default)]
pub struct Encoding {
    /// The compression.
    pub form: Form,
    /// The media type, if it is not the one of the form.
    pub media_type: Option<String>,
    /// How many zero blocks end the archive, if not two.
    pub end: Option<usize>,
    /// Bytes behind the compressed stream.
    pub then: Vec<u8>,
    /// Where to flip a bit of the blob, from its end.
    pub flip: Option<usize>,
    /// How many bytes are cut from the blob's end.
    pub cut: usize,
    /// The claimed `DiffID` is another stream's.
    pub wrong_diff_id: bool,
}

impl Encoding {
    /// Reads a line's words.
    pub fn parse(words: &[Word]) -> Result<Self> {
        let mut encoding = Self::default();
        for word in words {
            let text = |value: &[u8]| String::from_utf8(value.to_vec());
            match (word.text(), word.pair()) {
                (Some("plain"), _) => encoding.form = Form::Plain,
                (Some("gzip"), _) => encoding.form = Form::Gzip,
                (Some("zstd"), _) => encoding.form = Form::Zstd,
                (Some("wrong-diff-id"), _) => encoding.wrong_diff_id = true,
                (_, Some(("media", value))) => encoding.media_type = Some(text(value)?),
                (_, Some(("end", value))) => encoding.end = Some(text(value)?.parse()?),
                (_, Some(("then", value))) => encoding.then = value.to_vec(),
                (_, Some(("flip", value))) => encoding.flip = Some(text(value)?.parse()?),
                (_, Some(("cut", value))) => encoding.cut = text(value)?.parse()?,
                _ => bail!("a layer has no setting `{}`", String::from_utf8_lossy(&word.bytes)),
            }
        }
        Ok(encoding)
    }

    /// The media type that the layer is announced with.
    pub fn media_type(&self) -> &str {
        self.media_type.as_deref().unwrap_or(match self.form {
            Form::Plain => layout::TAR,
            Form::Gzip => layout::GZIP,
            Form::Zstd => layout::ZSTD,
        })
    }

    /// One member or frame.
    pub fn encode(&self, part: &[u8]) -> Result<Vec<u8>> {
        match self.form {
            Form::Plain => Ok(part.to_vec()),
            Form::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(part)?;
                Ok(encoder.finish()?)
            }
            Form::Zstd => Ok(frame(part)),
        }
    }

    /// The blob, after what is done to its end.
    pub fn finish(&self, mut blob: Vec<u8>) -> Result<Vec<u8>> {
        if let Some(at) = self.flip {
            ensure!(at > 0, "`flip` counts from the end, from 1");
            let at = blob.len().checked_sub(at).context("`flip` leads before the beginning")?;
            blob[at] ^= 1;
        }
        blob.truncate(blob.len().checked_sub(self.cut).context("`cut` takes more than there is")?);
        blob.extend_from_slice(&self.then);
        Ok(blob)
    }
}

/// A frame of raw blocks, with its size and without a checksum (RFC 8878, section 3.1.1).
fn frame(part: &[u8]) -> Vec<u8> {
    const MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
    // A content size of eight bytes, one segment.
    let mut out = [&MAGIC[..], &[0b1110_0000], &(part.len() as u64).to_le_bytes()].concat();
    let blocks: Vec<&[u8]> = if part.is_empty() { vec![&[]] } else { part.chunks(100_000).collect() };
    for (index, block) in blocks.iter().enumerate() {
        let last = u32::from(index + 1 == blocks.len());
        let header = u32::try_from(block.len()).unwrap_or(0) << 3 | last;
        out.extend_from_slice(&header.to_le_bytes()[..3]);
        out.extend_from_slice(block);
    }
    out
}

/// A skippable frame.
pub fn skippable(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap_or(0);
    [&0x184d_2a50_u32.to_le_bytes()[..], &length.to_le_bytes(), content].concat()
}
