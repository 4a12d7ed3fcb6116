//! What turns a stream into a tree: the seam between a pull and the sandboxed pipeline.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cancel::Cancel;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::store::{LayerDescriptor, Watch, described, preserve};
use crate::unpack::{InspectorReport, Layer, Unpacker};

/// Turns the stream of a layer's blob into the layer's tree, in preserve mode.
pub trait StreamUnpacker: Send + Sync {
    /// Reads `blob` to its end and writes the layer's tree into `dest`, an empty directory. The blob need not be hashed:
    /// the pull does that, and lets the stream end only if it is right. What the layer decodes to must be measured, with
    /// the algorithm of `layer.diff_id`; the pull compares. Emits [`crate::Event::Extracted`]. Ends with
    /// [`crate::Error::Interrupted`] soon after `watch` was cancelled. Blocks.
    ///
    /// An error of `blob` must end this with an error soon. `dest` is removed by the caller then.
    fn unpack_stream(
        &self,
        blob: Box<dyn Read + Send>,
        layer: &LayerDescriptor,
        dest: OwnedFd,
        watch: &Watch,
    ) -> Result<Decoded>;

    /// Whether layers of this media type can be unpacked, where it is not one of the specifications'.
    fn reads(&self, _media_type: &str) -> bool {
        false
    }

    /// Returns the identity of the plugin that reads layers of this media type; nothing for the first-party guests. [`Decoded::reader`]
    /// of such a layer is the same, and only a tree that has it is used again.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a media type that nobody reads.
    fn reader(&self, _media_type: Option<&str>) -> Result<Option<Digest>> {
        Ok(None)
    }

    /// Who inspects layers: the digests by which their reports are found. By default, nobody.
    fn inspectors(&self) -> Vec<Digest> {
        Vec::new()
    }

    /// Reads a layer that was unpacked before for those inspectors alone. As [`StreamUnpacker::unpack_stream`], the blob need
    /// not be hashed.
    ///
    /// # Errors
    ///
    /// As [`StreamUnpacker::unpack_stream`]; [`Error::Unsupported`] where there are no inspectors.
    fn inspect_stream(
        &self,
        _blob: Box<dyn Read + Send>,
        _layer: &LayerDescriptor,
        _watch: &Watch,
    ) -> Result<Vec<InspectorReport>> {
        Err(Error::Unsupported { what: "inspecting a layer".into() })
    }
}

/// What was measured while a stream was unpacked.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The digest of all decoded bytes.
    pub diff_id: Digest,
    /// The number of decoded bytes.
    pub decoded_bytes: u64,
    /// What the merge needs to know beyond the tree itself, as JSON. Kept beside the tree's record as it is.
    pub record: Vec<u8>,
    /// The plugin that decoded or read the layer: its identity. Nothing for the first-party guests.
    pub reader: Option<Digest>,
    /// What inspectors say of the layer. Kept beside the tree.
    pub reports: Vec<InspectorReport>,
}

impl StreamUnpacker for Unpacker {
    fn unpack_stream(
        &self,
        blob: Box<dyn Read + Send>,
        layer: &LayerDescriptor,
        dest: OwnedFd,
        watch: &Watch,
    ) -> Result<Decoded> {
        let (report, record) = preserve(self, streamed(blob, layer, watch)?, dest, &watch.cancel)?;
        Ok(Decoded {
            diff_id: report.diff_id,
            decoded_bytes: report.decoded_bytes,
            record: record.to_json()?,
            reader: report.reader,
            reports: report.reports,
        })
    }

    fn reads(&self, media_type: &str) -> bool {
        self.extensions().reads(media_type)
    }

    fn reader(&self, media_type: Option<&str>) -> Result<Option<Digest>> {
        self.extensions().reader_identity(media_type, &[])
    }

    fn inspectors(&self) -> Vec<Digest> {
        self.extensions().inspectors().iter().map(|program| program.report_key().clone()).collect()
    }

    fn inspect_stream(
        &self,
        blob: Box<dyn Read + Send>,
        layer: &LayerDescriptor,
        watch: &Watch,
    ) -> Result<Vec<InspectorReport>> {
        self.inspect(streamed(blob, layer, watch)?).map(|report| report.reports)
    }
}

/// A stream as the layer that its descriptor says it is.
fn streamed(blob: Box<dyn Read + Send>, layer: &LayerDescriptor, watch: &Watch) -> Result<Layer> {
    let source = described(Layer::new(blob), layer)?
        .with_cancel(watch.cancel.clone())
        .with_budget(watch.budget.clone())
        .with_progress(Some(layer.digest.clone()), watch.progress.clone());
    Ok(match layer.size {
        Some(size) => source.with_size(size),
        None => source,
    })
}

/// Hashes a blob of the store while it is unpacked, and ends in an error when it is asked to stop.
pub(super) struct StoredBlob {
    file: File,
    measured: Measured,
    cancel: Cancel,
}

/// What was read of a [`StoredBlob`].
#[derive(Clone)]
pub(super) struct Measured(Arc<Mutex<(Hasher, u64)>>);

impl StoredBlob {
    pub(super) fn new(file: File, digest: &Digest, cancel: Cancel) -> (Self, Measured) {
        let measured = Measured(Arc::new(Mutex::new((Hasher::new(digest.algorithm()), 0))));
        (Self { file, measured: measured.clone(), cancel }, measured)
    }
}

impl Measured {
    /// Digest and number of the bytes that were read.
    pub(super) fn finish(&self) -> (Digest, u64) {
        let (hasher, bytes) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (hasher.clone().finish(), *bytes)
    }
}

impl Read for StoredBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.check().is_err() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the pull was given up"));
        }
        let count = self.file.read(buffer)?;
        let (hasher, bytes) = &mut *self.measured.0.lock().unwrap_or_else(PoisonError::into_inner);
        hasher.update(buffer.get(..count).unwrap_or_default());
        *bytes += count as u64;
        Ok(count)
    }
}
