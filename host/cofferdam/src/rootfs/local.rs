//! Images of local OCI layouts: their layers are read where they lie, and their trees kept apart from the registry's.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_documents::foreign;

use super::provide::LayerProvider;
use crate::cancel::Cancel;
use crate::error::{ErrorKind, Result};
use crate::store::{ImageObject, ImageStorage, LayerDescriptor, LayerUnpacker, Lease, Tree, Trees, Watch};
use crate::transport::{
    Descriptor, Documents, ImageSource, MediaType, OciLayout, PlatformChoice, RawDocument, resolve_image,
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
        let config = Documented(&layout).config(&resolved.manifest.config).await?;
        let image = ImageObject::of(&name, &resolved.raw.digest, &resolved.manifest, &config)?;
        resolved.check_config(platform, &name, image.stated_platform().as_ref())?;
        let image = image.chosen_for(resolved.platform.as_ref());
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
        self.layout.open_blob(&layer.digest, layer.size.unwrap_or_default()).map_err(|error| {
            let is_foreign = layer.media_type.as_deref().is_some_and(|text| MediaType::new(text).is_foreign());
            if is_foreign && error.kind() == ErrorKind::NotFound { foreign(&layer.digest, &error) } else { error }
        })
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

    async fn config(&self, descriptor: &Descriptor) -> Result<Bytes> {
        let mut blob = self.0.blob(descriptor, 0).await.map_err(|failure| failure.error)?;
        let mut config = Vec::new();
        while let Some(chunk) = blob.next().await.map_err(|failure| failure.error)? {
            config.extend_from_slice(&chunk);
        }
        descriptor.verify(&format!("the image configuration {}", descriptor.digest), &config)?;
        Ok(config.into())
    }
}
