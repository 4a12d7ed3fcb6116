//! The trait between the store, which owns blobs and trees, and the sandboxed pipeline, which makes one of the other.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use cofferdam_core::{Digest, Error, Limits, Result, Watch};
use cofferdam_documents::LayerDescriptor;
use cofferdam_documents::plugin::InspectorReport;

use crate::Lossy;

/// Unpacks layers into trees in preserve mode ([`crate::Mode::Preserve`]).
///
/// An implementation decides nothing about trust. The caller hashes the blob while it is read, and compares what was measured with
/// what was declared.
pub trait LayerUnpacker: Send + Sync {
    /// Reads `blob` to its end and writes the layer's tree into `dest`, an empty directory. Measures the digest of the decoded
    /// stream, with the algorithm of `layer.diff_id` or else SHA-256. Emits [`cofferdam_core::Event::Extracted`]. Blocks.
    ///
    /// An error of `blob` must end this with an error soon, and so must a cancellation of `watch`, with [`Error::Interrupted`]. The
    /// caller removes `dest` then.
    fn unpack(
        &self,
        blob: Box<dyn Read + Send>,
        layer: &LayerDescriptor,
        dest: OwnedFd,
        watch: &Watch,
    ) -> Result<UnpackedLayer>;

    /// Returns true if a plugin reads layers of this media type, which neither specification has.
    fn reads(&self, _media_type: &str) -> bool {
        false
    }

    /// Returns the identity of the plugin that reads layers of this media type, or, where the type is not known, layers that begin with
    /// these bytes; `None` for the first-party guests. [`UnpackedLayer::reader`] of such a layer is the same, and a tree is
    /// used again only if it has it.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a media type that neither a guest nor a plugin reads.
    fn reader(&self, _media_type: Option<&str>, _first_bytes: &[u8]) -> Result<Option<Digest>> {
        Ok(None)
    }

    /// Returns the attributes that trees may lose where their file system cannot hold them. A tree that lost more is not used with this
    /// unpacker. By default none.
    fn lossy(&self) -> Lossy {
        Lossy::default()
    }

    /// Returns the keys of the inspectors' reports, in the order of the inspectors. By default there are no inspectors.
    fn inspectors(&self) -> Vec<Digest> {
        Vec::new()
    }

    /// Reads a layer that was unpacked before, for the inspectors alone.
    ///
    /// # Errors
    ///
    /// As [`LayerUnpacker::unpack`]; [`Error::Unsupported`] where there are no inspectors.
    fn inspect(
        &self,
        _blob: Box<dyn Read + Send>,
        _layer: &LayerDescriptor,
        _watch: &Watch,
    ) -> Result<Vec<InspectorReport>> {
        Err(Error::Unsupported { what: "inspecting a layer".into() })
    }

    /// Returns the same unpacker under other limits.
    fn with_limits(self: Arc<Self>, limits: &Limits) -> Arc<dyn LayerUnpacker>;
}

/// What was measured while a layer was unpacked.
#[derive(Clone, Debug)]
pub struct UnpackedLayer {
    /// The digest of all decoded bytes.
    pub diff_id: Digest,
    /// The number of decoded bytes.
    pub decoded_bytes: u64,
    /// A [`crate::LayerRecord`] as JSON: what a merge needs to know beyond the tree itself. Kept beside the tree as it is.
    pub record: Vec<u8>,
    /// The identity of the plugin that decoded or read the layer; `None` for the first-party guests.
    pub reader: Option<Digest>,
    /// The inspectors' reports.
    pub reports: Vec<InspectorReport>,
}
