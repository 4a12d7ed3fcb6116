//! Markers: removals of what lower layers hold, whatever their order among a layer's own entries.

use std::fs::{self, File};
use std::io;

use super::place::{Absent, Found, join, split};
use super::times::UNLISTED;
use super::{Mode, Tree};
use crate::problem::Problem;

/// The file that makes its directory opaque.
const OPAQUE: &str = ".wh..wh..opq";

impl Tree {
    /// Removes what lower layers hold at a path, or inside of the directory there.
    pub(super) fn mark(&mut self, path: &str, opaque: bool) -> Result<(), Problem> {
        let (parent, name) = if opaque { (path, "") } else { split(path) };
        let marker = if opaque { OPAQUE.to_owned() } else { format!(".wh.{name}") };
        if marker.len() > self.limits.entry.component_bytes {
            let (what, limit) = ("bytes in a component of a path", self.limits.entry.component_bytes as u64);
            return Err(Problem::limit(format_args!("`{}`", path.escape_debug()), what, limit, "component-bytes"));
        }
        let absent = if self.mode == Mode::Apply { Absent::Stop } else { Absent::Mark };
        let directory = match self.resolve(parent, absent)? {
            Found::Directory(directory) => directory,
            Found::Nothing | Found::Blocked(_) => return Ok(()),
            Found::Loop => return Err(self.endless(path)),
        };
        match self.mode {
            Mode::Apply if self.is_alone() => Ok(()),
            Mode::Apply if opaque => self.prune(&directory),
            Mode::Apply => {
                let victim = self.place(&directory, name, path)?;
                self.remove_lower(&victim)
            }
            Mode::Preserve => self.keep_marker(&join(&directory, &marker)),
        }
    }

    /// Keeps a marker as an empty file.
    fn keep_marker(&mut self, place: &str) -> Result<(), Problem> {
        if self.look(place)?.is_some() {
            return Ok(());
        }
        self.create(place, |path| File::create_new(path))?;
        self.set_time(place, UNLISTED)
    }

    /// Removes what lies at a place, but for what the layer has made.
    fn remove_lower(&mut self, place: &str) -> Result<(), Problem> {
        let Some(found) = self.look(place)? else { return Ok(()) };
        let own = self.is_own(place);
        if !found.is_dir() {
            if own {
                return Ok(());
            }
            self.note(split(place).0)?;
            return self.remove(place);
        }
        if own && self.fresh.contains(place) {
            return Ok(());
        }
        self.note(split(place).0)?;
        self.prune(place)?;
        if own { Ok(()) } else { self.remove_emptied(place) }
    }

    /// Removes what lower layers put into a directory, which stays. Each directory is walked once: afterwards it holds nothing
    /// of lower layers, and further markers cost nothing (CVE-2026-95838).
    fn prune(&mut self, place: &str) -> Result<(), Problem> {
        if self.is_within_fresh(place) {
            return Ok(());
        }
        self.note(place)?;
        self.prune_inside(place)?;
        self.keep(place)?;
        self.fresh.insert(place.to_owned());
        Ok(())
    }

    fn prune_inside(&mut self, place: &str) -> Result<(), Problem> {
        for (name, is_directory) in self.list(place)? {
            let child = join(place, &name);
            if !is_directory {
                if !self.is_own(&child) {
                    self.remove(&child)?;
                }
                continue;
            }
            if self.fresh.contains(&child) {
                continue;
            }
            self.prune_inside(&child)?;
            if self.is_own(&child) {
                self.keep(&child)?;
                self.fresh.insert(child);
            } else {
                self.remove_emptied(&child)?;
            }
        }
        Ok(())
    }

    /// Removes a lower directory, unless the layer's own content is in it: then it is what that content implies.
    fn remove_emptied(&mut self, place: &str) -> Result<(), Problem> {
        match fs::remove_dir(self.at(place)) {
            Ok(()) => {
                self.directories.clear();
                self.forget(place);
                Ok(())
            }
            Err(error) if is_not_empty(&error) => {
                self.own(place)?;
                self.keep(place)?;
                self.fresh.insert(place.to_owned());
                self.set_due(place, UNLISTED)
            }
            Err(error) => Err(self.failed("remove", place, error)),
        }
    }

    /// Names in a directory, and which of them are directories.
    fn list(&self, place: &str) -> Result<Vec<(String, bool)>, Problem> {
        let failed = |error| self.failed("list", place, error);
        let mut found = Vec::new();
        for entry in fs::read_dir(self.at(place)).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().into_string().map_err(|name| {
                Problem::Io(format!("`{}` in `{place}` is not UTF-8: WASI cannot remove it", name.display()))
            })?;
            found.push((name, entry.file_type().map_err(failed)?.is_dir()));
        }
        Ok(found)
    }
}

/// Rust has a kind for it, and does not tell it everywhere.
fn is_not_empty(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOTEMPTY) || error.kind() == io::ErrorKind::DirectoryNotEmpty
}
