//! One layer of a pull: from a descriptor to a committed blob and a committed tree.
//!
//! The tree is claimed before the blob, as the store's order of locks wants it. Blob and tree are written at the same
//! time; the tree is committed last, when both are verified.

use std::sync::{Arc, Mutex, PoisonError};

use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, ErrorKind, Result};
use cofferdam_core::progress::{Event, Progress};
use cofferdam_core::{ImageBudget, Watch};
use cofferdam_documents::Descriptor;
use cofferdam_store::StoredBlob;
use cofferdam_store::{BlobKind, Claim, Committed, ImageStorage, LayerDescriptor, Staged, StagedTree, Unpacked};
use cofferdam_tree::{LayerUnpacker, UnpackedLayer};

use super::fetch::{Download, Written};
use super::retry::RetryPolicy;
use super::tail::tail;
use super::tasks::{Task, Tasks};
use crate::image_source::ImageSource;

/// What all layers of a pull share.
pub(super) struct Layers<'a> {
    pub(super) source: &'a dyn ImageSource,
    pub(super) storage: &'a ImageStorage,
    pub(super) unpacker: Arc<dyn LayerUnpacker>,
    pub(super) retry: &'a RetryPolicy,
    pub(super) progress: &'a Progress,
    pub(super) tasks: &'a Tasks,
    /// What the layers may decode to in all.
    pub(super) budget: ImageBudget,
    /// Layers whose trees this pull made, or was about to make.
    pub(super) made: &'a Mutex<Vec<Digest>>,
}

/// How a layer came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Brought {
    /// Its tree was there.
    Cached,
    /// Its blob was there and was unpacked.
    Unpacked,
    /// Its blob was downloaded: so many bytes.
    Downloaded(u64),
}

/// A layer of at most so many bytes is fetched to its end, whatever becomes of its extraction.
const SMALL: u64 = 1 << 20;

/// A tree that was written, and what was measured on the way.
type Extracted = (StagedTree, UnpackedLayer);

/// The work that writes a layer's tree.
type Extraction = Task<Extracted>;

impl Layers<'_> {
    /// Makes sure that a layer's tree is there and verified. Whatever happens, nothing is staged when this returns.
    pub(super) async fn bring(&self, descriptor: &Descriptor, layer: &LayerDescriptor) -> Result<Brought> {
        let digest = &layer.digest;
        let brought = self
            .attempt(descriptor, layer)
            .await
            .map_err(|error| descriptor.explain_absence(error).context(format!("pulling layer {digest}")))?;
        self.inspect(layer).await.map_err(|error| error.context(format!("inspecting layer {digest}")))?;
        let layer = digest.clone();
        self.progress.emit(match brought {
            Brought::Cached => Event::LayerCached { layer },
            Brought::Unpacked | Brought::Downloaded(_) => Event::LayerDone { layer },
        });
        Ok(brought)
    }

    /// Sees to it that each inspector has seen the layer. Where its tree was made just now, they have.
    async fn inspect(&self, layer: &LayerDescriptor) -> Result<()> {
        let (trees, digest, inspectors) =
            (self.storage.trees().clone(), layer.digest.clone(), self.unpacker.inspectors());
        if inspectors.is_empty() {
            return Ok(());
        }
        let reader = self.unpacker.reader(layer.media_type.as_deref(), &[])?;
        let by = reader.clone();
        let lacking = self.tasks.spawn(move || trees.uninspected(&digest, by.as_ref(), &inspectors)).join().await?;
        if lacking.is_empty() {
            return Ok(());
        }
        let file = self.storage.open_layer(&layer.digest)?;
        let (blob, measured) = StoredBlob::new(file, &layer.digest, self.tasks.stop());
        let (unpacker, trees, layer) = (Arc::clone(&self.unpacker), self.storage.trees().clone(), layer.clone());
        let watch = Watch { progress: self.progress.clone(), cancel: self.tasks.stop(), budget: None };
        let work = move || {
            let reports = unpacker.inspect(Box::new(blob), &layer, &watch)?;
            let (actual, _) = measured.finish();
            if actual != layer.digest {
                let subject = format!("layer {}", layer.digest);
                return Err(Error::DigestMismatch { subject, expected: layer.digest, actual });
            }
            trees.keep_reports(&layer.digest, reader.as_ref(), reports)
        };
        self.tasks.spawn(work).join().await
    }

    async fn attempt(&self, descriptor: &Descriptor, layer: &LayerDescriptor) -> Result<Brought> {
        let mut mended = false;
        let reader = self.unpacker.reader(layer.media_type.as_deref(), &[])?;
        loop {
            let Claim::Granted(tree) = self.storage.trees().begin_async(layer, reader.as_ref()).await? else {
                self.budget.count(&layer.digest, self.storage.trees().decoded_bytes(&layer.digest)?)?;
                return self.complete(descriptor, layer).await;
            };
            // Noted before it is made: this future may be dropped while a thread commits the tree.
            self.made.lock().unwrap_or_else(PoisonError::into_inner).push(layer.digest.clone());
            if !mended {
                self.progress.emit(Event::LayerStarted { layer: layer.digest.clone(), bytes: layer.size });
            }
            let blob = self.storage.begin_blob(BlobKind::Layer, &layer.digest, layer.size).await?;
            let error = match blob {
                Claim::Granted(staged) => {
                    return self.download(descriptor, layer, staged, tree).await.map(Brought::Downloaded);
                }
                Claim::Present => match self.unpack_stored(layer, tree).await {
                    Ok(()) => return Ok(Brought::Unpacked),
                    Err(error) => error,
                },
            };
            // Perhaps the blob in the store is not what its name says. Then it is fetched, once.
            let bad = self.storage.set_aside(BlobKind::Layer, &layer.digest).await?
                // Somebody else who met it may have been first.
                || !self.storage.has_layer(&layer.digest.to_string());
            if mended || !bad {
                return Err(error);
            }
            mended = true;
        }
    }

    /// Sees to the blob of a layer whose tree is there: it may have been taken away, since it was damaged.
    async fn complete(&self, descriptor: &Descriptor, layer: &LayerDescriptor) -> Result<Brought> {
        if self.storage.has_layer(&layer.digest.to_string()) {
            return Ok(Brought::Cached);
        }
        let claim = self.storage.begin_blob(BlobKind::Layer, &layer.digest, layer.size).await?;
        let Claim::Granted(staged) = claim else { return Ok(Brought::Cached) };
        // Nobody reads along.
        let (writer, _) = tail(staged.reader()?);
        let arrived = |bytes| self.progress.emit(Event::Downloaded { layer: layer.digest.clone(), bytes });
        let written = self.download_of(descriptor).run(staged, writer, &arrived, std::future::pending()).await?;
        let verified = written.staged.verify()?;
        let committed = self.tasks.spawn(move || verified.commit()).join().await?;
        Ok(Brought::Downloaded(committed.size()))
    }

    /// Downloads a blob and unpacks it on the way. Returns the number of bytes.
    async fn download(
        &self,
        descriptor: &Descriptor,
        layer: &LayerDescriptor,
        staged: Staged,
        tree: StagedTree,
    ) -> Result<u64> {
        let (writer, reader) = tail(staged.reader()?);
        let mut extraction = self.extract(tree, Box::new(reader));
        let mut extracted = None;
        let arrived = |bytes| self.progress.emit(Event::Downloaded { layer: layer.digest.clone(), bytes });
        let unwanted = refusal(&mut extraction, &mut extracted, descriptor.size);
        let written = self.download_of(descriptor).run(staged, writer, &arrived, unwanted).await;
        let verified = written.and_then(|Written { staged, tail }| Ok((staged.verify()?, tail)));
        let (verified, tail) = match verified {
            Ok(verified) => verified,
            Err(error) => {
                // The tail is gone, so the extraction ends. Its complaints are about bytes that count for nothing.
                if extracted.is_none() {
                    let _ = extraction.join().await;
                }
                return Err(error);
            }
        };
        tail.finish();
        let extracted = match extracted {
            Some(extracted) => extracted,
            None => extraction.join().await,
        };
        // Only now: a layer that is refused is of no use to anybody.
        let (tree, decoded) = extracted?;
        let committed: Committed = self.tasks.spawn(move || verified.commit()).join().await?;
        let bytes = committed.size();
        let unpacked = Unpacked { blob: committed.digest().clone(), blob_bytes: bytes, layer: decoded };
        self.commit(tree, unpacked).await.map(|()| bytes)
    }

    fn download_of<'b>(&'b self, descriptor: &'b Descriptor) -> Download<'b> {
        Download { source: self.source, descriptor, retry: self.retry, tasks: self.tasks }
    }

    /// Unpacks a blob that is in the store, and verifies it on the way.
    async fn unpack_stored(&self, layer: &LayerDescriptor, tree: StagedTree) -> Result<()> {
        let file = self.storage.open_layer(&layer.digest)?;
        let (blob, measured) = StoredBlob::new(file, &layer.digest, self.tasks.stop());
        let (tree, decoded) = self.extract(tree, Box::new(blob)).join().await?;
        let (blob, blob_bytes) = measured.finish();
        self.commit(tree, Unpacked { blob, blob_bytes, layer: decoded }).await
    }

    fn extract(&self, tree: StagedTree, blob: Box<dyn std::io::Read + Send>) -> Extraction {
        let unpacker = Arc::clone(&self.unpacker);
        let watch =
            Watch { progress: self.progress.clone(), cancel: self.tasks.stop(), budget: Some(self.budget.clone()) };
        self.tasks.spawn(move || {
            let dest = tree.directory_handle()?;
            let decoded = unpacker.unpack(blob, tree.layer(), dest, &watch)?;
            Ok((tree, decoded))
        })
    }

    async fn commit(&self, tree: StagedTree, unpacked: Unpacked) -> Result<()> {
        self.tasks.spawn(move || tree.verify(unpacked)?.commit().map(drop)).join().await
    }
}

/// Waits until an extraction says that a layer of `size` bytes must not be: then the rest of it need not be fetched. Never
/// ends where the extraction goes well, or fails for another reason: what it is told by a download that broke is no
/// verdict. What came of the extraction, if it has ended, is left in `extracted`.
///
/// A small layer is always fetched whole: so it is known whether what was refused is what its publisher made, or what
/// became of it on the way.
async fn refusal(extraction: &mut Extraction, extracted: &mut Option<Result<Extracted>>, size: u64) -> Error {
    if size > SMALL {
        let outcome = extraction.ended().await;
        match outcome {
            Err(error) if matches!(error.kind(), ErrorKind::Refused | ErrorKind::Integrity) => {
                *extracted = Some(Err(Error::Interrupted));
                return error.context("reading it before all of it had arrived");
            }
            outcome => *extracted = Some(outcome),
        }
    }
    std::future::pending().await
}

/// What the store calls a layer.
pub(super) fn describe(descriptor: &Descriptor, diff_id: Digest) -> LayerDescriptor {
    LayerDescriptor {
        digest: descriptor.digest.clone(),
        size: Some(descriptor.size),
        media_type: Some(descriptor.media_type.as_str().to_owned()),
        diff_id: Some(diff_id),
    }
}

/// Joins descriptors with their `DiffID`s, each blob once, in the order of their first appearance.
///
/// # Errors
/// [`Error::Refused`] if one blob is declared in two ways: it cannot be both.
pub(super) fn distinct(
    layers: &[Descriptor],
    diff_ids: &[Digest],
    manifest: &Digest,
) -> Result<Vec<(Descriptor, LayerDescriptor)>> {
    let mut distinct: Vec<(Descriptor, LayerDescriptor)> = Vec::with_capacity(layers.len());
    let mut seen = std::collections::HashMap::new();
    for (layer, diff_id) in layers.iter().zip(diff_ids) {
        let described = describe(layer, diff_id.clone());
        match seen.get(&described.digest).and_then(|&index: &usize| distinct.get(index)) {
            Some((_, first)) if *first == described => {}
            Some(_) => {
                return Err(Error::Refused {
                    subject: format!("the manifest {manifest}"),
                    reason: format!("it declares the layer {} in two ways", described.digest),
                });
            }
            None => {
                seen.insert(described.digest.clone(), distinct.len());
                distinct.push((layer.clone(), described));
            }
        }
    }
    Ok(distinct)
}
