//! What turns a blob into a tree: the seam between this room and the sandboxed pipeline above it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::progress::Progress;
use crate::store::image::LayerDescriptor;
use crate::tree::Lossy;
use crate::unpack::{ImageBudget, InspectorReport};

/// Turns a layer's blob into its tree, in preserve mode.
///
/// It decides nothing about trust: the store compares what was measured with what was promised.
pub trait LayerUnpacker: Send + Sync {
    /// Reads `blob` to its end and writes the layer's tree into `dest`, an empty directory. Measures on the way: the
    /// digest of the blob with the algorithm of `layer.digest`, and the SHA-256 (or the algorithm of `layer.diff_id`) of
    /// the decoded stream. `dest` is removed by the caller if this fails. Ends with [`crate::Error::Interrupted`] soon after
    /// `watch` was cancelled, and emits [`crate::Event::Extracted`]. Blocks.
    fn unpack(&self, blob: File, layer: &LayerDescriptor, dest: OwnedFd, watch: &Watch) -> Result<Unpacked>;

    /// Whether layers of this media type can be unpacked, where it is not one of the specifications'.
    fn reads(&self, _media_type: &str) -> bool {
        false
    }

    /// Returns the identity of the plugin that reads layers of this media type, or, where that is not known, layers that begin with
    /// these bytes; nothing for the first-party guests. [`Unpacked::reader`] of such a layer is the same, and only a tree that has
    /// it is used again.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a media type that nobody reads.
    fn reader(&self, _media_type: Option<&str>, _first_bytes: &[u8]) -> Result<Option<Digest>> {
        Ok(None)
    }

    /// What its trees may lose where they cannot hold it. A tree that lost more is not used with this unpacker. By default,
    /// nothing.
    fn lossy(&self) -> Lossy {
        Lossy::default()
    }

    /// Who inspects the layers that this unpacks: the digests by which their reports are found. By default, nobody.
    fn inspectors(&self) -> Vec<Digest> {
        Vec::new()
    }

    /// Reads a layer that was unpacked before, for those inspectors alone. Verifies it as [`LayerUnpacker::unpack`] does.
    ///
    /// # Errors
    ///
    /// As [`LayerUnpacker::unpack`]; [`Error::Unsupported`] where there are no inspectors.
    fn inspect(&self, _blob: File, _layer: &LayerDescriptor, _watch: &Watch) -> Result<Vec<InspectorReport>> {
        Err(Error::Unsupported { what: "inspecting a layer".into() })
    }

    /// The same under other limits: [`crate::store::ImageStorage::with_limits`] holds for layers as for documents.
    fn with_limits(self: Arc<Self>, limits: &Limits) -> Arc<dyn LayerUnpacker>;
}

/// Who watches long work: where its progress goes, and how the caller gives it up. By default, nobody.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Where progress goes.
    pub progress: Progress,
    /// How the caller gives up.
    pub cancel: Cancel,
    /// What the layers of the image may decode to in all.
    pub budget: Option<ImageBudget>,
}

/// What was measured while a layer was unpacked.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// The digest of all bytes of the blob.
    pub blob: Digest,
    /// The number of bytes of the blob.
    pub blob_bytes: u64,
    /// The number of decoded bytes.
    pub decoded_bytes: u64,
    /// The digest of all decoded bytes.
    pub diff_id: Digest,
    /// What the merge needs to know beyond the tree itself, as JSON. Kept beside the tree's record as it is.
    pub record: Vec<u8>,
    /// The plugin that decoded or read the layer: its identity. Nothing for the first-party guests.
    pub reader: Option<Digest>,
    /// What inspectors say of the layer. Kept beside the tree too.
    pub reports: Vec<InspectorReport>,
}
