//! The links of a layer. Through a symbolic link an entry gets to another place than its path says; a hard link may be made
//! at the layer's end only, to what is there then.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use crate::paths::{ancestors, below, have_prefix, name, parent};

/// Where a link lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At its path.
    Known,
    /// Behind another link.
    Behind,
    /// Nowhere any more. What was linked to it meanwhile is there still.
    Replaced,
}

/// A hard link whose target was no finding when the link was met.
#[derive(Debug)]
pub(crate) struct Hard {
    /// Empty while it lies at a place that is known: [`Links`] has it then.
    pub(crate) path: Vec<u8>,
    pub(crate) place: Place,
    pub(crate) target: Vec<u8>,
    /// Whether a link lay on the way to the target, then or at the end.
    pub(crate) vague: bool,
    /// The hard link that its target was then.
    pub(crate) to: Option<usize>,
}

#[derive(Debug, Default)]
pub(crate) struct Links {
    /// Those whose place is known: symbolic ones, and hard ones by their number.
    places: BTreeMap<Vec<u8>, Option<usize>>,
    /// The names of the others. Any directory that is called so may be one of them.
    stray: BTreeSet<Vec<u8>>,
    hard: Vec<Hard>,
    bytes: usize,
    /// The directory that was asked about last, and whether it is behind a link: entries come directory by directory.
    last: Option<(Vec<u8>, bool)>,
}

/// Bounds what links take, with what it takes to judge them, in half of the memory that the host gives a plugin.
const BYTES: usize = 32 << 20;
const SYMBOLIC: usize = 96;
const HARD: usize = 320;

impl Links {
    /// Whether a link lies, or may lie, on the way to a path. A hard link counts, since it may be one to a symbolic link.
    pub(crate) fn behind(&mut self, path: &[u8]) -> bool {
        if self.places.is_empty() && self.stray.is_empty() {
            return false;
        }
        let parent = parent(path);
        if let Some((_, behind)) = self.last.as_ref().filter(|(last, _)| last == parent) {
            return *behind;
        }
        let leads = |way: &[u8]| self.places.contains_key(way) || self.stray.contains(name(way));
        let behind = ancestors(path).any(leads);
        self.last = Some((parent.to_vec(), behind));
        behind
    }

    /// Forgets what was at a place, and also what was below unless a directory comes there.
    pub(crate) fn replace(&mut self, path: &[u8], directory: bool) {
        if !have_prefix(&self.places, path) {
            return;
        }
        self.last = None;
        let own = self.places.remove_entry(path);
        let below = (!directory).then(|| self.places.extract_if(below(path), |_, _| true));
        for (path, number) in own.into_iter().chain(below.into_iter().flatten()) {
            if let Some(hard) = number.and_then(|number| self.hard.get_mut(number)) {
                (hard.path, hard.place) = (path, Place::Replaced);
            }
        }
    }

    /// Remembers a symbolic link; tells whether there was room.
    #[must_use]
    pub(crate) fn symbolic(&mut self, path: Vec<u8>, behind: bool) -> bool {
        if !self.pay(path.len() + SYMBOLIC) {
            return false;
        }
        self.last = None;
        if behind {
            self.stray.insert(name(&path).to_vec());
        } else {
            self.places.insert(path, None);
        }
        true
    }

    /// Remembers a hard link; tells whether there was room.
    #[must_use]
    pub(crate) fn hard(&mut self, path: Vec<u8>, behind: bool, target: Vec<u8>) -> bool {
        if !self.pay(path.len() + target.len() + HARD) {
            return false;
        }
        let vague = self.behind(&target);
        self.last = None;
        let to = self.places.get(&target).copied().flatten().filter(|_| !vague);
        let (path, place) = if behind {
            self.stray.insert(name(&path).to_vec());
            (path, Place::Behind)
        } else {
            self.places.insert(path, Some(self.hard.len()));
            (Vec::new(), Place::Known)
        };
        self.hard.push(Hard { path, place, target, vague, to });
        true
    }

    /// All hard links, at the layer's end.
    pub(crate) fn into_hard(mut self) -> Vec<Hard> {
        let mut all = mem::take(&mut self.hard);
        for hard in &mut all {
            // Those that were replaced are not made again.
            hard.vague |= hard.place != Place::Replaced && self.behind(&hard.target);
        }
        for (path, number) in self.places {
            if let Some(hard) = number.and_then(|number| all.get_mut(number)) {
                hard.path = path;
            }
        }
        all
    }

    fn pay(&mut self, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        self.bytes <= BYTES
    }
}
