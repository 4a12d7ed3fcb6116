//! Where a root filesystem's layers come from: the store, or a local layout beside it.

use std::fs::File;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::store::{ImageObject, ImageStorage, LayerDescriptor, Lease, Tree, Watch};

/// Gives layers, verified: as trees for the merge, as blobs for applying.
pub trait LayerProvider: Sync {
    /// Says that somebody relies on what an image consists of, and uses it now: [`crate::rootfs::unpack`] holds this to its end.
    /// Blocks for the moment in which somebody takes names away, until the wait is given up.
    fn lease(&self, image: &ImageObject, cancel: &Cancel) -> Result<Lease>;

    /// The layer's tree, extracted first if it is not there, until that is given up. Blocks.
    fn tree(&self, layer: &LayerDescriptor, watch: &Watch) -> Result<Tree>;

    /// The layer's blob. Its bytes are not verified yet.
    fn blob(&self, layer: &LayerDescriptor) -> Result<File>;

    /// Says of a layer that could not be used whether that is the fault of whoever keeps it, and what helps then. `image` is the
    /// image's reference.
    fn explain(&self, error: Error, layer: &LayerDescriptor, image: &str) -> Error {
        let _ = (layer, image);
        error
    }
}

impl LayerProvider for ImageStorage {
    fn lease(&self, image: &ImageObject, cancel: &Cancel) -> Result<Lease> {
        self.lease_object(image, cancel)
    }

    fn tree(&self, layer: &LayerDescriptor, watch: &Watch) -> Result<Tree> {
        self.ensure_tree_watched(layer, watch)
    }

    fn blob(&self, layer: &LayerDescriptor) -> Result<File> {
        self.open_layer(&layer.digest)
    }

    fn explain(&self, error: Error, layer: &LayerDescriptor, image: &str) -> Error {
        cofferdam_store::ImageStorage::of_image(self.blame(error, &layer.digest), image)
    }
}
