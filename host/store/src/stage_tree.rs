//! A tree on its way into the store: [`StagedTree`] → [`VerifiedTree`] → [`Tree`], as blobs go in [`super::stage`].

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use cap_std::fs::Dir;
use cofferdam_core::cancel::Cancel;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use cofferdam_core::inherited;
use cofferdam_documents::LayerDescriptor;
use cofferdam_tree::{UnpackedLayer, check_tree, remove_tree};
use rustix::fs::{AtFlags, Mode, RenameFlags, Timespec, Timestamps};
use rustix::io::Errno;

use crate::layout;
use crate::lock::{Lock, blocking, waiting};
use crate::names::{self, Staging};
use crate::promote;
use crate::record::{self, Identity, TreeRecord, check_claims};
use crate::stage::Claim;
use crate::trace::step;
use crate::trees::{Look, Tree, Trees};
use crate::unpacker::Unpacked;

/// How often a commit yields to a program that keeps putting directories under the final name without taking locks.
const ATTEMPTS: u32 = 8;

/// A tree that is being written, under a name of its own that nobody reads. While it lives, nobody else works on the same
/// layer. Dropping it removes what was written, which may take a while: not on an executor's thread.
#[derive(Debug)]
pub struct StagedTree {
    trees: Trees,
    layer: LayerDescriptor,
    name: String,
    directory: File,
    committed: bool,
    _lock: Lock,
}

/// A staged tree whose layer hashes to its digest, decoded and not.
#[derive(Debug)]
#[must_use = "a verified tree is removed unless it is committed"]
pub struct VerifiedTree {
    staged: StagedTree,
    unpacked: Unpacked,
}

impl Trees {
    /// Begins to make a layer's tree, unless it is there: waits for others who make it, then makes an empty staging
    /// directory. A tree that nothing vouches for is removed first. Blocks the thread.
    ///
    /// `reader` is [`super::LayerUnpacker::reader`] of the unpacker that will make it: a tree that another one made is not taken for
    /// it, and stays until the new one is committed in its place.
    ///
    /// Who calls this twice for one layer, without dropping the first, waits for themselves.
    pub fn begin(&self, layer: &LayerDescriptor, reader: Option<&Digest>) -> Result<Claim<StagedTree>> {
        self.begin_unless(layer, reader, None)
    }

    /// As [`Trees::begin`]; waits until that is given up.
    pub fn begin_unless(
        &self,
        layer: &LayerDescriptor,
        reader: Option<&Digest>,
        cancel: Option<&Cancel>,
    ) -> Result<Claim<StagedTree>> {
        match self.wait(layer, reader, cancel)? {
            Some(lock) => self.begin_locked(layer, reader, lock),
            None => Ok(Claim::Present),
        }
    }

    /// Waits until nobody else makes a layer's tree; nothing if it is there before that.
    fn wait(&self, layer: &LayerDescriptor, reader: Option<&Digest>, cancel: Option<&Cancel>) -> Result<Option<Lock>> {
        if matches!(self.look(layer, reader)?, Look::Ready(..)) {
            return Ok(None);
        }
        self.0.access.writable()?;
        let lock = self.0.locks.acquire_unless(&self.lock_name(&layer.digest), cancel)?;
        Ok(Some(lock))
    }

    fn begin_locked(&self, layer: &LayerDescriptor, reader: Option<&Digest>, lock: Lock) -> Result<Claim<StagedTree>> {
        match self.look(layer, reader)? {
            Look::Ready(..) => return Ok(Claim::Present),
            // What is there stays until the commit: others may use it, the commit knows whether it is right, and where this one
            // comes to nothing it may be all that is left of the layer. What would be in the way then is found out now.
            Look::Unmeasured | Look::Otherwise | Look::Absent => {
                check_tree(&*self.0.extracted, layer.digest.file_stem().as_bytes(), None)?;
            }
        }
        self.stage(layer, lock).map(Claim::Granted)
    }

    /// As [`Trees::begin`], without blocking the executor. To be given up by dropping the future.
    pub async fn begin_async(&self, layer: &LayerDescriptor, reader: Option<&Digest>) -> Result<Claim<StagedTree>> {
        let (trees, layer, reader) = (self.clone(), layer.clone(), reader.cloned());
        let waited = waiting({
            let (trees, layer, reader) = (trees.clone(), layer.clone(), reader.clone());
            move || trees.wait(&layer, reader.as_ref(), None)
        });
        match waited.await? {
            // Not on the thread that waited, which nobody waits for: a program that ends would leave what was staged.
            Some(lock) => blocking(move || trees.begin_locked(&layer, reader.as_ref(), lock)).await,
            None => Ok(Claim::Present),
        }
    }

    pub(super) fn stage(&self, layer: &LayerDescriptor, lock: Lock) -> Result<StagedTree> {
        let name = names::fresh(Staging::Tree, Some(&layer.digest));
        let failed = |e: Errno| Error::io("create the directory", name.as_bytes(), e);
        rustix::fs::mkdirat(&*self.0.extracted, &name, Mode::RWXU).map_err(failed)?;
        let directory = match layout::open_dir(&self.0.extracted, &name) {
            Ok(directory) => directory.into_std_file(),
            Err(error) => {
                let _ = remove_tree(&*self.0.extracted, name.as_bytes());
                return Err(failed(error));
            }
        };
        let (trees, layer) = (self.clone(), layer.clone());
        let staged = StagedTree { trees, layer, name, directory, committed: false, _lock: lock };
        // A root that no entry mentions, whatever the umask and `extracted/` hand on. `extracted/` itself is closed to others.
        inherited::disinherit(&staged.directory)
            .and_then(|()| rustix::fs::fchmod(&staged.directory, Mode::from_raw_mode(0o755)))
            .map_err(|e| Error::io("set the mode of", staged.name.as_bytes(), e))?;
        // And its time, which a mount shows.
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::fs::futimens(&staged.directory, &Timestamps { last_access: never, last_modification: never })
            .map_err(|e| Error::io("set the time of", staged.name.as_bytes(), e))?;
        Ok(staged)
    }
}

impl StagedTree {
    /// The empty directory into which the tree is to be written.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// A handle on that directory that may outlive this borrow, for a writer on another thread.
    pub fn directory_handle(&self) -> Result<OwnedFd> {
        let handle = self.directory.try_clone().map_err(|e| Error::io("open", self.name.as_bytes(), e))?;
        Ok(handle.into())
    }

    /// The layer that is being extracted.
    pub fn layer(&self) -> &LayerDescriptor {
        &self.layer
    }

    /// Compares what was measured while the tree was written with what the layer claims: the blob's digest, its size if
    /// declared, the `DiffID` if known. If they differ the tree is gone.
    pub fn verify(self, unpacked: Unpacked) -> Result<VerifiedTree> {
        check_claims(&self.layer, &unpacked)?;
        Ok(VerifiedTree { staged: self, unpacked })
    }
}

impl StagedTree {
    /// Notes of a tree that is there already by which other digest its layer was verified just now, and what inspectors said. It came from the same
    /// blob and may be in use, so it stays, and what was staged goes.
    fn confirm(self, directory: File, mut record: TreeRecord, unpacked: Unpacked) -> Result<Tree> {
        let UnpackedLayer { diff_id, reports, .. } = unpacked.layer;
        let is_new = !record.diff_ids.contains(&diff_id);
        if is_new || !reports.is_empty() {
            if is_new {
                record.diff_ids.push(diff_id);
            }
            self.trees.add_reports(&mut record, reports)?;
            self.trees.write_record(&record)?;
        }
        let digest = &self.layer.digest;
        self.trees.hold(directory, record)?.ok_or_else(|| busy(digest))
    }
}

impl Drop for StagedTree {
    fn drop(&mut self) {
        if !self.committed
            && let Err(error) = remove_tree(&*self.trees.0.extracted, self.name.as_bytes())
        {
            tracing::warn!(tree = self.name, %error, "cannot remove a staged tree; it will be swept later");
        }
    }
}

impl VerifiedTree {
    /// The staged tree again: somebody only wanted to look at it.
    pub(super) fn into_staged(self) -> StagedTree {
        self.staged
    }

    /// Gives the tree its name. The record comes first: a tree without one would not count, and a record without its tree
    /// does no harm.
    pub fn commit(self) -> Result<Tree> {
        let Self { mut staged, unpacked } = self;
        let trees = staged.trees.clone();
        let digest = staged.layer.digest.clone();
        if let Some((directory, record)) = trees.vouched(&digest)? {
            let is_whole = record.left_out.is_within(trees.1);
            if is_whole && record.was_made_by(unpacked.layer.reader.as_ref(), trees.owners()) {
                return staged.confirm(directory, record, unpacked);
            }
            // Another reading of the same blob. Who has its tree open, or mounted, keeps it.
            drop(directory);
            trees.replace(&digest)?;
        }
        let mark = record::mark(&staged.directory)?;
        let mut record = TreeRecord::new(digest.clone(), &unpacked, mark, Identity::of(&staged.directory)?);
        record.boot_id.clone_from(&trees.0.boot_id);
        record.written_at = promote::seconds();
        record.owners = Some(trees.owners());
        trees.write_layer(&digest, &unpacked.layer.record)?;
        trees.add_reports(&mut record, unpacked.layer.reports.clone())?;
        if record.boot_id.is_none() {
            // Nobody could tell a power cut from none later.
            trees.sync_all()?;
            record.synced = true;
        }
        for _ in 0..ATTEMPTS {
            trees.write_record(&record)?;
            if publish(&trees.0.extracted, &staged.name, &digest.file_stem())? {
                staged.committed = true;
                let directory =
                    staged.directory.try_clone().map_err(|e| Error::io("open", staged.name.as_bytes(), e))?;
                return trees.hold(directory, record)?.ok_or_else(|| busy(&digest));
            }
            // Nothing vouches for what is there: an older version made it, or a program that takes no locks.
            trees.replace(&digest)?;
            trees.write_layer(&digest, &unpacked.layer.record)?;
            record.reports = None;
            trees.add_reports(&mut record, unpacked.layer.reports.clone())?;
        }
        Err(busy(&digest))
    }
}

fn busy(digest: &Digest) -> Error {
    Error::Busy { what: format!("the tree of layer {digest}") }
}

/// Renames a directory without replacing anything. Says whether the name was free.
fn publish(dir: &Dir, from: &str, to: &str) -> Result<bool> {
    step("name", dir, to);
    let renamed = match rustix::fs::renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            // A plain rename replaces an empty directory only; the lock keeps everybody else who takes it away.
            match rustix::fs::statat(dir, to, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => rustix::fs::renameat(dir, from, dir, to),
                Ok(_) => Err(Errno::EXIST),
                Err(error) => Err(error),
            }
        }
        other => other,
    };
    match renamed {
        Ok(()) => Ok(true),
        Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => Ok(false),
        Err(error) => Err(Error::io("give the final name to the tree", to.as_bytes(), error)),
    }
}
