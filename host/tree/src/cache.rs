//! Open directories by path, so that the files of a directory do not resolve it again and again.
//!
//! # Validity
//!
//! A path is remembered in the layer's spelling, links and all. What it leads to changes only when a directory or a link
//! is removed or replaced, and only the writer does that: it then forgets ([`DirCache::forget_within`],
//! [`DirCache::forget_aliases`]). This is the lesson of CVE-2025-47290 and GHSA-3wgq-wrwc-vqmv, where a cached parent
//! outlived its directory. A handle never leads out of the tree, whatever lies at the path by now.
//!
//! A path that is its directory's own holds no link, so removing a directory ends just the paths below it. Paths through
//! links end with the removal of any link and of any directory, which may have held the link.
//!
//! # Cost
//!
//! A layer chooses the order of its entries. Opening a directory again costs a walk over each component of its path, and
//! a cold one takes the kernel about a microsecond. Three things keep a layer from buying that for each entry:
//!
//! * Thousands of handles are kept, as far as the limit of open files allows.
//! * The handle that makes room is chosen at random. With the oldest, one directory too many in turns would defeat all
//!   handles at once; so it defeats as many as it is too many.
//! * A removal costs the handles that it ends, and not the rest.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, getrlimit};

use super::handle::Dir;
use super::sys::within;

/// Handles of all writers of the process together, at most.
const MOST: usize = 4096;

/// Handles that each writer may keep, whatever the others have.
const FEWEST: usize = 64;

/// Bytes of paths that a writer keeps, at most.
const PATH_BYTES: usize = 4 << 20;

/// Handles that all writers of the process keep.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// One open directory.
#[derive(Debug)]
struct Slot {
    dir: Arc<Dir>,
    /// The path that it is known by, unless that is its own.
    alias: Option<Box<[u8]>>,
}

impl Slot {
    fn path(&self) -> &[u8] {
        self.alias.as_deref().unwrap_or(&self.dir.path)
    }
}

/// A bounded set of open directories.
#[derive(Debug)]
pub(super) struct DirCache {
    slots: Vec<Slot>,
    /// Slots of directories that are known by their own path, in the order of paths.
    straight: BTreeMap<Box<[u8]>, usize>,
    /// Slots of directories that are known by a path that leads through a link.
    aliases: BTreeMap<Box<[u8]>, usize>,
    /// Length of all paths in `slots`.
    path_bytes: usize,
    /// Share of the process's open files that is left to all writers.
    most: usize,
    /// Source of randomness, and how much of it was used.
    key: RandomState,
    draws: u64,
}

impl Default for DirCache {
    /// A cache that leaves three quarters of the process's open files to others.
    fn default() -> Self {
        let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok());
        Self::with_most(files.map_or(MOST, |files| MOST.min(files / 4)))
    }
}

impl DirCache {
    /// A cache that adds none to so many handles in the process.
    pub(super) fn with_most(most: usize) -> Self {
        Self {
            slots: Vec::new(),
            straight: BTreeMap::new(),
            aliases: BTreeMap::new(),
            path_bytes: 0,
            most,
            key: RandomState::new(),
            draws: 0,
        }
    }

    /// Returns the directory that a path leads to, if it is known.
    pub(super) fn get(&self, path: &[u8]) -> Option<Arc<Dir>> {
        let at = self.straight.get(path).or_else(|| self.aliases.get(path))?;
        self.slots.get(*at).map(|slot| Arc::clone(&slot.dir))
    }

    /// Remembers what a path leads to.
    pub(super) fn insert(&mut self, path: &[u8], dir: &Arc<Dir>) {
        self.remove(path);
        while !self.has_room() && !self.slots.is_empty() {
            self.evict();
            if self.path_bytes <= PATH_BYTES {
                break;
            }
        }
        let at = self.slots.len();
        let alias = (*path != *dir.path).then(|| Box::from(path));
        if alias.is_some() {
            self.aliases.insert(path.into(), at);
        } else {
            self.straight.insert(path.into(), at);
        }
        self.path_bytes += path.len() + dir.path.len();
        self.slots.push(Slot { dir: Arc::clone(dir), alias });
        OPEN.fetch_add(1, Ordering::Relaxed);
    }

    /// Remembers a directory that a walk passes, if no other has to go for it: a walk may pass hundreds.
    pub(super) fn offer(&mut self, dir: &Arc<Dir>) {
        if self.has_room() {
            self.insert(&dir.path, dir);
        }
    }

    /// Returns true if one more directory may be kept.
    fn has_room(&self) -> bool {
        let is_full = self.slots.len() >= self.most.min(FEWEST) && OPEN.load(Ordering::Relaxed) >= self.most;
        self.path_bytes <= PATH_BYTES && !is_full
    }

    /// Forgets the directory at a place and those inside: it is gone, or some of them are. With it goes each path through a
    /// link, since the link may have been in there.
    pub(super) fn forget_within(&mut self, place: &[u8]) {
        if place.is_empty() {
            self.clear();
            return;
        }
        self.forget_aliases();
        self.remove(place);
        let inside = within(place);
        let bounds = (Bound::Included(&*inside.start), Bound::Excluded(&*inside.end));
        while let Some(path) = self.straight.range::<[u8], _>(bounds).next().map(|(path, _)| path.clone()) {
            self.remove(&path);
        }
    }

    /// Forgets the paths that lead through links: a link is gone.
    pub(super) fn forget_aliases(&mut self) {
        while let Some((_, at)) = self.aliases.pop_first() {
            self.vacate(at);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        OPEN.fetch_sub(self.slots.len(), Ordering::Relaxed);
        self.slots.clear();
        self.straight.clear();
        self.aliases.clear();
        self.path_bytes = 0;
    }

    /// Forgets one path.
    fn remove(&mut self, path: &[u8]) {
        if let Some(at) = self.straight.remove(path).or_else(|| self.aliases.remove(path)) {
            self.vacate(at);
        }
    }

    /// Forgets a directory chosen at random, which the layer cannot foresee.
    fn evict(&mut self) {
        self.draws += 1;
        let slots = self.slots.len() as u64;
        let drawn = self.key.hash_one(self.draws).checked_rem(slots).and_then(|at| usize::try_from(at).ok());
        if let Some(path) = drawn.and_then(|at| self.slots.get(at)).map(|slot| Box::<[u8]>::from(slot.path())) {
            self.remove(&path);
        }
    }

    /// Empties a slot whose path was removed from its table. The last one moves there.
    fn vacate(&mut self, at: usize) {
        if at >= self.slots.len() {
            return;
        }
        let gone = self.slots.swap_remove(at);
        self.path_bytes -= gone.path().len() + gone.dir.path.len();
        OPEN.fetch_sub(1, Ordering::Relaxed);
        if let Some(moved) = self.slots.get(at) {
            let table_entry = match &moved.alias {
                Some(alias) => self.aliases.get_mut(alias),
                None => self.straight.get_mut(&moved.dir.path),
            };
            if let Some(entry) = table_entry {
                *entry = at;
            }
        }
    }
}

impl Drop for DirCache {
    fn drop(&mut self) {
        self.clear();
    }
}
