//! Layers: their blobs, and how they become trees.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cofferdam_core::Watch;
use cofferdam_core::ambient;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, ErrorKind, Result};
use cofferdam_documents::image::{ImageObject, LayerDescriptor};
use cofferdam_tree::LeftOut;

use crate::file;
use crate::layout::{self, BlobKind};
use crate::lock::blocking;
use crate::storage::ImageStorage;
use crate::trees::Tree;

const KIND: BlobKind = BlobKind::Layer;

impl ImageStorage {
    /// Attributes of an image's layers that their trees could not hold, as far as the trees are there.
    pub fn left_out(&self, image: &ImageObject) -> Result<LeftOut> {
        let digests: BTreeSet<_> = image.layers.iter().map(|layer| &layer.digest).collect();
        let mut left_out = LeftOut::default();
        for digest in digests {
            if let Some((_, record)) = self.trees().vouched(digest)? {
                left_out.add(&record.left_out);
            }
        }
        Ok(left_out)
    }

    /// Whether a layer's blob is there as a regular file. Cheap; its bytes are verified when they are used, or by
    /// [`ImageStorage::verify_layer`].
    pub fn has_layer(&self, digest: &str) -> bool {
        self.has_blob(KIND, digest)
    }

    /// Whether all of these layers are there.
    pub fn verify_blobs_exist(&self, layer_digests: &[String]) -> bool {
        layer_digests.iter().all(|digest| self.has_layer(digest))
    }

    /// Whether a layer's bytes hash to its digest. In constant memory. An absent layer is `Ok(false)`; so is one that
    /// does not hash to its digest, which is also logged as an error, and set aside so that it is fetched again.
    pub async fn verify_layer(&self, digest: &str) -> Result<bool> {
        let digest: Digest = digest.parse()?;
        let storage = self.clone();
        blocking(move || {
            let name = KIND.file_name(&digest);
            let Some(mut file) = file::open(storage.rooms().blobs(KIND), &name)? else {
                storage.complain(KIND, &digest);
                return Ok(false);
            };
            let (actual, bytes) = file::hash(&mut file, digest.algorithm(), &name)?;
            if actual != digest {
                tracing::error!(expected = %digest, %actual, bytes, "a layer is not what its name says");
                storage.complain(KIND, &digest);
            }
            Ok(actual == digest)
        })
        .await
    }

    /// The path of a layer's blob. No I/O.
    pub fn layer_tarball_path(&self, digest: &str) -> PathBuf {
        layout::blob_path(self.images_dir(), KIND, digest)
    }

    /// The path of a layer's tree. No I/O.
    pub fn layer_extracted_path(&self, digest: &str) -> PathBuf {
        layout::tree_path(self.images_dir(), digest)
    }

    /// The directory of the layers' blobs. No I/O.
    pub fn layer_dir(&self) -> PathBuf {
        self.images_dir().join(KIND.directory())
    }

    /// Extracts a layer into `extracted/`, markers kept, from the blob at `tarball_path`, which must hash to `digest`.
    /// Cheap if the tree is there. Of many who ask at once, in any process, one does the work and the others wait for it.
    /// On failure nothing is left. Blocks the thread.
    pub fn extract_layer(&self, digest: &str, tarball_path: &Path) -> Result<()> {
        let layer = LayerDescriptor::of(digest.parse()?);
        self.writable()?;
        self.keep_unreferenced()?;
        let opened = || ambient::open_file(tarball_path);
        let watch = Watch::default();
        let ensured = self.trees().ensure(&layer, self.unpacker(), opened, &watch);
        let ensured = ensured.and_then(|_| self.ensure_inspected(&layer, opened, &watch));
        // Whatever is wrong with another file is its owner's concern.
        let ours = tarball_path == self.layer_tarball_path(digest);
        ensured.map_err(|error| if ours { self.blame(error, &layer.digest) } else { error })
    }

    /// The tree of a layer: as it is there, or else extracted from the layer's blob in the store. All that the descriptor
    /// claims is checked, also against a tree that is there, and each of the unpacker's inspectors has seen the layer.
    /// [`Error::NotFound`] if neither tree nor blob is there. Blocks the thread.
    pub fn ensure_tree(&self, layer: &LayerDescriptor) -> Result<Tree> {
        self.ensure_tree_watched(layer, &Watch::default())
    }

    /// As [`ImageStorage::ensure_tree`], watched by somebody who may give it up.
    pub fn ensure_tree_watched(&self, layer: &LayerDescriptor, watch: &Watch) -> Result<Tree> {
        let opened = || self.open_layer(&layer.digest);
        let ensured = self.trees().ensure(layer, self.unpacker(), opened, watch).and_then(|tree| {
            self.ensure_inspected(layer, opened, watch)?;
            Ok(tree)
        });
        ensured.map_err(|error| self.blame(error, &layer.digest))
    }

    /// Finds out whether a layer could not be used because its blob in the store is damaged. Then the blob is set aside, and the error
    /// says so: whatever the guests made of the bytes, they were not the layer's.
    pub fn blame(&self, error: Error, digest: &Digest) -> Error {
        let possible = matches!(error.kind(), ErrorKind::Integrity | ErrorKind::Refused | ErrorKind::NotFound);
        if !possible || matches!(error.root(), Error::Damaged { .. }) {
            return error;
        }
        match self.complain(KIND, digest) {
            None => error,
            Some(reason) => Error::Damaged {
                subject: format!("layer {digest}"),
                reason: reason.into(),
                hint: "pull the image again: cofferdam pull REF".into(),
            },
        }
    }

    /// Opens a layer's blob. Its bytes are not verified.
    pub fn open_layer(&self, digest: &Digest) -> Result<std::fs::File> {
        file::open(self.rooms().blobs(KIND), &KIND.file_name(digest))?.ok_or_else(|| Error::NotFound {
            what: format!("layer {digest}"),
            hint: Some("pull the image again: cofferdam pull REF".into()),
        })
    }
}
