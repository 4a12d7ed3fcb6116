//! Links. A hard link to something that the layer has made is made at once. Every other one waits for the layer's end: its
//! target may still come, or may be a lower thing that a marker still removes. Meanwhile an empty file holds its place.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File};
use std::path::Path;

use cofferdam_layer::Timestamp;

use super::place::{Absent, Found, is_marker, split};
use super::{Mode, Tree};
use crate::problem::Problem;

/// The kernel's bound on a link's target.
const TARGET: usize = 4095;

/// A hard link that is still to be made.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    /// Its number among the layer's entries.
    order: u64,
    target: String,
    /// It leads to itself, and nothing holds its place but what is to be linked.
    pub(super) to_itself: bool,
}

/// Where a hard link's target is.
enum Target {
    At(String),
    Nowhere,
    Loop,
    /// It is a link that is still to be made, or lies behind one.
    Waiting(String),
}

impl Tree {
    /// Makes a symbolic link. WASI has no absolute ones: those are made relative, from where the link lies.
    pub(super) fn symlink(&mut self, place: &str, target: &str, time: Timestamp) -> Result<(), Problem> {
        self.make_symlink(place, target)?;
        self.set_time(place, time)
    }

    fn make_symlink(&mut self, place: &str, target: &str) -> Result<(), Problem> {
        let relative = target.starts_with('/').then(|| relative(place, target));
        let wanted = relative.as_deref().unwrap_or(target);
        if wanted.len() > TARGET {
            let text = format!("`{}` crosses the limit of {TARGET} bytes in a link's target", place.escape_debug());
            return Err(Problem::Limit { text, name: None });
        }
        self.create(place, |path| soft_link(wanted, path))?;
        self.absolute.remove(place);
        if relative.is_some() {
            self.made.absolute += 1;
            self.keep(place)?;
            self.keep(target)?;
            self.absolute.insert(place.to_owned(), target.to_owned());
        }
        Ok(())
    }

    /// Makes a hard link, now or when the layer ends.
    pub(super) fn hard_link(&mut self, place: &str, target: &str) -> Result<(), Problem> {
        if target.split('/').any(is_marker) {
            return Err(unresolved(place, target, "only markers have such a name"));
        }
        match self.find_target(target)? {
            // The same link again, to itself.
            Target::Waiting(other) if other == place => return Ok(()),
            Target::At(at) if at == place => {
                let there = self.look(place)?.is_some_and(|found| !found.is_dir());
                if self.is_own(place) && (there || self.unmade.contains(place)) {
                    return Ok(());
                }
                return self.defer(place, target, true);
            }
            Target::At(at) if self.is_own(&at) || self.unmade.contains(&at) => {
                if self.link(place, &at)? {
                    return Ok(());
                }
            }
            Target::At(_) | Target::Waiting(_) | Target::Nowhere | Target::Loop => {}
        }
        self.create(place, |path| File::create_new(path))?;
        self.defer(place, target, false)
    }

    fn defer(&mut self, place: &str, target: &str, to_itself: bool) -> Result<(), Problem> {
        self.keep(place)?;
        self.keep(target)?;
        let pending = Pending { order: self.meter.entries, target: target.to_owned(), to_itself };
        self.pending.insert(place.to_owned(), pending);
        Ok(())
    }

    /// Resolves a target as far as it is known by now.
    fn find_target(&mut self, target: &str) -> Result<Target, Problem> {
        let (parent, name) = split(target);
        Ok(match self.resolve(parent, Absent::Stop)? {
            Found::Directory(directory) => {
                let place = self.place(&directory, name, target)?;
                match self.pending.get(&place) {
                    Some(Pending { to_itself: false, .. }) => Target::Waiting(place),
                    _ => Target::At(place),
                }
            }
            Found::Nothing => Target::Nowhere,
            Found::Blocked(place) => Target::Waiting(place),
            Found::Loop => Target::Loop,
        })
    }

    /// Links a place to what lies at another, unless nothing does, or a directory (which a later entry may replace).
    fn link(&mut self, place: &str, at: &str) -> Result<bool, Problem> {
        let Some(found) = self.look(at)? else {
            if !self.unmade.contains(at) {
                return Ok(false);
            }
            self.made.unmade_links += 1;
            self.leave_out(place)?;
            return Ok(true);
        };
        if found.is_dir() {
            return Ok(false);
        }
        let absolute = self.absolute.get(at).cloned();
        if let Some(target) = &absolute
            && relative(place, target) != relative(at, target)
        {
            // From here the same words would lead elsewhere.
            self.made.split += 1;
            let modified = self.time_of(at)?;
            self.make_symlink(place, target)?;
            self.made.absolute -= 1;
            self.set_time(place, modified)?;
            return Ok(true);
        }
        if self.look(place)?.is_some() {
            self.note(split(place).0)?;
            self.remove(place)?;
            if self.look(at)?.is_none() {
                // It was inside.
                return Ok(false);
            }
        }
        let source = self.at(at);
        self.create(place, |path| fs::hard_link(&source, path))?;
        self.absolute.remove(place);
        if let Some(target) = absolute {
            self.keep(place)?;
            self.keep(&target)?;
            self.absolute.insert(place.to_owned(), target);
        }
        Ok(true)
    }

    /// Makes the links that waited, each after those that its target waits for.
    pub(super) fn settle_links(&mut self) -> Result<(), Problem> {
        let mut in_order: Vec<_> = self.pending.iter().map(|(place, pending)| (pending.order, place.clone())).collect();
        in_order.sort_unstable();
        let mut ready: VecDeque<String> = in_order.into_iter().map(|(_, place)| place).collect();
        let mut waiting: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut missing = Vec::new();
        while let Some(place) = ready.pop_front() {
            let Some(Pending { target, to_itself, .. }) = self.pending.get(&place).cloned() else { continue };
            match self.find_target(&target)? {
                Target::Waiting(other) if other != place => waiting.entry(other).or_default().push(place),
                Target::At(at) if self.settle_link(&place, &at, to_itself)? => {
                    self.pending.remove(&place);
                    ready.extend(waiting.remove(&place).unwrap_or_default());
                }
                Target::Loop => return Err(self.endless(&target)),
                Target::At(_) | Target::Nowhere | Target::Waiting(_) => missing.push(place),
            }
        }
        self.give_up_links(missing, waiting)
    }

    /// Makes a link that waited; tells whether its target was there.
    fn settle_link(&mut self, place: &str, at: &str, to_itself: bool) -> Result<bool, Problem> {
        match self.look(at)? {
            Some(found) if found.is_dir() => Err(Problem::refused(place.as_bytes(), "a hard link to a directory")),
            Some(_) if at == place => Ok(to_itself),
            _ => self.link(place, at),
        }
    }

    /// What to do about links whose target is not there: a lower layer may hold it, unless they only lead to each other.
    fn give_up_links(
        &mut self,
        mut missing: Vec<String>,
        mut waiting: BTreeMap<String, Vec<String>>,
    ) -> Result<(), Problem> {
        let mut without = BTreeSet::new();
        while let Some(place) = missing.pop() {
            missing.extend(waiting.remove(&place).unwrap_or_default());
            without.insert(place);
        }
        let mut left: Vec<_> = self.pending.iter().map(|(place, pending)| (pending.order, place.clone())).collect();
        left.sort_unstable();
        for (_, place) in left {
            let Some(Pending { target, to_itself, .. }) = self.pending.get(&place).cloned() else { continue };
            if !without.contains(&place) {
                return Err(unresolved(&place, &target, "they lead to each other"));
            }
            if self.mode == Mode::Apply {
                return Err(unresolved(&place, &target, "there is no such file"));
            }
            self.pending.remove(&place);
            self.made.lower_links += 1;
            if !to_itself {
                self.note(split(&place).0)?;
                self.remove(&place)?;
            }
        }
        Ok(())
    }
}

fn unresolved(place: &str, target: &str, reason: &str) -> Problem {
    let target = target.escape_debug();
    Problem::refused(place.as_bytes(), format_args!("its hard link to `{target}` cannot be made: {reason}"))
}

/// An absolute target as seen from where a link lies. What climbs above the root stays there, as in a `chroot`.
fn relative(place: &str, target: &str) -> String {
    let mut rest = target;
    loop {
        let (first, behind) = rest.split_once('/').unwrap_or((rest, ""));
        if rest.is_empty() || !matches!(first, "" | "." | "..") {
            break;
        }
        rest = behind;
    }
    let depth = place.matches('/').count();
    match (depth, rest) {
        (0, "") => ".".into(),
        (_, "") => "../".repeat(depth).trim_end_matches('/').into(),
        _ => format!("{}{rest}", "../".repeat(depth)),
    }
}

#[expect(deprecated, reason = "the one way to a symbolic link that is the same on all systems")]
fn soft_link(target: &str, path: &Path) -> std::io::Result<()> {
    fs::soft_link(target, path)
}
