//! Watches a merge for entries whose order would matter.
//!
//! A preserved tree does not tell in which order its things came. That matters only where two paths of a layer lead to one
//! place, because a lower layer has a link on one of them. Then something of the layer's own is replaced, or lies on a way
//! behind a link, which happens in no other case: that is what is watched for. It errs on the side of refusing.

use rustix::fs::FileType;

use super::entry::TreePath;
use super::handle::Spot;
use super::ids::{IdSet, PathId};
use super::writer::TreeWriter;
use crate::error::{Error, Escaped, Result};

/// What is known about the layer that is being merged.
#[derive(Debug, Default)]
pub(super) struct Strict {
    /// Places where this layer replaced what lower layers had.
    replaced: IdSet,
    /// Links of lower layers that this layer followed.
    followed: IdSet,
    /// Places that it came by behind them.
    passed: IdSet,
}

impl TreeWriter {
    /// Removes what a layer replaced by something that it replaced again.
    pub(crate) fn put_replaced(&mut self, path: &TreePath) -> Result<()> {
        let id = path.components().fold(self.ids.root(), |id, name| self.ids.child(id, name));
        if let Some(strict) = &mut self.strict {
            strict.replaced.insert(id);
        }
        self.put_whiteout(path)
    }

    /// A path leads through a place behind a link.
    pub(super) fn watch_step(&mut self, id: PathId, path: &[u8]) -> Result<()> {
        let Some(strict) = &mut self.strict else { return Ok(()) };
        strict.passed.insert(id);
        if strict.replaced.contains(&id) { Err(ambiguous(path)) } else { Ok(()) }
    }

    /// A path leads through a link.
    pub(super) fn watch_link(&mut self, id: PathId, path: &[u8]) -> Result<()> {
        let Some(strict) = &mut self.strict else { return Ok(()) };
        strict.followed.insert(id);
        if self.own.as_ref().is_some_and(|own| own.contains(&id)) { Err(ambiguous(path)) } else { Ok(()) }
    }

    /// Something is to be removed.
    pub(super) fn watch_removal(&mut self, spot: &Spot<'_>, kind: FileType) {
        if let Some(strict) = &mut self.strict
            && kind == FileType::Symlink
        {
            strict.replaced.insert(spot.id);
        }
    }

    /// Something that is no directory is to be made, or made room for.
    pub(super) fn watch_creation(&mut self, spot: &Spot<'_>) -> Result<()> {
        let Some(strict) = &self.strict else { return Ok(()) };
        let own = self.own.as_ref().is_some_and(|own| own.contains(&spot.id));
        let passed = strict.followed.contains(&spot.id) || strict.passed.contains(&spot.id);
        if own || passed { Err(ambiguous(spot.path)) } else { Ok(()) }
    }

    /// The error of a path on which there are too many links. When merging, the layer itself may have replaced one of
    /// them before it went there.
    pub(super) fn endless(&self, path: &[u8]) -> Error {
        match self.strict {
            Some(_) => ambiguous(path),
            None => Error::refused(path, "more than 40 symbolic links in a path"),
        }
    }

    /// A directory is to be made. Several paths may lead to it, but none where a link has been.
    pub(super) fn watch_directory(&mut self, spot: &Spot<'_>) -> Result<()> {
        match &self.strict {
            Some(strict) if strict.followed.contains(&spot.id) => Err(ambiguous(spot.path)),
            _ => Ok(()),
        }
    }
}

/// The error of a merge whose result would depend on an order that the trees do not tell.
pub(crate) fn ambiguous(path: &[u8]) -> Error {
    Error::Unsupported {
        what: format!(
            "merging trees of which one reaches `{}` through a link of a lower layer and on another way as well",
            Escaped(path)
        ),
    }
}
