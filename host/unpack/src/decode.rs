//! The stage that decodes: the blob's bytes in, chunks out to each consumer, within the limits on expansion.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cofferdam_core::budget::Share;
use cofferdam_core::digest::{Algorithm, Digest, Hasher};
use cofferdam_core::error::{Error, Result};
use cofferdam_core::limits::Limits;
use cofferdam_documents::Compression;
use cofferdam_sandbox::{DecoderHost, Guest, InputHost, Sandbox};
use crossbeam_channel::Sender;

use super::chunk::{CHUNK, Message, Pool};
use super::extensions::{Extensions, Format};
use super::layer::Layer;

/// What the stage learned.
pub(super) struct Decoded {
    pub(super) compression: Compression,
    /// The identity of the plugin that decodes or reads it.
    pub(super) reader: Option<Digest>,
    pub(super) blob: Option<Digest>,
    pub(super) blob_bytes: u64,
    pub(super) bytes: u64,
}

/// Returns the first-party guest that decodes a compression.
fn guest_for(compression: Compression) -> Option<Guest> {
    match compression {
        Compression::None | Compression::Other => None,
        Compression::Gzip => Some(Guest::Gunzip),
        Compression::Zstd => Some(Guest::Unzstd),
    }
}

/// Decodes the whole layer.
///
/// # Errors
///
/// [`Error::Interrupted`] when a consumer went away: then the consumer's error is the one that counts.
pub(super) fn run(
    sandbox: &Sandbox,
    limits: &Limits,
    extensions: &Extensions,
    format: Option<Format>,
    layer: Layer,
    consumers: Vec<Sender<Message>>,
) -> Result<Decoded> {
    let mut blob = Blob::new(layer.blob, layer.read, layer.blob_algorithm, limits);
    let first = blob.peek(Format::FIRST_BYTES)?;
    let format = match format {
        Some(format) => match format.check(first) {
            Ok(()) => format,
            Err(reason) => return Err(Error::Corrupt { subject: layer.name, reason }),
        },
        None => extensions.of_first_bytes(first),
    };
    let compression = format.compression();
    let reader = format.plugin().map(|program| program.identity().clone());
    let share = layer.budget.map(|budget| budget.begin(layer.digest));
    let budget = Budget::new(limits, layer.size, compression);
    let output = Output { pool: Pool::new(), consumers, budget, share, decoded: 0 };
    let host = Host { blob, output };
    let decoder = match (format, guest_for(compression)) {
        (Format::Decoder(program), _) => Some(program.given_up_by(&layer.cancel)),
        (_, Some(guest)) => Some(sandbox.builtin(guest)?),
        (_, None) => None,
    };
    let (outcome, mut host) = match decoder {
        Some(program) => sandbox.decode(&program, limits, host),
        None => host.copy(),
    };
    outcome?;
    if !host.blob.at_end()? {
        return Err(Error::Corrupt { subject: layer.name, reason: "the decoder stopped before its end".into() });
    }
    host.output.finish()?;
    Ok(Decoded {
        compression,
        reader,
        blob_bytes: host.blob.bytes,
        blob: host.blob.hasher.map(Hasher::finish),
        bytes: host.output.decoded,
    })
}

/// The blob: read once, front to back, hashed on the way if that was asked for.
struct Blob {
    source: Box<dyn Read + Send>,
    peeked: Vec<u8>,
    hasher: Option<Hasher>,
    bytes: u64,
    /// The same number, for others to see.
    shown: Arc<AtomicU64>,
    /// A stream without an end may decode to nothing: that has to end too. No compressor doubles what it is given.
    most: u64,
}

impl Blob {
    fn new(source: Box<dyn Read + Send>, shown: Arc<AtomicU64>, algorithm: Option<Algorithm>, limits: &Limits) -> Self {
        let most = limits.layer_bytes.saturating_mul(2).max(1 << 20);
        Self { source, peeked: Vec::new(), hasher: algorithm.map(Hasher::new), bytes: 0, shown, most }
    }

    /// The first bytes, fewer only if there are fewer. To be called once, before anything is read.
    fn peek(&mut self, count: usize) -> Result<&[u8]> {
        let limit = count as u64;
        self.source.by_ref().take(limit).read_to_end(&mut self.peeked).map_err(read_error)?;
        Ok(&self.peeked)
    }

    /// Appends up to `max` bytes; none at the end.
    fn read_into(&mut self, buffer: &mut Vec<u8>, max: usize) -> Result<()> {
        let start = buffer.len();
        if self.peeked.is_empty() {
            buffer.resize(start + max, 0);
            let count = loop {
                match self.source.read(&mut buffer[start..]) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    other => break other.map_err(read_error)?,
                }
            };
            buffer.truncate(start + count);
        } else {
            let count = max.min(self.peeked.len());
            buffer.extend(self.peeked.drain(..count));
        }
        let read = &buffer[start..];
        self.bytes += read.len() as u64;
        self.shown.store(self.bytes, Ordering::Relaxed);
        if self.bytes > self.most {
            return Err(Error::Limit { subject: "the layer".into(), what: "bytes of the blob", limit: self.most });
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(read);
        }
        Ok(())
    }

    fn at_end(&mut self) -> Result<bool> {
        let mut next = Vec::new();
        self.read_into(&mut next, 1)?;
        Ok(next.is_empty())
    }
}

/// A reader that failed may carry one of our own errors inside, from the network side.
fn read_error(error: std::io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(source) => Error::Io { action: "read the layer".into(), source },
    }
}

/// The most bytes that a layer may decode to, as far as it is known before it is read, and which limit says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Total {
    pub(super) bytes: u64,
    source: Source,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Layer,
    Ratio,
    RatioFrom,
}

impl Total {
    pub(super) fn of(limits: &Limits, size: Option<u64>, compression: Compression) -> Self {
        let by_ratio = match size {
            None => (u64::MAX, Source::Layer),
            Some(size) if compression == Compression::None => (size, Source::Layer),
            Some(size) => match size.saturating_mul(limits.ratio) {
                bytes if bytes < limits.ratio_from => (limits.ratio_from, Source::RatioFrom),
                bytes => (bytes, Source::Ratio),
            },
        };
        let (bytes, source) =
            if by_ratio.0 < limits.layer_bytes { by_ratio } else { (limits.layer_bytes, Source::Layer) };
        Self { bytes, source }
    }

    /// What is counted, where it was decoded.
    fn decoded(self) -> &'static str {
        match self.source {
            Source::Layer => "decoded bytes",
            Source::Ratio => "decoded bytes for a blob of this size",
            Source::RatioFrom => "decoded bytes for so small a blob",
        }
    }

    /// What is counted, where it was only claimed.
    pub(super) fn claimed(self) -> &'static str {
        match self.source {
            Source::Layer => "bytes that the layer may still decode to",
            Source::Ratio => "bytes that a blob of this size may still decode to",
            Source::RatioFrom => "bytes that so small a blob may still decode to",
        }
    }
}

/// How much may be decoded. The bound on the ratio starts where a layer is large enough for it to matter.
struct Budget {
    total: Total,
    ratio: u64,
    ratio_from: u64,
}

impl Budget {
    fn new(limits: &Limits, size: Option<u64>, compression: Compression) -> Self {
        Self { total: Total::of(limits, size, compression), ratio: limits.ratio, ratio_from: limits.ratio_from }
    }

    fn check(&self, decoded: u64, read: u64) -> Result<()> {
        let subject = "the layer".to_owned();
        if decoded > self.total.bytes {
            return Err(Error::Limit { subject, what: self.total.decoded(), limit: self.total.bytes });
        }
        if decoded > self.ratio_from && decoded > read.saturating_mul(self.ratio) {
            return Err(Error::Limit { subject, what: "decoded bytes for each byte of the blob", limit: self.ratio });
        }
        Ok(())
    }
}

/// Where chunks go.
struct Output {
    pool: Pool,
    consumers: Vec<Sender<Message>>,
    budget: Budget,
    /// The layer's share of what its image may decode to.
    share: Option<Share>,
    decoded: u64,
}

impl Output {
    fn send(&mut self, bytes: Vec<u8>, read: u64) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.decoded += bytes.len() as u64;
        self.budget.check(self.decoded, read)?;
        if let Some(share) = &mut self.share {
            share.decoded(self.decoded)?;
        }
        let chunk = self.pool.chunk(bytes);
        for consumer in &self.consumers {
            consumer.send(Message::Chunk(chunk.clone())).map_err(|_| Error::Interrupted)?;
        }
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        self.consumers.iter().try_for_each(|consumer| consumer.send(Message::End)).map_err(|_| Error::Interrupted)
    }
}

struct Host {
    blob: Blob,
    output: Output,
}

impl Host {
    /// Passes an uncompressed layer on as it is.
    fn copy(mut self) -> (Result<()>, Self) {
        let mut pass = || loop {
            let mut buffer = self.output.pool.buffer();
            self.blob.read_into(&mut buffer, CHUNK)?;
            if buffer.is_empty() {
                return Ok(());
            }
            self.output.send(buffer, self.blob.bytes)?;
        };
        (pass(), self)
    }
}

impl InputHost for Host {
    fn read(&mut self, skip: u64, max: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut left = skip;
        while left > 0 {
            bytes.clear();
            self.blob.read_into(&mut bytes, usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK))?;
            if bytes.is_empty() {
                return Err(Error::Corrupt { subject: "the layer".into(), reason: "it is cut short".into() });
            }
            left -= bytes.len() as u64;
        }
        bytes.clear();
        self.blob.read_into(&mut bytes, max)?;
        Ok(bytes)
    }
}

impl DecoderHost for Host {
    fn buffer(&mut self) -> Vec<u8> {
        self.output.pool.buffer()
    }

    fn write(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.output.send(bytes, self.blob.bytes)
    }
}
