//! Images of local OCI layouts: their layers are read where they lie, and their trees kept apart from the registry's.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use super::provide::LayerProvider;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::store::{ImageObject, ImageStorage, LayerDescriptor, LayerUnpacker, Lease, Tree, Trees, Watch};
use crate::transport::{
    ConfigHead, Descriptor, Documents, ImageSource, OciLayout, PlatformChoice, RawDocument, resolve_image,
};

/// An image of a local layout, resolved and checked, with its trees in a store.
pub struct LocalImage {
    /// The image.
    pub image: ImageObject,
    layout: OciLayout,
    trees: Trees,
    unpacker: Arc<dyn LayerUnpacker>,
}

impl LocalImage {
    /// Resolves an image of the layout at `path`. Its layers' trees go to `local/` in `storage`.
    ///
    /// # Errors
    ///
    /// Those of a layout that is none, of documents that break a rule, and of a platform that is not there.
    pub async fn open(
        layout: OciLayout,
        path: &Path,
        storage: &ImageStorage,
        unpacker: Arc<dyn LayerUnpacker>,
        platform: &PlatformChoice,
    ) -> Result<Self> {
        let limits = storage.limits();
        let name = layout.name();
        let resolved = resolve_image(&name, &Documented(&layout), platform, limits).await?;
        resolved.manifest.check_layers(|media_type| unpacker.reads(media_type))?;
        let descriptor = &resolved.manifest.config;
        if descriptor.size > limits.config_bytes {
            let subject = format!("the image configuration {}", descriptor.digest);
            return Err(Error::Limit { subject, what: "bytes in an image configuration", limit: limits.config_bytes });
        }
        let mut blob = layout.blob(descriptor, 0).await.map_err(|failure| failure.error)?;
        let mut config = Vec::new();
        while let Some(chunk) = blob.next().await.map_err(|failure| failure.error)? {
            config.extend_from_slice(&chunk);
        }
        descriptor.verify(&format!("the image configuration {}", descriptor.digest), &config)?;
        let head = ConfigHead::parse(&config, &descriptor.digest, resolved.manifest.layers.len())?;
        platform.check_config(&name, head.platform.as_ref())?;
        let image = ImageObject::parse(&name, &resolved.raw.digest, &resolved.raw.bytes, &config, limits)?;
        let trees = storage.local_trees(path, &resolved.raw.digest)?;
        Ok(Self { image, layout, trees, unpacker })
    }
}

impl std::fmt::Debug for LocalImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalImage").field("image", &self.image).finish_non_exhaustive()
    }
}

impl LayerProvider for LocalImage {
    /// The layout's trees are kept for as long as it is open.
    fn lease(&self, _: &ImageObject, _: &Cancel) -> Result<Lease> {
        Ok(Lease::nothing())
    }

    fn tree(&self, layer: &LayerDescriptor, watch: &Watch) -> Result<Tree> {
        self.trees.ensure(layer, &*self.unpacker, || self.blob(layer), watch)
    }

    fn blob(&self, layer: &LayerDescriptor) -> Result<File> {
        self.layout.open_blob(&layer.digest, layer.size.unwrap_or_default())
    }
}

/// A layout's documents, straight from it.
struct Documented<'a>(&'a OciLayout);

#[async_trait]
impl Documents for Documented<'_> {
    async fn top(&self) -> Result<RawDocument> {
        self.0.resolve().await.map_err(|failure| failure.error)
    }

    async fn document(&self, descriptor: &Descriptor) -> Result<RawDocument> {
        self.0.document(descriptor).await.map_err(|failure| failure.error)
    }
}
