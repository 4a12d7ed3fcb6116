//! A store that brings its own unpacker.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cofferdam_core::{Error, Limits, Progress, Result};
use cofferdam_store::{Durability, FsckOptions, FsckReport};
use cofferdam_tree::LayerUnpacker;

use super::deferred::Deferred;

/// A store of images: [`cofferdam_store::ImageStorage`], with all of its functions, and [`ImageStorage::new`], which opens it with the
/// sandboxed unpacker.
#[derive(Clone, Debug)]
pub struct ImageStorage(cofferdam_store::ImageStorage);

impl ImageStorage {
    /// Opens the store at `images_dir`, with the default limits and the sandboxed unpacker, which is set up when the first layer is
    /// extracted. Creates what is missing, and takes over a directory that boxlite 0.9 wrote.
    ///
    /// # Errors
    ///
    /// Those of [`ImageStorage::open`].
    pub fn new(images_dir: impl Into<PathBuf>) -> Result<Self> {
        let images_dir = images_dir.into();
        let limits = Limits::default();
        let unpacker = Arc::new(Deferred::new(images_dir.clone(), limits.clone()));
        Self::open(images_dir, limits, unpacker)
    }

    /// Opens the store at `images_dir` with another unpacker: see [`cofferdam_store::ImageStorage::open`].
    ///
    /// # Errors
    ///
    /// [`cofferdam_core::Error::StoreFeature`] if a later version changed the store, [`cofferdam_core::Error::Untrusted`] if others may
    /// write to it.
    pub fn open(images_dir: impl Into<PathBuf>, limits: Limits, unpacker: Arc<dyn LayerUnpacker>) -> Result<Self> {
        cofferdam_store::ImageStorage::open(images_dir, limits, unpacker).map(Self)
    }

    /// Opens the store at `images_dir` for reading: see [`cofferdam_store::ImageStorage::open_as_it_is`].
    ///
    /// # Errors
    ///
    /// Those of [`ImageStorage::open`], and [`cofferdam_core::Error::NotFound`] if there is no store.
    pub fn open_as_it_is(
        images_dir: impl Into<PathBuf>,
        limits: Limits,
        unpacker: Arc<dyn LayerUnpacker>,
    ) -> Result<Self> {
        cofferdam_store::ImageStorage::open_as_it_is(images_dir, limits, unpacker).map(Self)
    }

    /// Checks the store at `images_dir` without opening it for use: see [`cofferdam_store::ImageStorage::fsck_at`].
    ///
    /// # Errors
    ///
    /// [`cofferdam_core::Error::NotFound`] if there is no store, [`cofferdam_core::Error::Interrupted`].
    pub fn fsck_at(
        images_dir: impl Into<PathBuf>,
        limits: Limits,
        unpacker: Arc<dyn LayerUnpacker>,
        options: &FsckOptions,
        progress: &Progress,
    ) -> Result<FsckReport> {
        cofferdam_store::ImageStorage::fsck_at(images_dir, limits, unpacker, options, progress)
    }

    /// Returns true if there is a store at `images_dir`, or a directory of another program that opening it would take over. Changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`cofferdam_core::Error::Io`].
    pub fn is_at(images_dir: &Path) -> Result<bool> {
        cofferdam_store::ImageStorage::is_at(images_dir)
    }

    /// Returns the error for a directory in which there is no store.
    pub fn absent(images_dir: &Path) -> Error {
        cofferdam_store::ImageStorage::absent(images_dir)
    }

    /// Returns the same store with another durability of what is written from now on.
    #[must_use]
    pub fn with_durability(self, durability: Durability) -> Self {
        Self(self.0.with_durability(durability))
    }

    /// Returns the same store with other limits, for documents and for the layers that it extracts.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self(self.0.with_limits(limits))
    }

    /// Returns the same store with another unpacker, which has limits of its own.
    #[must_use]
    pub fn with_unpacker(self, unpacker: Arc<dyn LayerUnpacker>) -> Self {
        Self(self.0.with_unpacker(unpacker))
    }
}

impl Deref for ImageStorage {
    type Target = cofferdam_store::ImageStorage;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl From<cofferdam_store::ImageStorage> for ImageStorage {
    fn from(storage: cofferdam_store::ImageStorage) -> Self {
        Self(storage)
    }
}

impl From<ImageStorage> for cofferdam_store::ImageStorage {
    fn from(storage: ImageStorage) -> Self {
        storage.0
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use cofferdam_core::Digest;

    use super::*;

    /// Limits that were set on the store hold in the store's own unpacker too.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test writes its layer by path")]
    fn limits_reach_the_layers() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("layer.tar");
        let mut tar = tar::Builder::new(File::create(&path).unwrap());
        for name in ["one", "two"] {
            let mut header = tar::Header::new_ustar();
            header.set_size(0);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, std::io::empty()).unwrap();
        }
        tar.into_inner().unwrap();
        let digest = Digest::of(&std::fs::read(&path).unwrap()).to_string();
        let storage = ImageStorage::new(temp.path().join("images")).unwrap();
        let few = storage.clone().with_limits(Limits::default().with(|limits| limits.entries = 1));
        let refused = few.extract_layer(&digest, &path).unwrap_err();
        assert!(matches!(refused.root(), Error::Limit { what: "entries", limit: 1, .. }), "{refused}");
        storage.extract_layer(&digest, &path).unwrap();
    }
}
