//! Reads a tree as a `chroot` into it would: nothing in it, and nobody who changes it, leads out.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cofferdam_core::error::{Error, Result};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::options::Resolver;
use super::sys::{self, DIRECTORY, Explain as _, HOLD, kind_of, look};

/// Links that may be followed in one path, as in the kernel.
const HOPS: usize = 40;

/// Steps that one path may take; links can make it as long as a book.
const STEPS: usize = 100_000;

/// A directory whose inside is resolved like a file system of its own: links are followed inside of it, absolute ones
/// begin at it, `..` stops at it.
#[derive(Debug)]
pub struct SafeRoot {
    root: OwnedFd,
    resolver: Resolver,
}

impl SafeRoot {
    /// The tree below a directory.
    pub fn new(root: OwnedFd, resolver: Resolver) -> Self {
        Self { root, resolver }
    }

    /// The directory itself.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens the directory that a path leads to; links are followed.
    pub fn open_dir(&self, path: &[u8]) -> Result<OwnedFd> {
        self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Opens the regular file that a path leads to, for reading; links are followed, special files never opened.
    pub fn open_file(&self, path: &[u8]) -> Result<OwnedFd> {
        // Non-blocking, should somebody put a pipe there between the look and the opening.
        let held = self.open(path, OFlags::PATH)?;
        let stat = rustix::fs::fstat(&held).explain("examine", path)?;
        if kind_of(&stat) != FileType::RegularFile {
            return Err(Error::refused(path, "not a regular file"));
        }
        let file = self.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let now = rustix::fs::fstat(&file).explain("examine", path)?;
        if sys::inode_of(&now) == sys::inode_of(&stat) { Ok(file) } else { Err(sys::contended(path)) }
    }

    /// What lies at a path; a link there is not followed. Nothing if there is nothing.
    pub fn stat(&self, path: &[u8]) -> Result<Option<Stat>> {
        match self.parent(path) {
            Ok((dir, name)) => match look(&dir, name) {
                Err(Errno::NOTDIR) => Ok(None),
                other => other.explain("examine", path),
            },
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The target of the link at a path.
    pub fn read_link(&self, path: &[u8]) -> Result<Vec<u8>> {
        let (dir, name) = self.parent(path)?;
        let target = rustix::fs::readlinkat(&dir, name, Vec::new()).explain("read the link", path)?;
        Ok(target.into_bytes())
    }

    /// The directory that holds a path's last component, and that component.
    fn parent<'p>(&self, path: &'p [u8]) -> Result<(OwnedFd, &'p [u8])> {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let (parent, name) = sys::split(path);
        match name {
            b"" | b"." | b".." => Ok((self.open_dir(path)?, b".")),
            name => Ok((self.open_dir(parent)?, name)),
        }
    }

    fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        let opened = match self.resolver {
            Resolver::Walk => self.walk(path, flags),
            Resolver::Openat2 => self.ask(path, flags),
            Resolver::Auto => match self.ask(path, flags) {
                // The last: of the whole path, perhaps, and of none of its names.
                Err(Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::NAMETOOLONG) => self.walk(path, flags),
                other => other,
            },
        };
        opened.map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR => {
                Error::NotFound { what: format!("`{}` in the tree", cofferdam_core::error::Escaped(path)), hint: None }
            }
            errno => sys::failed("open", path, errno),
        })
    }

    /// Lets the kernel resolve.
    fn ask(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut last = Errno::AGAIN;
        // EAGAIN: a rename or a mount anywhere, while the kernel went through a `..`.
        for _ in 0..sys::RETRIES * 4 {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Err(errno @ (Errno::AGAIN | Errno::INTR)) => last = errno,
                other => return other,
            }
        }
        Err(last)
    }

    /// Resolves name by name. The handles of all directories on the way are kept, so that `..` needs no look at the disk.
    fn walk(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let mut above: Vec<OwnedFd> = Vec::new();
        let mut todo = path.to_vec();
        let (mut at, mut hops, mut steps) = (0, 0, 0);
        while let Some(tail) = todo.get(at..).filter(|tail| !tail.is_empty()) {
            let name = tail.split(|&b| b == b'/').next().unwrap_or_default().to_vec();
            at += name.len() + 1;
            let rest = todo.get(at..).unwrap_or_default();
            let last = rest.is_empty() && at > todo.len();
            steps += 1;
            if steps > STEPS {
                return Err(Errno::LOOP);
            }
            match &*name {
                b"" | b"." => continue,
                b".." => {
                    above.pop();
                    continue;
                }
                _ => {}
            }
            let here = above.last().unwrap_or(&self.root);
            let held = rustix::fs::openat(here, &*name, HOLD, Mode::empty())?;
            match kind_of(&rustix::fs::fstat(&held)?) {
                FileType::Directory => above.push(rustix::fs::openat(here, &*name, DIRECTORY, Mode::empty())?),
                FileType::Symlink => {
                    hops += 1;
                    if hops > HOPS {
                        return Err(Errno::LOOP);
                    }
                    let mut next = rustix::fs::readlinkat(&held, "", Vec::new())?.into_bytes();
                    if next.first() == Some(&b'/') {
                        above.clear();
                    }
                    if !last {
                        next.push(b'/');
                        next.extend_from_slice(rest);
                    }
                    (todo, at) = (next, 0);
                }
                _ if last => return rustix::fs::openat(here, &*name, flags | OFlags::NOFOLLOW, Mode::empty()),
                _ => return Err(Errno::NOTDIR),
            }
        }
        let here = above.last().unwrap_or(&self.root);
        rustix::fs::openat(here, ".", flags, Mode::empty())
    }
}
