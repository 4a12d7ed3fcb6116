//! From an image to a root filesystem, whole or not at all.

use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use cofferdam_core::Watch;
use cofferdam_tree::merge::{Merge, PreservedLayer};

use super::provide::LayerProvider;
use super::stage::{After, StagedRoot};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::progress::{Event, Progress};
use crate::store::{ImageObject, LayerDescriptor, Tree};
use crate::threads;
use crate::tree::{LayerRecord, LeftOut, Mode, TreeWriter, WriterOptions};
use crate::unpack::{ImageBudget, Layer, Unpacker};

/// How a root filesystem is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// By merging the layers' trees: fast when they are there, and shares content where the filesystem can.
    #[default]
    Copy,
    /// By applying the layers' blobs one after the other, without trees.
    Apply,
}

/// What making a root filesystem is done with.
#[derive(Clone, Debug)]
pub struct UnpackOptions {
    /// How.
    pub strategy: Strategy,
    /// Layers that are extracted at once, where their trees are missing.
    pub concurrency: NonZeroUsize,
    /// Whether the root filesystem has to outlive a power cut once it is there: it is whole or absent then. All that is
    /// unwritten in its file system is waited for. Without this, a power cut within the next half a minute or so can leave
    /// it with files without content.
    pub sync: bool,
    /// Where progress goes.
    pub progress: Progress,
    /// How the caller gives up.
    pub cancel: Cancel,
}

impl Default for UnpackOptions {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            concurrency: const { NonZeroUsize::new(2).unwrap() },
            sync: false,
            progress: Progress::none(),
            cancel: Cancel::new(),
        }
    }
}

impl UnpackOptions {
    fn after(&self) -> After {
        if self.sync { After::Sync } else { After::Nothing }
    }
}

/// A root filesystem that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// How it was made.
    pub strategy: Strategy,
    /// Attributes of its layers that it could not hold.
    pub left_out: LeftOut,
}

/// Makes an image's root filesystem at `dest`, which must be absent or an empty directory. Says how it was made: the rare
/// images that only applying gets right are applied, whatever the strategy. Blocks.
///
/// # Errors
///
/// [`Error::Usage`] for a destination that holds something, [`Error::Busy`] for one that is being filled or when a layer was
/// removed meanwhile; else those of extracting layers. The destination is then as it was.
///
/// A destination that is a mount point is filled in place. If the process is killed meanwhile, part of it stays there.
pub fn unpack(
    image: &ImageObject,
    layers: &dyn LayerProvider,
    unpacker: &Unpacker,
    dest: &Path,
    options: &UnpackOptions,
) -> Result<Made> {
    let _lease = layers.lease(image, &options.cancel)?;
    let strategy = match options.strategy {
        Strategy::Apply => Strategy::Apply,
        Strategy::Copy => match by_copy(image, layers, unpacker, dest, options)? {
            Copied::Done(left_out) => return Ok(Made { strategy: Strategy::Copy, left_out }),
            Copied::Ambiguous(error) => {
                tracing::info!("{}: {}; applying the layers instead", image.reference, error.root());
                Strategy::Apply
            }
        },
    };
    by_apply(image, layers, unpacker, dest, options).map(|left_out| Made { strategy, left_out })
}

/// What became of a merge that did not fail.
enum Copied {
    Done(LeftOut),
    /// It would not be right.
    Ambiguous(Error),
}

pub(super) fn writer_options(unpacker: &Unpacker, cancel: &Cancel) -> WriterOptions {
    let (limits, cancel) = (unpacker.limits().clone(), cancel.clone());
    WriterOptions { limits, cancel, lossy: unpacker.lossy(), ..WriterOptions::new(Mode::Apply) }
}

fn by_copy(
    image: &ImageObject,
    layers: &dyn LayerProvider,
    unpacker: &Unpacker,
    dest: &Path,
    options: &UnpackOptions,
) -> Result<Copied> {
    let staged = StagedRoot::create(dest)?;
    let mut trees = trees(image, layers, unpacker.limits(), options)?;
    let mut merge = Merge::new(staged.root()?, writer_options(unpacker, &options.cancel))?;
    let of = trees.len();
    let mut left_out = LeftOut::default();
    for (index, (tree, layer)) in trees.iter_mut().zip(&image.layers).enumerate() {
        options.progress.emit(Event::Merging { layer: index + 1, of });
        let record = match tree.layer_record() {
            // It counts no more: the layer is extracted again.
            Err(error) if matches!(error.root(), Error::Damaged { .. }) => {
                tracing::warn!("{}", error.root());
                let (progress, cancel) = (options.progress.clone(), options.cancel.clone());
                let watch = Watch { progress, cancel, budget: None };
                *tree = layers.tree(layer, &watch).map_err(|error| layers.explain(error, layer, &image.reference))?;
                tree.layer_record()?
            }
            other => other?,
        };
        let record = LayerRecord::from_json(&record)?;
        match merge.add(PreservedLayer { tree: tree.directory(), record: &record }) {
            Err(error) if matches!(error.root(), Error::Unsupported { .. }) => return Ok(Copied::Ambiguous(error)),
            merged => left_out.add(&merged?),
        }
    }
    merge.finish()?;
    trees.iter().try_for_each(Tree::check_whole)?;
    staged.publish(options.after()).map(|()| Copied::Done(left_out))
}

/// The trees of all layers, in order, several extracted at once. What they decode to in all is limited.
pub(super) fn trees(
    image: &ImageObject,
    layers: &dyn LayerProvider,
    limits: &Limits,
    options: &UnpackOptions,
) -> Result<Vec<Tree>> {
    let budget = ImageBudget::new(limits);
    let (progress, cancel) = (options.progress.clone(), options.cancel.clone());
    let watch = Watch { progress, cancel, budget: Some(budget.clone()) };
    let tree = |layer: &LayerDescriptor| {
        let tree = layers.tree(layer, &watch)?;
        let record = tree.record();
        budget.count(&layer.digest, record.decoded_bytes.unwrap_or(record.blob_bytes))?;
        Ok(tree)
    };
    let next = AtomicUsize::new(0);
    let slots: Vec<Mutex<Option<Result<Tree>>>> = image.layers.iter().map(|_| Mutex::default()).collect();
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((layer, slot)) = image.layers.get(index).zip(slots.get(index)) else { return };
            let tree = tree(layer).map_err(|error| layers.explain(error, layer, &image.reference));
            if tree.is_err() {
                next.store(image.layers.len(), Ordering::Relaxed); // the others need not begin
            }
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(tree);
        }
    };
    threads::share("cofferdam-unpack", options.concurrency.get().min(image.layers.len()), work);
    let results = slots.into_iter().filter_map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner));
    let trees = results.collect::<Result<Vec<_>>>()?;
    if trees.len() == image.layers.len() { Ok(trees) } else { Err(Error::Interrupted) }
}

fn by_apply(
    image: &ImageObject,
    layers: &dyn LayerProvider,
    unpacker: &Unpacker,
    dest: &Path,
    options: &UnpackOptions,
) -> Result<LeftOut> {
    let staged = StagedRoot::create(dest)?;
    let left_out = apply(&image.reference, &image.layers, layers, unpacker, staged.root()?, options)?;
    staged.publish(options.after()).map(|()| left_out)
}

/// Applies layers, lowest first, to the empty directory `root`. `image` is the image's reference.
pub(super) fn apply(
    image: &str,
    descriptors: &[LayerDescriptor],
    layers: &dyn LayerProvider,
    unpacker: &Unpacker,
    root: OwnedFd,
    options: &UnpackOptions,
) -> Result<LeftOut> {
    let mut left_out = LeftOut::default();
    let mut writer = TreeWriter::new(root, writer_options(unpacker, &options.cancel))?;
    let budget = ImageBudget::new(unpacker.limits());
    for (index, descriptor) in descriptors.iter().enumerate() {
        options.progress.emit(Event::Merging { layer: index + 1, of: descriptors.len() });
        let applied = apply_layer(descriptor, layers, unpacker, writer, &budget, options);
        let applied = applied.map_err(|error| layers.explain(error, descriptor, image))?;
        writer = applied.0;
        left_out.add(&applied.1.left_out);
    }
    writer.finish().map(|()| left_out)
}

/// Applies one layer's blob. Returns the writer, and what was in the layer.
fn apply_layer(
    descriptor: &LayerDescriptor,
    layers: &dyn LayerProvider,
    unpacker: &Unpacker,
    writer: TreeWriter,
    budget: &ImageBudget,
    options: &UnpackOptions,
) -> Result<(TreeWriter, LayerRecord)> {
    let blob = layers.blob(descriptor)?;
    let size = blob.metadata().map_err(|e| Error::io("look at", descriptor.digest.hex().as_bytes(), e))?.len();
    check_size(descriptor, size)?;
    let layer = Layer::new(blob)
        .declared(descriptor)
        .with_size(size)
        .with_cancel(options.cancel.clone())
        .with_budget(Some(budget.clone()))
        .hashing_blob(descriptor.digest.algorithm())
        .with_progress(Some(descriptor.digest.clone()), options.progress.clone());
    let (outcome, mut writer) = unpacker.extract(layer, writer);
    let report = outcome?;
    if let Some(actual) = report.blob.filter(|actual| *actual != descriptor.digest) {
        let (subject, expected) = (format!("layer {}", descriptor.digest), descriptor.digest.clone());
        return Err(Error::DigestMismatch { subject, expected, actual });
    }
    let record = writer.finish_layer();
    let record = record.map_err(|error| error.context(format!("extracting layer {}", descriptor.digest)))?;
    Ok((writer, record))
}

fn check_size(descriptor: &LayerDescriptor, actual: u64) -> Result<()> {
    match descriptor.size {
        Some(expected) if expected != actual => {
            Err(Error::SizeMismatch { subject: format!("layer {}", descriptor.digest), expected, actual })
        }
        _ => Ok(()),
    }
}
