//! The store's own unpacker: the sandboxed pipeline, into a tree writer in preserve mode.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ambient;
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::sandbox::{Sandbox, SandboxOptions};
use crate::store::image::LayerDescriptor;
use crate::store::record::check_claims;
use crate::store::unpacker::{LayerUnpacker, Unpacked, Watch};
use crate::tree::{LayerRecord, LeftOut, Lossy, Mode, TreeWriter, WriterOptions};
use crate::unpack::{Extensions, InspectorReport, Layer, LayerReport, Unpacker};

impl LayerUnpacker for Unpacker {
    fn unpack(&self, blob: File, layer: &LayerDescriptor, dest: OwnedFd, watch: &Watch) -> Result<Unpacked> {
        let source = measured(blob, layer, watch)?;
        let (report, record) = preserve(self, source, dest, &watch.cancel)?;
        Unpacked::new(report, &record)
    }

    fn reads(&self, media_type: &str) -> bool {
        self.extensions().reads(media_type)
    }

    fn reader(&self, media_type: Option<&str>, first_bytes: &[u8]) -> Result<Option<Digest>> {
        self.extensions().reader_identity(media_type, first_bytes)
    }

    fn lossy(&self) -> Lossy {
        Self::lossy(self)
    }

    fn inspectors(&self) -> Vec<Digest> {
        self.extensions().inspectors().iter().map(|program| program.report_key().clone()).collect()
    }

    fn inspect(&self, blob: File, layer: &LayerDescriptor, watch: &Watch) -> Result<Vec<InspectorReport>> {
        let report = Self::inspect(self, measured(blob, layer, watch)?)?;
        match report.blob {
            Some(actual) if actual != layer.digest => {
                let subject = format!("layer {}", layer.digest);
                Err(Error::DigestMismatch { subject, expected: layer.digest.clone(), actual })
            }
            _ => Ok(report.reports),
        }
    }

    fn with_limits(self: Arc<Self>, limits: &Limits) -> Arc<dyn LayerUnpacker> {
        Arc::new(self.under(limits.clone()))
    }
}

impl Unpacked {
    /// From what the pipeline reports of a layer whose blob it hashed.
    pub fn new(report: LayerReport, record: &LayerRecord) -> Result<Self> {
        let blob = report
            .blob
            .ok_or_else(|| Error::Corrupt { subject: "the layer".into(), reason: "nobody hashed its blob".into() })?;
        let (diff_id, record, reader, reports) = (report.diff_id, record.to_json()?, report.reader, report.reports);
        let (blob_bytes, decoded_bytes) = (report.blob_bytes, report.decoded_bytes);
        Ok(Self { blob, blob_bytes, decoded_bytes, diff_id, record, reader, reports })
    }
}

/// Says of a layer what its descriptor says.
///
/// # Errors
///
/// [`Error::Unsupported`] for a media type that is no layer's.
pub fn described(mut layer: Layer, descriptor: &LayerDescriptor) -> Result<Layer> {
    layer = layer.named(format!("layer {}", descriptor.digest));
    if let Some(media_type) = &descriptor.media_type {
        layer = layer.with_media_type(media_type);
    }
    if let Some(diff_id) = &descriptor.diff_id {
        layer = layer.with_diff_id(diff_id.clone());
    }
    Ok(layer)
}

/// Unpacks a layer alone into the empty directory `dest`, markers kept: the form of `extracted/`.
pub fn preserve(
    unpacker: &Unpacker,
    layer: Layer,
    dest: OwnedFd,
    cancel: &Cancel,
) -> Result<(LayerReport, LayerRecord)> {
    alone(unpacker, layer, dest, Mode::Preserve, cancel)
}

fn alone(
    unpacker: &Unpacker,
    layer: Layer,
    dest: OwnedFd,
    mode: Mode,
    cancel: &Cancel,
) -> Result<(LayerReport, LayerRecord)> {
    let (limits, cancel) = (unpacker.limits().clone(), cancel.clone());
    let (lossy, defers) = (unpacker.lossy(), mode == Mode::Preserve);
    let options = WriterOptions { limits, lossy, cancel, defers, ..WriterOptions::new(mode) };
    let (outcome, mut writer) = unpacker.extract(layer, TreeWriter::new(dest, options)?);
    let report = outcome?;
    let record = writer.finish_layer()?;
    writer.finish()?;
    Ok((report, record))
}

/// Unpacks a layer alone into the empty directory `dest`, with its removals as overlayfs has them. Returns the attributes that it
/// could not hold. Checks all that the descriptor
/// claims.
pub(crate) fn overlay_form(
    unpacker: &Unpacker,
    blob: File,
    layer: &LayerDescriptor,
    dest: OwnedFd,
    watch: &Watch,
) -> Result<LeftOut> {
    let (source, mode) = (measured(blob, layer, watch)?, Mode::Overlay);
    let (report, record) = alone(unpacker, source, dest, mode, &watch.cancel)?;
    check_claims(layer, &Unpacked::new(report, &record)?)?;
    Ok(record.left_out)
}

/// A layer's blob as a layer of which all is measured and checked.
fn measured(blob: File, layer: &LayerDescriptor, watch: &Watch) -> Result<Layer> {
    let size = blob.metadata().map_err(|e| Error::io("look at", layer.digest.file_stem().as_bytes(), e))?.len();
    Ok(described(Layer::new(blob), layer)?
        .with_size(size)
        .with_cancel(watch.cancel.clone())
        .with_budget(watch.budget.clone())
        .hashing_blob(layer.digest.algorithm())
        .with_progress(Some(layer.digest.clone()), watch.progress.clone()))
}

/// The unpacker of [`crate::store::ImageStorage::new`]: set up when the first layer is extracted.
pub(super) struct Deferred {
    /// The store, in which compiled guests are kept too: it is its owner's alone.
    images_dir: PathBuf,
    /// One for all limits.
    sandbox: Arc<Mutex<Option<Arc<Sandbox>>>>,
    limits: Limits,
}

impl Deferred {
    pub(super) fn new(images_dir: PathBuf, limits: Limits) -> Self {
        Self { images_dir, sandbox: Arc::default(), limits }
    }

    fn sandbox(&self) -> Result<Arc<Sandbox>> {
        let mut slot = self.sandbox.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sandbox) = &*slot {
            return Ok(Arc::clone(sandbox));
        }
        let options = match ambient::canonical(&self.images_dir) {
            Ok(store) => SandboxOptions::default().with_cache(store.join("guests")),
            Err(_) => SandboxOptions::default(),
        };
        let sandbox = Arc::new(Sandbox::new(&options)?);
        *slot = Some(Arc::clone(&sandbox));
        Ok(sandbox)
    }
}

impl LayerUnpacker for Deferred {
    fn unpack(&self, blob: File, layer: &LayerDescriptor, dest: OwnedFd, watch: &Watch) -> Result<Unpacked> {
        Unpacker::new(self.sandbox()?, self.limits.clone()).unpack(blob, layer, dest, watch)
    }

    fn reader(&self, media_type: Option<&str>, first_bytes: &[u8]) -> Result<Option<Digest>> {
        Extensions::default().reader_identity(media_type, first_bytes)
    }

    fn with_limits(self: Arc<Self>, limits: &Limits) -> Arc<dyn LayerUnpacker> {
        Arc::new(Self {
            images_dir: self.images_dir.clone(),
            sandbox: Arc::clone(&self.sandbox),
            limits: limits.clone(),
        })
    }
}
