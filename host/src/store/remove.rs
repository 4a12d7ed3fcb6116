//! Removing an image, and what only it needed.
//!
//! A reference can always be removed. Its blobs and trees are freed only if nobody uses the store ([`super::InUse`]),
//! every other image can be read to the end, so that it is known what those need, and nobody is at work on the blob or
//! tree itself. What is not freed stays for the next removal or a collection.

use std::collections::BTreeSet;

use crate::digest::Digest;
use crate::error::Result;
use crate::store::file;
use crate::store::images::unknown;
use crate::store::layout::{self, BlobKind};
use crate::store::manifest::note_name;
use crate::store::refs::ImageRef;
use crate::store::storage::{ImageStorage, blob_lock};

/// What a removal did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removed {
    /// Blobs that were freed.
    pub blobs: Vec<Digest>,
    /// Their bytes.
    pub bytes: u64,
    /// Layers whose trees were freed.
    pub trees: Vec<Digest>,
    /// Why something that may be unneeded was kept, if so.
    pub kept: Option<&'static str>,
}

/// The blobs that an image consists of.
#[derive(Debug, Default)]
struct Parts {
    documents: BTreeSet<(BlobOrder, Digest)>,
    layers: BTreeSet<Digest>,
}

/// Manifests go before what they name: a crash between leaves orphans, never a manifest without its layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum BlobOrder {
    Manifest,
    Config,
}

impl ImageStorage {
    /// Removes a reference, and frees what nothing else refers to. [`crate::Error::NotFound`] if there is no such reference.
    /// The caller must not hold [`ImageStorage::in_use`]: then nothing would be freed. Blocks the thread.
    pub fn remove(&self, reference: &str) -> Result<Removed> {
        self.writable()?;
        let image = self.resolve(reference)?.ok_or_else(|| unknown(reference))?;
        let mut parts = Parts::default();
        let complete = self.collect(&image, &mut parts);
        if !self.refs().remove(&image.reference)? {
            return Err(unknown(reference));
        }
        let Some(_alone) = self.locks().try_alone()? else {
            return Ok(Removed { kept: Some("the store is in use"), ..Removed::default() });
        };
        // Listed only now: nobody publishes while the store is ours alone.
        let Some(needed) = self.needed()? else {
            return Ok(Removed { kept: Some("another image cannot be read"), ..Removed::default() });
        };
        let mut removed = self.free(&parts, &needed)?;
        if !complete {
            removed.kept = Some("the image could not be read to the end");
        }
        Ok(removed)
    }

    /// What all images in the store consist of; nothing if that cannot be known to the end.
    fn needed(&self) -> Result<Option<Parts>> {
        let listing = self.refs().list()?;
        let mut needed = Parts::default();
        let known = listing.unreadable.is_empty() && listing.refs.iter().all(|image| self.collect(image, &mut needed));
        Ok(known.then_some(needed))
    }

    /// The layers of all images in the store; nothing if they cannot be known to the end.
    pub(super) fn needed_layers(&self) -> Result<Option<BTreeSet<Digest>>> {
        Ok(self.needed()?.map(|parts| parts.layers))
    }

    fn free(&self, parts: &Parts, needed: &Parts) -> Result<Removed> {
        let mut removed = Removed::default();
        for (order, digest) in parts.documents.difference(&needed.documents) {
            let kind = match order {
                BlobOrder::Manifest => BlobKind::Manifest,
                BlobOrder::Config => BlobKind::Config,
            };
            self.free_blob(kind, digest, &mut removed)?;
        }
        for digest in parts.layers.difference(&needed.layers) {
            let there = self.trees().path_exists(digest);
            if !self.trees().remove(digest)? {
                removed.kept = Some("a layer is being extracted");
                continue;
            }
            if there {
                removed.trees.push(digest.clone());
            }
            self.free_blob(BlobKind::Layer, digest, &mut removed)?;
        }
        Ok(removed)
    }

    fn free_blob(&self, kind: BlobKind, digest: &Digest, removed: &mut Removed) -> Result<()> {
        let Some(_lock) = self.locks().try_acquire(&blob_lock(kind, digest))? else {
            removed.kept = Some("a blob is being written");
            return Ok(());
        };
        let (dir, name) = (self.rooms().blobs(kind), kind.file_name(digest));
        let size = layout::file_size(dir, &name);
        if kind == BlobKind::Manifest {
            file::remove(&self.rooms().records, &note_name(digest))?;
        }
        if file::remove(dir, &name)? {
            removed.blobs.push(digest.clone());
            removed.bytes += size.unwrap_or(0);
        }
        Ok(())
    }

    /// Adds what an image consists of. False if that cannot be known to the end.
    fn collect(&self, image: &ImageRef, parts: &mut Parts) -> bool {
        parts.documents.insert((BlobOrder::Manifest, image.manifest.clone()));
        if let Some(index) = &image.index {
            parts.documents.insert((BlobOrder::Manifest, index.clone()));
        }
        let Ok(Some(manifest)) = self.manifest_bytes(&image.manifest) else { return false };
        let Ok(parsed) = super::manifest::parse(&manifest, &image.manifest) else { return false };
        let oci_client::manifest::OciManifest::Image(parsed) = parsed else { return false };
        let Ok(config) = parsed.config.digest.parse() else { return false };
        parts.documents.insert((BlobOrder::Config, config));
        for layer in &parsed.layers {
            let Ok(digest) = layer.digest.parse() else { return false };
            parts.layers.insert(digest);
        }
        true
    }
}
