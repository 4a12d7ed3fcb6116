//! What documents and layers take on disk, with what is noted about them.

use std::collections::BTreeMap;

use cofferdam_core::digest::Digest;

use crate::census::{Kind, Thing};
use crate::reach::{Document, Parts};

/// What each thing takes.
#[derive(Default)]
pub(super) struct Costs<'a> {
    documents: BTreeMap<(Document, &'a Digest), u64>,
    /// Blobs, and trees with what is noted about them.
    pub(super) layers: BTreeMap<&'a Digest, [u64; 2]>,
    overlay: BTreeMap<&'a Digest, u64>,
    references: BTreeMap<String, u64>,
}

impl<'a> Costs<'a> {
    pub(super) fn of(things: &'a [Thing]) -> Self {
        let mut costs = Self::default();
        for thing in things {
            let Some(digest) = &thing.digest else {
                if thing.kind == Kind::Reference {
                    costs.references.insert(thing.path.clone(), thing.bytes);
                }
                continue;
            };
            let about = thing.about.as_deref().unwrap_or_default();
            let slot = match thing.kind {
                Kind::Manifest => costs.documents.entry((Document::Manifest, digest)).or_default(),
                Kind::Note if about.starts_with("manifests/") => {
                    costs.documents.entry((Document::Manifest, digest)).or_default()
                }
                Kind::Config => costs.documents.entry((Document::Config, digest)).or_default(),
                Kind::Layer => &mut costs.layers.entry(digest).or_default()[0],
                Kind::Tree => &mut costs.layers.entry(digest).or_default()[1],
                Kind::Note if about.starts_with("extracted/") => &mut costs.layers.entry(digest).or_default()[1],
                Kind::OverlayTree => costs.overlay.entry(digest).or_default(),
                Kind::Note if about.starts_with("overlay/") => costs.overlay.entry(digest).or_default(),
                _ => continue,
            };
            *slot += thing.bytes;
        }
        costs
    }

    pub(super) fn reference(&self, path: &str) -> u64 {
        self.references.get(path).copied().unwrap_or(0)
    }

    /// What these parts take, as far as they are wanted.
    pub(super) fn sum(&self, parts: &Parts, wanted: impl Fn(&Digest) -> bool) -> u64 {
        let documents = parts.documents.iter().filter(|(_, digest)| wanted(digest));
        let documents = documents.map(|(kind, digest)| self.documents.get(&(*kind, digest)).copied().unwrap_or(0));
        let layers = parts.layers.iter().filter(|digest| wanted(digest));
        let layers = layers.map(|digest| self.layers.get(digest).map_or(0, |[blob, tree]| blob + tree));
        let overlay = parts.overlay.iter().filter(|digest| wanted(digest));
        let overlay = overlay.map(|digest| self.overlay.get(digest).copied().unwrap_or(0));
        documents.chain(layers).chain(overlay).sum()
    }
}
