//! Where a root filesystem's layers come from: the store, or a local layout beside it.

use std::fs::File;

use crate::error::Result;
use crate::store::{ImageStorage, LayerDescriptor, Tree};

/// Gives layers, verified: as trees for the merge, as blobs for applying.
pub trait LayerProvider: Sync {
    /// The layer's tree, extracted first if it is not there. Blocks.
    fn tree(&self, layer: &LayerDescriptor) -> Result<Tree>;

    /// The layer's blob. Its bytes are not verified yet.
    fn blob(&self, layer: &LayerDescriptor) -> Result<File>;
}

impl LayerProvider for ImageStorage {
    fn tree(&self, layer: &LayerDescriptor) -> Result<Tree> {
        self.ensure_tree(layer)
    }

    fn blob(&self, layer: &LayerDescriptor) -> Result<File> {
        self.open_layer(&layer.digest)
    }
}
