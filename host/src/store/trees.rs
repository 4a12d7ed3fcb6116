//! Extracted trees: found, opened, promoted, removed; believed only when a record vouches for them.
//!
//! A layer's lock is held from before its staging directory exists until after it has become the tree or is gone. So
//! whoever holds the lock knows that any staging directory of the layer belongs to the dead.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::fs::Dir;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::store::file::{self, Durability};
use crate::store::image::LayerDescriptor;
use crate::store::layout;
use crate::store::lock::Locks;
use crate::store::meta::Access;
use crate::store::names::{self, Staging};
use crate::store::record::{self, Head, Identity, TreeRecord};
use crate::tree::remove_tree;

/// A directory of trees: the registry's, or one local layout's.
#[derive(Clone, Debug)]
pub struct Trees(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    path: PathBuf,
    pub(super) extracted: Arc<Dir>,
    records: Arc<Dir>,
    pub(super) locks: Locks,
    /// Tells the locks of one directory of trees from those of another.
    scope: String,
    pub(super) boot_id: Option<String>,
    pub(super) access: Access,
}

/// A tree that a record vouches for.
#[derive(Debug)]
pub struct Tree {
    pub(super) directory: File,
    pub(super) path: PathBuf,
    pub(super) record: TreeRecord,
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
        Self(Arc::new(Inner { path, extracted, records, locks, scope, boot_id, access }))
    }

    /// The path of a layer's tree, whether there is one or not.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.0.path.join(digest.file_stem())
    }

    /// Whether a layer's tree is there and vouched for. Cheap.
    pub fn is_ready(&self, digest: &Digest) -> bool {
        matches!(self.head(digest), Ok(Some(_)))
    }

    /// Opens a layer's tree if it is there and vouched for. [`Error::DigestMismatch`] if the layer claims another
    /// `DiffID` than the one that the tree was verified against.
    pub fn open(&self, layer: &LayerDescriptor) -> Result<Option<Tree>> {
        let Some(bytes) = self.record(&layer.digest)? else { return Ok(None) };
        if !self.vouched(&layer.digest, Head::parse(&bytes).as_ref())? {
            return Ok(None);
        }
        let subject = || format!("the record of the tree {}", layer.digest);
        let record: TreeRecord =
            serde_json::from_slice(&bytes).map_err(|e| Error::Corrupt { subject: subject(), reason: e.to_string() })?;
        check_diff_id(layer, &record.diff_id)?;
        let directory = self.directory(&layer.digest.file_stem(), OFlags::RDONLY)?;
        // Nobody replaces a vouched tree; but the look and the opening were two.
        match directory {
            Some(directory) if Identity::of(&directory)? == record.directory => {
                Ok(Some(Tree { directory, path: self.path(&layer.digest), record }))
            }
            _ => Ok(None),
        }
    }

    /// Syncs the file system once and notes in the records of this boot's trees that they outlive a power cut. To be
    /// called after a pull, outside of all locks. Returns how many trees were promoted.
    pub fn promote(&self) -> Result<usize> {
        self.0.access.writable()?;
        let mut written = Vec::new();
        for digest in self.recorded()? {
            if let Some(head) = self.head(&digest)?
                && !head.synced
            {
                written.push(digest);
            }
        }
        if written.is_empty() {
            return Ok(0);
        }
        rustix::fs::syncfs(&*self.0.extracted).map_err(|e| Error::io("sync", b"the extracted layers", e))?;
        let mut promoted = 0;
        for digest in written {
            // Who holds the lock replaces the tree; the new one was not synced.
            let Some(_lock) = self.0.locks.try_acquire(&self.lock_name(&digest))? else { continue };
            let Some(bytes) = self.record(&digest)? else { continue };
            if !self.vouched(&digest, Head::parse(&bytes).as_ref())? {
                continue;
            }
            let Ok(mut record) = serde_json::from_slice::<TreeRecord>(&bytes) else { continue };
            record.synced = true;
            self.write_record(&record, Durability::Synced)?;
            promoted += 1;
        }
        file::sync_dir(&self.0.records)?;
        Ok(promoted)
    }

    /// Removes a layer's tree and its record, unless somebody is at work on it. Says whether the tree is gone.
    pub(super) fn remove(&self, digest: &Digest) -> Result<bool> {
        let Some(_lock) = self.0.locks.try_acquire(&self.lock_name(digest))? else { return Ok(false) };
        self.clear(digest).map(|()| true)
    }

    /// Whether there is a directory under a tree's name, vouched for or not.
    pub(super) fn path_exists(&self, digest: &Digest) -> bool {
        matches!(self.directory(&digest.file_stem(), OFlags::PATH), Ok(Some(_)))
    }

    /// Removes staging directories of the dead, and records whose tree is gone.
    pub(super) fn sweep(&self) -> Result<()> {
        for name in layout::names(&self.0.extracted, "extracted")? {
            let Some(staged) = names::parse(&name) else { continue };
            let (Staging::Tree, Some(digest)) = (staged.staging, &staged.digest) else { continue };
            if staged.ours {
                let Some(_lock) = self.0.locks.try_acquire(&self.lock_name(digest))? else { continue };
                remove_tree(&*self.0.extracted, name.as_bytes())?;
            } else if super::sweep::is_abandoned(&self.0.extracted, &name) {
                remove_tree(&*self.0.extracted, name.as_bytes())?;
            }
        }
        for digest in self.recorded()? {
            let gone = || self.directory(&digest.file_stem(), OFlags::PATH).map(|tree| tree.is_none());
            // A record comes a moment before its tree, and in that moment the lock is held.
            if gone()?
                && let Some(_lock) = self.0.locks.try_acquire(&self.lock_name(&digest))?
                && gone()?
            {
                file::remove(&self.0.records, &record_name(&digest))?;
            }
        }
        Ok(())
    }

    /// Whether the tree is there and is what the layer claims.
    pub(super) fn present(&self, layer: &LayerDescriptor) -> Result<bool> {
        match self.head(&layer.digest)? {
            Some(head) => check_diff_id(layer, &head.diff_id).map(|()| true),
            None => Ok(false),
        }
    }

    /// The head of the record that vouches for a layer's tree.
    fn head(&self, digest: &Digest) -> Result<Option<Head>> {
        let Some(bytes) = self.record(digest)? else { return Ok(None) };
        let head = Head::parse(&bytes);
        Ok(if self.vouched(digest, head.as_ref())? { head } else { None })
    }

    fn vouched(&self, digest: &Digest, head: Option<&Head>) -> Result<bool> {
        let Some(head) = head else { return Ok(false) };
        let Some(directory) = self.directory(&digest.file_stem(), OFlags::PATH)? else { return Ok(false) };
        Ok(head.vouches(digest, Identity::of(&directory)?, self.0.boot_id.as_deref()))
    }

    fn record(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        file::read(&self.0.records, &record_name(digest), record::LIMIT)
    }

    pub(super) fn write_record(&self, record: &TreeRecord, durability: Durability) -> Result<()> {
        let name = record_name(&record.digest);
        let text = serde_json::to_vec(record).map_err(|e| Error::io("write", name.as_bytes(), e))?;
        if text.len() as u64 > record::LIMIT {
            let subject = format!("the record of layer {}", record.digest);
            return Err(Error::Limit { subject, what: "bytes in the record of a tree", limit: record::LIMIT });
        }
        // The name is synced by who promotes; without that, the record is as volatile as its tree.
        file::write(&self.0.records, &name, &text, durability)?.publish_over(&name, Durability::Volatile)
    }

    /// The digests of the trees that have records.
    fn recorded(&self) -> Result<Vec<Digest>> {
        let names = layout::names(&self.0.records, "records")?;
        Ok(names.iter().filter_map(|name| Digest::from_file_stem(name.strip_suffix(".json")?)).collect())
    }

    /// Opens a directory of trees' child; nothing if it is not there or not a directory.
    fn directory(&self, name: &str, access: OFlags) -> Result<Option<File>> {
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
    pub(super) fn clear(&self, digest: &Digest) -> Result<()> {
        file::remove(&self.0.records, &record_name(digest))?;
        let (name, aside) = (digest.file_stem(), names::fresh(Staging::Tree, Some(digest)));
        // Aside first: nobody shall find a tree in the middle of its removal.
        match rustix::fs::renameat(&*self.0.extracted, &name, &*self.0.extracted, &aside) {
            Ok(()) => remove_tree(&*self.0.extracted, aside.as_bytes()),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(Error::io("set aside the tree", name.as_bytes(), error)),
        }
    }
}

impl Tree {
    /// The tree's root.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is known about it.
    pub fn record(&self) -> &TreeRecord {
        &self.record
    }
}

fn record_name(digest: &Digest) -> String {
    format!("{}.json", digest.file_stem())
}

/// Compares a decoded layer's digest with what the layer claims, if it does.
pub(super) fn check_diff_id(layer: &LayerDescriptor, actual: &Digest) -> Result<()> {
    match &layer.diff_id {
        Some(expected) if expected != actual => Err(Error::DigestMismatch {
            subject: format!("layer {}, decoded,", layer.digest),
            expected: expected.clone(),
            actual: actual.clone(),
        }),
        _ => Ok(()),
    }
}
