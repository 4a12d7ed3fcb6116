//! Unpacking of blobs that are in the store: hashed while the unpacker reads them.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use cofferdam_core::{Cancel, Digest, Error, Result, Watch};
use cofferdam_documents::LayerDescriptor;
use cofferdam_documents::plugin::InspectorReport;
use cofferdam_tree::{LayerUnpacker, UnpackedLayer};

use cofferdam_core::digest::Hasher;

/// A layer that was unpacked, and the digest and size of its blob as they were measured.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// The digest of all bytes of the blob.
    pub blob: Digest,
    /// The number of bytes of the blob.
    pub blob_bytes: u64,
    /// What the unpacker measured.
    pub layer: UnpackedLayer,
}

/// Unpacks a blob of the store.
///
/// # Errors
///
/// Those of [`LayerUnpacker::unpack`].
pub(super) fn unpack_stored(
    unpacker: &dyn LayerUnpacker,
    blob: File,
    layer: &LayerDescriptor,
    dest: OwnedFd,
    watch: &Watch,
) -> Result<Unpacked> {
    let (blob, layer, measured) = measured(blob, layer, &watch.cancel)?;
    let unpacked = unpacker.unpack(Box::new(blob), &layer, dest, watch)?;
    let (blob, blob_bytes) = measured.finish();
    Ok(Unpacked { blob, blob_bytes, layer: unpacked })
}

/// Shows a blob of the store to the unpacker's inspectors.
///
/// # Errors
///
/// Those of [`LayerUnpacker::inspect`]; [`Error::DigestMismatch`] if the blob is not the layer's.
pub(super) fn inspect_stored(
    unpacker: &dyn LayerUnpacker,
    blob: File,
    layer: &LayerDescriptor,
    watch: &Watch,
) -> Result<Vec<InspectorReport>> {
    let (blob, sized, measured) = measured(blob, layer, &watch.cancel)?;
    let reports = unpacker.inspect(Box::new(blob), &sized, watch)?;
    let (actual, _) = measured.finish();
    if actual != layer.digest {
        let subject = format!("layer {}", layer.digest);
        return Err(Error::DigestMismatch { subject, expected: layer.digest.clone(), actual });
    }
    Ok(reports)
}

/// A blob's file as the unpacker reads it, with its layer's descriptor, which gets the size of the file: that bounds what it may
/// decode to. A wrong declared size is found when the measured one is compared.
pub fn measured(
    blob: File,
    layer: &LayerDescriptor,
    cancel: &Cancel,
) -> Result<(StoredBlob, LayerDescriptor, Measured)> {
    let size = blob.metadata().map_err(|e| Error::io("look at", layer.digest.file_stem().as_bytes(), e))?.len();
    let (blob, measured) = StoredBlob::new(blob, &layer.digest, cancel.clone());
    Ok((blob, LayerDescriptor { size: Some(size), ..layer.clone() }, measured))
}

/// A blob's file that is hashed while it is read. Reading fails once the work is cancelled.
pub struct StoredBlob {
    file: File,
    measured: Measured,
    cancel: Cancel,
}

/// The digest and the number of the bytes that were read of a [`StoredBlob`].
#[derive(Clone)]
pub struct Measured(Arc<Mutex<(Hasher, u64)>>);

impl StoredBlob {
    /// A blob that is hashed with the algorithm of its digest.
    pub fn new(file: File, digest: &Digest, cancel: Cancel) -> (Self, Measured) {
        let measured = Measured(Arc::new(Mutex::new((Hasher::new(digest.algorithm()), 0))));
        (Self { file, measured: measured.clone(), cancel }, measured)
    }
}

impl Measured {
    /// Returns the digest and the number of the bytes that were read.
    pub fn finish(&self) -> (Digest, u64) {
        let (hasher, bytes) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (hasher.clone().finish(), *bytes)
    }
}

impl Read for StoredBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.check().is_err() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the work was cancelled"));
        }
        let count = self.file.read(buffer)?;
        let (hasher, bytes) = &mut *self.measured.0.lock().unwrap_or_else(PoisonError::into_inner);
        hasher.update(buffer.get(..count).unwrap_or_default());
        *bytes += count as u64;
        Ok(count)
    }
}
