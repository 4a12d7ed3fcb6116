//! How an image's layers become the lower directories of a mount.
//!
//! A layer's own tree will do as a lower directory as it is, unless
//!
//! * it holds removals: then it is extracted a second time, with the removals in the form that overlayfs knows;
//! * what it says depends on the layers below: directories that it does not list but needs and that are there below with other
//!   metadata, or of which it only removes something, links to files below, names that may go through links below. overlayfs
//!   would show the layer's guess. Then the layers up to this one are merged into one tree;
//! * it removes something from a directory that no layer below shows: overlayfs would list the removal there. Merged too.
//!
//! # Cost
//!
//! What is below is asked of each tree, so that finding out about a layer could take the product of both. The number of questions is
//! bounded by what the layer itself holds; where that is not enough, its layers are merged, which is always right and linear in them.

use std::collections::HashSet;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode as Permissions, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::store::Tree;
use crate::tree::entry::TreePath;
use crate::tree::{Explain as _, LayerRecord, Marker};

/// The most lower directories that a mount gets: the kernel's `OVL_MAX_STACK`.
const MOST: usize = 500;

/// How a layer becomes a lower directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Its own tree.
    AsItIs,
    /// Extracted once more, with its removals as overlayfs has them.
    Overlay,
    /// It and all layers below, made one.
    Merged,
    /// A directory without content that has its root's metadata.
    Root,
    /// A directory without content that no layer lists.
    PlainRoot,
}

/// What the lower directories are to be: layers and their forms, lowest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan(pub(super) Vec<(usize, Form)>);

/// What planning has found out so far.
pub(super) struct Planner<'a> {
    layers: &'a [Tree],
    cancel: &'a Cancel,
    lower: Vec<(usize, Form)>,
    /// The trees with something in them, lowest first.
    below: Vec<&'a Tree>,
    /// Whether one of them replaced something by a directory of its own, which only its record tells.
    replaced: bool,
    /// The layer that says what the root directory is like, if one does.
    root: Option<usize>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(layers: &'a [Tree], cancel: &'a Cancel) -> Self {
        Self { layers, cancel, lower: Vec::new(), below: Vec::new(), replaced: false, root: None }
    }

    /// Makes the plan. `has_blob` tells whether a layer can be extracted once more.
    pub(super) fn plan(mut self, has_blob: impl Fn(&Tree) -> bool) -> Result<Plan> {
        for (index, tree) in self.layers.iter().enumerate() {
            self.cancel.check()?;
            let record = LayerRecord::from_json(&tree.layer_record()?)?;
            if record.has_removal_device() {
                return Err(unsupported("a device numbered 0:0, by which it means a removal,"));
            }
            if record.root {
                self.root = Some(index);
            }
            if record.counts.entries == 0 {
                continue;
            }
            let form = match self.form(tree, &record)? {
                // A tree may stand for its blob.
                Form::Overlay if !has_blob(tree) => Form::Merged,
                form => form,
            };
            if form == Form::Merged {
                self.lower.clear();
            }
            self.lower.push((index, form));
            self.below.push(tree);
            self.replaced |= record.markers.iter().any(|marker| matches!(marker, Marker::Replaced(_)));
        }
        if self.lower.is_empty() {
            // Layers, but nothing in them.
            let last = self.layers.len().checked_sub(1).ok_or_else(|| unsupported("an image without layers"))?;
            self.lower.push((last, Form::Merged));
        }
        let root = match self.root {
            Some(root) => (root, Form::Root),
            None => (0, Form::PlainRoot),
        };
        // A mount without an upper directory wants two.
        let wants_root = !self.shows_root()? || self.lower.len() < 2;
        let most = if wants_root { MOST - 1 } else { MOST };
        if self.lower.len() > most {
            let last = self.lower.len() - most;
            let merged = self.lower.get(last).map(|(index, _)| (*index, Form::Merged));
            self.lower.splice(..=last, merged);
        }
        self.lower.extend(wants_root.then_some(root));
        Ok(Plan(self.lower))
    }

    /// Returns true if the topmost directory has the metadata that the image's root has.
    fn shows_root(&self) -> Result<bool> {
        Ok(match (self.lower.last(), self.root) {
            (Some((_, Form::Merged)), _) => true,
            (Some((index, _)), Some(root)) => *index == root,
            // Trees that older versions made have the time at which they were extracted.
            (Some((index, _)), None) => self.layers.get(*index).map_or(Ok(false), |tree| is_plain(tree.directory()))?,
            (None, _) => false,
        })
    }

    fn form(&self, tree: &Tree, record: &LayerRecord) -> Result<Form> {
        // Directories that are there for markers alone would be shown, and overlayfs does not look whether the root is opaque.
        let root_is_opaque =
            record.markers.iter().any(|marker| matches!(marker, Marker::Opaque(path) if path.is_root()));
        let depends = record.alone_refused.is_some()
            || !record.links.is_empty()
            || !record.late.is_empty()
            || !record.marker_dirs.is_empty();
        let repeated = self.below.iter().any(|other| other.record().digest == tree.record().digest);
        if repeated || depends || root_is_opaque {
            return Ok(Form::Merged);
        }
        let mut questions = Questions::of(record, self.cancel);
        for tree in self.below.iter().rev() {
            if questions.any_is_there(tree.directory(), &record.implied)? {
                return Ok(Form::Merged);
            }
        }
        Ok(match (record.markers.is_empty(), self.below.is_empty()) {
            (true, _) => Form::AsItIs,
            (false, false) if self.removes_from_shown(record, &mut questions)? => Form::Overlay,
            // Also where nothing is below that could be removed.
            (false, _) => Form::Merged,
        })
    }

    /// Returns true if each directory from which the layer removes something is one that the layers below show.
    fn removes_from_shown(&self, record: &LayerRecord, questions: &mut Questions<'_>) -> Result<bool> {
        let parents: HashSet<_> = record.markers.iter().filter_map(parent_of_whiteout).collect();
        for parent in parents.into_iter().filter(|parent| !parent.is_empty()) {
            if self.replaced || !self.is_shown(parent, questions)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns true if the layers below, on top of each other, show a directory at a path. Looks for it as overlayfs does.
    fn is_shown(&self, path: &[u8], questions: &mut Questions<'_>) -> Result<bool> {
        let mut stack: Vec<OwnedFd> = Vec::new();
        let mut is_first = true;
        for name in path.split(|&byte| byte == b'/') {
            let mut next = Vec::new();
            let whiteout = [b".wh.", name].concat();
            let count = if is_first { self.below.len() } else { stack.len() };
            for at in 0..count {
                if !questions.ask()? {
                    return Ok(false);
                }
                let roots = || self.below.iter().rev().nth(at).map(|tree| tree.directory());
                let dir = if is_first { roots() } else { stack.get(at).map(OwnedFd::as_fd) };
                let Some(dir) = dir else { break };
                match open(dir, name) {
                    Ok(child) => {
                        let is_opaque = is_there(child.as_fd(), b".wh..wh..opq", path)?;
                        next.push(child);
                        if is_opaque {
                            break;
                        }
                    }
                    Err(Errno::NOENT) => {}
                    // No directory: it hides what is below.
                    Err(Errno::NOTDIR | Errno::LOOP) => break,
                    Err(errno) => return Err(errno).explain("look at", path),
                }
                if is_there(dir, &whiteout, path)? {
                    break;
                }
            }
            (stack, is_first) = (next, false);
            if stack.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn parent_of_whiteout(marker: &Marker) -> Option<&[u8]> {
    match marker {
        Marker::Whiteout(path) => {
            let path = path.as_bytes();
            Some(path.iter().rposition(|&byte| byte == b'/').and_then(|at| path.get(..at)).unwrap_or_default())
        }
        Marker::Opaque(_) | Marker::Replaced(_) => None,
    }
}

pub(super) fn unsupported(what: &str) -> Error {
    Error::Unsupported { what: format!("{what} in a mount of overlayfs") }
}

const HOLD_DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn open(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, name, HOLD_DIRECTORY, Permissions::empty())
}

fn is_there(dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<bool> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(false),
        Err(errno) => Err(errno).explain("look at", path),
    }
}

/// Returns true for a root as it is when no layer lists it.
fn is_plain(root: BorrowedFd<'_>) -> Result<bool> {
    let stat = rustix::fs::fstat(root).explain("look at", b"/")?;
    Ok((stat.st_mtime, stat.st_mtime_nsec, stat.st_mode & 0o7777) == (0, 0, 0o755))
}

/// The questions that may be asked about a layer.
struct Questions<'a> {
    left: u64,
    cancel: &'a Cancel,
}

impl<'a> Questions<'a> {
    fn of(record: &LayerRecord, cancel: &'a Cancel) -> Self {
        const FREE: u64 = 10_000;
        const PER_ITEM: u64 = 16;
        let items = record.implied.len().saturating_add(record.markers.len()) as u64;
        Self { left: PER_ITEM.saturating_mul(items).saturating_add(FREE), cancel }
    }

    /// Counts a question. Returns false if none is left.
    fn ask(&mut self) -> Result<bool> {
        self.cancel.check()?;
        self.left = self.left.saturating_sub(1);
        Ok(self.left > 0)
    }

    /// Returns true if a tree has something at one of these paths, which are sorted, or if that took too many questions.
    fn any_is_there(&mut self, tree: BorrowedFd<'_>, paths: &[TreePath]) -> Result<bool> {
        let mut missing: &[u8] = b"";
        for path in paths {
            let path = path.as_bytes();
            let is_inside = path.strip_prefix(missing).is_some_and(|rest| rest.starts_with(b"/"));
            if is_inside && !missing.is_empty() {
                // Checked too, for there may be a million of them.
                self.cancel.check()?;
                continue;
            }
            if !self.ask()? || is_directory_or_blocked(tree, path)? {
                return Ok(true);
            }
            missing = path;
        }
        Ok(false)
    }
}

/// Returns true if a tree has a directory at a path, or on the way to it something that is no directory.
fn is_directory_or_blocked(tree: BorrowedFd<'_>, path: &[u8]) -> Result<bool> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(tree, path, HOLD_DIRECTORY, Permissions::empty(), resolve) {
        Ok(_) | Err(Errno::NOTDIR | Errno::LOOP) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        // No such call here, or a path longer than it takes.
        Err(_) => by_name(tree, path),
    }
}

fn by_name(tree: BorrowedFd<'_>, path: &[u8]) -> Result<bool> {
    let mut dir: Option<OwnedFd> = None;
    for name in path.split(|&byte| byte == b'/') {
        match open(dir.as_ref().map_or(tree, |dir| dir.as_fd()), name) {
            Ok(next) => dir = Some(next),
            Err(Errno::NOENT) => return Ok(false),
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(true),
            Err(errno) => return Err(errno).explain("look at", path),
        }
    }
    Ok(true)
}

/// The names of the links to the lower directories, topmost first: short, so that those of all fit into a page, and none with a
/// character that overlayfs gives a meaning.
pub(super) fn link_names(count: usize) -> impl ExactSizeIterator<Item = String> + Clone {
    const DIGITS: [char; 36] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l',
        'm', 'n', 'o', 'p', 'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y', 'z',
    ];
    (0..count).map(|number| {
        let (high, low) = (number / DIGITS.len(), number % DIGITS.len());
        let digit = |at: usize| DIGITS.get(at).copied();
        let high = high.checked_sub(1).and_then(digit);
        high.into_iter().chain(digit(low)).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_the_most_links_fit_into_a_page_and_differ() {
        let names: Vec<_> = link_names(MOST).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), MOST);
        assert_eq!((&*names[0], &*names[35], &*names[36], &*names[MOST - 1]), ("0", "z", "00", "cv"));
        assert!(names.join(":").len() + "lowerdir=".len() < 4096 - 100);
        // As one value of `fsconfig(2)`.
        assert!(link_names(97).collect::<Vec<_>>().join(":").len() < 256);
    }
}
