//! Finds the directory that a path leads to, as a `chroot` would see it, and makes what is missing on the way.
//!
//! A way without links is opened in one call: `openat2` with every link, `/proc` magic, mount point and way out forbidden. A way with
//! links is walked name by name. At each step a handle leads to one name inside of it, not followed, without `..`; links are
//! read and followed here: absolute targets begin at the root, `..` goes to the parent that the walk itself knows, and
//! the root is its own parent. A name that is not there counts as an empty directory while a way only passes it, which takes a
//! link's target with `..` behind it: nothing is made for that. So no state of the file system, and nobody who changes it meanwhile, can lead out.

use std::sync::Arc;

use cofferdam_core::error::{Error, Result};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::handle::{Dir, Spot};
use super::ids::PathId;
use super::options::{Mode as TreeMode, Resolver};
use super::sys::{self, DIRECTORY, Explain as _, is_marker_name, join, kind_of, open_directory, split};
use super::writer::TreeWriter;

/// The longest path that the kernel takes, with its final NUL.
const PATH_MAX: usize = 4096;

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
#[derive(Debug)]
pub(super) enum Found {
    /// To this directory.
    Dir(Arc<Dir>),
    /// Nowhere.
    Nothing,
    /// To a hard link that is still to be made.
    Blocked(PathId),
    /// Around in circles.
    Loop,
}

/// What one name leads to.
enum Step {
    Dir(Arc<Dir>),
    Link(Vec<u8>),
    Other,
    Nothing,
}

/// The part of a way that is not there: names below a directory, each with the id of its place.
#[derive(Debug, Default)]
struct Beyond {
    names: Vec<(PathId, Vec<u8>)>,
    /// Whether the first of them is there, and is no directory.
    is_blocked: bool,
}

impl Beyond {
    /// The path of all names, below the directory.
    fn path(&self) -> Vec<u8> {
        self.names.iter().map(|(_, name)| name.as_slice()).collect::<Vec<_>>().join(&b'/')
    }
}

/// What an attempt to go all the way at once gave.
enum Jump {
    Dir(Arc<Dir>),
    Nothing,
    Unclear,
}

impl TreeWriter {
    /// The place of an entry: its directory, made if it is missing, and its name.
    pub(super) fn spot<'p>(&mut self, path: &'p [u8]) -> Result<Spot<'p>> {
        let (parent, name) = split(path);
        match self.resolve(parent, Absent::Make)? {
            Found::Dir(dir) => {
                self.promote(&dir.path);
                Ok(Spot { id: self.ids.child(dir.id, name), dir, name, path })
            }
            Found::Loop => Err(self.endless(path)),
            Found::Nothing | Found::Blocked(_) => Err(sys::contended(path)),
        }
    }

    /// The directory that a path leads to.
    pub(super) fn resolve(&mut self, path: &[u8], absent: Absent) -> Result<Found> {
        if path.is_empty() {
            return Ok(Found::Dir(Arc::clone(&self.root)));
        }
        if let Some(dir) = self.cache.get(path) {
            return Ok(Found::Dir(dir));
        }
        let (start, rest) = self.nearest(path);
        if self.strict.is_some() && !is_straight(path, rest, &start) {
            // That a link was followed matters for what comes behind it.
            return self.walk(Arc::clone(&self.root), path, path, absent);
        }
        match self.jump(&start, rest, path)? {
            Jump::Dir(dir) => {
                self.cache.insert(path, &dir);
                Ok(Found::Dir(dir))
            }
            Jump::Nothing if absent == Absent::Stop => Ok(Found::Nothing),
            Jump::Nothing | Jump::Unclear => self.walk(start, rest, path, absent),
        }
    }

    /// The directory at a resolved path, if it still is one.
    pub(super) fn open_resolved(&mut self, path: &[u8]) -> Result<Option<Arc<Dir>>> {
        if path.is_empty() {
            return Ok(Some(Arc::clone(&self.root)));
        }
        // What is known under a path that leads through a link by now lies elsewhere.
        if let Some(dir) = self.cache.get(path).filter(|dir| *dir.path == *path) {
            return Ok(Some(dir));
        }
        let (mut dir, mut rest) = self.nearest(path);
        if !is_straight(path, rest, &dir) {
            (dir, rest) = (Arc::clone(&self.root), path);
        }
        match self.jump(&dir, rest, path)? {
            Jump::Dir(dir) => {
                self.cache.insert(path, &dir);
                return Ok(Some(dir));
            }
            Jump::Nothing => return Ok(None),
            Jump::Unclear => {}
        }
        for name in rest.split(|&b| b == b'/') {
            match self.step(&dir, name, path)? {
                Step::Dir(next) => dir = next,
                Step::Link(_) | Step::Other | Step::Nothing => return Ok(None),
            }
        }
        Ok(Some(dir))
    }

    /// Makes a path's directories as far as they are missing.
    pub fn imply_path(&mut self, path: &[u8]) -> Result<()> {
        match self.resolve(path, Absent::Make)? {
            Found::Loop => Err(self.endless(path)),
            _ => Ok(()),
        }
    }

    /// Whether a link lies at a path.
    pub fn is_link(&mut self, path: &[u8]) -> Result<bool> {
        let (parent, name) = split(path);
        let Found::Dir(dir) = self.resolve(parent, Absent::Stop)? else { return Ok(false) };
        let stat = sys::look(&dir, name).explain("examine", path)?;
        Ok(stat.is_some_and(|stat| kind_of(&stat) == FileType::Symlink))
    }

    /// The longest known part of a path, and the rest. Looks a few levels up only: a layer may alternate between many deep
    /// directories, and looking for each of their parents would cost more than going the whole way.
    fn nearest<'p>(&mut self, path: &'p [u8]) -> (Arc<Dir>, &'p [u8]) {
        const LEVELS: usize = 8;
        let mut end = path.len();
        for _ in 0..LEVELS {
            let Some(at) = path.get(..end).and_then(|head| head.iter().rposition(|&b| b == b'/')) else { break };
            if let Some((head, tail)) = path.split_at_checked(at)
                && let Some(dir) = self.cache.get(head)
            {
                return (dir, tail.get(1..).unwrap_or_default());
            }
            end = at;
        }
        (Arc::clone(&self.root), path)
    }

    /// Goes a way on which no link lies.
    fn jump(&mut self, start: &Dir, rest: &[u8], path: &[u8]) -> Result<Jump> {
        let single = !rest.contains(&b'/');
        let opened = if single {
            open_directory(start, rest)
        } else if self.openat2 && rest.len() < PATH_MAX {
            let links = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | links;
            rustix::io::retry_on_intr(|| rustix::fs::openat2(start, rest, DIRECTORY, Mode::empty(), resolve))
        } else {
            return Ok(Jump::Unclear);
        };
        self.walked += rest.split(|&b| b == b'/').count() as u64;
        match opened {
            Ok(fd) => {
                let id = rest.split(|&b| b == b'/').fold(start.id, |id, name| self.ids.child(id, name));
                Ok(Jump::Dir(Dir::new(fd, self.place(start, rest, path)?, id)))
            }
            Err(Errno::NOENT) => Ok(Jump::Nothing),
            // Kernels before 5.6 do not know the call; sandboxes forbid what they do not know.
            Err(errno @ (Errno::NOSYS | Errno::PERM | Errno::INVAL)) if !single => {
                if self.options.resolver == Resolver::Openat2 {
                    return Err(Error::io("resolve with openat2", path, errno));
                }
                self.openat2 = false;
                Ok(Jump::Unclear)
            }
            // A link, no directory, a mount point, a race: the walk tells.
            Err(_) => Ok(Jump::Unclear),
        }
    }

    /// Goes a way name by name.
    fn walk(&mut self, start: Arc<Dir>, rest: &[u8], path: &[u8], absent: Absent) -> Result<Found> {
        let mut here = start;
        let mut beyond = Beyond::default();
        let mut has_passed = false;
        let mut todo = rest.to_vec();
        let mut at = 0;
        let mut hops = 0;
        while let Some(tail) = todo.get(at..).filter(|tail| !tail.is_empty()) {
            let name = tail.split(|&b| b == b'/').next().unwrap_or_default();
            at += name.len() + 1;
            if matches!(name, b"" | b".") {
                continue;
            }
            if hops > 0 {
                self.spend(path)?;
            }
            if name == b".." && !beyond.names.is_empty() {
                self.note_passed(&join(&here.path, &beyond.path()))?;
                beyond.names.pop();
                continue;
            }
            if name == b".." {
                if self.implied.contains(&*here.path) || self.marker_dirs.contains(&*here.path) {
                    self.note_passed(&here.path)?;
                }
                let above = Vec::from(split(&here.path).0);
                here = self.open_resolved(&above)?.ok_or_else(|| sys::contended(path))?;
                continue;
            }
            if is_marker_name(name) {
                // A link's target; entries do not have such names, and the tree holds none but markers.
                return match absent {
                    Absent::Make => {
                        self.unsure.set(true);
                        Err(Error::refused(path, "a link leads to a name that only markers have"))
                    }
                    Absent::Stop | Absent::Mark => Ok(Found::Nothing),
                };
            }
            let name = name.to_vec();
            if let Some((around, _)) = beyond.names.last() {
                let id = self.ids.child(*around, &name);
                self.watch_passed(id);
                beyond.names.push((id, name));
                self.place(&here, &beyond.path(), path)?;
                continue;
            }
            let id = self.ids.child(here.id, &name);
            if hops > 0 {
                self.watch_step(id, path)?;
            }
            match self.step(&here, &name, path)? {
                Step::Dir(next) => here = next,
                Step::Link(target) => {
                    hops += 1;
                    if hops > self.options.limits.link_hops {
                        return Ok(Found::Loop);
                    }
                    self.watch_link(id, path)?;
                    if target.first() == Some(&b'/') {
                        here = Arc::clone(&self.root);
                    }
                    let mut next = target;
                    next.push(b'/');
                    next.extend_from_slice(todo.get(at..).unwrap_or_default());
                    (todo, at) = (next, 0);
                }
                Step::Nothing | Step::Other if absent == Absent::Make => {
                    here = self.imply(&here, &name, absent, path)?;
                }
                // It may become a link.
                Step::Other if self.pending.contains_key(&id) => {
                    return Ok(if absent == Absent::Stop { Found::Blocked(id) } else { Found::Nothing });
                }
                step @ (Step::Nothing | Step::Other) => {
                    beyond = Beyond { names: vec![(id, name)], is_blocked: matches!(step, Step::Other) };
                    has_passed = true;
                }
            }
        }
        if !beyond.names.is_empty() {
            if absent == Absent::Stop || beyond.is_blocked {
                return Ok(Found::Nothing);
            }
            for (_, name) in &beyond.names {
                here = self.imply(&here, name, absent, path)?;
            }
        }
        // A link that is made where something was missing would lead elsewhere, and making it makes nobody forget.
        if !has_passed {
            self.cache.insert(path, &here);
        }
        Ok(Found::Dir(here))
    }

    /// A way goes on behind a directory that is not there, or that the layer does not list. A lower layer's link in its place
    /// would lead elsewhere.
    fn note_passed(&mut self, place: &[u8]) -> Result<()> {
        if self.options.mode == TreeMode::Preserve && !self.late.contains(place) {
            self.budget.charge(place)?;
            self.late.insert(place.to_vec());
        }
        Ok(())
    }

    /// Goes to one name, not followed.
    fn step(&mut self, here: &Dir, name: &[u8], path: &[u8]) -> Result<Step> {
        let place = self.place(here, name, path)?;
        if let Some(dir) = self.cache.get(&place).filter(|dir| *dir.path == *place) {
            return Ok(Step::Dir(dir));
        }
        self.walked += 1;
        match open_directory(here, name) {
            Ok(fd) => {
                let dir = Dir::new(fd, place, self.ids.child(here.id, name));
                self.cache.offer(&dir);
                Ok(Step::Dir(dir))
            }
            Err(Errno::NOENT) => Ok(Step::Nothing),
            Err(Errno::NOTDIR | Errno::LOOP) => match rustix::fs::readlinkat(here, name, Vec::new()) {
                Ok(target) => Ok(Step::Link(target.into_bytes())),
                Err(Errno::INVAL) => Ok(Step::Other),
                Err(Errno::NOENT) => Ok(Step::Nothing),
                Err(errno) => Err(sys::failed("read the link", &place, errno)),
            },
            Err(errno) => Err(sys::failed("open", &place, errno)),
        }
    }

    /// The path of something in `dir`, which is bounded as the layer's own paths are: links may not build deeper trees.
    pub(super) fn place(&self, dir: &Dir, name: &[u8], path: &[u8]) -> Result<Vec<u8>> {
        let place = join(&dir.path, name);
        let limits = &self.options.limits;
        let depth = place.split(|&b| b == b'/').count();
        let (what, limit) = if place.len() > limits.path_bytes {
            ("bytes in a resolved path", limits.path_bytes)
        } else if depth > limits.depth {
            ("components in a resolved path", limits.depth)
        } else {
            return Ok(place);
        };
        Err(Error::Limit { subject: format!("`{}`", cofferdam_core::error::Escaped(path)), what, limit: limit as u64 })
    }

    /// Counts a step of a walk. Links can make a path of a hundred bytes as long as a book; a layer's entries pay for each
    /// other, so this bounds the time that a layer takes and no honest one notices.
    fn spend(&mut self, path: &[u8]) -> Result<()> {
        const PER_ENTRY: u64 = 16;
        self.steps += 1;
        let limit = self.options.limits.link_steps.saturating_add(PER_ENTRY * self.record.counts.entries);
        if self.steps > limit {
            let subject = format!("`{}`", cofferdam_core::error::Escaped(path));
            return Err(Error::Limit { subject, what: "steps in following links", limit });
        }
        Ok(())
    }
}

/// Whether no link was followed on the way to `dir`, which is what remains of `path` without `rest`.
fn is_straight(path: &[u8], rest: &[u8], dir: &Dir) -> bool {
    let head = path.strip_suffix(rest).unwrap_or_default();
    head.strip_suffix(b"/").unwrap_or(head) == &*dir.path
}

/// Whether this kernel and sandbox offer `openat2`.
pub(super) fn has_openat2(root: &Dir) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(root, ".", flags, Mode::empty(), ResolveFlags::BENEATH).is_ok()
}
