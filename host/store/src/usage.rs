//! What the store takes on disk, and for whom.
//!
//! Each thing is counted once, so the sums are what `du` says. What images share is a part of the cost of each of them, so
//! those do not add up; what is an image's own is what its removal alone would free.

use std::collections::BTreeMap;

use cofferdam_core::digest::Digest;
use cofferdam_core::error::Result;
use serde::Serialize;

use crate::census::Kind;
use crate::costs::Costs;
use crate::gc::GcOptions;
use crate::reach::Known;
use crate::refs;
use crate::storage::ImageStorage;

/// What the store takes on disk, in bytes.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Usage {
    /// The images, by name.
    pub images: Vec<ImageUsage>,
    /// The layers, by digest, whether an image has them or not.
    pub layers: Vec<LayerUsage>,
    /// Everything, by what it is.
    pub by_kind: BTreeMap<Kind, u64>,
    /// Everything.
    pub total: u64,
    /// What a collection would free now.
    pub reclaimable: u64,
}

/// What an image takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ImageUsage {
    /// Its reference.
    pub reference: String,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// When it was used last: seconds since 1970, UTC.
    pub used_at: u64,
    /// Whether it could be read to the end. If not, it is not known what else it takes, and nothing is freed.
    pub complete: bool,
    /// Its documents, and its layers' blobs, trees and notes.
    pub bytes: u64,
    /// What of that no other reference needs: what its removal alone would free.
    pub own: u64,
}

/// What a layer takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LayerUsage {
    /// The digest of its blob.
    pub digest: Digest,
    /// Its blob.
    pub blob: u64,
    /// Its tree, with what is noted about that.
    pub tree: u64,
    /// How many references need it.
    pub images: usize,
}

impl ImageStorage {
    /// What the store takes on disk. Changes nothing; looks at every file of a tree of which it was not noted what it takes. Blocks
    /// the thread.
    pub fn usage(&self) -> Result<Usage> {
        let before = self.before()?;
        let mut usage = Usage { total: before.total(), ..Usage::default() };
        for thing in &before.things {
            *usage.by_kind.entry(thing.kind).or_default() += thing.bytes;
        }
        usage.reclaimable = self.rehearse(&before, &GcOptions { dry_run: true, ..GcOptions::default() })?.bytes;
        let mut known = Known::default();
        let images: Vec<_> =
            self.images()?.into_iter().map(|image| (self.parts_of(&image, &mut known), image)).collect();
        let mut needed: BTreeMap<&Digest, usize> = BTreeMap::new();
        for ((parts, _), _) in &images {
            for digest in parts.digests() {
                *needed.entry(digest).or_default() += 1;
            }
        }
        let costs = Costs::of(&before.things);
        for ((parts, complete), image) in &images {
            let alone = |digest: &Digest| needed.get(digest) == Some(&1);
            usage.images.push(ImageUsage {
                reference: image.reference.clone(),
                manifest: image.manifest.clone(),
                used_at: self.used_at(image),
                complete: *complete,
                bytes: costs.sum(parts, |_| true),
                own: costs.sum(parts, alone) + costs.reference(&refs::path(&image.reference)?),
            });
        }
        for (digest, [blob, tree]) in &costs.layers {
            let images = needed.get(digest).copied().unwrap_or(0);
            usage.layers.push(LayerUsage { digest: (*digest).clone(), blob: *blob, tree: *tree, images });
        }
        Ok(usage)
    }
}
