//! Extracted trees: found, opened, removed; believed only when a record vouches for them.
//!
//! A layer's lock is held from before its staging directory exists until after it has become the tree or is gone. So
//! whoever holds the lock knows that any staging directory of the layer belongs to the dead.
//!
//! An open [`Tree`] shares a lock on its directory. Who collects takes no tree's name without that lock for itself; who
//! replaces a tree that nothing vouches for renames it aside, and its content goes when the last reader has.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cap_std::fs::Dir;
use cofferdam_core::cancel::Cancel;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use cofferdam_documents::LayerDescriptor;
use cofferdam_tree::{Lossy, check_tree, keeps_owners, remove_tree_unless};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::file::{self, Flush};
use crate::layout;
use crate::lock::Locks;
use crate::meta::Access;
use crate::names::{self, Staging, StagingName};
use crate::overlay;
use crate::record::{self, Identity, OwnersIn, TreeRecord};
use crate::reports::{self, reports_name};
use crate::sweep::Sweep;
use crate::tree_list::{self, list_name};

/// A directory of trees: the registry's, or one local layout's.
#[derive(Clone, Debug)]
pub struct Trees(pub(super) Arc<Inner>, pub(super) Lossy);

#[derive(Debug)]
pub(super) struct Inner {
    path: PathBuf,
    pub(super) extracted: Arc<Dir>,
    pub(super) records: Arc<Dir>,
    pub(super) locks: Locks,
    /// Tells the locks of one directory of trees from those of another.
    scope: String,
    pub(super) boot_id: Option<String>,
    pub(super) access: Access,
    /// Where trees that are made now keep the owners of files: found out once.
    owners: OnceLock<OwnersIn>,
    /// The lock of a local layout's directory, shared: nobody collects its trees while somebody has it open.
    _held: Option<File>,
}

/// How often a tree that is being looked at by a collector is tried again, and how long after.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(1);

/// How many trees of one layer stay that were replaced since the machine was started.
const REPLACED: usize = 4;

/// Why a tree is kept that an earlier version made.
const FORMER: &str = "an earlier version made it, and it may be mounted until the machine is started again";

/// Why a tree is kept in which something is mounted.
const MOUNTED: &str = "something is mounted in it";

/// What became of an attempt to take a tree's name away.
pub(super) enum Take {
    /// There was none.
    Absent,
    /// It has this name now, of which nobody else knows: to be discarded.
    Taken(String),
    /// Somebody needs it.
    Kept(&'static str),
}

/// A directory that nobody reads, for as long as this lives.
struct Unread {
    /// Nothing if there is no such directory.
    _locked: Option<File>,
}

/// A tree that a record vouches for. Nothing takes it away while this lives.
#[derive(Debug)]
pub struct Tree {
    directory: File,
    trees: Trees,
    record: TreeRecord,
}

/// What is there of a layer's tree.
pub(super) enum Look {
    /// A tree that is what the layer claims.
    Ready(File, Box<TreeRecord>),
    /// A tree, of which it is not known whether it is: the claim is of an algorithm by which nobody measured it.
    Unmeasured,
    /// A tree of the same blob that another reader made, that keeps the owners of files elsewhere, or that could not hold what this
    /// caller does not allow to be lost.
    Otherwise,
    /// Nothing that counts.
    Absent,
}

impl Trees {
    pub(super) fn new(
        path: PathBuf,
        extracted: Arc<Dir>,
        records: Arc<Dir>,
        locks: Locks,
        scope: String,
        boot_id: Option<String>,
        access: Access,
    ) -> Self {
        let inner =
            Inner { path, extracted, records, locks, scope, boot_id, access, owners: OnceLock::new(), _held: None };
        Self(Arc::new(inner), Lossy::default())
    }

    /// The same, holding on to a file.
    pub(super) fn holding(self, held: File) -> Self {
        let Self(inner, lossy) = self;
        let held = Arc::try_unwrap(inner).map(|inner| Arc::new(Inner { _held: Some(held), ..inner }));
        Self(held.unwrap_or_else(|inner| inner), lossy)
    }

    /// The same, with trees that may lack this.
    #[must_use]
    pub(super) fn allowing(self, lossy: Lossy) -> Self {
        Self(self.0, lossy)
    }

    /// The path of a layer's tree, whether there is one or not.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.0.path.join(digest.file_stem())
    }

    /// Whether a layer's tree is there and vouched for. Cheap.
    pub fn is_ready(&self, digest: &Digest) -> bool {
        matches!(self.vouched(digest), Ok(Some(_)))
    }

    /// Opens a layer's tree if it is there, vouched for, and made by `reader`: [`super::LayerUnpacker::reader`] of the unpacker that
    /// would make it now. [`Error::DigestMismatch`] if the layer claims another `DiffID` than the one that the tree was verified
    /// against.
    pub fn open(&self, layer: &LayerDescriptor, reader: Option<&Digest>) -> Result<Option<Tree>> {
        match self.look(layer, reader)? {
            Look::Ready(directory, record) => self.hold(directory, *record),
            Look::Unmeasured | Look::Otherwise | Look::Absent => Ok(None),
        }
    }

    /// Where trees that this process makes here keep the owners of files.
    pub(super) fn owners(&self) -> OwnersIn {
        *self
            .0
            .owners
            .get_or_init(|| if keeps_owners(&*self.0.extracted) { OwnersIn::Inodes } else { OwnersIn::Attributes })
    }

    /// Takes hold of a tree; nothing if it lost its name since it was looked at.
    pub(super) fn hold(&self, directory: File, record: TreeRecord) -> Result<Option<Tree>> {
        let tree = Tree { directory, trees: self.clone(), record };
        for _ in 0..TRIES {
            // Who takes a tree's name away asks for this lock, before or after: one of the two sees the other. Where the file
            // system has no such locks, all that is left is to look whether the tree has its name.
            let shared = rustix::fs::flock(&tree.directory, FlockOperation::NonBlockingLockShared);
            if !tree.has_its_name()? {
                return Ok(None);
            }
            if shared != Err(Errno::WOULDBLOCK) {
                return Ok(Some(tree));
            }
            // A collector looks whether anybody needs it, and takes its name or lets go in a moment.
            std::thread::sleep(PAUSE);
        }
        Err(Error::Busy { what: format!("the tree of layer {}", tree.record.digest) })
    }

    /// What is there of a layer's tree.
    pub(super) fn look(&self, layer: &LayerDescriptor, reader: Option<&Digest>) -> Result<Look> {
        let Some((directory, record)) = self.vouched(&layer.digest)? else { return Ok(Look::Absent) };
        if !record.was_made_by(reader, self.owners()) || !record.left_out.is_within(self.1) {
            return Ok(Look::Otherwise);
        }
        Ok(match record.fits(layer)? {
            Some(_) => Look::Ready(directory, Box::new(record)),
            None => Look::Unmeasured,
        })
    }

    /// Removes a layer's tree and its record, unless somebody is at work on it or reads it. Only if its record has this mark,
    /// or, without one, if nothing vouches for it. Says whether it did.
    pub(super) fn retire(&self, digest: &Digest, mark: Option<&str>) -> Result<bool> {
        let Some(_lock) = self.0.locks.try_acquire(&self.lock_name(digest))? else { return Ok(false) };
        if mark != self.vouched(digest)?.as_ref().map(|(_, record)| &*record.mark) {
            return Ok(false);
        }
        if let Some(directory) = self.directory(&digest.file_stem(), OFlags::RDONLY)?
            && rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK)
        {
            return Ok(false);
        }
        self.clear(digest).map(|()| true)
    }

    /// Whether somebody is at work on a layer's tree.
    pub(super) fn is_busy(&self, digest: &Digest) -> bool {
        matches!(self.0.locks.try_acquire(&self.lock_name(digest)), Ok(None))
    }

    /// Takes the name of a layer's tree away, and its record, unless somebody is at work on it or reads it. What is left is to
    /// [`Trees::discard`] it, which may take long.
    pub(super) fn take(&self, digest: &Digest) -> Result<Take> {
        let Some(_lock) = self.0.locks.try_acquire(&self.lock_name(digest))? else {
            return Ok(Take::Kept("it is being extracted"));
        };
        let name = digest.file_stem();
        if !self.path_exists(digest) {
            self.forget(digest)?;
            return Ok(Take::Absent);
        }
        if self.is_mounted_in(&name)? {
            return Ok(Take::Kept(MOUNTED));
        }
        let Some(_alone) = self.alone(&name)? else { return Ok(Take::Kept("it is being read")) };
        if self.is_former(digest)? {
            self.replace(digest)?;
            return Ok(Take::Kept(FORMER));
        }
        self.forget(digest)?;
        self.set_aside(digest).map(|aside| aside.map_or(Take::Absent, Take::Taken))
    }

    /// Removes a layer's tree and its record, unless somebody is at work on it or reads it. Says whether the tree is gone.
    #[cfg(test)]
    pub(super) fn remove(&self, digest: &Digest) -> Result<bool> {
        match self.take(digest)? {
            Take::Absent => Ok(true),
            Take::Taken(aside) => self.discard(&aside).map(|_| true),
            Take::Kept(_) => Ok(false),
        }
    }

    /// Whether somebody is at work on a layer's tree, or reads it. Changes nothing.
    pub(super) fn why_kept(&self, digest: &Digest) -> Option<&'static str> {
        if self.0.locks.is_held(&self.lock_name(digest)) {
            return Some("it is being extracted");
        }
        if self.is_mounted_in(&digest.file_stem()).unwrap_or(true) {
            return Some(MOUNTED);
        }
        if matches!(self.alone(&digest.file_stem()), Ok(None)) {
            return Some("it is being read");
        }
        self.is_former(digest).unwrap_or(true).then_some(FORMER)
    }

    /// Returns true for a tree for overlayfs that an earlier version made. That version named it in its own way, so it is not known which
    /// image it belongs to, nor whether that is in use.
    fn is_former(&self, digest: &Digest) -> Result<bool> {
        Ok(self.0.scope == overlay::NAME && !self.read_record(digest)?.is_some_and(|record| record.is_current()))
    }

    /// Whether something is mounted on or in a tree: then it keeps its name, its record and its content.
    fn is_mounted_in(&self, name: &str) -> Result<bool> {
        match check_tree(&*self.0.extracted, name.as_bytes(), None) {
            Err(Error::Mounted { .. }) => Ok(true),
            other => other.map(|()| false),
        }
    }

    /// The lock of a tree's directory for us alone; nothing if somebody reads the tree.
    fn alone(&self, name: &str) -> Result<Option<Unread>> {
        let directory = self.directory(name, OFlags::RDONLY)?;
        let read = directory.as_ref().is_some_and(|directory| {
            rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK)
        });
        Ok((!read).then_some(Unread { _locked: directory }))
    }

    /// What a layer's tree takes on disk, in bytes.
    pub(super) fn measure(&self, digest: &Digest) -> u64 {
        cofferdam_tree::disk_usage(&*self.0.extracted, digest.file_stem().as_bytes())
    }

    /// The same, as it was noted if it was.
    pub(super) fn disk_bytes(&self, digest: &Digest) -> u64 {
        let noted = self.vouched(digest).ok().flatten().and_then(|(_, record)| record.disk_bytes);
        noted.unwrap_or_else(|| self.measure(digest))
    }

    /// Returns what the layer of a tree decoded to, in bytes; of a tree of an older version, what its blob has, which is less; 0 if there
    /// is no tree.
    pub fn decoded_bytes(&self, digest: &Digest) -> Result<u64> {
        Ok(self.vouched(digest)?.map_or(0, |(_, record)| record.decoded_bytes.unwrap_or(record.blob_bytes)))
    }

    /// Returns true if a layer's tree outlives a power cut.
    #[cfg(test)]
    pub(super) fn is_synced(&self, digest: &Digest) -> Result<bool> {
        Ok(self.vouched(digest)?.is_some_and(|(_, record)| record.synced))
    }

    /// The layers whose trees are there, vouched for or not.
    pub(super) fn stored(&self) -> Result<Vec<Digest>> {
        let names = layout::names(&self.0.extracted, "extracted")?;
        Ok(names.iter().filter_map(|name| Digest::from_file_stem(name)).collect())
    }

    /// Whether there is a directory under a tree's name, vouched for or not.
    pub(super) fn path_exists(&self, digest: &Digest) -> bool {
        matches!(self.directory(&digest.file_stem(), OFlags::PATH), Ok(Some(_)))
    }

    /// Whether anything has a tree's name.
    pub(super) fn path_taken(&self, digest: &Digest) -> bool {
        rustix::fs::statat(&*self.0.extracted, digest.file_stem(), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Removes staging directories of the dead, and records whose tree is gone. Goes on after what cannot be removed.
    pub(super) fn sweep(&self, sweep: &mut Sweep) {
        for name in sweep.list(layout::names(&self.0.extracted, "extracted")) {
            let swept = self.sweep_staged(&name, sweep);
            sweep.note(swept);
        }
        super::sweep::sweep_files(&self.0.records, sweep);
        for name in sweep.list(layout::names(&self.0.records, "records")) {
            sweep.note(self.sweep_record(&name));
        }
    }

    /// Whether nobody works on a staged tree any more, nor reads it. Changes nothing.
    pub(super) fn is_dead(&self, name: &str, staged: &StagingName, sweep: &Sweep) -> bool {
        let unlocked = staged.digest.as_ref().is_some_and(|digest| !self.0.locks.is_held(&self.lock_name(digest)));
        if staged.staging == Staging::Replaced && !self.may_go(name) {
            return false;
        }
        let left = if staged.ours { unlocked } else { sweep.is_abandoned(&self.0.extracted, name) };
        left && matches!(self.alone(name), Ok(Some(_)))
    }

    fn sweep_staged(&self, name: &str, sweep: &Sweep) -> Result<()> {
        let Some(staged) = names::parse(name) else { return Ok(()) };
        let (true, Some(digest)) = (staged.staging.is_tree(), &staged.digest) else { return Ok(()) };
        if staged.staging == Staging::Replaced && !self.may_go(name) {
            return Ok(());
        }
        if staged.ours {
            match self.0.locks.try_acquire(&self.lock_name(digest))? {
                Some(_lock) => self.discard_unless(name, sweep.cancel()).map(drop),
                None => Ok(()),
            }
        } else if sweep.is_abandoned(&self.0.extracted, name) {
            remove_tree_unless(&*self.0.extracted, name.as_bytes(), sweep.cancel())
        } else {
            Ok(())
        }
    }

    fn sweep_record(&self, name: &str) -> Result<()> {
        let stem = [LAYER_SUFFIX, tree_list::SUFFIX, reports::SUFFIX, ".json"]
            .into_iter()
            .find_map(|suffix| name.strip_suffix(suffix));
        let Some(digest) = stem.and_then(Digest::from_file_stem) else { return Ok(()) };
        let gone = || self.directory(&digest.file_stem(), OFlags::PATH).map(|tree| tree.is_none());
        // A record comes a moment before its tree, and in that moment the lock is held.
        if gone()?
            && let Some(_lock) = self.0.locks.try_acquire(&self.lock_name(&digest))?
            && gone()?
        {
            file::remove(&self.0.records, name)?;
        }
        Ok(())
    }

    /// The record that vouches for a layer's tree, and the tree.
    pub(super) fn vouched(&self, digest: &Digest) -> Result<Option<(File, TreeRecord)>> {
        let Some(record) = self.read_record(digest)? else { return Ok(None) };
        let Some(directory) = self.directory(&digest.file_stem(), OFlags::RDONLY)? else { return Ok(None) };
        let layer = layout::file_size(&self.0.records, &layer_name(digest));
        let vouched = record.vouches(digest, &Identity::of(&directory)?, self.0.boot_id.as_deref())
            && layer == Some(record.layer.bytes);
        Ok(vouched.then_some((directory, record)))
    }

    pub(super) fn read_record(&self, digest: &Digest) -> Result<Option<TreeRecord>> {
        match file::read_trusted(&self.0.records, &record_name(digest), record::LIMIT) {
            Ok(bytes) => Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok())),
            // Derived: without its record a tree is made again, and the record with it.
            Err(Error::Limit { .. } | Error::Untrusted { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes what a merge needs to know, to which the record refers: to be done before that is written.
    pub(super) fn write_layer(&self, digest: &Digest, layer: &[u8]) -> Result<()> {
        let name = layer_name(digest);
        file::replace(&self.0.records, &name, layer, Flush::Later)
    }

    pub(super) fn write_record(&self, record: &TreeRecord) -> Result<()> {
        let name = record_name(&record.digest);
        let text = serde_json::to_vec(record).map_err(|e| Error::io("write", name.as_bytes(), e))?;
        // The name is synced by who promotes; without that, the record is as volatile as its tree.
        let flush = if record.synced { Flush::Now } else { Flush::Later };
        let (mut slot, _locked) = file::write(&self.0.records, &name, &text, flush)?;
        slot.publish_over(&name, Flush::Later)
    }

    /// The digests of the trees that have records.
    pub(super) fn recorded(&self) -> Result<Vec<Digest>> {
        let names = layout::names(&self.0.records, "records")?;
        Ok(names.iter().filter_map(|name| Digest::from_file_stem(name.strip_suffix(".json")?)).collect())
    }

    /// Opens a directory of trees' child; nothing if it is not there or not a directory.
    pub(super) fn directory(&self, name: &str, access: OFlags) -> Result<Option<File>> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&*self.0.extracted, name, access | flags, Mode::empty()) {
            Ok(directory) => Ok(Some(directory.into())),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            // The root of a tree may be closed to its owner; its children can be reached all the same by root alone.
            Err(Errno::ACCESS) if access != OFlags::PATH => self.directory(name, OFlags::PATH),
            Err(error) => Err(Error::io("open the tree", name.as_bytes(), error)),
        }
    }

    pub(super) fn lock_name(&self, digest: &Digest) -> String {
        format!("{}.{}.lock", self.0.scope, digest.file_stem())
    }

    /// Removes the record, then whatever is under the tree's name. The lock is held.
    ///
    /// # Errors
    ///
    /// [`Error::Mounted`] if something is mounted in the tree; then nothing was removed.
    pub(super) fn clear(&self, digest: &Digest) -> Result<()> {
        check_tree(&*self.0.extracted, digest.file_stem().as_bytes(), None)?;
        file::remove(&self.0.records, &record_name(digest))?;
        file::remove(&self.0.records, &layer_name(digest))?;
        file::remove(&self.0.records, &list_name(digest))?;
        file::remove(&self.0.records, &reports_name(digest))?;
        // Aside first: nobody shall find a tree in the middle of its removal.
        self.set_aside(digest)?.map_or(Ok(()), |aside| self.discard(&aside).map(drop))
    }

    /// Takes the record and the name of a layer's tree away, for another one. The lock is held.
    ///
    /// The tree itself stays under a name of its own until the machine has been started again: it may be a lower directory of a mount
    /// of which nobody here knows. Where the boot cannot be told it is removed.
    ///
    /// # Errors
    ///
    /// [`Error::Mounted`] if something is mounted in the tree; then nothing was changed.
    pub(super) fn replace(&self, digest: &Digest) -> Result<()> {
        let Some(boot_id) = &self.0.boot_id else { return self.clear(digest) };
        check_tree(&*self.0.extracted, digest.file_stem().as_bytes(), None)?;
        for name in [record_name(digest), layer_name(digest), list_name(digest), reports_name(digest)] {
            file::remove(&self.0.records, &name)?;
        }
        self.rename_aside(digest, names::replaced(digest, boot_id)).map(drop)?;
        self.remove_surplus(digest)
    }

    /// Removes what was replaced of a layer's trees but for the last few: each time that two readings of one blob replace each other
    /// leaves one.
    fn remove_surplus(&self, digest: &Digest) -> Result<()> {
        let prefix = format!("{}.", digest.file_stem());
        let mut replaced = Vec::new();
        for name in layout::names(&self.0.extracted, "extracted")? {
            let is_replaced = |name: &str| names::parse(name).is_some_and(|staged| staged.staging == Staging::Replaced);
            if name.starts_with(&prefix)
                && is_replaced(&name)
                && let Ok(stat) = rustix::fs::statat(&*self.0.extracted, &name, AtFlags::SYMLINK_NOFOLLOW)
            {
                // Renamed last, changed last.
                replaced.push((stat.st_ctime, stat.st_ctime_nsec, name));
            }
        }
        replaced.sort_unstable();
        let surplus = replaced.len().saturating_sub(REPLACED);
        replaced.iter().take(surplus).try_for_each(|(.., name)| self.discard(name).map(drop))
    }

    /// Returns true if a tree that was replaced can be mounted no more: it was replaced before the machine was started.
    pub(super) fn may_go(&self, name: &str) -> bool {
        self.0.boot_id.as_deref().is_some_and(|boot_id| !names::was_replaced_in(name, boot_id))
    }

    /// Removes the record, which may come back after a power cut with or without its tree: neither does harm.
    fn forget(&self, digest: &Digest) -> Result<()> {
        for name in [record_name(digest), layer_name(digest), list_name(digest), reports_name(digest)] {
            match rustix::fs::unlinkat(&*self.0.records, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(Error::io("remove", name.as_bytes(), error)),
            }
        }
        Ok(())
    }

    /// Renames what is under a tree's name; the new name, if there was something.
    fn set_aside(&self, digest: &Digest) -> Result<Option<String>> {
        self.rename_aside(digest, names::fresh(Staging::Tree, Some(digest)))
    }

    fn rename_aside(&self, digest: &Digest, aside: String) -> Result<Option<String>> {
        let name = digest.file_stem();
        match rustix::fs::renameat(&*self.0.extracted, &name, &*self.0.extracted, &aside) {
            Ok(()) => Ok(Some(aside)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::io("set aside the tree", name.as_bytes(), error)),
        }
    }

    /// Removes a staging directory or a tree that was set aside, unless somebody still reads it; then the next sweep does.
    pub(super) fn discard(&self, name: &str) -> Result<bool> {
        self.discard_unless(name, None)
    }

    /// Does the same until it is given up. The next sweep removes what is left then.
    pub(super) fn discard_unless(&self, name: &str, cancel: Option<&Cancel>) -> Result<bool> {
        let Some(_alone) = self.alone(name)? else { return Ok(false) };
        remove_tree_unless(&*self.0.extracted, name.as_bytes(), cancel).map(|()| true)
    }

    /// Sees to it that a tree counts no more, if it still is this one.
    pub(super) fn distrust(&self, digest: &Digest, mark: &str) -> Result<()> {
        match self.0.locks.try_acquire(&self.lock_name(digest))? {
            Some(_lock) => self.distrust_locked(digest, mark),
            None => Ok(()),
        }
    }

    /// The same for who has the lock.
    pub(super) fn distrust_locked(&self, digest: &Digest, mark: &str) -> Result<()> {
        if self.read_record(digest)?.is_some_and(|now| now.mark == mark) {
            file::remove(&self.0.records, &record_name(digest))?;
        }
        Ok(())
    }
}

impl Tree {
    /// The tree's root.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.trees.path(&self.record.digest)
    }

    /// What is known about it.
    pub fn record(&self) -> &TreeRecord {
        &self.record
    }

    /// What the unpacker recorded for the merge: [`cofferdam_tree::UnpackedLayer::record`]. Read each time, since it may be large.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] if it is not what was written. The tree counts no more then, and will be extracted again.
    pub fn layer_record(&self) -> Result<Vec<u8>> {
        let TreeRecord { digest, layer, .. } = &self.record;
        let bytes = match file::read(&self.trees.0.records, &layer_name(digest), layer.bytes) {
            Err(Error::Limit { .. }) => None,
            other => other?,
        };
        if let Some(bytes) = bytes.filter(|bytes| Digest::of(bytes) == layer.digest) {
            return Ok(bytes);
        }
        self.trees.distrust(digest, &self.record.mark)?;
        Err(Error::Damaged {
            subject: format!("what the store notes about layer {digest}"),
            reason: "it is not what was written".into(),
            hint: "try again: the layer will be extracted anew".into(),
        })
    }

    /// Fails if somebody who takes no locks has put the tree aside since it was opened: what was read of it may be part of
    /// it only.
    pub fn check_whole(&self) -> Result<()> {
        if self.has_its_name()? {
            return Ok(());
        }
        Err(Error::Busy { what: format!("the tree of layer {}", self.record.digest) })
    }

    fn has_its_name(&self) -> Result<bool> {
        let failed = |e: Errno| Error::io("look at", b"a tree", e);
        let held = rustix::fs::fstat(&self.directory).map_err(failed)?;
        let name = self.record.digest.file_stem();
        match rustix::fs::statat(&*self.trees.0.extracted, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) => Ok((held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }
}

/// How the names of the files end that tell a merge about layers.
pub(super) const LAYER_SUFFIX: &str = ".layer.json";

pub(super) fn record_name(digest: &Digest) -> String {
    format!("{}.json", digest.file_stem())
}

pub(super) fn layer_name(digest: &Digest) -> String {
    format!("{}{LAYER_SUFFIX}", digest.file_stem())
}
