//! Collection: frees what no reference and no lease needs, and removes images by age and size if that is asked for.
//!
//! An image counts as used when it is pulled, tagged, leased by name, or unpacked; the time of its reference's file says when. So that
//! survives restarts, costs one system call, and is nobody's concern where nothing can be written.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cofferdam_core::ambient;
use cofferdam_core::cancel::Cancel;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::Result;
use serde::Serialize;

use crate::census::{Kind, Thing, relative};
use crate::collect::{IN_USE, Taken};
use crate::costs::Costs;
use crate::layout::BlobKind;
use crate::lease::Leased;
use crate::reach::{Culprit, Document, Known, Parts};
use crate::refs::{self, ImageRef, Listing};
use crate::storage::{ImageStorage, blob_lock};
use crate::{bundle, promote};

/// How long a compiled guest must not have been used to be left over. Making it again takes less than a second.
const GUESTS: Duration = Duration::from_hours(30 * 24);

/// What a collection is to do.
#[derive(Clone, Debug, Default)]
pub struct GcOptions {
    /// Only say what would be done; nothing at all is changed.
    pub dry_run: bool,
    /// Also remove images that were not used for so long.
    pub older_than: Option<Duration>,
    /// Also remove images, the least recently used first, until the store takes at most so many bytes on disk.
    pub keep_storage: Option<u64>,
    /// What time it is, for the age of images; the system's time if none.
    pub now: Option<SystemTime>,
    /// How the caller gives up. What has lost its name by then is swept later.
    pub cancel: Cancel,
}

/// What a collection did, or would do.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Collected {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Images that were removed by age or size.
    pub images: Vec<RemovedImage>,
    /// What was freed.
    pub freed: Vec<Freed>,
    /// What was kept though it looks unneeded, or though the options ask for its removal.
    pub kept: Vec<Kept>,
    /// The bytes on disk that were freed.
    pub bytes: u64,
    /// The bytes on disk that the store takes after that.
    pub remaining: u64,
}

/// An image that was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RemovedImage {
    /// Its reference.
    pub reference: String,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// When it was used last: seconds since 1970, UTC.
    pub used_at: u64,
    /// For which reason.
    pub why: Why,
}

/// Why an image was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Why {
    /// It was not used for long.
    OlderThan,
    /// The store was too large.
    KeepStorage,
}

/// Something that was freed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Freed {
    /// What it was.
    pub kind: Kind,
    /// Where it was, from the store's directory.
    pub path: String,
    /// The bytes that it took on disk.
    pub bytes: u64,
}

/// Something that was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Kept {
    /// What: a path in the store, or an image's reference.
    pub what: String,
    /// Why.
    pub why: String,
}

/// What is to be done.
#[derive(Default)]
pub(super) struct Plan {
    images: Vec<RemovedImage>,
    /// Without what is leased.
    parts: Parts,
    kept: Vec<Kept>,
}

/// The images, as they are judged one by one.
struct Choice<'a> {
    leased: &'a Leased,
    /// With the time of their last use.
    staying: Vec<(u64, &'a ImageRef)>,
    going: Vec<&'a ImageRef>,
    plan: Plan,
}

impl<'a> Choice<'a> {
    /// An image goes if there is a reason, unless somebody leases it. Says whether it goes.
    fn judge(&mut self, image: &'a ImageRef, used_at: u64, why: Option<Why>) -> bool {
        let Some(why) = why else {
            self.staying.push((used_at, image));
            return false;
        };
        let ImageRef { reference, manifest, .. } = image;
        if self.leased.has(manifest) {
            let kept = Kept { what: reference.clone(), why: LEASED.into() };
            if !self.plan.kept.contains(&kept) {
                self.plan.kept.push(kept);
            }
            self.staying.push((used_at, image));
            return false;
        }
        self.plan.images.push(RemovedImage { reference: reference.clone(), manifest: manifest.clone(), used_at, why });
        self.going.push(image);
        true
    }
}

const LEASED: &str = "somebody leases it";

fn not_known(culprit: &str) -> Kept {
    Kept { what: "everything".into(), why: format!("what {culprit} needs is not known") }
}

/// What is known before anything is done.
pub(super) struct Before {
    pub(super) things: Vec<Thing>,
    /// When that was; seconds since 1970, UTC.
    taken_at: u64,
    /// What time it is for images.
    now: u64,
}

impl ImageStorage {
    /// Frees what neither a reference nor a lease needs: blobs, documents, trees, also those of local layouts, what the dead left in
    /// staging, compiled guests that nobody uses, components that no plugin has; and removes the images that the options name, but none that
    /// is leased. Others
    /// may work on the store meanwhile: what they rely on stays. Blocks the thread.
    pub fn gc(&self, options: &GcOptions) -> Result<Collected> {
        if !options.dry_run {
            self.writable()?;
        }
        let now = options.now.unwrap_or_else(ambient::now);
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let before = Before { now, ..self.before()? };
        options.cancel.check()?;
        if options.dry_run { self.rehearse(&before, options) } else { self.perform(&before, options) }
    }

    /// What would be done, as far as a look can tell.
    pub(super) fn rehearse(&self, before: &Before, options: &GcOptions) -> Result<Collected> {
        let mut done = Collected { dry_run: true, ..Collected::default() };
        let mut gone: BTreeSet<String> = before.left_over().map(|thing| thing.path.clone()).collect();
        let components = self.components_kept()?;
        if self.locks().is_shared() {
            done.kept.push(Kept { what: "everything".into(), why: IN_USE.into() });
            done.kept.extend(components);
            return Ok(before.report(done, &gone));
        }
        let leased = Leased::read(self.locks(), false)?;
        let plan = self.plan(before, &self.refs().list()?, &leased, options, &mut Known::default())?;
        done.kept = plan.kept;
        done.kept.extend(components);
        for image in &plan.images {
            gone.insert(refs::path(&image.reference)?);
        }
        done.images = plan.images;
        let mut free = |path: String, why: Option<&str>| match why {
            Some(why) => done.kept.push(Kept { what: path, why: why.into() }),
            None => drop(gone.insert(path)),
        };
        for (document, digest) in &plan.parts.documents {
            let busy = self.locks().is_held(&blob_lock(document.kind(), digest)).then_some("it is being written");
            free(blob_path(document.kind(), digest), busy);
        }
        for digest in &plan.parts.layers {
            let busy = self.trees().why_kept(digest);
            free(relative(self, &self.trees().path(digest)), busy);
            let writing = || self.locks().is_held(&blob_lock(BlobKind::Layer, digest)).then_some("it is being written");
            free(blob_path(BlobKind::Layer, digest), busy.or_else(writing));
        }
        if let Some(trees) = self.overlay_trees_made()? {
            for digest in &plan.parts.overlay {
                free(relative(self, &trees.path(digest)), trees.why_kept(digest));
            }
        }
        for key in bundle::keys(self)? {
            let busy = bundle::is_open(self, &key).then_some("its layout is in use");
            let prefix = format!("local/{key}/extracted/");
            let trees = before.things.iter().filter(|thing| thing.kind == Kind::LocalTree);
            for thing in trees.filter(|thing| thing.path.starts_with(&prefix)) {
                free(thing.path.clone(), busy);
            }
        }
        Ok(before.report(done, &gone))
    }

    fn perform(&self, before: &Before, options: &GcOptions) -> Result<Collected> {
        let mut done = Collected::default();
        // One bad entry keeps nothing else; what stays is not reported as gone.
        let _ = self.sweep_unless(&options.cancel);
        options.cancel.check()?;
        let _ = self.plugins().and_then(|plugins| plugins.sweep());
        let mut known = Known::default();
        // What images need is read before the gate is taken: there it is only looked up.
        let _ = self.needed(&self.refs().list()?, &mut known);
        let mut taken = Taken::default();
        if let Some(collecting) = self.collecting(Some(&options.cancel))? {
            let plan = self.plan(before, &self.refs().list()?, &collecting.leased, options, &mut known)?;
            if !plan.images.is_empty() {
                self.refs().remove_all(plan.images.iter().map(|image| image.reference.as_str()))?;
            }
            let took = self.take(&plan.parts, &mut taken);
            let took = took.and(before.lost_notes().try_for_each(|digest| self.take_lost_note(digest)));
            drop(collecting);
            if let Err(error) = took {
                // What has lost its name goes, whatever keeps the rest.
                let _ = self.discard(&taken, Some(&options.cancel));
                return Err(error);
            }
            (done.images, done.kept) = (plan.images, plan.kept);
        } else {
            done.kept.push(Kept { what: "everything".into(), why: IN_USE.into() });
        }
        self.discard(&taken, Some(&options.cancel))?;
        done.kept.extend(self.components_kept()?);
        let local = self.free_local(Some(&options.cancel))?;
        done.kept.extend(local.kept.into_iter().map(|(what, why)| Kept { what, why: why.into() }));
        for thing in before.left_over().filter(|thing| thing.kind == Kind::Guest) {
            // Made again when it is needed; whoever has it open keeps it.
            let _ = self.rooms().root.remove_file(&thing.path);
        }
        let busy = taken.kept.iter().map(|(digest, why)| Kept { what: digest.to_string(), why: (*why).into() });
        done.kept.extend(busy);
        let mut gone: BTreeSet<String> = taken.blobs.iter().map(|blob| blob_path(blob.kind, &blob.digest)).collect();
        gone.extend(taken.trees.iter().map(|tree| relative(self, &tree.path())));
        gone.extend(local.freed.iter().map(|(path, _)| relative(self, path)));
        for image in &done.images {
            gone.insert(refs::path(&image.reference)?);
        }
        let left = before.left_over().filter(|thing| self.rooms().root.symlink_metadata(&thing.path).is_err());
        gone.extend(left.map(|thing| thing.path.clone()));
        Ok(before.report(done, &gone))
    }

    /// The components of plugins, if it is not known which of them are needed.
    fn components_kept(&self) -> Result<Option<Kept>> {
        let culprit = self.plugins()?.unnamed()?.err();
        Ok(culprit.map(|why| Kept { what: "components that no other plugin has".into(), why }))
    }

    /// Which images go, and what else: with the gate held, so that it stays right until it is done.
    fn plan(
        &self,
        before: &Before,
        listing: &Listing,
        leased: &Leased,
        options: &GcOptions,
        known: &mut Known,
    ) -> Result<Plan> {
        let mut plan = Plan::default();
        if let Err(culprit) = self.needed(listing, known) {
            plan.kept.push(not_known(&culprit));
            return Ok(plan);
        }
        let mut images: Vec<_> = listing.refs.iter().map(|image| (self.used_at(image), image)).collect();
        images.sort_by(|(a, x), (b, y)| (a, &x.reference).cmp(&(b, &y.reference)));
        let mut choice = Choice { leased, staying: Vec::new(), going: Vec::new(), plan };
        for (used_at, image) in images {
            let old = options.older_than.is_some_and(|age| before.now.saturating_sub(used_at) > age.as_secs());
            choice.judge(image, used_at, old.then_some(Why::OlderThan));
        }
        let mut unneeded = self.unneeded_after(&choice, known)?;
        if let (Ok(parts), Some(most)) = (&unneeded, options.keep_storage) {
            let mut freeable = parts.clone();
            freeable.drop_leased(leased);
            let kept = if self.keeps_unreferenced() { self.named_by_others(listing, known)? } else { Parts::default() };
            let left = before.bytes_without(&freeable);
            choice = self.shrink(choice, most, left, &Costs::of(&before.things), &kept, known)?;
            unneeded = self.unneeded_after(&choice, known)?;
        }
        let mut plan = choice.plan;
        let mut unneeded = match unneeded {
            Ok(unneeded) => unneeded,
            Err(culprit) => {
                plan.kept.push(not_known(&culprit));
                return Ok(Plan { kept: plan.kept, ..Plan::default() });
            }
        };
        for digest in unneeded.digests().into_iter().filter(|digest| leased.has(digest)) {
            let unread = leased.unreadable().map(|name| format!("what `locks/{name}` leases is not known"));
            plan.kept.push(Kept { what: digest.to_string(), why: unread.unwrap_or_else(|| LEASED.into()) });
        }
        if self.keeps_unreferenced() {
            let why = "somebody keeps content that no reference names (keep-unreferenced)".into();
            plan.kept.push(Kept { what: "what no image names".into(), why });
        }
        unneeded.drop_leased(leased);
        plan.parts = unneeded;
        Ok(plan)
    }

    /// Lets images go, the least recently used first, until the store takes at most `most` bytes.
    fn shrink<'a>(
        &self,
        mut choice: Choice<'a>,
        most: u64,
        mut left: u64,
        costs: &Costs<'_>,
        kept: &Parts,
        known: &mut Known,
    ) -> Result<Choice<'a>> {
        let staying: Vec<_> =
            choice.staying.drain(..).map(|(used_at, image)| (used_at, image, self.parts_of(image, known).0)).collect();
        let mut needed: BTreeMap<Digest, usize> = BTreeMap::new();
        for digest in staying.iter().flat_map(|(_, _, parts)| parts.digests()) {
            *needed.entry(digest.clone()).or_default() += 1;
        }
        for (used_at, image, parts) in &staying {
            if !choice.judge(image, *used_at, (left > most).then_some(Why::KeepStorage)) {
                continue;
            }
            for digest in parts.digests() {
                needed.entry(digest.clone()).and_modify(|count| *count -= 1);
            }
            let goes = |digest: &Digest| needed.get(digest) == Some(&0) && !choice.leased.has(digest);
            let freed = costs.sum(&parts.clone().without(kept), goes) + costs.reference(&refs::path(&image.reference)?);
            left = left.saturating_sub(freed);
        }
        if left > most {
            let why = format!("all that may go is gone, and it still takes {left} bytes");
            choice.plan.kept.push(Kept { what: "the store".into(), why });
        }
        Ok(choice)
    }

    /// What nothing needs when those images are gone that are to go.
    fn unneeded_after(&self, choice: &Choice<'_>, known: &mut Known) -> Result<Result<Parts, Culprit>> {
        let needed = match self.needed_by(choice.staying.iter().map(|(_, image)| *image), known) {
            Ok(needed) => needed,
            Err(culprit) => return Ok(Err(culprit)),
        };
        match self.needed_by(choice.going.iter().copied(), known) {
            Ok(gone) => self.unneeded(&gone, &needed),
            Err(culprit) => Ok(Err(culprit)),
        }
    }

    /// What manifests name that belong to no image here; nothing if that is not known: then nothing will be freed.
    fn named_by_others(&self, listing: &Listing, known: &mut Known) -> Result<Parts> {
        let ours = self.needed(listing, known).unwrap_or_default();
        Ok(self.named_except(&ours)?.unwrap_or_default())
    }

    /// When an image was used last. A file that went away meanwhile was used just now.
    pub(super) fn used_at(&self, image: &ImageRef) -> u64 {
        self.refs().used_at(&image.reference).unwrap_or(u64::MAX)
    }

    /// What a look tells now, for [`ImageStorage::rehearse`].
    pub(super) fn before(&self) -> Result<Before> {
        let now = promote::seconds();
        Ok(Before { things: self.census(now)?, taken_at: now, now })
    }
}

impl Before {
    /// What is there though its owner is gone, or what it is about.
    fn left_over(&self) -> impl Iterator<Item = &Thing> {
        let paths: BTreeSet<&str> = self.things.iter().map(|thing| thing.path.as_str()).collect();
        self.things.iter().filter(move |thing| match thing.kind {
            Kind::Staging | Kind::Plugin => thing.dead,
            Kind::Note => thing.about.as_deref().is_some_and(|about| !paths.contains(about)),
            Kind::Guest => self.taken_at.saturating_sub(thing.used_at) > GUESTS.as_secs(),
            _ => false,
        })
    }

    /// Manifests that are gone, but for the note about them.
    fn lost_notes(&self) -> impl Iterator<Item = &Digest> {
        let notes = self.left_over().filter(|thing| thing.kind == Kind::Note && thing.path.contains("/manifest."));
        notes.filter_map(|thing| thing.digest.as_ref())
    }

    /// The bytes that the store takes without these parts and what is freed in any case.
    fn bytes_without(&self, parts: &Parts) -> u64 {
        let documents: BTreeMap<&Digest, Document> =
            parts.documents.iter().map(|(kind, digest)| (digest, *kind)).collect();
        let gone = |thing: &&Thing| match (thing.kind, &thing.digest) {
            (Kind::LocalTree, _) => true,
            (Kind::Manifest, Some(digest)) => documents.get(digest) == Some(&Document::Manifest),
            (Kind::Config, Some(digest)) => documents.get(digest) == Some(&Document::Config),
            (Kind::Layer | Kind::Tree, Some(digest)) => parts.layers.contains(digest),
            (Kind::OverlayTree, Some(digest)) => parts.overlay.contains(digest),
            _ => false,
        };
        let left: u64 = self.left_over().map(|thing| thing.bytes).sum();
        let paths: BTreeSet<&str> = self.things.iter().filter(gone).map(|thing| thing.path.as_str()).collect();
        let goes = |thing: &&Thing| {
            paths.contains(thing.path.as_str()) || thing.about.as_deref().is_some_and(|about| paths.contains(about))
        };
        let gone: u64 = self.things.iter().filter(goes).map(|thing| thing.bytes).sum();
        self.total().saturating_sub(left + gone)
    }

    pub(super) fn total(&self) -> u64 {
        self.things.iter().map(|thing| thing.bytes).sum()
    }

    /// Lists what is gone, and counts it.
    fn report(&self, mut done: Collected, gone: &BTreeSet<String>) -> Collected {
        let is_gone = |thing: &&Thing| {
            gone.contains(&thing.path) || thing.about.as_ref().is_some_and(|about| gone.contains(about))
        };
        done.freed = self
            .things
            .iter()
            .filter(is_gone)
            .map(|Thing { kind, path, bytes, .. }| Freed { kind: *kind, path: path.clone(), bytes: *bytes })
            .collect();
        done.freed.sort_by(|a, b| (a.kind, &a.path).cmp(&(b.kind, &b.path)));
        done.bytes = done.freed.iter().map(|freed| freed.bytes).sum();
        done.remaining = self.total().saturating_sub(done.bytes);
        done
    }
}

fn blob_path(kind: BlobKind, digest: &Digest) -> String {
    format!("{}/{}", kind.directory(), kind.file_name(digest))
}
