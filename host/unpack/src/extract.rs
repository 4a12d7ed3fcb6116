//! The pipeline itself: its threads, and which of their errors counts.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};

use cofferdam_core::cancel::Cancel;
use cofferdam_core::digest::{Algorithm, Digest};
use cofferdam_core::error::{Error, Result};
use cofferdam_core::limits::Limits;
use cofferdam_core::progress::{Event, Progress};
use cofferdam_core::threads;
use cofferdam_documents::Compression;
use cofferdam_sandbox::{ExtractorHost, Guest, InputHost, Inspection, Program, Sandbox};
use cofferdam_tree::Lossy;
use cofferdam_tree::claim::{self, Budget};
use cofferdam_tree::entry::{Node, Sink};
use crossbeam_channel::{Receiver, bounded};

use super::chunk::{IN_FLIGHT, Message};
use super::decode::{self, Decoded, Total};
use super::extensions::{Extensions, Format};
use super::hash;
use super::inspect::{self, Inspected};
use super::layer::{Layer, LayerReport};
use super::listing::Listing;
use super::stream::DecodedStream;

/// Entries between two events of progress.
const PROGRESS_ENTRIES: u64 = 512;

/// Bytes between two events of progress.
const PROGRESS_BYTES: u64 = 8 << 20;

/// Turns layers into entries, within limits. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Unpacker {
    sandbox: Arc<Sandbox>,
    limits: Limits,
    extensions: Arc<Extensions>,
    lossy: Lossy,
}

impl Unpacker {
    /// Guests run in this sandbox, under these limits.
    pub fn new(sandbox: Arc<Sandbox>, limits: Limits) -> Self {
        Self { sandbox, limits, extensions: Arc::default(), lossy: Lossy::default() }
    }

    /// With these plugins beside the first-party guests.
    #[must_use]
    pub fn with_extensions(mut self, extensions: Extensions) -> Self {
        self.extensions = Arc::new(extensions);
        self
    }

    /// With the permission to lose this of the trees that are made with it, where they cannot hold it.
    #[must_use]
    pub fn with_lossy(mut self, lossy: Lossy) -> Self {
        self.lossy = lossy;
        self
    }

    /// What the trees that are made with it may lose.
    pub fn lossy(&self) -> Lossy {
        self.lossy
    }

    /// The same under other limits.
    #[must_use]
    pub fn under(&self, limits: Limits) -> Self {
        Self { limits, ..self.clone() }
    }

    /// The plugins.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The sandbox.
    pub fn sandbox(&self) -> &Arc<Sandbox> {
        &self.sandbox
    }

    /// Decodes, verifies and unpacks a layer into `sink`, and gives the sink back. Blocks; uses two more threads. The
    /// calling thread needs 1 MiB of stack, of which a guest may use half.
    ///
    /// The sink has been fed from the first byte on: only when this returns `Ok` may what it holds be shown to anybody.
    ///
    /// # Errors
    ///
    /// Integrity: the stream is broken, or does not hash to the DiffID. Refused: content, limits, or a guest that was
    /// stopped. Else whatever reading the blob or the sink failed with.
    pub fn extract<S: Sink + 'static>(&self, layer: Layer, sink: S) -> (Result<LayerReport>, S) {
        let name = layer.name.clone();
        let facts = match LayerFacts::of(&layer, &self.extensions) {
            Ok(facts) => facts,
            Err(error) => return (Err(error.context(format!("extracting {name}"))), sink),
        };
        let inspections = match self.inspections(&layer) {
            Ok(inspections) => inspections,
            Err(error) => return (Err(error.context(format!("extracting {name}"))), sink),
        };
        let sink = Inspected::new(sink, inspections);
        let mut returned = None;
        let outcome = self.pipeline(layer, &facts, |unpacker, queue, layer| {
            let (outcome, host) = unpacker.untar(queue, layer, sink);
            returned = Some(host);
            outcome
        });
        let Some(sink) = returned else { unreachable!("the consumer runs whatever happens") };
        let (sink, inspections) = sink.into_parts();
        let outcome = outcome.and_then(|report| Ok(LayerReport { reports: inspect::finish(inspections)?, ..report }));
        (outcome.map_err(|error| error.context(format!("extracting {name}"))), sink)
    }

    /// Reads a layer for its inspectors alone, and verifies it on the way.
    ///
    /// # Errors
    ///
    /// As [`Unpacker::extract`].
    pub fn inspect(&self, layer: Layer) -> Result<LayerReport> {
        self.extract(layer, Listing::new(|_| Ok(()))).0
    }

    /// An inspection of the layer by each inspector.
    fn inspections(&self, layer: &Layer) -> Result<Vec<Inspection>> {
        let digest = layer.digest.as_ref().map(Digest::to_string).unwrap_or_default();
        let media_type = layer.media_type.as_deref().unwrap_or_default();
        let begin = |program: &Program| {
            self.sandbox
                .inspection(&program.given_up_by(&layer.cancel), &self.limits, &digest, media_type)
                .map_err(|error| error.context(format!("asking the inspector `{}`", program.name())))
        };
        self.extensions.inspectors().iter().map(begin).collect()
    }

    /// Decodes a layer and verifies its DiffID, without reading the archive.
    ///
    /// # Errors
    ///
    /// As [`Unpacker::extract`].
    pub fn verify(&self, layer: Layer) -> Result<LayerReport> {
        let name = layer.name.clone();
        LayerFacts::of(&layer, &self.extensions)
            .and_then(|facts| self.pipeline(layer, &facts, |_, queue, _| DecodedStream::new(queue).drain().map(|_| 0)))
            .map_err(|error| error.context(format!("verifying {name}")))
    }

    /// Runs `consume` beside the decoder and the hash; it says how many entries there were.
    fn pipeline(
        &self,
        layer: Layer,
        facts: &LayerFacts,
        consume: impl FnOnce(&Self, Receiver<Message>, &LayerFacts) -> Result<u64>,
    ) -> Result<LayerReport> {
        let format = facts.format.clone();
        let expected = layer.diff_id.clone();
        let algorithm = expected.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let (to_hash, hash_queue) = bounded(IN_FLIGHT);
        let (to_consumer, consumer_queue) = bounded(IN_FLIGHT);
        let (decoded, diff_id, consumed) = thread::scope(|scope| {
            let decoder = threads::spawn_scoped(scope, "cofferdam-decode", move || {
                decode::run(&self.sandbox, &self.limits, &self.extensions, format, layer, vec![to_hash, to_consumer])
            });
            let hasher = threads::spawn_scoped(scope, "cofferdam-hash", move || hash::run(&hash_queue, algorithm));
            let consumed = consume(self, consumer_queue, facts);
            (decoder.and_then(join), hasher.and_then(join), consumed)
        });
        let diff_id = diff_id?;
        // An interrupted stage stopped because another one failed: that one's error is the one that counts. Of two, the
        // consumer's: it has read all that was decoded, however far ahead the decoder was, so the error is always the same.
        let decoded = decoded.and_then(|decoded| decoded);
        let entries = match consumed {
            Ok(entries) => entries,
            Err(error) if error.is_interrupted() => return Err(decoded.err().unwrap_or(error)),
            Err(error) => return Err(error),
        };
        let decoded = decoded?;
        let diff_id = diff_id.ok_or(Error::Interrupted)?;
        if let Some(expected) = expected
            && expected != diff_id
        {
            return Err(Error::DigestMismatch { subject: "the decoded layer".into(), expected, actual: diff_id });
        }
        let Decoded { compression, reader, blob, blob_bytes, bytes: decoded_bytes } = decoded;
        Ok(LayerReport { diff_id, blob, compression, blob_bytes, decoded_bytes, entries, reader, reports: Vec::new() })
    }

    fn untar<S: Sink + 'static>(&self, queue: Receiver<Message>, facts: &LayerFacts, sink: S) -> (Result<u64>, S) {
        let total =
            Total::of(&self.limits, facts.size, facts.format.as_ref().map_or(Compression::Gzip, Format::compression));
        let host = TreeHost {
            stream: DecodedStream::new(queue),
            sink,
            limits: self.limits.clone(),
            total,
            entries: 0,
            pieces: 0,
            size: facts.size,
            read: Arc::clone(&facts.read),
            sparse: 0,
            metadata: 0,
            digest: facts.digest.clone(),
            progress: facts.progress.clone(),
            reported: (0, 0),
        };
        let program = match &facts.format {
            Some(Format::Extractor(program)) => program.given_up_by(&facts.cancel),
            _ => match self.sandbox.builtin(Guest::Untar) {
                Ok(program) => program,
                Err(error) => return (Err(error), host.sink),
            },
        };
        let (outcome, mut host) = self.sandbox.extract(&program, &self.limits, host);
        let outcome = outcome.and_then(|()| host.finish());
        (outcome, host.sink)
    }
}

/// What the consumer needs of the layer, which itself goes to the decoder's thread.
struct LayerFacts {
    size: Option<u64>,
    /// Bytes of the blob that were read so far.
    read: Arc<AtomicU64>,
    /// Nothing if the first bytes are to say.
    format: Option<Format>,
    digest: Option<Digest>,
    progress: Progress,
    cancel: Cancel,
}

impl LayerFacts {
    fn of(layer: &Layer, extensions: &Extensions) -> Result<Self> {
        let Layer { size, read, compression, media_type, digest, progress, cancel, .. } = layer;
        let format = match (media_type, compression) {
            (Some(media_type), _) => Some(extensions.of_media_type(media_type)?),
            (None, compression) => compression.map(Format::Known),
        };
        let (digest, progress, cancel) = (digest.clone(), progress.clone(), cancel.clone());
        Ok(Self { size: *size, read: Arc::clone(read), format, digest, progress, cancel })
    }
}

fn join<T>(handle: ScopedJoinHandle<'_, T>) -> Result<T> {
    handle
        .join()
        .map_err(|_| Error::Io { action: "decode the layer".into(), source: io::Error::other("a thread panicked") })
}

/// Bytes of blob that pay for one entry beyond those that are free. Real layers have several hundred.
const PER_PIECE: u64 = 64;

/// Bytes of names and attributes that a layer may have however little it decodes to.
const SMALL_METADATA: u64 = 16 << 20;

/// Serves the untar guest.
struct TreeHost<S> {
    stream: DecodedStream,
    sink: S,
    limits: Limits,
    total: Total,
    entries: u64,
    /// Entries, and stretches of sparse files: what makes work. A few hundred bytes of blob can hold millions of them.
    pieces: u64,
    /// The size of the blob, if it is known before it was read.
    size: Option<u64>,
    /// How much of it was read.
    read: Arc<AtomicU64>,
    /// Bytes that sparse files take on disk beyond their data, which the stream must hold.
    sparse: u64,
    /// Bytes of paths, targets and attributes so far. An honest extractor has them from the stream; a hostile one could
    /// fill the disk with what no stream holds.
    metadata: u64,
    digest: Option<Digest>,
    progress: Progress,
    reported: (u64, u64),
}

impl<S: Sink + 'static> TreeHost<S> {
    /// The size of the blob, as far as it is known.
    fn blob_size(&self) -> u64 {
        self.size.unwrap_or_else(|| self.read.load(Ordering::Relaxed))
    }

    /// How many pieces a blob of this size may hold.
    fn admitted(&self) -> u64 {
        self.limits.free_entries.saturating_add(self.blob_size() / PER_PIECE)
    }

    /// How many bytes sparse files may take beyond their data.
    fn room(&self) -> u64 {
        let by_size = self.blob_size().saturating_mul(self.limits.ratio);
        by_size.max(self.limits.ratio_from).min(self.limits.layer_bytes)
    }

    /// After the guest's end: what it left is padding, or whatever follows an archive; it counts for the DiffID only.
    fn finish(&mut self) -> Result<u64> {
        let read = self.stream.position();
        let left = self.stream.drain()?;
        if read == 0 && left > 0 {
            let reason = "the extractor did not read it".to_owned();
            return Err(Error::Refused { subject: "the layer".into(), reason });
        }
        self.report();
        Ok(self.entries)
    }

    fn report(&mut self) {
        self.reported = (self.entries, self.stream.position());
        let (entries, bytes) = self.reported;
        self.progress.emit(Event::Extracted { layer: self.digest.clone(), entries, bytes });
    }
}

impl<S: Sink + 'static> InputHost for TreeHost<S> {
    fn read(&mut self, skip: u64, max: usize) -> Result<Vec<u8>> {
        self.stream.read(skip, max)
    }
}

impl<S: Sink + 'static> ExtractorHost for TreeHost<S> {
    fn put(&mut self, entry: claim::Entry) -> Result<u64> {
        if self.entries == self.limits.entries {
            return Err(Error::Limit { subject: "the layer".into(), what: "entries", limit: self.limits.entries });
        }
        self.entries += 1;
        self.pieces += match &entry.node {
            claim::Node::SparseFile(sparse) => sparse.extents.len().max(1) as u64,
            _ => 1,
        };
        if self.pieces > self.admitted() {
            let what = "entries for a blob of this size";
            return Err(Error::Limit { subject: "the layer".into(), what, limit: self.admitted() });
        }
        let metadata = claim::bytes(&entry);
        let before = self.stream.position();
        let left = Budget { bytes: self.total.bytes.saturating_sub(before), what: self.total.claimed() };
        let entry = claim::check(entry, &self.limits, left)?;
        self.metadata = self.metadata.saturating_add(metadata);
        let most = self.total.bytes.max(SMALL_METADATA).min(self.limits.layer_bytes);
        if self.metadata > most {
            return Err(Error::Limit { subject: "the layer".into(), what: self.total.claimed(), limit: most });
        }
        if let Node::Sparse { extents, .. } = &entry.node {
            self.sparse = self.sparse.saturating_add(claim::beyond_data(extents));
            if self.sparse > self.room() {
                let what = "bytes that sparse files of a blob of this size may take";
                return Err(Error::Limit { subject: format!("`{}`", entry.path), what, limit: self.room() });
            }
        }
        self.sink.put(entry, &mut self.stream)?;
        let after = self.stream.position();
        if self.entries - self.reported.0 >= PROGRESS_ENTRIES || after - self.reported.1 >= PROGRESS_BYTES {
            self.report();
        }
        Ok(after - before)
    }
}
