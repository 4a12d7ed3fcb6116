//! The scratch directory of one run: made for it, bounded, and removed with it.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use cap_std::fs::Dir;
use cofferdam_core::ambient;
use cofferdam_core::error::{Error, Result};
use cofferdam_core::inherited;
use cofferdam_core::limits::Limits;
use cofferdam_tree::remove_tree;
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::account::over;

/// How it is called in the plugin.
pub(super) const NAME: &str = "/scratch";

/// Between two looks passes this many times what one look takes.
const REST: u32 = 10;

/// The most directories inside of each other.
const DEPTH: usize = 128;

/// A directory that nobody else uses. Dropping it removes it.
pub(super) struct Scratch {
    plugin: String,
    parent: Dir,
    name: String,
    path: PathBuf,
    dir: OwnedFd,
    most_bytes: u64,
    most_files: u64,
    /// Files that the plugin opened: what it unlinks takes room until it is closed.
    opened: Vec<Weak<File>>,
    next: Instant,
}

impl Scratch {
    pub(super) fn new(plugin: &str, place: &Path, limits: &Limits) -> Result<Self> {
        let (parent, _) = ambient::create_private_dir(place)?;
        let (name, dir) = loop {
            if let Some(made) = make(&parent)? {
                break made;
            }
        };
        let path = place.join(&name);
        Ok(Self {
            plugin: plugin.to_owned(),
            parent,
            name,
            path,
            dir,
            most_bytes: limits.scratch_bytes,
            most_files: limits.scratch_files,
            opened: Vec::new(),
            next: Instant::now(),
        })
    }

    /// Where it is, for the one who opens it for the plugin.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes note of a file that the plugin opened.
    pub(super) fn opened(&mut self, file: &Arc<File>) {
        if self.opened.len() == self.opened.capacity() {
            self.opened.retain(|file| file.strong_count() > 0);
        }
        self.opened.push(Arc::downgrade(file));
    }

    /// Looks whether it is within its limits; unless `now`, only if the last look was long enough ago.
    pub(super) fn check(&mut self, now: bool) -> Result<()> {
        let begin = Instant::now();
        if !now && begin < self.next {
            return Ok(());
        }
        let mut used = Used { bytes: 0, files: 0, most_bytes: self.most_bytes, most_files: self.most_files };
        let walked = used.walk(self.dir.as_fd(), 0);
        self.opened.retain(|file| file.strong_count() > 0);
        for file in self.opened.iter().filter_map(Weak::upgrade) {
            // What still has a name was seen.
            if let Ok(stat) = rustix::fs::fstat(&file)
                && stat.st_nlink == 0
            {
                used.add(stat.st_blocks);
            }
        }
        self.next = Instant::now() + begin.elapsed().saturating_mul(REST).min(Duration::from_secs(1));
        if used.bytes > self.most_bytes {
            return Err(over(&self.plugin, "bytes in a plugin's scratch directory", self.most_bytes));
        }
        if used.files > self.most_files || !walked {
            return Err(over(&self.plugin, "files in a plugin's scratch directory", self.most_files));
        }
        Ok(())
    }
}

/// Makes a directory and locks it, which tells whoever sweeps that its owner lives. Nothing if it was swept before that.
fn make(parent: &Dir) -> Result<Option<(String, OwnedFd)>> {
    let name = format!("plugin-{}", uuid::Uuid::new_v4().simple());
    let failed = |action: &str, errno: Errno| Error::io(action, name.as_bytes(), errno);
    rustix::fs::mkdirat(parent, &name, Mode::RWXU).map_err(|errno| failed("create", errno))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = match rustix::fs::openat(parent, &name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        opened => opened.map_err(|errno| failed("open", errno))?,
    };
    rustix::fs::flock(&dir, FlockOperation::LockExclusive).map_err(|errno| failed("lock", errno))?;
    inherited::disinherit(&dir).map_err(|errno| failed("close to others", errno))?;
    let links = rustix::fs::fstat(&dir).map_err(|errno| failed("look at", errno))?.st_nlink;
    Ok((links > 0).then_some((name, dir)))
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.parent, self.name.as_bytes()) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the scratch directory of the plugin `{}` stays behind", self.plugin);
        }
    }
}

/// What a walk has counted.
struct Used {
    bytes: u64,
    files: u64,
    most_bytes: u64,
    most_files: u64,
}

impl Used {
    fn add(&mut self, blocks: impl TryInto<u64>) {
        /// The unit of `st_blocks`, whatever the file system's is.
        const BLOCK: u64 = 512;
        self.bytes = self.bytes.saturating_add(blocks.try_into().unwrap_or(0).saturating_mul(BLOCK));
    }

    fn is_over(&self) -> bool {
        self.bytes > self.most_bytes || self.files > self.most_files
    }

    /// Counts what is in a directory, until a limit is crossed. Says whether all was seen that is not too deep. What
    /// cannot be looked at is gone: the plugin is at work on it.
    fn walk(&mut self, dir: BorrowedFd<'_>, depth: usize) -> bool {
        if depth > DEPTH {
            return false;
        }
        let Ok(entries) = rustix::fs::Dir::read_from(dir) else { return true };
        for entry in entries {
            let Ok(entry) = entry else { return true };
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.files += 1;
            let Ok(stat) = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            self.add(stat.st_blocks);
            if self.is_over() {
                return true;
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let Ok(below) = rustix::fs::openat(dir, name, flags, Mode::empty()) else { continue };
                if !self.walk(below.as_fd(), depth + 1) {
                    return false;
                }
                if self.is_over() {
                    return true;
                }
            }
        }
        true
    }
}
