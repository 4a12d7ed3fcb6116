//! `fsck`: whether all that is in the store is what it says it is.
//!
//! The check goes from names to content: references to the manifests and indexes that they name, those to configurations and
//! layers. Every blob is hashed, whether an image needs it or not; every tree that counts is compared with its list, or with what its
//! layer gives when it is extracted once more. The store is in use meanwhile, so that nothing is freed; others may read it and
//! add to it, and what they are at work on is left alone. Plugins are checked in the same way: their notes, and what those name.
//!
//! A repair takes away what does not count anyway, so that it is made or fetched again: a blob that does not hash to its name, a tree
//! that is not as it was extracted. It never takes something for damaged that was replaced meanwhile: each is judged again
//! under its lock. What only a registry has is for the user to pull.
//!
//! Without `repair`, nothing is changed, except that a tree which had no list and was found right gets one.

mod blobs;
mod images;
mod open;
mod plugins;
mod repair;
mod report;
mod trees;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use cofferdam_core::cancel::Cancel;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use cofferdam_core::progress::{Event, Progress};
use cofferdam_core::threads;
use images::Needs;

use crate::bundle;
use crate::layout::BlobKind;
use crate::plugins::{InstalledPlugin, Plugins};
use crate::storage::ImageStorage;
use crate::trees::Trees;
pub use report::{Counts, Finding, FsckReport, Part, Problem, TreeDifference};

/// How to check a store.
#[derive(Clone, Debug)]
pub struct FsckOptions {
    /// Repair what can be repaired here.
    pub repair: bool,
    /// Decode each layer that an image needs, compare it with its `DiffID`, and its tree with what it gives.
    pub deep: bool,
    /// How many things are checked at once.
    pub jobs: NonZeroUsize,
    /// How many differences of one tree are reported; all are counted.
    pub differences: usize,
    /// How the caller gives up.
    pub cancel: Cancel,
}

impl Default for FsckOptions {
    /// Checks, as many things at once as there are processors, but at most four, and repairs nothing.
    fn default() -> Self {
        let jobs = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self {
            repair: false,
            deep: false,
            jobs: jobs.min(const { NonZeroUsize::new(4).unwrap() }),
            differences: 10,
            cancel: Cancel::new(),
        }
    }
}

/// Something to be checked.
enum Item {
    Blob(BlobKind, Digest),
    /// A tree, by the number of its directory.
    Tree(usize, Digest),
    /// The component of a plugin.
    Component(Digest),
}

/// A directory of trees, by its path in the store.
struct Place {
    path: String,
    of: Of,
}

enum Of {
    Registry,
    /// A local layout, by its key.
    Local(String),
    Overlay,
}

/// A check under way.
struct Check<'a> {
    storage: &'a ImageStorage,
    options: &'a FsckOptions,
    progress: &'a Progress,
    /// All directories of trees, the registry's first. Opened when they are looked at: local layouts may be many.
    trees: Vec<Place>,
    needs: Needs,
    plugins: Plugins,
    /// The plugins of which the note can be read.
    installed: Vec<InstalledPlugin>,
    findings: Mutex<Vec<Finding>>,
    counts: Mutex<Counts>,
    /// Blobs that are there and right.
    good: Mutex<BTreeSet<(Part, Digest)>>,
    /// Layers of the registry whose trees count and are right, as far as anybody can tell.
    whole: Mutex<BTreeSet<Digest>>,
    items: u64,
    done: AtomicU64,
    bytes: AtomicU64,
}

impl ImageStorage {
    /// Checks the store, and repairs it if that is asked for. Blocks the thread; works on several more.
    ///
    /// # Errors
    ///
    /// Only what keeps the check itself from going on. What it finds is in the report.
    pub fn fsck(&self, options: &FsckOptions, progress: &Progress) -> Result<FsckReport> {
        if options.repair {
            self.writable()?;
        }
        // Where not even a lock can be taken, nobody can free anything either.
        let _in_use = match self.in_use_unless(&options.cancel) {
            Ok(in_use) => Some(in_use),
            Err(error) if is_read_only(&error) => None,
            Err(error) => return Err(error),
        };
        let mut trees = vec![Place { path: "extracted".into(), of: Of::Registry }];
        for key in bundle::keys(self)? {
            trees.push(Place { path: format!("local/{key}/extracted"), of: Of::Local(key) });
        }
        if self.overlay_trees_made()?.is_some() {
            trees.push(Place { path: "overlay/extracted".into(), of: Of::Overlay });
        }
        let mut check = Check {
            storage: self,
            options,
            progress,
            trees,
            needs: Needs::default(),
            plugins: self.plugins()?,
            installed: Vec::new(),
            findings: Mutex::default(),
            counts: Mutex::default(),
            good: Mutex::default(),
            whole: Mutex::default(),
            items: 0,
            done: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        };
        check.needs = check.references()?;
        check.installed = check.notes()?;
        let items = check.items()?;
        check.items = items.len() as u64;
        check.run(&items)?;
        check.strays()?;
        if options.repair {
            check.repair()?;
        }
        check.incomplete();
        check.incomplete_plugins();
        Ok(check.finish())
    }
}

impl Check<'_> {
    /// All that is to be checked, the largest kind first, so that no long one is left for the end.
    fn items(&self) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        for (index, place) in self.trees.iter().enumerate() {
            let trees = self.open(place)?;
            let all: BTreeSet<Digest> = trees.stored()?.into_iter().chain(trees.recorded()?).collect();
            items.extend(all.into_iter().map(|digest| Item::Tree(index, digest)));
        }
        for kind in [BlobKind::Layer, BlobKind::Config, BlobKind::Manifest] {
            items.extend(self.blobs(kind)?.into_iter().map(|digest| Item::Blob(kind, digest)));
        }
        items.extend(self.plugins.components()?.into_iter().map(Item::Component));
        Ok(items)
    }

    /// The trees of a directory. The store is in use, so nobody takes it away.
    fn open(&self, place: &Place) -> Result<Trees> {
        match &place.of {
            Of::Registry => Ok(self.storage.trees().clone()),
            Of::Local(key) => bundle::open(self.storage, key),
            Of::Overlay => self.storage.overlay_trees(),
        }
    }

    /// The directory of trees in which something lies, or its records.
    fn place_of(&self, path: &str) -> Option<&Place> {
        self.trees.iter().find(|place| {
            path.starts_with(&*place.path) || path.starts_with(&place.path.replace("extracted", "records"))
        })
    }

    fn run(&self, items: &[Item]) -> Result<()> {
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(None);
        let work = || {
            while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                let outcome = self.options.cancel.check().and_then(|()| match item {
                    Item::Blob(kind, digest) => self.blob(*kind, digest),
                    Item::Tree(index, digest) => self.tree_or_why(*index, digest),
                    Item::Component(digest) => self.component(digest),
                });
                if let Err(error) = outcome {
                    next.store(items.len(), Ordering::Relaxed);
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    return;
                }
                self.done.fetch_add(1, Ordering::Relaxed);
                self.tell(0);
            }
        };
        threads::share("cofferdam-fsck", self.options.jobs.get().min(items.len()), work);
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Says that so many more bytes were read.
    fn tell(&self, read: u64) {
        let bytes = self.bytes.fetch_add(read, Ordering::Relaxed) + read;
        let done = self.done.load(Ordering::Relaxed);
        self.progress.emit(Event::Checked { done, of: self.items, bytes });
    }

    fn find(&self, finding: Finding) {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).push(finding);
    }

    fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn is_good(&self, part: Part, digest: &Digest) -> bool {
        self.good.lock().unwrap_or_else(PoisonError::into_inner).contains(&(part, digest.clone()))
    }

    fn mark_good(&self, part: Part, digest: &Digest) {
        self.good.lock().unwrap_or_else(PoisonError::into_inner).insert((part, digest.clone()));
    }

    fn is_whole(&self, layer: &Digest) -> bool {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner).contains(layer)
    }

    fn mark_whole(&self, layer: &Digest) {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner).insert(layer.clone());
    }

    fn finish(self) -> FsckReport {
        let mut findings = self.findings.into_inner().unwrap_or_else(PoisonError::into_inner);
        findings
            .sort_by(|a, b| (a.part, &a.path, &a.subject, a.problem).cmp(&(b.part, &b.path, &b.subject, b.problem)));
        let mut checked = self.counts.into_inner().unwrap_or_else(PoisonError::into_inner);
        checked.bytes = self.bytes.into_inner();
        FsckReport { checked, findings }
    }
}

/// What a kind of blobs is called in a report.
fn part(kind: BlobKind) -> Part {
    match kind {
        BlobKind::Manifest => Part::Manifest,
        BlobKind::Config => Part::Config,
        BlobKind::Layer => Part::Layer,
    }
}

/// Whether something failed because the store cannot be written.
fn is_read_only(error: &Error) -> bool {
    match error.root() {
        Error::Io { source, .. } => {
            matches!(source.kind(), std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied)
        }
        _ => false,
    }
}

/// An error and its causes, in one line.
fn sentence(error: &Error) -> String {
    let root = error.root();
    match std::error::Error::source(root) {
        Some(cause) => format!("{root}: {cause}"),
        None => root.to_string(),
    }
}

/// Things by digest, and which images need them.
type Users = BTreeMap<(Part, Digest), Vec<String>>;
