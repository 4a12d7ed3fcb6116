//! The tree below the destination: takes a layer's entries in their order and makes them, as far as WASI can.
//!
//! It keeps to the rules of Cofferdam's own tree writer (`host/tree`), and to their words. What lies at a place is known by
//! the place's path, since WASI tells no inode numbers: nobody else may change the tree meanwhile. If somebody does, the
//! tree is wrong, and what lies outside still out of reach: that is the WASI host's to guarantee, here as everywhere.

mod links;
mod markers;
mod place;
mod times;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use cofferdam_layer::{Entry, Extent, Layer, Node, Timestamp};

use crate::blob::Blob;
use crate::limits::{Limits, Meter};
use crate::problem::Problem;
use links::Pending;
use place::{split, within};

/// What becomes of a layer's markers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They remove what the destination holds of lower layers.
    #[default]
    Apply,
    /// They are kept as empty files, in a destination that holds nothing else.
    Preserve,
}

/// What was made, and what was left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) entries: u64,
    devices: u64,
    pipes: u64,
    names: u64,
    attributes: u64,
    absolute: u64,
    early: u64,
    unmade_links: u64,
    lower_links: u64,
    split: u64,
}

impl Made {
    /// What is not as the layer has it, for people.
    pub(crate) fn left_out(&self) -> Vec<String> {
        let counted = [
            (self.devices, "left out: devices"),
            (self.pipes, "left out: named pipes"),
            (self.names, "left out: names or targets that are not UTF-8"),
            (self.unmade_links, "left out: hard links to what was left out"),
            (self.lower_links, "left out: hard links into lower layers"),
            (self.attributes, "left out: extended attributes"),
            (self.absolute, "changed: links to absolute paths, relative now"),
            (self.split, "changed: hard links to such links, links of their own now"),
            (self.early, "changed: times before 1970, of its first second now"),
        ];
        let counted = counted.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{what} ({count})"));
        counted.chain(["left out: owners and modes, for which WASI has no words".into()]).collect()
    }
}

/// Extracts a layer onto a directory, which is made if it is not there.
pub(crate) fn extract(blob: &mut Blob, dest: &Path, mode: Mode, limits: &Limits) -> Result<Made, Problem> {
    let mut tree = Tree::new(dest, mode, limits.clone())?;
    let made = fill(&mut tree, blob, limits);
    if made.is_err() {
        tree.abandon();
    }
    made
}

fn fill(tree: &mut Tree, blob: &mut Blob, limits: &Limits) -> Result<Made, Problem> {
    let mut layer = Layer::new(limits.entry.clone());
    while let Some(entry) = layer.next(blob)? {
        tree.meter.admit(&entry, &blob.known(), limits)?;
        if tree.put(&entry, blob)? == Content::Left {
            layer.skip_content();
        }
        tree.unfinished = None;
    }
    tree.finish()
}

/// Whether an entry's content was taken from the blob.
#[derive(PartialEq, Eq)]
enum Content {
    Taken,
    Left,
}

/// Places are paths from the root, without links on the way, empty for the root.
struct Tree {
    root: PathBuf,
    mode: Mode,
    limits: Limits,
    meter: Meter,
    made: Made,
    /// Places that are known for directories: only what removes one changes that.
    directories: BTreeSet<String>,
    /// What the layer has made or listed. Without it there is nothing else in the tree.
    own: Option<BTreeSet<String>>,
    /// Directories that hold nothing of lower layers.
    fresh: BTreeSet<String>,
    /// When each directory is to have been modified: set at the end, since what is made in one changes it.
    times: BTreeMap<String, Timestamp>,
    /// Hard links that are still to be made.
    pending: BTreeMap<String, Pending>,
    /// Symbolic links whose target was absolute.
    absolute: BTreeMap<String, String>,
    /// What WASI cannot make.
    unmade: BTreeSet<String>,
    /// What the entry at work has made so far.
    unfinished: Option<String>,
    /// Bytes of names in all of these.
    kept: u64,
    implied: u64,
    steps: u64,
}

impl Tree {
    fn new(dest: &Path, mode: Mode, limits: Limits) -> Result<Self, Problem> {
        let failed = |error| Problem::io(&format!("open `{}`", dest.display()), error);
        let mut entries = match fs::read_dir(dest) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(dest).map_err(|error| Problem::io(&format!("create `{}`", dest.display()), error))?;
                fs::read_dir(dest).map_err(failed)?
            }
            other => other.map_err(failed)?,
        };
        let holds_something = entries.next().is_some();
        if holds_something && mode == Mode::Preserve {
            return Err(Problem::Usage(format!("`{}` is not empty, as --mode preserve wants it", dest.display())));
        }
        Ok(Self {
            root: dest.to_owned(),
            mode,
            limits,
            meter: Meter::default(),
            made: Made::default(),
            directories: BTreeSet::new(),
            own: holds_something.then(BTreeSet::new),
            fresh: BTreeSet::new(),
            times: BTreeMap::new(),
            pending: BTreeMap::new(),
            absolute: BTreeMap::new(),
            unmade: BTreeSet::new(),
            unfinished: None,
            kept: 0,
            implied: 0,
            steps: 0,
        })
    }

    fn put(&mut self, entry: &Entry<'_>, blob: &mut Blob) -> Result<Content, Problem> {
        let Ok(path) = std::str::from_utf8(entry.path) else {
            self.made.names += 1;
            return Ok(Content::Left);
        };
        if matches!(entry.node, Node::Whiteout | Node::Opaque) {
            self.mark(path, entry.node == Node::Opaque)?;
            return Ok(Content::Left);
        }
        if !matches!(entry.node, Node::HardLink { .. }) {
            self.made.attributes += entry.attributes.len() as u64;
        }
        if path.is_empty() {
            self.set_due("", entry.modified)?;
            return Ok(Content::Left);
        }
        let place = self.spot(path)?;
        match entry.node {
            Node::Directory => {
                self.directory(&place)?;
                self.set_due(&place, entry.modified)?;
            }
            Node::File { size } => {
                let file = self.create(&place, |path| File::create_new(path))?;
                self.fill(&place, &file, &[Extent { offset: 0, length: size }], blob)?;
                self.set_file_time(&place, &file, entry.modified)?;
                return Ok(Content::Taken);
            }
            Node::Sparse { size, extents } => {
                let file = self.create(&place, |path| File::create_new(path))?;
                file.set_len(size).map_err(|error| self.failed("set the size of", &place, error))?;
                self.fill(&place, &file, extents, blob)?;
                self.set_file_time(&place, &file, entry.modified)?;
                return Ok(Content::Taken);
            }
            Node::Symlink { target } => {
                if let Ok(target) = std::str::from_utf8(target) {
                    self.symlink(&place, target, entry.modified)?;
                } else {
                    self.made.names += 1;
                    self.leave_out(&place)?;
                }
            }
            Node::HardLink { target } => {
                if let Ok(target) = std::str::from_utf8(target) {
                    self.hard_link(&place, target)?;
                } else {
                    self.made.unmade_links += 1;
                    self.leave_out(&place)?;
                }
            }
            Node::CharacterDevice(_) | Node::BlockDevice(_) => {
                self.made.devices += 1;
                self.leave_out(&place)?;
            }
            Node::Fifo => {
                self.made.pipes += 1;
                self.leave_out(&place)?;
            }
            Node::Whiteout | Node::Opaque => {}
        }
        Ok(Content::Left)
    }

    fn finish(&mut self) -> Result<Made, Problem> {
        self.settle_links()?;
        self.settle_times()?;
        Ok(Made { entries: self.meter.entries, ..self.made.clone() })
    }

    /// The layer has failed: removes what lies under the name of the entry at work, and what holds the places of links.
    fn abandon(&mut self) {
        let held = std::mem::take(&mut self.pending).into_iter().filter(|(_, pending)| !pending.to_itself);
        for place in held.map(|(place, _)| place).chain(self.unfinished.take()) {
            let path = self.at(&place);
            let _ = if path.is_dir() && !path.is_symlink() { fs::remove_dir(path) } else { fs::remove_file(path) };
        }
    }

    /// Makes something at a place, after removing what is there. Most places are free, so that is tried first.
    fn create<T>(&mut self, place: &str, make: impl Fn(&Path) -> io::Result<T>) -> Result<T, Problem> {
        self.note(split(place).0)?;
        let path = self.at(place);
        let made = match make(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove(place)?;
                make(&path)
            }
            other => other,
        };
        let made = made.map_err(|error| self.failed("create", place, error))?;
        self.unfinished = Some(place.to_owned());
        self.own(place)?;
        Ok(made)
    }

    /// A directory at a place, in place of whatever is none.
    fn directory(&mut self, place: &str) -> Result<(), Problem> {
        if !self.is_directory(place)? {
            let was_there = self.own.is_none();
            self.create(place, |path| fs::create_dir(path))?;
            self.directories.insert(place.to_owned());
            if !was_there {
                self.keep(place)?;
                self.fresh.insert(place.to_owned());
            }
        }
        self.own(place)
    }

    fn is_directory(&mut self, place: &str) -> Result<bool, Problem> {
        if place.is_empty() || self.directories.contains(place) {
            return Ok(true);
        }
        let found = self.look(place)?.is_some_and(|found| found.is_dir());
        if found {
            self.know(place);
        }
        Ok(found)
    }

    /// Remembers that a place is a directory, as long as there are not too many.
    fn know(&mut self, place: &str) {
        const MANY: usize = 1 << 16;
        if self.directories.len() == MANY {
            self.directories.clear();
        }
        self.directories.insert(place.to_owned());
    }

    /// Fills stretches of a file with the next content.
    fn fill(&self, place: &str, mut file: &File, extents: &[Extent], blob: &mut Blob) -> Result<(), Problem> {
        let failed = |error| self.failed("write to", place, error);
        let mut at = 0;
        for &Extent { offset, length } in extents {
            if offset != at {
                file.seek(SeekFrom::Start(offset)).map_err(failed)?;
            }
            blob.take_all(length, |bytes| file.write_all(bytes).map_err(failed))?;
            at = offset.saturating_add(length);
        }
        Ok(())
    }

    /// What lies at a place, not followed.
    fn look(&self, place: &str) -> Result<Option<fs::Metadata>, Problem> {
        match fs::symlink_metadata(self.at(place)) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("examine", place, error)),
        }
    }

    /// A place where something is that cannot be made: what was there is replaced all the same.
    fn leave_out(&mut self, place: &str) -> Result<(), Problem> {
        self.note(split(place).0)?;
        self.remove(place)?;
        self.keep(place)?;
        self.unmade.insert(place.to_owned());
        Ok(())
    }

    /// Removes what lies at a place, with all that is in it and all that is known about it.
    fn remove(&mut self, place: &str) -> Result<(), Problem> {
        let Some(found) = self.look(place)? else {
            self.forget(place);
            return Ok(());
        };
        let path = self.at(place);
        let removed = if found.is_dir() {
            self.directories.clear();
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(|error| self.failed("remove", place, error))?;
        self.forget(place);
        Ok(())
    }

    /// What was at a place is gone.
    fn forget(&mut self, place: &str) {
        for set in [&mut self.fresh, &mut self.unmade] {
            set.remove(place);
            let inside: Vec<_> = set.range::<str, _>(within(place).as_bounds()).cloned().collect();
            for place in inside {
                set.remove(&place);
            }
        }
        forget_in(&mut self.times, place);
        forget_in(&mut self.pending, place);
        forget_in(&mut self.absolute, place);
    }

    /// A place is the layer's own from now on, and nothing else waits for it.
    fn own(&mut self, place: &str) -> Result<(), Problem> {
        self.pending.remove(place);
        self.unmade.remove(place);
        if let Some(own) = &mut self.own
            && !own.contains(place)
        {
            own.insert(place.to_owned());
            self.keep(place)?;
        }
        Ok(())
    }

    fn is_own(&self, place: &str) -> bool {
        self.own.as_ref().is_none_or(|own| own.contains(place))
    }

    /// Pays for a name that is remembered.
    fn keep(&mut self, name: &str) -> Result<(), Problem> {
        const OVERHEAD: u64 = 64;
        self.kept += name.len() as u64 + OVERHEAD;
        if self.kept > self.limits.deferred_bytes {
            let what = "bytes of names to remember until its end";
            return Err(Problem::limit("the layer", what, self.limits.deferred_bytes, "deferred-bytes"));
        }
        Ok(())
    }

    /// Where a place lies for WASI.
    fn at(&self, place: &str) -> PathBuf {
        if place.is_empty() { self.root.clone() } else { self.root.join(place) }
    }

    #[expect(clippy::unused_self, reason = "reads as what it is: a failure in this tree")]
    fn failed(&self, action: &str, place: &str, error: io::Error) -> Problem {
        match Problem::io(&format!("{action} `{}`", place.escape_debug()), error) {
            // Not of what the command line names, but of what was there a moment ago.
            Problem::NotFound(text) => Problem::Io(text),
            other => other,
        }
    }
}

fn forget_in<T>(map: &mut BTreeMap<String, T>, place: &str) {
    map.remove(place);
    let inside: Vec<_> = map.range::<str, _>(within(place).as_bounds()).map(|(place, _)| place.clone()).collect();
    for place in inside {
        map.remove(&place);
    }
}
