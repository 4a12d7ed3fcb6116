//! What images consist of, and so what is needed: from references to manifests, configurations and layers.

use std::collections::{BTreeMap, BTreeSet};

use cofferdam_core::digest::Digest;
use cofferdam_core::error::Result;

use crate::layout::{self, BlobKind};
use crate::lease::Leased;
use crate::overlay::Source;
use crate::refs::{ImageRef, Listing};
use crate::storage::ImageStorage;
use crate::{file, overlay};

/// Documents and layers: those that an image consists of, or several, or that there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    pub(super) documents: BTreeSet<(Document, Digest)>,
    pub(super) layers: BTreeSet<Digest>,
    /// The names of trees that are made for overlayfs: those that may be there.
    pub(super) overlay: BTreeSet<Digest>,
}

/// Manifests go before what they name: a crash between leaves orphans, never a manifest without its layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Document {
    Manifest,
    Config,
}

impl Document {
    pub(super) const ALL: [Self; 2] = [Self::Manifest, Self::Config];

    pub(super) fn kind(self) -> BlobKind {
        match self {
            Self::Manifest => BlobKind::Manifest,
            Self::Config => BlobKind::Config,
        }
    }
}

impl Parts {
    /// All digests, each once.
    pub(super) fn digests(&self) -> BTreeSet<&Digest> {
        self.documents.iter().map(|(_, digest)| digest).chain(&self.layers).chain(&self.overlay).collect()
    }

    fn extend(&mut self, other: &Self) {
        self.documents.extend(other.documents.iter().cloned());
        self.layers.extend(other.layers.iter().cloned());
        self.overlay.extend(other.overlay.iter().cloned());
    }

    fn retain(&mut self, wanted: impl Fn(&Digest) -> bool) {
        self.documents.retain(|(_, digest)| wanted(digest));
        self.layers.retain(&wanted);
        self.overlay.retain(wanted);
    }

    /// Those of these that are not among the others.
    pub(super) fn without(mut self, others: &Self) -> Self {
        self.documents.retain(|document| !others.documents.contains(document));
        self.layers.retain(|layer| !others.layers.contains(layer));
        self.overlay.retain(|name| !others.overlay.contains(name));
        self
    }

    /// Those of these that are leased go; says whether there were some.
    pub(super) fn drop_leased(&mut self, leased: &Leased) -> bool {
        let count = |parts: &Self| parts.documents.len() + parts.layers.len() + parts.overlay.len();
        let before = count(self);
        self.retain(|digest| !leased.has(digest));
        count(self) < before
    }
}

/// The parts of images that were read already. A manifest's name is its hash, so what it names does not change: whoever has the
/// gate need not read it again.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<Digest, Parts>);

/// Why it is not known what is needed.
pub(super) type Culprit = String;

impl ImageStorage {
    /// What an image consists of, and whether that is all of it.
    pub(super) fn parts_of(&self, image: &ImageRef, known: &mut Known) -> (Parts, bool) {
        let mut parts = Parts::default();
        let manifests = [Some(&image.manifest), image.index.as_ref()].into_iter().flatten();
        parts.documents.extend(manifests.map(|digest| (Document::Manifest, digest.clone())));
        if let Some(rest) = known.0.get(&image.manifest) {
            parts.extend(rest);
            return (parts, true);
        }
        let Some(rest) = self.named_by(&image.manifest) else { return (parts, false) };
        parts.extend(&rest);
        known.0.insert(image.manifest.clone(), rest);
        (parts, true)
    }

    /// What the manifest of an image names; nothing if that cannot be known.
    fn named_by(&self, manifest: &Digest) -> Option<Parts> {
        let bytes = self.manifest_bytes(manifest).ok().flatten()?;
        let mut parts = Parts::default();
        // An index is no image.
        cofferdam_documents::image::config_digest(&bytes, manifest).ok()?;
        name_parts(&bytes, manifest, &mut parts).then_some(parts)
    }

    /// What all images of a listing consist of; if that cannot be known, which of them is the reason.
    pub(super) fn needed(&self, listing: &Listing, known: &mut Known) -> Result<Parts, Culprit> {
        if let Some(name) = listing.unreadable.first() {
            return Err(format!("the unreadable reference in `refs/{name}`"));
        }
        self.needed_by(&listing.refs, known)
    }

    /// What these images consist of.
    pub(super) fn needed_by<'a>(
        &self,
        images: impl IntoIterator<Item = &'a ImageRef>,
        known: &mut Known,
    ) -> Result<Parts, Culprit> {
        let mut needed = Parts::default();
        for image in images {
            let (parts, complete) = self.parts_of(image, known);
            if !complete {
                return Err(image.reference.clone());
            }
            needed.extend(&parts);
        }
        Ok(needed)
    }

    /// What the manifests in the store name, and themselves, except for some: the bytes as they are, whoever wrote them.
    pub(super) fn named_except(&self, except: &Parts) -> Result<Result<Parts, Culprit>> {
        let mut named = Parts::default();
        for digest in self.stored(BlobKind::Manifest)? {
            let entry = (Document::Manifest, digest);
            if except.documents.contains(&entry) {
                continue;
            }
            let (_, digest) = &entry;
            let name = BlobKind::Manifest.file_name(digest);
            let bytes = file::read(self.rooms().blobs(BlobKind::Manifest), &name, self.limit_of(BlobKind::Manifest));
            match bytes {
                Ok(Some(bytes)) if name_parts(&bytes, digest, &mut named) => {}
                _ => return Ok(Err(format!("the manifest {digest}"))),
            }
            named.documents.insert(entry);
        }
        Ok(Ok(named))
    }

    /// Everything that is in the store.
    pub(super) fn everything(&self) -> Result<Parts> {
        let mut parts = Parts::default();
        for document in Document::ALL {
            parts.documents.extend(self.stored(document.kind())?.into_iter().map(|digest| (document, digest)));
        }
        parts.layers.extend(self.stored(BlobKind::Layer)?);
        parts.layers.extend(self.trees().stored()?);
        if let Some(trees) = self.overlay_trees_made()? {
            parts.overlay.extend(trees.stored()?);
        }
        Ok(parts)
    }

    /// The digests of the blobs of a kind.
    fn stored(&self, kind: BlobKind) -> Result<Vec<Digest>> {
        let names = layout::names(self.rooms().blobs(kind), kind.directory())?;
        Ok(names.iter().filter_map(|name| kind.digest_of(name)).collect())
    }
}

/// Adds the configuration and the layers that a manifest names; an index names none. False if they cannot be known.
fn name_parts(manifest: &[u8], digest: &Digest, parts: &mut Parts) -> bool {
    let manifest = match cofferdam_documents::Document::read(manifest, digest, None) {
        Ok(cofferdam_documents::Document::Manifest(manifest)) => manifest,
        Ok(cofferdam_documents::Document::Index(_)) => return true,
        Err(_) => return false,
    };
    parts.documents.insert((Document::Config, manifest.config.digest));
    let sources = manifest.layers.iter().map(|layer| Source::new(&layer.digest, Some(layer.media_type.as_str())));
    parts.overlay.extend(overlay::names(sources));
    parts.layers.extend(manifest.layers.into_iter().map(|layer| layer.digest));
    true
}
