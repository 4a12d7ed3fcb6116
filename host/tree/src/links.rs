//! Hard links.
//!
//! A link to something that the layer has made is made at once. Every other link waits for the layer's end: its target may
//! still come, or may be a lower thing that a marker still removes, whatever the order in the archive. Meanwhile an empty
//! file holds its place, so that later entries replace it as they would replace the link; if it is gone at the end, so
//! is the link. Nothing can link to such a placeholder, and none is left where the layer fails.

use std::collections::VecDeque;
use std::mem;
use std::os::fd::AsFd as _;

use cofferdam_core::error::{Error, Result};
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::create::{not_root, unmade_if};
use super::entry::TreePath;
use super::handle::Spot;
use super::ids::{IdMap, IdSet, PathId};
use super::mounts::is_mount_point;
use super::options::Mode;
use super::record::Link;
use super::resolve::{Absent, Found};
use super::sys::{self, Explain as _, inode_of, is_marker_name, is_whiteout_device, kind_of, split, within};
use super::writer::TreeWriter;

/// A hard link that is still to be made.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    /// Its number among the layer's.
    order: u64,
    /// Where: a resolved path.
    place: Box<[u8]>,
    target: TreePath,
    /// The inode that holds the place. Nothing for a link to itself, which replaces nothing.
    placeholder: Option<(u64, u64)>,
}

/// Where a link's target is.
pub(super) enum Target<'a> {
    At(Spot<'a>),
    Nowhere,
    /// Behind more links than may be followed.
    Loop,
    /// It is a link that is still to be made.
    Waiting(PathId),
    /// Behind a link that is still to be made.
    Behind(PathId),
}

impl TreeWriter {
    /// Makes a hard link, now or when the layer ends.
    pub fn put_hard_link(&mut self, path: &TreePath, target: &TreePath) -> Result<()> {
        let path = not_root(path)?;
        if target.is_root() {
            return Err(Error::refused(path, "a hard link to the root"));
        }
        if target.components().any(is_marker_name) {
            return Err(unresolved(path, target, "only markers have such a name"));
        }
        let spot = self.spot(path)?;
        self.watch_creation(&spot)?;
        match self.find_target(target)? {
            // The same link again, to itself.
            Target::Waiting(id) if id == spot.id => return Ok(()),
            Target::At(at) => {
                let own = self.own.as_ref().is_none_or(|own| own.contains(&at.id));
                if at.id == spot.id {
                    self.watch_self_link(path, target)?;
                    return self.link_to_itself(&spot, target, own);
                }
                if own && self.link(&spot, &at)? {
                    return Ok(());
                }
            }
            Target::Waiting(_) | Target::Behind(_) | Target::Nowhere | Target::Loop => {}
        }
        let placeholder = self.put_empty(&spot, 0)?;
        let deferred = self.defer(&spot, target, Some(placeholder));
        unmade_if(deferred, &spot, AtFlags::empty())
    }

    /// A link to itself loses nothing, if there is something.
    fn link_to_itself(&mut self, spot: &Spot<'_>, target: &TreePath, own: bool) -> Result<()> {
        match sys::look(&spot.dir, spot.name).explain("examine", spot.path)? {
            Some(stat) if own && kind_of(&stat) != FileType::Directory => Ok(()),
            _ => self.defer(spot, target, None),
        }
    }

    /// A directory was implied in a place. A link that was to be made there is void if its placeholder had to go; one to
    /// itself still waits for what a lower layer may have there.
    pub(super) fn void_replaced_link(&mut self, id: PathId) -> Result<()> {
        if self.pending.get(&id).is_none_or(|pending| pending.placeholder.is_none()) {
            return Ok(());
        }
        let Some(Pending { place, target, .. }) = self.pending.remove(&id) else { return Ok(()) };
        if self.options.mode == Mode::Preserve {
            // A lower layer's link on one of its paths would have made another link of it, in another place.
            for path in [&*place, target.as_bytes()] {
                let mut path = path;
                while !path.is_empty() {
                    self.budget.charge(path)?;
                    self.late.insert(path.to_vec());
                    path = split(path).0;
                }
            }
        }
        Ok(())
    }

    fn defer(&mut self, spot: &Spot<'_>, target: &TreePath, placeholder: Option<(u64, u64)>) -> Result<()> {
        let place = sys::join(&spot.dir.path, spot.name);
        self.budget.charge(&place)?;
        self.budget.charge(target.as_bytes())?;
        let order = self.record.counts.entries;
        if placeholder.is_none() {
            self.budget.charge(&place)?;
            self.self_links.insert(place.clone(), spot.id);
        }
        let pending = Pending { order, place: place.into(), target: target.clone(), placeholder };
        self.pending.insert(spot.id, pending);
        Ok(())
    }

    /// Resolves a target as far as it is known by now.
    pub(super) fn find_target<'p>(&mut self, target: &'p TreePath) -> Result<Target<'p>> {
        let path = target.as_bytes();
        let (parent, name) = split(path);
        Ok(match self.resolve(parent, Absent::Stop)? {
            Found::Dir(dir) => {
                let id = self.ids.child(dir.id, name);
                // A placeholder is no target; a link to itself holds its place with what is to be linked.
                match self.pending.get(&id) {
                    Some(Pending { placeholder: Some(_), .. }) => Target::Waiting(id),
                    _ => Target::At(Spot { dir, name, id, path }),
                }
            }
            Found::Nothing => Target::Nowhere,
            Found::Blocked(id) => Target::Behind(id),
            Found::Loop => Target::Loop,
        })
    }

    /// Links a place to what lies at another, unless nothing does, or a directory (which a later entry may replace).
    fn link(&mut self, spot: &Spot<'_>, target: &Spot<'_>) -> Result<bool> {
        self.note(&spot.dir)?;
        // What is removed below is not there, though its removal is.
        if self.options.mode == Mode::Overlay
            && sys::look(&target.dir, target.name)
                .explain("examine", target.path)?
                .is_some_and(|it| is_whiteout_device(&it))
        {
            return Ok(false);
        }
        for _ in 0..sys::RETRIES {
            match rustix::fs::linkat(&target.dir, target.name, &spot.dir, spot.name, AtFlags::empty()) {
                Ok(()) => {
                    self.made(spot);
                    return Ok(true);
                }
                Err(Errno::EXIST) => {
                    let here = sys::look(&spot.dir, spot.name).explain("examine", spot.path)?;
                    let there = sys::look(&target.dir, target.name).explain("examine", target.path)?;
                    match (here, there) {
                        (_, None) => return Ok(false),
                        (_, Some(there)) if kind_of(&there) == FileType::Directory => return Ok(false),
                        (Some(here), Some(there)) if inode_of(&here) == inode_of(&there) => {
                            self.made(spot);
                            return Ok(true);
                        }
                        _ => {
                            self.displace(spot)?;
                        }
                    }
                }
                Err(Errno::NOENT) => return Ok(false),
                Err(errno) => {
                    let there = sys::look(&target.dir, target.name).explain("examine", target.path)?;
                    if there.is_some_and(|there| kind_of(&there) == FileType::Directory) {
                        return Ok(false);
                    }
                    if errno == Errno::XDEV && !is_mount_point(target.dir.as_fd(), target.name).unwrap_or(false) {
                        // Some file systems say so of files with other quotas.
                        return Err(Error::io("link", spot.path, errno));
                    }
                    return Err(sys::failed("link", spot.path, errno));
                }
            }
        }
        Err(sys::contended(spot.path))
    }

    /// Makes the links that waited, each after those that its target waits for.
    pub(super) fn settle_links(&mut self) -> Result<()> {
        self.self_links.clear();
        if self.pending.is_empty() {
            return Ok(());
        }
        self.drop_void_links()?;
        let mut ready: VecDeque<PathId> = self.in_order().into();
        let mut waiting: IdMap<Vec<PathId>> = IdMap::default();
        let mut unresolved = Vec::new();
        while let Some(id) = ready.pop_front() {
            self.options.cancel.check()?;
            let Some(pending) = self.pending.get(&id).cloned() else { continue };
            match self.find_target(&pending.target)? {
                Target::Waiting(other) | Target::Behind(other) if self.pending.contains_key(&other) && other != id => {
                    waiting.entry(other).or_default().push(id);
                }
                Target::At(at) if self.settle_link(id, &pending, &at)? => {
                    self.pending.remove(&id);
                    ready.extend(waiting.remove(&id).unwrap_or_default());
                }
                Target::Loop => {
                    let error = self.endless(pending.target.as_bytes());
                    self.leave_to_applying(error)?;
                    unresolved.push(id);
                }
                Target::At(_) | Target::Nowhere | Target::Waiting(_) | Target::Behind(_) => unresolved.push(id),
            }
        }
        self.give_up_links(unresolved, waiting)
    }

    /// Removes what holds the places of links that are still to be made: they will not be, since the layer has failed.
    pub(super) fn remove_placeholders(&mut self) {
        for (_, Pending { place, placeholder, .. }) in mem::take(&mut self.pending) {
            let (parent, name) = split(&place);
            if let Some(inode) = placeholder
                && let Ok(Some(dir)) = self.open_resolved(parent)
                && let Ok(Some(stat)) = sys::look(&dir, name)
                && inode_of(&stat) == inode
            {
                let _ = rustix::fs::unlinkat(&dir, name, AtFlags::empty());
            }
        }
    }

    /// What is still to be made, in the layer's order.
    fn in_order(&self) -> Vec<PathId> {
        let mut all: Vec<_> = self.pending.iter().map(|(id, pending)| (pending.order, *id)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, id)| id).collect()
    }

    /// Forgets links whose placeholder is gone.
    fn drop_void_links(&mut self) -> Result<()> {
        for id in self.in_order() {
            self.options.cancel.check()?;
            let Some(Pending { place, placeholder: Some(inode), .. }) = self.pending.get(&id).cloned() else {
                continue;
            };
            let (parent, name) = split(&place);
            let there = match self.open_resolved(parent)? {
                Some(dir) => sys::look(&dir, name).explain("examine", &place)?,
                None => None,
            };
            if there.is_none_or(|stat| inode_of(&stat) != inode) {
                self.pending.remove(&id);
            }
        }
        Ok(())
    }

    /// A directory is replaced: forgets the links to themselves inside of it, which have no placeholder to tell.
    pub(super) fn void_self_links(&mut self, place: &[u8]) {
        if self.self_links.is_empty() {
            return;
        }
        let places: Vec<_> = self.self_links.range(within(place)).map(|(place, _)| place.clone()).collect();
        for place in places {
            if let Some(id) = self.self_links.remove(&place)
                && self.pending.get(&id).is_some_and(|pending| pending.placeholder.is_none())
            {
                self.pending.remove(&id);
            }
        }
    }

    /// Makes a link that waited; tells whether its target was there.
    fn settle_link(&mut self, id: PathId, pending: &Pending, target: &Spot<'_>) -> Result<bool> {
        let place = &*pending.place;
        let (parent, name) = split(place);
        let Some(dir) = self.open_resolved(parent)? else { return Err(sys::contended(place)) };
        let spot = Spot { dir, name, id, path: place };
        match sys::look(&target.dir, target.name).explain("examine", place)? {
            None => return Ok(false),
            Some(stat) if self.options.mode == Mode::Overlay && is_whiteout_device(&stat) => return Ok(false),
            Some(stat) if kind_of(&stat) == FileType::Directory => {
                // Below one that is only implied, there may be anything.
                let there = sys::join(&target.dir.path, target.name);
                let unlisted = self.implied.contains(&there) || self.marker_dirs.contains(&there);
                let open = self.options.mode == Mode::Preserve && unlisted;
                if !open {
                    self.leave_to_applying(Error::refused(place, "a hard link to a directory"))?;
                }
                return Ok(false);
            }
            Some(_) if target.id == id => return Ok(pending.placeholder.is_none()),
            Some(_) => {}
        }
        if pending.placeholder.is_some() {
            rustix::fs::unlinkat(&spot.dir, name, AtFlags::empty()).explain("remove", place)?;
        }
        if self.link(&spot, target)? { Ok(true) } else { Err(sys::contended(place)) }
    }

    /// What to do about links whose target is not there: a lower layer may hold it, unless they only lead to each other.
    fn give_up_links(&mut self, mut unresolved: Vec<PathId>, mut waiting: IdMap<Vec<PathId>>) -> Result<()> {
        let mut missing = IdSet::default();
        while let Some(id) = unresolved.pop() {
            missing.insert(id);
            unresolved.extend(waiting.remove(&id).unwrap_or_default());
        }
        let left = self.in_order();
        if let Some(Pending { place, target, .. }) =
            left.iter().find(|id| !missing.contains(id)).and_then(|id| self.pending.get(id))
        {
            let error = self::unresolved(place, target, "they lead to each other");
            self.leave_to_applying(error)?;
        }
        let reason = match self.options.mode {
            Mode::Apply => Some("there is no such file"),
            Mode::Overlay => Some("the layer does not hold it, and an overlay of one layer cannot link into another"),
            Mode::Preserve => None,
        };
        if let Some(reason) = reason
            && let Some(Pending { place, target, .. }) = left.first().and_then(|id| self.pending.get(id))
        {
            return Err(self::unresolved(place, target, reason));
        }
        for id in left {
            self.options.cancel.check()?;
            let Some(Pending { place, target, placeholder, .. }) = self.pending.remove(&id) else { continue };
            if placeholder.is_some() {
                let (parent, name) = split(&place);
                if let Some(dir) = self.open_resolved(parent)? {
                    rustix::fs::unlinkat(&dir, name, AtFlags::empty()).explain("remove", &place)?;
                }
            }
            let path = TreePath::parse(place.into(), &self.options.limits)?;
            self.record.links.push(Link { path, target });
        }
        Ok(())
    }
}

fn unresolved(path: &[u8], target: &TreePath, reason: &str) -> Error {
    Error::refused(path, format!("its hard link to `{target}` cannot be made: {reason}"))
}
