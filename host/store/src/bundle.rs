//! Trees of local OCI layouts, apart from the registry's.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::fs::Dir;
use cofferdam_core::ambient;
use cofferdam_core::digest::{Algorithm, Digest, Hasher};
use cofferdam_core::error::{Error, Result};
use rustix::fs::{AtFlags, FlockOperation};
use rustix::io::Errno;

use crate::layout;
use crate::storage::ImageStorage;
use crate::trees::Trees;

impl ImageStorage {
    /// The directory of a local layout's trees: `local/<key>`. The key is a full hash of the layout's canonical path and
    /// its manifest's digest, which the caller has verified, so that neither another layout nor the text of a hostile one
    /// can steer it. A path that does not exist is taken as it is written. No digest: a path that never exists.
    pub fn local_bundle_cache_dir(&self, bundle_path: &Path, manifest_digest: &str) -> PathBuf {
        let local = self.images_dir().join("local");
        match manifest_digest.parse() {
            Ok(digest) => local.join(key(bundle_path, &digest)),
            Err(_) => local.join(layout::stem(manifest_digest)),
        }
    }

    /// The trees of a local layout, in [`ImageStorage::local_bundle_cache_dir`]. `manifest` must be the digest of bytes
    /// that were verified.
    pub fn local_trees(&self, bundle_path: &Path, manifest: &Digest) -> Result<Trees> {
        self.writable()?;
        open(self, &key(bundle_path, manifest))
    }
}

/// The keys of all local layouts.
pub(super) fn keys(storage: &ImageStorage) -> Result<Vec<String>> {
    let mut keys = layout::names(&storage.rooms().local, "local")?;
    keys.retain(|key| is_key(key));
    Ok(keys)
}

/// The trees of a local layout. Whoever has them, or anything that came from them, shares a lock on the layout's directory: nobody
/// collects it meanwhile. Blocks the thread for the moment in which somebody is about to.
pub(super) fn open(storage: &ImageStorage, key: &str) -> Result<Trees> {
    let local = &storage.rooms().local;
    loop {
        let bundle = layout::closed_dir(local, key)?;
        let held = bundle.try_clone().map_err(|e| Error::io("hold", key.as_bytes(), e))?.into_std_file();
        // Where the file system has no such locks, its trees have theirs.
        let _ = rustix::io::retry_on_intr(|| rustix::fs::flock(&held, FlockOperation::LockShared));
        if is_named(local, key, &held)? {
            match trees(storage, key, &bundle) {
                // Where the file system has no such locks: removed meanwhile, with what was in it.
                Err(error) if is_absent(&error) && !is_named(local, key, &held)? => {}
                trees => return Ok(trees?.holding(held)),
            }
        }
    }
}

fn is_absent(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

/// The trees of a local layout that nobody else has open, and its directory, which is locked for us alone; nothing if somebody has.
pub(super) fn open_alone(storage: &ImageStorage, key: &str) -> Result<Option<(Trees, File)>> {
    let local = &storage.rooms().local;
    let bundle = match layout::open_dir(local, key) {
        // Somebody else collects too.
        Err(Errno::NOENT) => return Ok(None),
        other => other.map_err(|e| Error::io("open", key.as_bytes(), e))?,
    };
    let held = bundle.try_clone().map_err(|e| Error::io("hold", key.as_bytes(), e))?.into_std_file();
    if rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK)
        || !is_named(local, key, &held)?
    {
        return Ok(None);
    }
    Ok(Some((trees(storage, key, &bundle)?, held)))
}

/// Whether somebody has a local layout open. Changes nothing.
pub(super) fn is_open(storage: &ImageStorage, key: &str) -> bool {
    let locked = |dir| rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK);
    layout::open_dir(&storage.rooms().local, key).is_ok_and(locked)
}

/// The trees of a local layout, to be looked at: they may go at any time. Nothing if its directory is not whole. Changes nothing.
pub(super) fn look(storage: &ImageStorage, key: &str) -> Result<Option<Trees>> {
    let Ok(bundle) = layout::open_dir(&storage.rooms().local, key) else { return Ok(None) };
    let whole = ["extracted", "records"].into_iter().all(|room| layout::open_dir(&bundle, room).is_ok());
    whole.then(|| trees(storage, key, &bundle)).transpose()
}

/// Removes a local layout's directory, if it is empty and nobody has it open: who is about to notices.
pub(super) fn remove_empty(storage: &ImageStorage, key: &str) -> Result<()> {
    let Some((_, bundle)) = open_alone(storage, key)? else { return Ok(()) };
    let gone = |dir: BorrowedFd<'_>, name: &str| rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR).is_ok();
    if ["extracted", "records"].into_iter().all(|room| gone(bundle.as_fd(), room)) {
        gone(storage.rooms().local.as_fd(), key);
    }
    Ok(())
}

fn trees(storage: &ImageStorage, key: &str, bundle: &Dir) -> Result<Trees> {
    Ok(Trees::new(
        storage.images_dir().join("local").join(key).join("extracted"),
        Arc::new(layout::closed_dir(bundle, "extracted")?),
        Arc::new(layout::private_dir(bundle, "records")?),
        storage.locks().clone(),
        format!("local-{key}"),
        storage.boot_id(),
        storage.access().clone(),
    )
    .allowing(storage.unpacker().lossy()))
}

fn is_named(dir: &Dir, name: &str, held: &File) -> Result<bool> {
    let failed = |e: Errno| Error::io("look at", name.as_bytes(), e);
    let inode = rustix::fs::fstat(held).map(|stat| (stat.st_dev, stat.st_ino)).map_err(failed)?;
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(named) => Ok((named.st_dev, named.st_ino) == inode),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

fn key(bundle_path: &Path, manifest: &Digest) -> String {
    let canonical = ambient::canonical(bundle_path);
    let path = canonical.as_deref().unwrap_or(bundle_path).as_os_str().as_bytes();
    let mut hasher = Hasher::new(Algorithm::Sha256);
    // The length keeps the end of the path and the beginning of the digest apart.
    hasher.update(&(path.len() as u64).to_le_bytes());
    hasher.update(path);
    hasher.update(manifest.to_string().as_bytes());
    hasher.finish().hex().to_owned()
}

fn is_key(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
