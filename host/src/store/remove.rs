//! Removing an image, and what only it needed.
//!
//! A reference can always be removed, also one that cannot be read. Blobs and trees are freed only if nobody uses the store
//! ([`super::InUse`]), every other image can be read to the end, so that it is known what those need, and nobody is at work on
//! the blob or tree itself. Then all is freed that no reference needs: what this removal leaves and what earlier ones had to
//! leave. Where somebody keeps content that no reference names (see `keep.rs`), only the parts of the removed image are
//! freed, and of those none that another manifest names. What is not freed stays for the next removal or a collection.

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
    pub kept: Option<String>,
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

impl BlobOrder {
    fn kind(self) -> BlobKind {
        match self {
            Self::Manifest => BlobKind::Manifest,
            Self::Config => BlobKind::Config,
        }
    }
}

impl Removed {
    fn keep(why: impl Into<String>) -> Self {
        Self { kept: Some(why.into()), ..Self::default() }
    }
}

impl ImageStorage {
    /// Removes a reference, and frees what no other reference needs. [`crate::Error::NotFound`] if there is no such reference.
    /// The caller must hold neither [`ImageStorage::in_use`] nor a [`super::Tree`]: then nothing would be freed. Blocks the
    /// thread.
    pub fn remove(&self, reference: &str) -> Result<Removed> {
        self.writable()?;
        let mut parts = Parts::default();
        let (name, incomplete) = match self.resolve(reference) {
            Ok(Some(image)) => {
                let complete = self.collect(&image, &mut parts);
                (image.reference, (!complete).then_some("the image could not be read to the end"))
            }
            Ok(None) => return Err(unknown(reference)),
            // Whatever it stood for, it must not stand in the way for ever.
            Err(error) => {
                tracing::warn!(reference, %error, "removing a reference that cannot be read");
                (reference.to_owned(), Some("the reference could not be read"))
            }
        };
        if !self.refs().remove(&name)? {
            return Err(unknown(reference));
        }
        let Some(_alone) = self.locks().try_alone()? else {
            return Ok(Removed::keep("the store is in use"));
        };
        // Listed only now: nobody publishes while the store is ours alone.
        let mut needed = match self.needed()? {
            Ok(needed) => needed,
            Err(culprit) => return Ok(Removed::keep(format!("what {culprit} needs is not known"))),
        };
        if !self.keeps_unreferenced() {
            return self.free(&self.everything()?, &needed);
        }
        if let Err(culprit) = self.add_unreferenced(&parts, &mut needed)? {
            return Ok(Removed::keep(format!("what {culprit} needs is not known")));
        }
        let mut removed = self.free(&parts, &needed)?;
        if let Some(why) = incomplete {
            removed.kept = Some(why.into());
        }
        Ok(removed)
    }

    /// Removes the trees of local layouts, which are made again when they are needed. None while somebody uses the store.
    /// Blocks the thread.
    pub fn remove_local(&self) -> Result<Removed> {
        self.writable()?;
        let Some(_alone) = self.locks().try_alone()? else {
            return Ok(Removed::keep("the store is in use"));
        };
        let mut removed = Removed::default();
        for key in super::bundle::keys(self)? {
            let trees = super::bundle::open(self, &key)?;
            for digest in trees.stored()? {
                if trees.remove(&digest)? {
                    removed.trees.push(digest);
                } else {
                    removed.kept = Some("a layer is being extracted".into());
                }
            }
        }
        Ok(removed)
    }

    /// What all images in the store consist of; if that cannot be known, which of them is the reason.
    fn needed(&self) -> Result<Result<Parts, String>> {
        let listing = self.refs().list()?;
        if let Some(name) = listing.unreadable.first() {
            return Ok(Err(format!("the unreadable reference in `refs/{name}`")));
        }
        let mut needed = Parts::default();
        for image in &listing.refs {
            if !self.collect(image, &mut needed) {
                return Ok(Err(image.reference.clone()));
            }
        }
        Ok(Ok(needed))
    }

    /// The layers of all images in the store; nothing if they cannot be known to the end.
    pub(super) fn needed_layers(&self) -> Result<Option<BTreeSet<Digest>>> {
        Ok(self.needed()?.ok().map(|parts| parts.layers))
    }

    /// Adds what the manifests name that are neither needed nor to be removed: the bytes as they are, whoever wrote them.
    fn add_unreferenced(&self, removed: &Parts, needed: &mut Parts) -> Result<Result<(), String>> {
        for digest in self.stored(BlobKind::Manifest)? {
            let entry = (BlobOrder::Manifest, digest);
            if removed.documents.contains(&entry) {
                continue;
            }
            let (_, digest) = &entry;
            let name = BlobKind::Manifest.file_name(digest);
            let bytes = file::read(self.rooms().blobs(BlobKind::Manifest), &name, self.limit_of(BlobKind::Manifest));
            match bytes {
                Ok(Some(bytes)) if name_parts(&bytes, digest, needed) => {}
                _ => return Ok(Err(format!("the manifest {digest}"))),
            }
            needed.documents.insert(entry);
        }
        Ok(Ok(()))
    }

    /// Everything that is in the store.
    fn everything(&self) -> Result<Parts> {
        let mut parts = Parts::default();
        for order in [BlobOrder::Manifest, BlobOrder::Config] {
            parts.documents.extend(self.stored(order.kind())?.into_iter().map(|digest| (order, digest)));
        }
        parts.layers.extend(self.stored(BlobKind::Layer)?);
        parts.layers.extend(self.trees().stored()?);
        Ok(parts)
    }

    /// The digests of the blobs of a kind.
    fn stored(&self, kind: BlobKind) -> Result<Vec<Digest>> {
        let names = layout::names(self.rooms().blobs(kind), kind.directory())?;
        let digest = |name: &String| {
            let digest = Digest::from_file_stem(name.split_once('.')?.0)?;
            (kind.file_name(&digest) == *name).then_some(digest)
        };
        Ok(names.iter().filter_map(digest).collect())
    }

    fn free(&self, parts: &Parts, needed: &Parts) -> Result<Removed> {
        let mut removed = Removed::default();
        for (order, digest) in parts.documents.difference(&needed.documents) {
            self.free_blob(order.kind(), digest, &mut removed)?;
        }
        for digest in parts.layers.difference(&needed.layers) {
            let there = self.trees().path_exists(digest);
            if !self.trees().remove(digest)? {
                removed.kept = Some("a layer is being extracted".into());
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
            removed.kept = Some("a blob is being written".into());
            return Ok(());
        };
        let (dir, name) = (self.rooms().blobs(kind), kind.file_name(digest));
        let size = layout::file_size(dir, &name);
        if kind == BlobKind::Manifest {
            file::remove(&self.rooms().records, &note_name(digest))?;
        }
        // Not a regular file: nobody here made it.
        if size.is_some() && file::remove(dir, &name)? {
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
        // An index is no image.
        super::image::config_digest(&manifest, &image.manifest).is_ok() && name_parts(&manifest, &image.manifest, parts)
    }
}

/// Adds the configuration and the layers that a manifest names; an index names none. False if they cannot be known.
fn name_parts(manifest: &[u8], digest: &Digest, parts: &mut Parts) -> bool {
    let parsed = match super::manifest::parse(manifest, digest) {
        Ok(oci_client::manifest::OciManifest::Image(image)) => image,
        Ok(oci_client::manifest::OciManifest::ImageIndex(_)) => return true,
        Err(_) => return false,
    };
    let Ok(config) = parsed.config.digest.parse() else { return false };
    parts.documents.insert((BlobOrder::Config, config));
    for layer in &parsed.layers {
        let Ok(digest) = layer.digest.parse() else { return false };
        parts.layers.insert(digest);
    }
    true
}
