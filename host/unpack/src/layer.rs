//! A layer on its way in, and what was learned from it.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use cofferdam_core::ImageBudget;
use cofferdam_core::cancel::Cancel;
use cofferdam_core::digest::{Algorithm, Digest};
use cofferdam_core::progress::Progress;
use cofferdam_documents::Compression;
use cofferdam_documents::LayerDescriptor;
use cofferdam_documents::plugin::InspectorReport;

/// A layer's blob and what is known of it.
#[must_use]
pub struct Layer {
    pub(super) blob: Box<dyn Read + Send>,
    pub(super) name: String,
    pub(super) size: Option<u64>,
    /// Bytes of the blob that were read so far.
    pub(super) read: Arc<AtomicU64>,
    pub(super) compression: Option<Compression>,
    pub(super) media_type: Option<String>,
    pub(super) diff_id: Option<Digest>,
    pub(super) blob_algorithm: Option<Algorithm>,
    pub(super) digest: Option<Digest>,
    pub(super) progress: Progress,
    /// What the layers of its image may decode to in all.
    pub(super) budget: Option<ImageBudget>,
    /// How whoever waits gives up: also the plugins that read the layer, or look on.
    pub(super) cancel: Cancel,
}

impl Layer {
    /// A layer of which nothing is known but its bytes; the magic number decides on the compression.
    pub fn new(blob: impl Read + Send + 'static) -> Self {
        Self {
            blob: Box::new(blob),
            name: "the layer".into(),
            size: None,
            read: Arc::default(),
            compression: None,
            media_type: None,
            diff_id: None,
            blob_algorithm: None,
            digest: None,
            progress: Progress::none(),
            budget: None,
            cancel: Cancel::new(),
        }
    }

    /// What errors call it, such as `layer sha256:…`.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Everything that a descriptor declares but the size: the digest as the name in errors, the media type, the diff ID.
    pub fn declared(mut self, descriptor: &LayerDescriptor) -> Self {
        self = self.named(format!("layer {}", descriptor.digest));
        if let Some(media_type) = &descriptor.media_type {
            self = self.with_media_type(media_type);
        }
        if let Some(diff_id) = &descriptor.diff_id {
            self = self.with_diff_id(diff_id.clone());
        }
        self
    }

    /// The blob's size in bytes. Known beforehand, it bounds what the layer may expand to.
    pub fn with_size(mut self, size: u64) -> Self {
        self.size = Some(size);
        self
    }

    /// What the media type says; the bytes must agree.
    pub fn with_compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// The media type, which decides on the guest or plugin that reads it; the bytes must agree.
    pub fn with_media_type(mut self, media_type: impl Into<String>) -> Self {
        self.media_type = Some(media_type.into());
        self
    }

    /// What the decoded bytes must hash to (image spec, `config.md`, `rootfs.diff_ids`).
    pub fn with_diff_id(mut self, diff_id: Digest) -> Self {
        self.diff_id = Some(diff_id);
        self
    }

    /// Hashes the blob too, all of it; the report then says to what.
    pub fn hashing_blob(mut self, algorithm: Algorithm) -> Self {
        self.blob_algorithm = Some(algorithm);
        self
    }

    /// Ends with [`cofferdam_core::Error::Interrupted`] soon after this was set, whoever is at work then: the guests, which get no more of
    /// the blob, or a plugin.
    pub fn with_cancel(mut self, cancel: Cancel) -> Self {
        self.blob = Box::new(Cancellable { blob: self.blob, cancel: cancel.clone() });
        self.cancel = cancel;
        self
    }

    /// Counts what it decodes to against a budget that it shares with the other layers of its image.
    pub fn with_budget(mut self, budget: Option<ImageBudget>) -> Self {
        self.budget = budget;
        self
    }

    /// Sends [`cofferdam_core::Event::Extracted`] while the layer is unpacked; `digest` is the blob's, if it is known.
    pub fn with_progress(mut self, digest: Option<Digest>, progress: Progress) -> Self {
        self.digest = digest;
        self.progress = progress;
        self
    }
}

/// A blob that ends in an error when the work is given up: a writer looks between two entries only, and one may be large.
struct Cancellable {
    blob: Box<dyn Read + Send>,
    cancel: Cancel,
}

impl Read for Cancellable {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cancel.check().map_err(io::Error::other)?;
        self.blob.read(buffer)
    }
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer").field("name", &self.name).field("size", &self.size).finish_non_exhaustive()
    }
}

/// What a layer turned out to be. There is one only when everything that was known beforehand was right.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerReport {
    /// What the decoded bytes hash to.
    pub diff_id: Digest,
    /// What the blob hashes to, if that was asked for.
    pub blob: Option<Digest>,
    /// How the blob was compressed.
    pub compression: Compression,
    /// The blob's size in bytes.
    pub blob_bytes: u64,
    /// How many bytes were decoded.
    pub decoded_bytes: u64,
    /// How many entries were put, markers included; none when the layer was only verified.
    pub entries: u64,
    /// The plugin that decoded or read the layer: its identity. Nothing for the first-party guests.
    pub reader: Option<Digest>,
    /// What the inspectors say, in their order; none when the layer was only verified.
    pub reports: Vec<InspectorReport>,
}
