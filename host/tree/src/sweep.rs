//! Walks a directory tree from the inside out, however deep or wide: removal, pruning and the clean-up of overlay trees.
//!
//! Nothing recurses, no path is ever longer than a name, and a bounded number of directories is open. Of a directory,
//! only the names of its subdirectories are held while the walk is inside. On its way back up beyond the open ones, the
//! walk goes through `..` and goes on only if that is the very directory it came from.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cofferdam_core::cancel::Cancel;
use cofferdam_core::error::{Error, Result};
use rustix::fs::{FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::ids::{Ids, PathId};
use super::mounts::open_within;
use super::sys::{self, DIRECTORY, Explain as _, HOLD, inode_of, kind_of, open_directory, through_proc};

/// Directories that are open at a time.
const OPEN: usize = 32;

/// Bytes of directory entries read at a time.
const BUFFER: usize = 32 << 10;

/// What a walk does.
pub(super) trait Visitor {
    /// Something that is no directory.
    fn leaf(&mut self, dir: BorrowedFd<'_>, name: &[u8], id: PathId, kind: FileType) -> Result<()>;

    /// Whether to go into a directory. If not, it is left at once.
    fn enter(&mut self, id: PathId) -> Result<bool>;

    /// A directory whose content was visited, or that was not entered. `path` is relative to where the walk began.
    fn leave(&mut self, left: Left<'_>) -> Result<()>;

    /// Whether the walk may make directories accessible that their modes close.
    fn may_widen(&self) -> bool {
        false
    }

    /// A directory `name` in `dir` that cannot be opened, or must not be since something is mounted there
    /// ([`Errno::XDEV`]). `path` is where the walk began.
    fn unopened(&mut self, _dir: BorrowedFd<'_>, _name: &[u8], errno: Errno, path: &[u8]) -> Result<()> {
        Err(match errno {
            Errno::NOTDIR | Errno::LOOP => sys::contended(path),
            errno => sys::failed("open a directory in", path, errno),
        })
    }

    /// Whether the walk may end here.
    fn is_done(&self) -> bool {
        false
    }
}

/// A directory that is being left.
#[derive(Debug)]
pub(super) struct Left<'a> {
    /// The directory that it lies in, and its name there.
    pub(super) parent: BorrowedFd<'a>,
    pub(super) name: &'a [u8],
    pub(super) id: PathId,
    frames: &'a [Frame],
}

impl Left<'_> {
    /// Its path, relative to the directory in which the walk began.
    pub(super) fn path(&self) -> Vec<u8> {
        let above = self.frames.iter().skip(1).map(|frame| frame.name.as_slice());
        above.chain([self.name]).collect::<Vec<_>>().join(&b'/')
    }
}

#[derive(Debug)]
struct Frame {
    name: Vec<u8>,
    id: PathId,
    inode: (u64, u64),
    /// Names of subdirectories still to visit, each ended by a slash.
    subdirs: Vec<u8>,
}

impl Frame {
    fn next_subdir(&mut self) -> Option<Vec<u8>> {
        self.subdirs.pop()?;
        let start = self.subdirs.iter().rposition(|&b| b == b'/').map_or(0, |at| at + 1);
        Some(self.subdirs.split_off(start))
    }
}

/// A walk: its stack, of which the innermost directories are open.
pub(super) struct Sweep<'a> {
    ids: &'a Ids,
    buffer: Vec<MaybeUninit<u8>>,
    frames: Vec<Frame>,
    open: VecDeque<OwnedFd>,
    /// For messages: where the walk began.
    path: &'a [u8],
    cancel: Option<&'a Cancel>,
}

impl<'a> Sweep<'a> {
    pub(super) fn new(ids: &'a Ids, path: &'a [u8]) -> Self {
        let buffer = vec![MaybeUninit::uninit(); BUFFER];
        Self { ids, buffer, frames: Vec::new(), open: VecDeque::new(), path, cancel: None }
    }

    /// Ends the walk with [`Error::Interrupted`] when it is given up.
    pub(super) fn unless(self, cancel: Option<&'a Cancel>) -> Self {
        Self { cancel, ..self }
    }

    /// Visits what lies inside of a directory, but not itself.
    pub(super) fn inside(&mut self, dir: impl AsFd, id: PathId, visitor: &mut impl Visitor) -> Result<()> {
        let fd = rustix::fs::openat(dir, ".", DIRECTORY, Mode::empty()).explain("open", self.path)?;
        self.push(fd, Vec::new(), id, visitor)?;
        self.run(visitor)
    }

    fn run(&mut self, visitor: &mut impl Visitor) -> Result<()> {
        while let Some(frame) = self.frames.last_mut() {
            if visitor.is_done() {
                return Ok(());
            }
            let parent_id = frame.id;
            if let Some(name) = frame.next_subdir() {
                let id = self.ids.child(parent_id, &name);
                if visitor.enter(id)? {
                    match self.open_child(&name, visitor.may_widen()) {
                        Ok(fd) => self.push(fd, name, id, visitor)?,
                        // It went away, or is no directory any more.
                        Err(Errno::NOENT) => {}
                        Err(errno) => visitor.unopened(self.innermost()?, &name, errno, self.path)?,
                    }
                } else {
                    let parent = self.innermost()?;
                    visitor.leave(Left { parent, name: &name, id, frames: &self.frames })?;
                }
                continue;
            }
            let Some(done) = self.frames.pop() else { break };
            let fd = self.open.pop_back();
            let Some(above) = self.frames.last() else { break };
            if self.open.is_empty() {
                let inner = fd.as_ref().ok_or_else(|| sys::contended(self.path))?;
                let outer = rustix::fs::openat(inner, "..", DIRECTORY, Mode::empty()).explain("reopen", self.path)?;
                let stat = rustix::fs::fstat(&outer).explain("examine", self.path)?;
                if inode_of(&stat) != above.inode {
                    return Err(sys::contended(self.path));
                }
                self.open.push_back(outer);
            }
            let parent = self.innermost()?;
            visitor.leave(Left { parent, name: &done.name, id: done.id, frames: &self.frames })?;
        }
        Ok(())
    }

    fn innermost(&self) -> Result<BorrowedFd<'_>> {
        self.open.back().map(AsFd::as_fd).ok_or_else(|| sys::contended(self.path))
    }

    fn open_child(&self, name: &[u8], widen: bool) -> rustix::io::Result<OwnedFd> {
        let parent = self.open.back().ok_or(Errno::BADF)?;
        match open_directory(parent, name) {
            Err(Errno::ACCESS) if widen => {
                let held = open_within(parent, name, HOLD | OFlags::DIRECTORY)?;
                rustix::fs::chmod(through_proc(held), Mode::RWXU)?;
                open_directory(parent, name)
            }
            other => other,
        }
    }

    /// Enters a directory: visits its leaves, and notes its subdirectories.
    fn push(&mut self, fd: OwnedFd, name: Vec<u8>, id: PathId, visitor: &mut impl Visitor) -> Result<()> {
        let stat = rustix::fs::fstat(&fd).explain("examine", self.path)?;
        if visitor.may_widen() && stat.st_mode & 0o700 != 0o700 {
            // Best effort: if it matters, what comes next says so.
            let _ = rustix::fs::fchmod(&fd, Mode::RWXU);
        }
        let mut subdirs = Vec::new();
        let mut entries = RawDir::new(&fd, &mut self.buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|errno| Error::io("list a directory in", self.path, errno))?;
            self.cancel.map_or(Ok(()), Cancel::check)?;
            if visitor.is_done() {
                break;
            }
            let child = entry.file_name().to_bytes();
            if matches!(child, b"." | b"..") {
                continue;
            }
            let mut kind = entry.file_type();
            if kind == FileType::Unknown {
                match sys::look(&fd, child).explain("examine something in", self.path)? {
                    Some(stat) => kind = kind_of(&stat),
                    None => continue,
                }
            }
            if kind == FileType::Directory {
                subdirs.extend_from_slice(child);
                subdirs.push(b'/');
            } else {
                visitor.leaf(fd.as_fd(), child, self.ids.child(id, child), kind)?;
            }
        }
        self.frames.push(Frame { name, id, inode: inode_of(&stat), subdirs });
        self.open.push_back(fd);
        if self.open.len() > OPEN {
            self.open.pop_front();
        }
        Ok(())
    }
}
