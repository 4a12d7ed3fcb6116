//! Files by handle: bounded reads, and the two ways in which a file gets its name.
//!
//! A *new* name is taken without replacing ([`publish_new`]): whoever comes second learns of it. A small file that has
//! versions, such as a reference, is replaced in one step ([`replace`]). Both after the bytes are on disk.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use cap_std::fs::Dir;
use cofferdam_core::digest::{Algorithm, Digest, Hasher};
use cofferdam_core::error::{Error, Result};
use cofferdam_core::inherited;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::names::{self, Staging};
use crate::trace::step;
use crate::trust;

/// Bytes that are read at a time when a file is hashed.
const CHUNK: usize = 256 << 10;

/// Opens a regular file for reading; nothing if there is none. A link is not followed, a pipe not waited for.
pub(super) fn open(dir: &Dir, name: &str) -> Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(handle) => File::from(handle),
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
        Err(error) => return Err(Error::io("open", name.as_bytes(), error)),
    };
    let regular = file.metadata().map_err(|e| Error::io("look at", name.as_bytes(), e))?.is_file();
    Ok(regular.then_some(file))
}

/// Reads a whole small file; nothing if there is none, and an error if it is larger than `limit` bytes.
pub(super) fn read(dir: &Dir, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
    let Some(file) = open(dir, name)? else { return Ok(None) };
    read_open(file, name, limit).map(Some)
}

fn read_open(file: File, name: &str, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let failed = |e| Error::io("read", name.as_bytes(), e);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(Error::Limit { subject: format!("`{name}`"), what: "bytes in a file of this kind", limit });
    }
    Ok(bytes)
}

/// As [`read`], for a file whose word is taken: one that another user owns, or that others may write to, is refused.
///
/// # Errors
///
/// [`Error::Untrusted`].
pub(super) fn read_trusted(dir: &Dir, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
    let Some(file) = open(dir, name)? else { return Ok(None) };
    trust::ensure(&file, name.as_bytes())?;
    read_open(file, name, limit).map(Some)
}

/// The digest and the size of a file's bytes from where it stands, in constant memory.
pub(super) fn hash(file: &mut File, algorithm: Algorithm, name: &str) -> Result<(Digest, u64)> {
    let mut hasher = Hasher::new(algorithm);
    let mut chunk = vec![0; CHUNK];
    let mut total = 0;
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok((hasher.finish(), total)),
            Ok(count) => {
                hasher.update(chunk.get(..count).unwrap_or_default());
                total += count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", name.as_bytes(), error)),
        }
    }
}

/// A name in a directory that is not final, and the lock which says that its owner lives. Dropping it removes the file.
#[derive(Debug)]
pub(super) struct Slot {
    dir: Arc<Dir>,
    name: String,
    published: bool,
}

impl Slot {
    /// Makes an empty file under a fresh staging name, locked by its handle: for as long as the handle is open, nobody
    /// sweeps the file away.
    pub(super) fn create(dir: &Arc<Dir>, staging: Staging, digest: Option<&Digest>) -> Result<(Self, File)> {
        loop {
            let name = names::fresh(staging, digest);
            let failed = |e: std::io::Error| Error::io("create", name.as_bytes(), e);
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = match rustix::fs::openat(&**dir, &name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(handle) => File::from(handle),
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(failed(error.into())),
            };
            let slot = Self { dir: Arc::clone(dir), name: name.clone(), published: false };
            super::lock::lock_exclusively(&file).map_err(failed)?;
            // The store's own directory may have been there before the store, and may be anything.
            inherited::disinherit(&file).map_err(|e| failed(e.into()))?;
            // Between creation and lock, a sweeper may have taken the file for a dead owner's.
            if rustix::fs::fstat(&file).map_err(|e| failed(e.into()))?.st_nlink > 0 {
                return Ok((slot, file));
            }
        }
    }

    /// The staging name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Gives the file its final name, unless that is taken. The caller has synced the file, if that is wanted.
    pub(super) fn publish_new(&mut self, name: &str, flush: Flush) -> Result<Publication> {
        let publication = publish_new(&self.dir, &self.name, name)?;
        if publication == Publication::Done {
            self.published = true;
            // A sync that failed may claim to have worked when it is done again: the name is given up instead.
            if flush == Flush::Now
                && let Err(error) = sync_dir(&self.dir)
            {
                let _ = rustix::fs::unlinkat(&*self.dir, name, AtFlags::empty());
                return Err(error);
            }
        }
        Ok(publication)
    }

    /// Gives the file its final name in the place of whatever has it.
    pub(super) fn publish_over(&mut self, name: &str, flush: Flush) -> Result<()> {
        step("name", &*self.dir, name);
        match rustix::fs::renameat(&*self.dir, &self.name, &*self.dir, name) {
            // Nobody here made a directory of this name.
            Err(Errno::ISDIR) => {
                set_aside(&self.dir, name)?;
                rustix::fs::renameat(&*self.dir, &self.name, &*self.dir, name)
            }
            other => other,
        }
        .map_err(|e| Error::io("replace", name.as_bytes(), e))?;
        self.published = true;
        if flush == Flush::Now { sync_dir(&self.dir) } else { Ok(()) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.published {
            let _ = rustix::fs::unlinkat(&*self.dir, &self.name, AtFlags::empty());
        }
    }
}

/// Whether a new name was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publication {
    /// The file has it.
    Done,
    /// Something else had it first.
    Taken,
}

/// Renames a file without replacing anything, also where `RENAME_NOREPLACE` is unknown (some network and FUSE file
/// systems): there by a hard link, which does not replace either.
pub(super) fn publish_new(dir: &Dir, from: &str, to: &str) -> Result<Publication> {
    let failed = |e: Errno| Error::io("give the final name to", to.as_bytes(), e);
    step("name", dir, to);
    match rustix::fs::renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(Publication::Done),
        Err(Errno::EXIST) => Ok(Publication::Taken),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => publish_by_link(dir, from, to),
        Err(error) => Err(failed(error)),
    }
}

fn publish_by_link(dir: &Dir, from: &str, to: &str) -> Result<Publication> {
    let failed = |e: Errno| Error::io("give the final name to", to.as_bytes(), e);
    match rustix::fs::linkat(dir, from, dir, to, AtFlags::empty()) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(Publication::Taken),
        Err(error) => return Err(failed(error)),
    }
    rustix::fs::unlinkat(dir, from, AtFlags::empty()).map_err(failed)?;
    Ok(Publication::Done)
}

/// Whether a file has to outlive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flush {
    /// It is on disk when the call returns.
    Now,
    /// It may be lost with everything since the last sync, but is never seen in part.
    Later,
}

/// Writes a small file in one step: a reader sees the old bytes or the new ones.
pub(super) fn replace(dir: &Arc<Dir>, name: &str, bytes: &[u8], flush: Flush) -> Result<()> {
    let (mut slot, _locked) = write(dir, name, bytes, flush)?;
    slot.publish_over(name, flush)
}

/// Writes a small file unless there is one already.
pub(super) fn create(dir: &Arc<Dir>, name: &str, bytes: &[u8]) -> Result<Publication> {
    let (mut slot, _locked) = write(dir, name, bytes, Flush::Now)?;
    slot.publish_new(name, Flush::Now)
}

/// Writes a small file under a staging name. It is locked for as long as the handle is open: until it has its name.
pub(super) fn write(dir: &Arc<Dir>, name: &str, bytes: &[u8], flush: Flush) -> Result<(Slot, File)> {
    let failed = |e| Error::io("write", name.as_bytes(), e);
    let (slot, mut file) = Slot::create(dir, Staging::Small, None)?;
    file.write_all(bytes).map_err(failed)?;
    if flush == Flush::Now {
        sync_file(&file, name)?;
    }
    Ok((slot, file))
}

/// Removes a file if it is there, durably; says whether it was.
pub(super) fn remove(dir: &Dir, name: &str) -> Result<bool> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) => sync_dir(dir).map(|()| true),
        Err(Errno::NOENT) => Ok(false),
        Err(Errno::ISDIR) => set_aside(dir, name).map(|aside| aside.is_some()),
        Err(error) => Err(Error::io("remove", name.as_bytes(), error)),
    }
}

/// Takes the name away from something that is not to be lost, and returns the name that it has now. Nothing if it is not there.
pub(super) fn set_aside(dir: &Dir, name: &str) -> Result<Option<String>> {
    let aside = names::damaged(name);
    match rustix::fs::renameat(dir, name, dir, &aside) {
        Ok(()) => {
            tracing::warn!(name, aside, "set aside what is not what its name says");
            sync_dir(dir).map(|()| Some(aside))
        }
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(Error::io("set aside", name.as_bytes(), error)),
    }
}

/// Makes the bytes of an open file durable.
pub(super) fn sync_file(file: &File, name: &str) -> Result<()> {
    step("sync", file, "");
    file.sync_all().map_err(|e| Error::io("sync", name.as_bytes(), e))
}

/// Makes the bytes of a file durable, if there is one; says whether there is.
pub(super) fn sync(dir: &Dir, name: &str) -> Result<bool> {
    match open(dir, name)? {
        Some(file) => sync_file(&file, name).map(|()| true),
        None => Ok(false),
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Dir) -> Result<()> {
    step("sync", dir, "");
    rustix::fs::fsync(dir).map_err(|e| Error::io("sync the directory of", b"the store", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temp() -> (tempfile::TempDir, Arc<Dir>) {
        let temp = tempfile::tempdir().unwrap();
        let dir = cofferdam_core::ambient::open_dir(temp.path()).unwrap();
        (temp, Arc::new(dir))
    }

    #[test]
    fn a_new_name_is_never_taken_twice() {
        let (_temp, dir) = temp();
        assert_eq!(create(&dir, "a", b"first").unwrap(), Publication::Done);
        assert_eq!(create(&dir, "a", b"second").unwrap(), Publication::Taken);
        assert_eq!(read(&dir, "a", 100).unwrap().unwrap(), b"first");
        assert_eq!(crate::layout::names(&dir, "").unwrap(), ["a"]);
    }

    #[test]
    fn the_fallback_does_not_replace_either() {
        let (_temp, dir) = temp();
        dir.write("from", "new").unwrap();
        dir.write("taken", "old").unwrap();
        assert_eq!(publish_by_link(&dir, "from", "taken").unwrap(), Publication::Taken);
        assert_eq!(dir.read("taken").unwrap(), b"old");
        assert_eq!(publish_by_link(&dir, "from", "free").unwrap(), Publication::Done);
        assert_eq!(dir.read("free").unwrap(), b"new");
        assert!(!dir.exists("from"));
    }

    #[test]
    fn a_replaced_file_is_whole_and_leaves_nothing_beside_it() {
        let (_temp, dir) = temp();
        for text in ["one", "two"] {
            replace(&dir, "a", text.as_bytes(), Flush::Now).unwrap();
            assert_eq!(dir.read("a").unwrap(), text.as_bytes());
        }
        assert_eq!(crate::layout::names(&dir, "").unwrap(), ["a"]);
    }

    /// Between its writing and its naming, a sweep by somebody else must not take it for a dead owner's.
    #[test]
    fn a_small_file_is_locked_until_it_has_its_name() {
        let (_temp, dir) = temp();
        let (mut slot, _locked) = write(&dir, "a", b"one", Flush::Later).unwrap();
        let mut sweep = crate::sweep::Sweep::new(0);
        crate::sweep::sweep_files(&dir, &mut sweep);
        slot.publish_over("a", Flush::Later).unwrap();
        assert_eq!(dir.read("a").unwrap(), b"one");
        drop(write(&dir, "b", b"two", Flush::Later).unwrap());
        assert_eq!(crate::layout::names(&dir, "").unwrap(), ["a"]);
    }

    #[test]
    fn reading_is_bounded_and_takes_regular_files_only() {
        let (_temp, dir) = temp();
        dir.write("big", [0; 11]).unwrap();
        assert!(matches!(read(&dir, "big", 10), Err(Error::Limit { limit: 10, .. })));
        assert_eq!(read(&dir, "big", 11).unwrap().unwrap().len(), 11);
        dir.symlink("big", "link").unwrap();
        rustix::fs::mknodat(&*dir, "pipe", rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        for name in ["link", "pipe", "absent"] {
            assert!(read(&dir, name, 11).unwrap().is_none(), "{name}");
        }
    }
}
