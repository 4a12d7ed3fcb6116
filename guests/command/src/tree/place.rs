//! Where a path of a layer leads: as in a `chroot`, with links followed inside of the destination.
//!
//! The WASI host follows links too, but refuses those that climb: so each name is looked at here, and what the host is given
//! is a path without links on the way.

use std::fs;
use std::ops::Bound;

use super::{Mode, Tree};
use crate::problem::Problem;

/// The kernel's bound on a path, without its final NUL.
const PATH: usize = 4095;

/// What to do where a directory is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absent {
    /// Stop.
    Stop,
    /// Make it, in place of whatever is no directory.
    Make,
    /// Make it to hold a marker; stop at what is no directory.
    Mark,
}

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// To the directory at this place.
    Directory(String),
    Nothing,
    /// To a hard link that is still to be made.
    Blocked(String),
    /// Around in circles.
    Loop,
}

impl Tree {
    /// The place of an entry. Its directory is made if it is missing.
    pub(super) fn spot(&mut self, path: &str) -> Result<String, Problem> {
        let (parent, name) = split(path);
        match self.resolve(parent, Absent::Make)? {
            Found::Directory(directory) => self.place(&directory, name, path),
            Found::Loop => Err(self.endless(path)),
            Found::Nothing | Found::Blocked(_) => Err(Problem::Io(format!("`{path}` was changed by somebody else"))),
        }
    }

    pub(super) fn endless(&self, path: &str) -> Problem {
        Problem::limit(
            format_args!("`{}`", path.escape_debug()),
            "symbolic links in a path",
            self.limits.link_hops,
            "link-hops",
        )
    }

    /// The directory that a path leads to. A name that is not there counts as an empty directory while the path only passes it,
    /// as it does with a link's `..` behind it: nothing is made for that.
    pub(super) fn resolve(&mut self, path: &str, absent: Absent) -> Result<Found, Problem> {
        let mut here = String::new();
        // How much of `here` is there, if not all; and whether what is behind is something else than a directory.
        let mut there: Option<(usize, bool)> = None;
        let mut todo = path.to_owned();
        let mut at = 0;
        let mut hops = 0;
        while let Some(tail) = todo.get(at..).filter(|tail| !tail.is_empty()) {
            let name = tail.split('/').next().unwrap_or_default().to_owned();
            at += name.len() + 1;
            match name.as_str() {
                "" | "." => continue,
                // The root is its own parent.
                ".." => {
                    self.spend(path)?;
                    here.truncate(split(&here).0.len());
                    there = there.filter(|(length, _)| *length < here.len());
                    continue;
                }
                _ => {}
            }
            if hops > 0 {
                self.spend(path)?;
            }
            if is_marker(&name) {
                // A link's target: entries have no such names, and the tree holds none but markers.
                return match absent {
                    Absent::Make => {
                        Err(Problem::refused(path.as_bytes(), "a link leads to a name that only markers have"))
                    }
                    Absent::Stop | Absent::Mark => Ok(Found::Nothing),
                };
            }
            let next = self.place(&here, &name, path)?;
            if there.is_some() {
                here = next;
                continue;
            }
            if self.is_directory(&next)? {
                here = next;
                continue;
            }
            let found = self.look(&next)?;
            if found.as_ref().is_some_and(|found| found.file_type().is_symlink()) {
                hops += 1;
                if hops > self.limits.link_hops {
                    return Ok(Found::Loop);
                }
                let target = self.read_link(&next)?;
                if target.starts_with('/') {
                    here.clear();
                }
                todo = format!("{target}/{}", todo.get(at..).unwrap_or_default());
                at = 0;
                continue;
            }
            match absent {
                Absent::Make => self.imply(&next, path)?,
                // They may become links.
                Absent::Stop if self.pending.contains_key(&next) => return Ok(Found::Blocked(next)),
                Absent::Mark if self.pending.contains_key(&next) => return Ok(Found::Nothing),
                Absent::Stop | Absent::Mark => there = Some((here.len(), found.is_some())),
            }
            here = next;
        }
        match there {
            None => Ok(Found::Directory(here)),
            Some((length, false)) if absent == Absent::Mark => {
                let ends = here.char_indices().filter(|&(at, letter)| letter == '/' && at > length).map(|(at, _)| at);
                for end in ends.chain([here.len()]).collect::<Vec<_>>() {
                    self.imply(here.get(..end).unwrap_or_default(), path)?;
                }
                Ok(Found::Directory(here))
            }
            Some(_) => Ok(Found::Nothing),
        }
    }

    /// A target as the layer has it, as far as that is known.
    fn read_link(&self, place: &str) -> Result<String, Problem> {
        if let Some(target) = self.absolute.get(place) {
            return Ok(target.clone());
        }
        let target = fs::read_link(self.at(place)).map_err(|error| self.failed("read the link", place, error))?;
        match target.to_str() {
            Some(target) => Ok(target.to_owned()),
            None => Err(Problem::refused(place.as_bytes(), "a link in the way whose target is not UTF-8")),
        }
    }

    /// Makes a directory that no entry has mentioned so far.
    fn imply(&mut self, place: &str, path: &str) -> Result<(), Problem> {
        const PER_ENTRY: u64 = 2;
        self.implied += 1;
        let limit = self.limits.implied_directories.saturating_add(PER_ENTRY * self.meter.entries);
        if self.implied > limit {
            let what = "directories that are made without being listed";
            return Err(Problem::limit(format_args!("`{}`", path.escape_debug()), what, limit, "implied-directories"));
        }
        self.directory(place)?;
        self.set_due(place, super::times::UNLISTED)
    }

    /// The path of something in a directory, bounded as the layer's own paths are: links may not build deeper trees.
    pub(super) fn place(&self, directory: &str, name: &str, path: &str) -> Result<String, Problem> {
        let place = join(directory, name);
        // Under WASI, a thing is reached by its whole path or not at all.
        if self.root.as_os_str().len() + 1 + place.len() > PATH {
            let text = format!("`{}` crosses the limit of {PATH} bytes in a path under WASI", path.escape_debug());
            return Err(Problem::Limit { text, name: None });
        }
        let limits = &self.limits.entry;
        let (what, limit, setting) = if place.len() > limits.path_bytes {
            ("bytes in a resolved path", limits.path_bytes, "path-bytes")
        } else if name.len() > limits.component_bytes {
            ("bytes in a component of a path", limits.component_bytes, "component-bytes")
        } else if place.split('/').count() > limits.depth {
            ("components in a resolved path", limits.depth, "depth")
        } else {
            return Ok(place);
        };
        Err(Problem::limit(format_args!("`{}`", path.escape_debug()), what, limit as u64, setting))
    }

    /// Counts a step behind a link. Links can make a path of a hundred bytes as long as a book.
    fn spend(&mut self, path: &str) -> Result<(), Problem> {
        const PER_ENTRY: u64 = 16;
        self.steps += 1;
        let limit = self.limits.link_steps.saturating_add(PER_ENTRY * self.meter.entries);
        if self.steps > limit {
            let subject = format_args!("`{}`", path.escape_debug());
            return Err(Problem::limit(subject, "steps in following links", limit, "link-steps"));
        }
        Ok(())
    }

    /// Whether the directory at a place, or one that it lies in, holds nothing of lower layers.
    pub(super) fn is_within_fresh(&self, place: &str) -> bool {
        let mut place = place;
        loop {
            if self.fresh.contains(place) {
                return true;
            }
            if place.is_empty() {
                return false;
            }
            place = split(place).0;
        }
    }

    /// Whether markers have nothing to remove.
    pub(super) fn is_alone(&self) -> bool {
        self.mode == Mode::Apply && self.own.is_none()
    }
}

/// Whether only a marker has such a name.
pub(super) fn is_marker(name: &str) -> bool {
    name.starts_with(".wh.")
}

pub(super) fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// Directory and name.
pub(super) fn split(place: &str) -> (&str, &str) {
    place.rsplit_once('/').unwrap_or(("", place))
}

/// The places inside of one.
pub(super) struct Within(String, String);

pub(super) fn within(place: &str) -> Within {
    // `0` is what comes behind the slash.
    Within(format!("{place}/"), format!("{place}0"))
}

impl Within {
    pub(super) fn as_bounds(&self) -> (Bound<&str>, Bound<&str>) {
        (Bound::Excluded(&self.0), Bound::Excluded(&self.1))
    }
}
