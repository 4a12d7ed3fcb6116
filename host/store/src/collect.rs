//! Taking away what nothing needs: names first, in a moment in which nobody can begin to rely on them; then the content.
//!
//! Why that is safe is told in `lease.rs`. Who is killed between the two leaves staging names, which the next sweep removes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use cofferdam_core::cancel::Cancel;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use rustix::fs::AtFlags;
use rustix::io::Errno;

use crate::file;
use crate::layout::{self, BlobKind};
use crate::lease::Leased;
use crate::lock::{Alone, Gate};
use crate::manifest::note_name;
use crate::names::{self, Staging};
use crate::reach::{Culprit, Parts};
use crate::storage::{ImageStorage, blob_lock};
use crate::trees::{Take, Trees};
use crate::{bundle, reach::Document};

/// The right to take names away, while nobody can make a lease.
#[derive(Debug)]
pub(super) struct Collecting {
    _gate: Gate,
    _alone: Alone,
    pub(super) leased: Leased,
}

/// What somebody who uses the store as a whole keeps from being freed.
pub(super) const IN_USE: &str = "the store is in use";

/// Something that lost its name, and what was kept instead of losing it.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) blobs: Vec<TakenBlob>,
    pub(super) trees: Vec<TakenTree>,
    pub(super) kept: Vec<(Digest, &'static str)>,
}

/// Trees of local layouts that were freed, and what was kept.
#[derive(Default)]
pub(super) struct Local {
    pub(super) freed: Vec<(PathBuf, Digest)>,
    pub(super) kept: Vec<(String, &'static str)>,
}

pub(super) struct TakenBlob {
    pub(super) kind: BlobKind,
    pub(super) digest: Digest,
    pub(super) size: u64,
    aside: String,
}

pub(super) struct TakenTree {
    pub(super) digest: Digest,
    trees: Trees,
    aside: String,
}

impl TakenTree {
    /// Where it was.
    pub(super) fn path(&self) -> PathBuf {
        self.trees.path(&self.digest)
    }
}

impl ImageStorage {
    /// The right to take names away; nothing if somebody uses the store as a whole. Waits for those who make leases or take names
    /// away, which is short.
    pub(super) fn collecting(&self, cancel: Option<&Cancel>) -> Result<Option<Collecting>> {
        let gate = self.locks().gate_alone(cancel)?;
        let Some(alone) = self.locks().try_alone()? else { return Ok(None) };
        let leased = Leased::read(self.locks(), true)?;
        Ok(Some(Collecting { _gate: gate, _alone: alone, leased }))
    }

    /// What may be freed when these images are gone, leases apart: all that is not needed; where somebody keeps what no reference
    /// names (see `keep.rs`), only what those images consist of, and of that nothing that another manifest names.
    pub(super) fn unneeded(&self, gone: &Parts, needed: &Parts) -> Result<Result<Parts, Culprit>> {
        if !self.keeps_unreferenced() {
            return Ok(Ok(self.everything()?.without(needed)));
        }
        Ok(self.named_except(gone)?.map(|named| gone.clone().without(needed).without(&named)))
    }

    /// Takes the names of these things away, but for those that somebody is at work on.
    pub(super) fn take(&self, parts: &Parts, taken: &mut Taken) -> Result<()> {
        for document in Document::ALL {
            let before = taken.blobs.len();
            for (_, digest) in parts.documents.iter().filter(|(kind, _)| *kind == document) {
                self.take_blob(document.kind(), digest, taken)?;
            }
            // Who keeps a list of their own takes a manifest for the sign that its layers are there.
            if taken.blobs.len() > before && self.keeps_unreferenced() {
                file::sync_dir(self.rooms().blobs(document.kind()))?;
            }
        }
        for digest in &parts.layers {
            if take_tree(self.trees(), digest, taken)? {
                self.take_blob(BlobKind::Layer, digest, taken)?;
            }
        }
        if let Some(trees) = self.overlay_trees_made()? {
            for digest in &parts.overlay {
                take_tree(&trees, digest, taken)?;
            }
        }
        Ok(())
    }

    /// Frees the trees of local layouts that nobody has open. Takes no lease into account: whoever relies on such a tree has its
    /// layout open. One layout after the other, for each takes descriptors.
    pub(super) fn free_local(&self, cancel: Option<&Cancel>) -> Result<Local> {
        let mut local = Local::default();
        for key in bundle::keys(self)? {
            let Some(collecting) = self.collecting(cancel)? else {
                local.kept.push(("everything in `local/`".into(), IN_USE));
                break;
            };
            let Some((trees, alone)) = bundle::open_alone(self, &key)? else {
                local.kept.push((format!("local/{key}"), "its layout is in use"));
                continue;
            };
            let mut taken = Taken::default();
            for digest in trees.stored()? {
                take_tree(&trees, &digest, &mut taken)?;
            }
            drop((collecting, alone));
            self.discard(&taken, cancel)?;
            bundle::remove_empty(self, &key)?;
            local.freed.extend(taken.trees.into_iter().map(|tree| (tree.path(), tree.digest)));
            local.kept.extend(taken.kept.into_iter().map(|(digest, why)| (digest.to_string(), why)));
        }
        Ok(local)
    }

    /// Removes the note about a manifest, if that is gone now: who found it gone looked some time ago.
    pub(super) fn take_lost_note(&self, digest: &Digest) -> Result<()> {
        let kind = BlobKind::Manifest;
        let Some(_lock) = self.locks().try_acquire(&blob_lock(kind, digest))? else { return Ok(()) };
        let (dir, name) = (self.rooms().blobs(kind), kind.file_name(digest));
        match rustix::fs::statat(&**dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => unlink(&self.rooms().records, &note_name(digest)),
            _ => Ok(()),
        }
    }

    fn take_blob(&self, kind: BlobKind, digest: &Digest, taken: &mut Taken) -> Result<()> {
        let Some(_lock) = self.locks().try_acquire(&blob_lock(kind, digest))? else {
            taken.kept.push((digest.clone(), "it is being written"));
            return Ok(());
        };
        let (dir, name) = (self.rooms().blobs(kind), kind.file_name(digest));
        if kind == BlobKind::Manifest {
            unlink(&self.rooms().records, &note_name(digest))?;
        }
        // Not a regular file: nobody here made it.
        let Some(size) = layout::file_size(dir, &name) else { return Ok(()) };
        let aside = names::fresh(Staging::Blob, Some(digest));
        match rustix::fs::renameat(&**dir, &name, &**dir, &aside) {
            Ok(()) => taken.blobs.push(TakenBlob { kind, digest: digest.clone(), size, aside }),
            Err(Errno::NOENT) => {}
            Err(Errno::BUSY) => taken.kept.push((digest.clone(), "something is mounted on it")),
            Err(error) => return Err(Error::io("set aside", name.as_bytes(), error)),
        }
        Ok(())
    }

    /// Removes the content of what lost its name. May take long; nobody waits for it. When it is given up, the next sweep
    /// removes the rest.
    pub(super) fn discard(&self, taken: &Taken, cancel: Option<&Cancel>) -> Result<()> {
        // The names go for good before the content does.
        if !taken.trees.is_empty() {
            file::sync_dir(&self.rooms().records)?;
        }
        let rooms: BTreeSet<_> = taken.blobs.iter().map(|blob| blob.kind.directory()).collect();
        for kind in BlobKind::ALL.into_iter().filter(|kind| rooms.contains(kind.directory())) {
            file::sync_dir(self.rooms().blobs(kind))?;
        }
        let mut synced: Vec<&Trees> = Vec::new();
        for TakenTree { trees, .. } in &taken.trees {
            if !synced.iter().any(|other| Arc::ptr_eq(&other.0, &trees.0)) {
                file::sync_dir(&trees.0.extracted)?;
                synced.push(trees);
            }
        }
        for TakenBlob { kind, aside, .. } in &taken.blobs {
            unlink(self.rooms().blobs(*kind), aside)?;
        }
        for TakenTree { trees, aside, .. } in &taken.trees {
            trees.discard_unless(aside, cancel)?;
        }
        Ok(())
    }
}

/// Takes a tree's name away. Says whether there is none now.
pub(super) fn take_tree(trees: &Trees, digest: &Digest, taken: &mut Taken) -> Result<bool> {
    match trees.take(digest)? {
        Take::Absent => {}
        Take::Taken(aside) => {
            taken.trees.push(TakenTree { digest: digest.clone(), trees: trees.clone(), aside });
        }
        Take::Kept(why) => {
            taken.kept.push((digest.clone(), why));
            return Ok(false);
        }
    }
    Ok(true)
}

fn unlink(dir: &cap_std::fs::Dir, name: &str) -> Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(Error::io("remove", name.as_bytes(), error)),
    }
}
