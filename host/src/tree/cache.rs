//! Open directories by path, so that the files of a directory do not resolve it again and again.
//!
//! A path is remembered in the layer's spelling, links and all. What it leads to changes only when a directory or a link
//! is removed or replaced, and only the writer does that: it then forgets ([`DirCache::clear`],
//! [`DirCache::forget_aliases`]). This is the lesson of CVE-2025-47290 and GHSA-3wgq-wrwc-vqmv, where a cached parent
//! outlived its directory. A handle never leads out of the tree, whatever lies at the path by now.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use super::handle::Dir;

/// Directories in one generation; at most twice as many are open.
const GENERATION: usize = 64;

/// Two generations: what was used since the younger one began survives its end.
#[derive(Debug, Default)]
pub(super) struct DirCache {
    young: HashMap<Box<[u8]>, Arc<Dir>>,
    old: HashMap<Box<[u8]>, Arc<Dir>>,
    /// Whether a path is in here that leads through a link.
    aliased: bool,
}

impl DirCache {
    /// What a path leads to, if it is known.
    pub(super) fn get(&mut self, path: &[u8]) -> Option<Arc<Dir>> {
        if let Some(dir) = self.young.get(path) {
            return Some(Arc::clone(dir));
        }
        let (path, dir) = self.old.remove_entry(path)?;
        self.add(path, Arc::clone(&dir));
        Some(dir)
    }

    /// Remembers what a path leads to.
    pub(super) fn insert(&mut self, path: &[u8], dir: &Arc<Dir>) {
        self.aliased |= *path != *dir.path;
        self.add(path.into(), Arc::clone(dir));
    }

    fn add(&mut self, path: Box<[u8]>, dir: Arc<Dir>) {
        if self.young.len() >= GENERATION {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(path, dir);
    }

    /// Forgets everything: a directory is gone.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Forgets the paths that lead through links: a link is gone.
    pub(super) fn forget_aliases(&mut self) {
        if mem::take(&mut self.aliased) {
            self.young.retain(|path, dir| **path == *dir.path);
            self.old.retain(|path, dir| **path == *dir.path);
        }
    }
}
