//! Layers unpacked alone, each into a directory of its own.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use cofferdam_core::{Cancel, Digest, Limits, Result, Watch};
use cofferdam_documents::LayerDescriptor;
use cofferdam_documents::plugin::InspectorReport;
use cofferdam_tree::{LayerRecord, LayerUnpacker, Lossy, Mode, TreeWriter, UnpackedLayer, WriterOptions};

use crate::{Layer, LayerReport, Unpacker};

impl LayerUnpacker for Unpacker {
    fn unpack(
        &self,
        blob: Box<dyn Read + Send>,
        layer: &LayerDescriptor,
        dest: OwnedFd,
        watch: &Watch,
    ) -> Result<UnpackedLayer> {
        let (report, record) = self.unpack_alone(layer_of(blob, layer, watch), dest, Mode::Preserve, &watch.cancel)?;
        Ok(UnpackedLayer {
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

    fn reader(&self, media_type: Option<&str>, first_bytes: &[u8]) -> Result<Option<Digest>> {
        self.extensions().reader_identity(media_type, first_bytes)
    }

    fn lossy(&self) -> Lossy {
        Self::lossy(self)
    }

    fn inspectors(&self) -> Vec<Digest> {
        self.extensions().inspectors().iter().map(|program| program.report_key().clone()).collect()
    }

    fn inspect(
        &self,
        blob: Box<dyn Read + Send>,
        layer: &LayerDescriptor,
        watch: &Watch,
    ) -> Result<Vec<InspectorReport>> {
        Self::inspect(self, layer_of(blob, layer, watch)).map(|report| report.reports)
    }

    fn with_limits(self: Arc<Self>, limits: &Limits) -> Arc<dyn LayerUnpacker> {
        Arc::new(self.under(limits.clone()))
    }
}

impl Unpacker {
    /// Unpacks a layer into the empty directory `dest`, with its whiteouts in the form of `mode`.
    ///
    /// # Errors
    ///
    /// Those of [`Unpacker::extract`], and of the writer.
    pub fn unpack_alone(
        &self,
        layer: Layer,
        dest: OwnedFd,
        mode: Mode,
        cancel: &Cancel,
    ) -> Result<(LayerReport, LayerRecord)> {
        let (limits, cancel) = (self.limits().clone(), cancel.clone());
        let (lossy, defers) = (Self::lossy(self), mode == Mode::Preserve);
        let options = WriterOptions { limits, lossy, cancel, defers, ..WriterOptions::new(mode) };
        let (outcome, mut writer) = self.extract(layer, TreeWriter::new(dest, options)?);
        let report = outcome?;
        let record = writer.finish_layer()?;
        writer.finish()?;
        Ok((report, record))
    }
}

/// Returns a blob as the layer that its descriptor declares, followed by `watch`.
pub fn layer_of(blob: Box<dyn Read + Send>, descriptor: &LayerDescriptor, watch: &Watch) -> Layer {
    let mut layer = Layer::new(blob)
        .declared(descriptor)
        .with_cancel(watch.cancel.clone())
        .with_budget(watch.budget.clone())
        .with_progress(Some(descriptor.digest.clone()), watch.progress.clone());
    if let Some(size) = descriptor.size {
        layer = layer.with_size(size);
    }
    layer
}
