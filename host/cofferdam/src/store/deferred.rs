//! The unpacker of a store that was opened without one.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cofferdam_core::{Digest, Limits, Result, Watch, ambient};
use cofferdam_documents::LayerDescriptor;
use cofferdam_sandbox::{Sandbox, SandboxOptions};
use cofferdam_tree::{LayerUnpacker, UnpackedLayer};
use cofferdam_unpack::{Extensions, Unpacker};

/// The unpacker of [`super::ImageStorage::new`]: set up when the first layer is extracted.
pub(crate) struct Deferred {
    /// The store, in which compiled guests are kept too: it is its owner's alone.
    images_dir: PathBuf,
    /// One for all limits.
    sandbox: Arc<Mutex<Option<Arc<Sandbox>>>>,
    limits: Limits,
}

impl Deferred {
    pub(crate) fn new(images_dir: PathBuf, limits: Limits) -> Self {
        Self { images_dir, sandbox: Arc::default(), limits }
    }

    fn sandbox(&self) -> Result<Arc<Sandbox>> {
        let mut slot = self.sandbox.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sandbox) = &*slot {
            return Ok(Arc::clone(sandbox));
        }
        let options = match ambient::canonical(&self.images_dir) {
            Ok(store) => SandboxOptions::default().with_cache(store.join("guests")),
            Err(_) => SandboxOptions::default(),
        };
        let sandbox = Arc::new(Sandbox::new(&options)?);
        *slot = Some(Arc::clone(&sandbox));
        Ok(sandbox)
    }
}

impl LayerUnpacker for Deferred {
    fn unpack(
        &self,
        blob: Box<dyn Read + Send>,
        layer: &LayerDescriptor,
        dest: OwnedFd,
        watch: &Watch,
    ) -> Result<UnpackedLayer> {
        Unpacker::new(self.sandbox()?, self.limits.clone()).unpack(blob, layer, dest, watch)
    }

    fn reader(&self, media_type: Option<&str>, first_bytes: &[u8]) -> Result<Option<Digest>> {
        Extensions::default().reader_identity(media_type, first_bytes)
    }

    fn with_limits(self: Arc<Self>, limits: &Limits) -> Arc<dyn LayerUnpacker> {
        Arc::new(Self {
            images_dir: self.images_dir.clone(),
            sandbox: Arc::clone(&self.sandbox),
            limits: limits.clone(),
        })
    }
}
