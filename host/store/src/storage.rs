//! [`ImageStorage`]: the store as its callers hold it.

use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cofferdam_core::ambient;
use cofferdam_core::cancel::Cancel;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, ErrorKind, Escaped, Result};
use cofferdam_core::limits::Limits;
use cofferdam_tree::LayerUnpacker;

use crate::durability::Durability;
use crate::layout::{self, BlobKind, Rooms};
use crate::lock::{InUse, Locks, blocking, waiting};
use crate::meta::{self, Access};
use crate::refs::Refs;
use crate::stage::{Claim, Draft, Expected, Staged};
use crate::tree_list::Background;
use crate::trees::Trees;
use crate::{StagedDownload, file, migrate, trust};

/// An image store in a directory. Cheap to clone; may be used by many threads, and by many processes at once.
#[derive(Clone)]
pub struct ImageStorage {
    inner: Arc<Inner>,
    limits: Arc<Limits>,
    unpacker: Arc<dyn LayerUnpacker>,
    trees: Trees,
    pub(super) durability: Durability,
    /// Whether nothing of the store may be changed, since its caller only looks.
    pub(super) looking: bool,
}

struct Inner {
    path: PathBuf,
    access: Access,
    rooms: Rooms,
    locks: Locks,
    refs: Refs,
    trees: Trees,
    boot_id: Option<String>,
    background: Arc<Background>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.background.end();
    }
}

impl ImageStorage {
    /// Opens the store at `images_dir`: makes what is missing, takes over a directory that the reference wrote, and removes
    /// what dead processes left in staging. [`Error::StoreFeature`] if a later version changed the store.
    pub fn open(images_dir: impl Into<PathBuf>, limits: Limits, unpacker: Arc<dyn LayerUnpacker>) -> Result<Self> {
        let storage = Self::open_unswept(images_dir.into(), limits, unpacker)?;
        if storage.writable().is_ok() {
            storage.locks().prepare();
            if let Err(error) = storage.sweep() {
                tracing::warn!(%error, "cannot remove all that dead processes left in the store");
            }
            storage.promote_old();
        }
        Ok(storage)
    }

    /// As [`ImageStorage::open`], but leaves what is left of the dead.
    fn open_unswept(path: PathBuf, limits: Limits, unpacker: Arc<dyn LayerUnpacker>) -> Result<Self> {
        let (root, new) = ambient::create_private_dir(&path)?;
        let root = Arc::new(root);
        let shown = path.as_os_str().as_bytes();
        // Before anything is read: what another user wrote there decides nothing.
        trust::ensure_owner(&root, shown)?;
        let unfinished = !meta::is_there(&root) && root.is_dir("layers") && root.is_dir("manifests");
        // A directory that holds nothing, or another program's images, is closed to others below.
        if !(new || unfinished || layout::is_empty(&root)?) {
            trust::ensure(&root, shown)?;
        }
        // Before anything is touched: a later version's store is not ours to change.
        meta::read(&root, shown)?;
        let known = meta::format(&root, shown, migrate::CURRENT)?;
        // What is ours alone is made first: where it is, a store of ours is being made, or was left half made.
        let adopted = unfinished && !root.is_dir(layout::FIRST);
        // Never for a directory that merely holds the store: that may be anything, `/` included.
        let distrust = trust::ensure(&root, shown).err();
        if new || unfinished || distrust.is_some() {
            let closed = layout::close_to_others(&root, &Escaped(shown).to_string());
            closed.map_err(|error| distrust.unwrap_or(error))?;
        }
        if adopted {
            migrate::adopt(&root)?;
        }
        let rooms = if unfinished { Rooms::take_over(root) } else { Rooms::open(root) };
        let rooms = rooms.map_err(|error| layout::within(error, shown))?;
        // Last: who finds it finds a store that is whole, and closed to others.
        let access = match known {
            Some(migrate::CURRENT) => meta::read(&rooms.root, shown)?.ok_or_else(|| meta::not_there(shown))?,
            Some(_) => migrate::bring_up(&rooms, shown)?,
            None => meta::write(&rooms.root, shown)?,
        };
        Ok(Self::of(path, rooms, access, limits, unpacker))
    }

    /// Opens the store at `images_dir` to look at it: makes nothing, adopts nothing, sweeps nothing. [`Error::NotFound`] if it was never
    /// opened in the other way.
    pub fn open_as_it_is(
        images_dir: impl Into<PathBuf>,
        limits: Limits,
        unpacker: Arc<dyn LayerUnpacker>,
    ) -> Result<Self> {
        let path = images_dir.into();
        let shown = path.as_os_str().as_bytes();
        let absent = || Self::absent(&path);
        let root = match ambient::hold(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(absent()),
            held => held.and_then(|_| ambient::open_dir(&path))?,
        };
        let root = Arc::new(root);
        if !meta::is_there(&root) {
            return Err(absent());
        }
        trust::ensure(&root, shown)?;
        let access = meta::read(&root, shown)?.ok_or_else(absent)?;
        let rooms = Rooms::look(root).map_err(|error| layout::within(error, shown))?.ok_or_else(absent)?;
        Ok(Self { looking: true, ..Self::of(path, rooms, access, limits, unpacker) })
    }

    /// Whether there is a store at `images_dir`, or a directory of another program that opening it would take over. Changes nothing.
    pub fn is_at(images_dir: &Path) -> Result<bool> {
        match ambient::hold(images_dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            held => held?,
        };
        let root = ambient::open_dir(images_dir)?;
        Ok(meta::is_there(&root) || (root.is_dir("layers") && root.is_dir("manifests")))
    }

    /// The error for a directory in which there is no store.
    pub fn absent(images_dir: &Path) -> Error {
        Error::NotFound {
            what: format!("a store at `{}`", Escaped(images_dir.as_os_str().as_bytes())),
            hint: Some("the first pull makes one there; was another directory meant?".into()),
        }
    }

    /// The store in directories that are open.
    pub(super) fn of(
        path: PathBuf,
        rooms: Rooms,
        access: Access,
        limits: Limits,
        unpacker: Arc<dyn LayerUnpacker>,
    ) -> Self {
        let locks = Locks::new(Arc::clone(&rooms.locks));
        let refs = Refs::new(Arc::clone(&rooms.refs));
        let boot_id = ambient::boot_id();
        let trees = Trees::new(
            path.join("extracted"),
            Arc::clone(&rooms.extracted),
            Arc::clone(&rooms.records),
            locks.clone(),
            "extracted".into(),
            boot_id.clone(),
            access.clone(),
        );
        let background = Arc::default();
        let inner = Arc::new(Inner { path, access, rooms, locks, refs, trees, boot_id, background });
        let trees = inner.trees.clone().allowing(unpacker.lossy());
        Self { inner, limits: Arc::new(limits), unpacker, trees, durability: Durability::default(), looking: false }
    }

    /// The same store with other limits, for documents and for the layers that it extracts.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        let unpacker = Arc::clone(&self.unpacker).with_limits(&limits);
        Self { limits: Arc::new(limits), ..self }.with_unpacker(unpacker)
    }

    /// The same store with another unpacker, which has limits of its own.
    #[must_use]
    pub fn with_unpacker(self, unpacker: Arc<dyn LayerUnpacker>) -> Self {
        let trees = self.trees.allowing(unpacker.lossy());
        Self { unpacker, trees, ..self }
    }

    /// The store's directory, as it was given.
    pub fn images_dir(&self) -> &Path {
        &self.inner.path
    }

    /// The limits that hold for documents in the store.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The trees of layers from registries.
    pub fn trees(&self) -> &Trees {
        &self.trees
    }

    /// Says that the caller relies on what is in the store. See [`InUse`].
    pub async fn in_use(&self) -> Result<InUse> {
        let locks = self.locks().clone();
        waiting(move || locks.share(None)).await
    }

    /// As [`ImageStorage::in_use`], blocking the thread while another process frees space.
    pub fn in_use_blocking(&self) -> Result<InUse> {
        self.locks().share(None)
    }

    /// As [`ImageStorage::in_use_blocking`], until the wait is given up.
    pub fn in_use_unless(&self, cancel: &Cancel) -> Result<InUse> {
        self.locks().share(Some(cancel))
    }

    /// Begins to write a blob, unless it is there: waits for others who write it, in any process. A manifest or a config
    /// is there if its bytes hash to the digest, a layer if its file has the declared size. Give up by dropping the
    /// future.
    pub async fn begin_blob(&self, kind: BlobKind, digest: &Digest, size: Option<u64>) -> Result<Claim<Staged>> {
        self.writable()?;
        let expected = self.expect(kind, digest.clone(), size)?;
        if self.clone().has_expected(expected.clone()).await? {
            return Ok(Claim::Present);
        }
        let lock = self.locks().acquire_async(blob_lock(kind, digest)).await?;
        if self.clone().has_expected(expected.clone()).await? {
            return Ok(Claim::Present);
        }
        let dir = Arc::clone(self.rooms().blobs(kind));
        let locks = self.locks().clone();
        blocking(move || {
            Draft::create(&dir, expected, &locks, Some(lock)).map(|draft| Claim::Granted(Staged::new(draft)))
        })
        .await
    }

    /// Stages the download of a layer. `expected_size` is its declared size in bytes; 0 or less means unknown.
    pub async fn stage_layer_download(&self, digest: &str, expected_size: i64) -> Result<StagedDownload> {
        let size = u64::try_from(expected_size).ok().filter(|&size| size > 0);
        self.stage_download(BlobKind::Layer, digest, size).await
    }

    /// Stages the download of an image configuration, of unknown size.
    pub async fn stage_config_download(&self, digest: &str) -> Result<StagedDownload> {
        self.stage_download(BlobKind::Config, digest, None).await
    }

    async fn stage_download(&self, kind: BlobKind, digest: &str, size: Option<u64>) -> Result<StagedDownload> {
        self.writable()?;
        let expected = self.expect(kind, digest.parse()?, size)?;
        let dir = Arc::clone(self.rooms().blobs(kind));
        let path = self.images_dir().join(kind.directory());
        let storage = self.clone();
        blocking(move || {
            storage.keep_unreferenced()?;
            Ok(StagedDownload::new(Draft::create(&dir, expected, storage.locks(), None)?, &path))
        })
        .await
    }

    async fn has_expected(self, Expected { kind, digest, size, .. }: Expected) -> Result<bool> {
        blocking(move || match kind {
            BlobKind::Layer => {
                let held = layout::file_size(self.rooms().blobs(kind), &kind.file_name(&digest));
                Ok(held.is_some_and(|held| size.is_none_or(|size| size == held)))
            }
            BlobKind::Manifest | BlobKind::Config => Ok(self.read_verified(kind, &digest)?.is_some()),
        })
        .await
    }

    /// What a blob must be. Refuses a declared size above the limit before anything is fetched.
    pub(super) fn expect(&self, kind: BlobKind, digest: Digest, size: Option<u64>) -> Result<Expected> {
        let limit = self.limit_of(kind);
        if size.is_some_and(|size| size > limit) {
            return Err(Error::Limit { subject: format!("{} {digest}", kind.noun()), what: kind.counted(), limit });
        }
        Ok(Expected { kind, digest, size, limit, flush: self.durability().flush() })
    }

    /// How many bytes a blob of this kind may have. A layer is hardly larger than what it decodes to.
    pub(super) fn limit_of(&self, kind: BlobKind) -> u64 {
        match kind {
            BlobKind::Manifest => self.limits.manifest_bytes,
            BlobKind::Config => self.limits.config_bytes,
            BlobKind::Layer => self.limits.layer_bytes,
        }
    }

    /// The bytes of a manifest or a config if they are there and hash to the digest. What is there and does not, or is too
    /// large, counts as absent: it is to be fetched again.
    pub(super) fn read_verified(&self, kind: BlobKind, digest: &Digest) -> Result<Option<Vec<u8>>> {
        match self.read_document(kind, digest) {
            Ok(bytes) => Ok(bytes),
            Err(error @ (Error::DigestMismatch { .. } | Error::Limit { .. })) => {
                tracing::warn!(%error, "a document in the store is not what its name says; it counts as absent");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The same, with the reason why it does not count.
    pub(super) fn read_document(&self, kind: BlobKind, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let (what, limit) = (kind.counted(), self.limit_of(kind));
        let subject = || format!("{} {digest}", kind.noun());
        let bytes = match file::read(self.rooms().blobs(kind), &kind.file_name(digest), limit) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(Error::Limit { .. }) => return Err(Error::Limit { subject: subject(), what, limit }),
            Err(error) => return Err(error),
        };
        check_bytes(&bytes, digest, subject)?;
        Ok(Some(bytes))
    }

    pub(super) fn access(&self) -> &Access {
        &self.inner.access
    }

    pub(super) fn writable(&self) -> Result<()> {
        self.inner.access.writable()
    }

    pub(super) fn rooms(&self) -> &Rooms {
        &self.inner.rooms
    }

    pub(super) fn locks(&self) -> &Locks {
        &self.inner.locks
    }

    pub(super) fn refs(&self) -> &Refs {
        &self.inner.refs
    }

    pub(super) fn unpacker(&self) -> &dyn LayerUnpacker {
        &*self.unpacker
    }

    pub(super) fn background(&self) -> Arc<Background> {
        Arc::clone(&self.inner.background)
    }

    pub(super) fn boot_id(&self) -> Option<String> {
        self.inner.boot_id.clone()
    }
}

impl fmt::Debug for ImageStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageStorage").field("images_dir", &self.inner.path).finish_non_exhaustive()
    }
}

/// The name of the lock of a blob.
pub(super) fn blob_lock(kind: BlobKind, digest: &Digest) -> String {
    format!("{}.{}.lock", kind.directory(), digest.file_stem())
}

/// Compares bytes with their digest.
pub(super) fn check_bytes(bytes: &[u8], digest: &Digest, subject: impl Fn() -> String) -> Result<()> {
    let actual = digest_with(bytes, digest);
    if actual == *digest {
        Ok(())
    } else {
        Err(Error::DigestMismatch { subject: subject(), expected: digest.clone(), actual })
    }
}

fn digest_with(bytes: &[u8], like: &Digest) -> Digest {
    let mut hasher = cofferdam_core::digest::Hasher::new(like.algorithm());
    hasher.update(bytes);
    hasher.finish()
}
