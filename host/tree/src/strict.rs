//! Watches a merge for entries whose order would matter.
//!
//! A preserved tree does not tell in which order its things came. That matters only where two paths of a layer lead to one
//! place, because a lower layer has a link on one of them. Then something of the layer's own is replaced, or lies on a way
//! behind a link, which happens in no other case: that is what is watched for. It errs on the side of refusing.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use cofferdam_core::error::{Error, Escaped, Result};

use super::entry::{Metadata, TreePath};
use super::handle::Spot;
use super::ids::{IdMap, IdSet, PathId};
use super::links::Target;
use super::sys::join;
use super::writer::TreeWriter;

/// What is known about the layer that is being merged.
#[derive(Debug, Default)]
pub(super) struct Strict {
    /// Places where this layer replaced what lower layers had.
    replaced: IdSet,
    /// Links of lower layers that this layer followed.
    followed: IdSet,
    /// Places that it came by behind them.
    passed: IdSet,
    /// Places that its markers lie in, as they spell them.
    marked: IdSet,
    /// Where its markers remove, if a link led there.
    removed: HashSet<Vec<u8>>,
    /// Directories that it lists, and a hash of their metadata.
    listed: IdMap<u64>,
    key: RandomState,
}

impl TreeWriter {
    /// Removes what a layer replaced by something that it replaced again.
    pub fn put_replaced(&mut self, path: &TreePath) -> Result<()> {
        let id = path.components().fold(self.ids.root(), |id, name| self.ids.child(id, name));
        if let Some(strict) = &mut self.strict {
            strict.replaced.insert(id);
            if strict.passed.contains(&id) || strict.marked.contains(&id) {
                return Err(ambiguous(path.as_bytes()));
            }
        }
        self.put_whiteout(path)
    }

    /// Makes a hard link whose target the layer alone does not hold. If it has made the target nevertheless, a link led
    /// there, and it may have made another thing in that place before.
    pub fn put_lower_link(&mut self, path: &TreePath, target: &TreePath) -> Result<()> {
        if let Target::At(at) = self.find_target(target)?
            && self.own.as_ref().is_some_and(|own| own.contains(&at.id))
        {
            return Err(ambiguous(path.as_bytes()));
        }
        self.put_hard_link(path, target)
    }

    /// A marker lies in the directory with this path.
    pub(super) fn watch_marker(&mut self, path: &[u8]) {
        let Some(strict) = &mut self.strict else { return };
        let mut id = self.ids.root();
        for name in path.split(|&b| b == b'/') {
            id = self.ids.child(id, name);
            strict.marked.insert(id);
        }
    }

    /// A marker with this path removes what lies at a place.
    pub(super) fn watch_marker_place(&mut self, path: &[u8], place: &[u8]) {
        if let Some(strict) = &mut self.strict
            && path != place
        {
            strict.removed.insert(place.to_vec());
        }
    }

    /// All removals are done. None to which a link led may concern a directory that the layer has gone through without
    /// listing it: it may have done so before.
    pub fn check_markers(&self, implied: &[TreePath]) -> Result<()> {
        let Some(strict) = self.strict.as_ref().filter(|strict| !strict.removed.is_empty()) else { return Ok(()) };
        let concerns = |path: &&TreePath| {
            let path = path.as_bytes();
            let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
            ends.chain([0, path.len()]).any(|end| strict.removed.contains(path.get(..end).unwrap_or_default()))
        };
        implied.iter().find(concerns).map_or(Ok(()), |path| Err(ambiguous(path.as_bytes())))
    }

    /// A path leads through a place behind a link.
    pub(super) fn watch_step(&mut self, id: PathId, path: &[u8]) -> Result<()> {
        let Some(strict) = &mut self.strict else { return Ok(()) };
        strict.passed.insert(id);
        if strict.replaced.contains(&id) { Err(ambiguous(path)) } else { Ok(()) }
    }

    /// A path leads on behind a place where nothing is.
    pub(super) fn watch_passed(&mut self, id: PathId) {
        if let Some(strict) = &mut self.strict {
            strict.passed.insert(id);
        }
    }

    /// A path leads through a link.
    pub(super) fn watch_link(&mut self, id: PathId, path: &[u8]) -> Result<()> {
        let Some(strict) = &mut self.strict else { return Ok(()) };
        strict.followed.insert(id);
        if self.own.as_ref().is_some_and(|own| own.contains(&id)) { Err(ambiguous(path)) } else { Ok(()) }
    }

    /// Links of lower layers were removed. Not by a marker, if content has gone through one.
    pub(super) fn watch_links(&mut self, links: &[PathId], path: &[u8]) -> Result<()> {
        let Some(strict) = &mut self.strict else { return Ok(()) };
        strict.replaced.extend(links);
        let content = !strict.listed.is_empty() || self.own.as_ref().is_some_and(|own| !own.is_empty());
        if content && links.iter().any(|id| strict.followed.contains(id)) { Err(ambiguous(path)) } else { Ok(()) }
    }

    /// Something that is no directory is to be made, or made room for.
    pub(super) fn watch_creation(&mut self, spot: &Spot<'_>) -> Result<()> {
        let Some(strict) = &self.strict else { return Ok(()) };
        let own = self.own.as_ref().is_some_and(|own| own.contains(&spot.id));
        let passed = strict.followed.contains(&spot.id) || strict.passed.contains(&spot.id);
        // Where no link leads here, the preserved tree tells all.
        let elsewhere = strict.marked.contains(&spot.id) && join(&spot.dir.path, spot.name) != spot.path;
        if own || passed || elsewhere { Err(ambiguous(spot.path)) } else { Ok(()) }
    }

    /// A directory gets metadata; never another's as well.
    pub(super) fn watch_listing(&mut self, id: PathId, metadata: &Metadata, path: &[u8]) -> Result<()> {
        let Some(strict) = &mut self.strict else { return Ok(()) };
        let Metadata { mode, uid, gid, mtime, xattrs } = metadata;
        let mut xattrs: Vec<_> = xattrs.iter().map(|xattr| (&xattr.name, &xattr.value)).collect();
        xattrs.sort_unstable();
        let hash = strict.key.hash_one((mode, uid, gid, mtime.seconds, mtime.nanoseconds, xattrs));
        match strict.listed.insert(id, hash) {
            Some(before) if before != hash => Err(ambiguous(path)),
            _ => Ok(()),
        }
    }

    /// A hard link turns out to lead to itself. If its paths differ, a link leads from one to the other.
    pub(super) fn watch_self_link(&self, path: &[u8], target: &TreePath) -> Result<()> {
        if self.strict.is_some() && path != target.as_bytes() { Err(ambiguous(path)) } else { Ok(()) }
    }

    /// The error of a path on which there are too many links. When merging, the layer itself may have replaced one of
    /// them before it went there.
    pub(super) fn endless(&self, path: &[u8]) -> Error {
        self.unsure.set(true);
        match self.strict {
            Some(_) => ambiguous(path),
            None => Error::Limit {
                subject: format!("`{}`", Escaped(path)),
                what: "symbolic links in a path",
                limit: self.options.limits.link_hops as u64,
            },
        }
    }

    /// A directory is to be made. Several paths may lead to it, but none where a link has been, and none but its own where
    /// something else was in between.
    pub(super) fn watch_directory(&mut self, spot: &Spot<'_>) -> Result<()> {
        let Some(strict) = &self.strict else { return Ok(()) };
        let elsewhere = strict.replaced.contains(&spot.id) && join(&spot.dir.path, spot.name) != spot.path;
        if elsewhere || strict.followed.contains(&spot.id) { Err(ambiguous(spot.path)) } else { Ok(()) }
    }
}

/// The error of a merge whose result would depend on an order that the trees do not tell.
pub fn ambiguous(path: &[u8]) -> Error {
    Error::Unsupported {
        what: format!(
            "merging trees of which one reaches `{}` through a link of a lower layer and on another way as well",
            Escaped(path)
        ),
    }
}
