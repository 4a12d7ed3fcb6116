//! What to give to overlayfs so that a mount shows an image's root filesystem, without copying it.
//!
//! A layer's own tree will do as a lower directory as it is, unless
//!
//! * it holds removals: then it is extracted a second time, with the removals in the form that overlayfs knows;
//! * what it says depends on the layers below: directories that it does not list but needs and that are there below with other
//!   metadata, or of which it only removes something, links to files below, names that may go through links below. overlayfs
//!   would show the layer's guess. Then the layers up to this one are merged into one tree.
//!
//! So the mount shows what `unpack` makes. Device numbers 0:0, by which overlayfs means a removal, cannot be shown and are
//! refused. Source: the kernel's `Documentation/filesystems/overlayfs.rst`.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode as Permissions, OFlags};
use rustix::io::Errno;

use super::merge::{Merge, PreservedLayer};
use super::provide::LayerProvider as _;
use super::source;
use super::unpack::{UnpackOptions, trees, writer_options};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::store::{
    ImageObject, ImageStorage, LayerDescriptor, StagedTree, Tree, Trees, Unpacked, Watch, merged_name, overlay_form,
    overlay_name, readers_of, root_name,
};
use crate::tree::entry::TreePath;
use crate::tree::{Explain as _, LayerRecord, LeftOut, Marker, TreeWriter};
use crate::unpack::Unpacker;

/// The most lower directories that a mount gets: the kernel's `OVL_MAX_STACK`.
const MOST: usize = 500;

/// What to give to overlayfs. Nothing frees these directories while this lives, nor while the image is in the store.
#[derive(Debug)]
pub struct MountSpec {
    lower: Vec<Tree>,
}

impl MountSpec {
    /// The lower directories, two at least, topmost first, as `lowerdir=` wants them. They must not be written to.
    pub fn lower_dirs(&self) -> impl ExactSizeIterator<Item = PathBuf> {
        self.lower.iter().rev().map(Tree::path)
    }

    /// Attributes of the layers that these directories could not hold.
    pub fn left_out(&self) -> LeftOut {
        let mut left_out = LeftOut::default();
        self.lower.iter().for_each(|tree| left_out.add(&tree.record().left_out));
        left_out
    }
}

/// Makes what is missing for a mount of `image`, which is in `storage`. Blocks.
///
/// # Errors
///
/// Those of extracting layers; [`Error::Unsupported`] for an image that overlayfs cannot show, and for rare images that only
/// applying gets right.
pub fn mount_spec(
    image: &ImageObject,
    storage: &ImageStorage,
    unpacker: &Unpacker,
    options: &UnpackOptions,
) -> Result<MountSpec> {
    let _lease = storage.lease_object(image, &options.cancel)?;
    let layers = trees(image, storage, unpacker.limits(), options)?;
    let making = Making { image, layers: &layers, storage, made: storage.overlay_trees()?, unpacker, options };
    making.run().map(|lower| MountSpec { lower })
}

struct Making<'a> {
    image: &'a ImageObject,
    layers: &'a [Tree],
    storage: &'a ImageStorage,
    made: Trees,
    unpacker: &'a Unpacker,
    options: &'a UnpackOptions,
}

/// How a layer becomes a lower directory.
enum Form {
    Nothing,
    AsItIs,
    Overlay,
    Merged,
}

/// What the lower directories are to be.
struct Plan {
    /// Layers and their forms, lowest first. Only the first may be merged.
    lower: Vec<(usize, Form)>,
    /// The layer that says what the root directory is like, if one does.
    root: Option<usize>,
    /// Whether the topmost of these shows that.
    root_is_right: bool,
}

impl Making<'_> {
    fn run(&self) -> Result<Vec<Tree>> {
        let plan = self.plan()?;
        let mut lower = Vec::with_capacity(plan.lower.len() + 1);
        for (index, form) in plan.lower {
            lower.push(match form {
                Form::Overlay => self.overlay(index)?,
                Form::Merged => self.merged(index)?,
                Form::Nothing | Form::AsItIs => self.layer(index)?,
            });
        }
        // A mount without an upper directory wants two.
        if !plan.root_is_right || lower.len() < 2 {
            lower.push(self.root(plan.root.unwrap_or(0))?);
        }
        Ok(lower)
    }

    fn plan(&self) -> Result<Plan> {
        let mut plan = Plan { lower: Vec::new(), root: None, root_is_right: true };
        let mut below: Vec<&Tree> = Vec::new();
        for (index, tree) in self.layers.iter().enumerate() {
            self.options.cancel.check()?;
            let record = LayerRecord::from_json(&tree.layer_record()?)?;
            if record.has_removal_device() {
                return Err(unsupported("a device numbered 0:0, by which it means a removal,"));
            }
            if record.root {
                plan.root = Some(index);
            }
            let repeated = below.iter().any(|other| other.record().digest == tree.record().digest);
            let form = match form(&record, &below, repeated)? {
                // A tree may stand for its blob.
                Form::Overlay if !self.storage.has_layer(&tree.record().digest.to_string()) => Form::Merged,
                form => form,
            };
            match form {
                Form::Nothing => continue,
                // One is for the root directory.
                form @ (Form::AsItIs | Form::Overlay) if plan.lower.len() + 1 < MOST => {
                    plan.lower.push((index, form));
                    plan.root_is_right = plan.root.is_none_or(|root| root == index);
                }
                _ => {
                    plan.lower = vec![(index, Form::Merged)];
                    plan.root_is_right = true;
                }
            }
            below.push(tree);
        }
        if plan.lower.is_empty() {
            // Layers, but nothing in them.
            let last = self.layers.len().checked_sub(1).ok_or_else(|| unsupported("an image without layers"))?;
            plan.lower.push((last, Form::Merged));
        }
        Ok(plan)
    }

    fn descriptor(&self, index: usize) -> Result<&LayerDescriptor> {
        self.image.layers.get(index).ok_or(Error::Interrupted)
    }

    fn watch(&self) -> Watch {
        Watch { progress: self.options.progress.clone(), cancel: self.options.cancel.clone(), budget: None }
    }

    /// A layer's own tree, held once more.
    fn layer(&self, index: usize) -> Result<Tree> {
        self.storage.ensure_tree_watched(self.descriptor(index)?, &self.watch())
    }

    /// A layer with its removals in overlayfs's form.
    fn overlay(&self, index: usize) -> Result<Tree> {
        let layer = self.descriptor(index)?;
        let reader = self.unpacker.extensions().reader_identity(layer.media_type.as_deref(), &[])?;
        let name = LayerDescriptor::of(overlay_name(layer));
        self.made
            .ensure_with(&name, reader.as_ref(), &self.watch(), |staged| {
                let blob = self.storage.open_layer(&layer.digest)?;
                let left_out = overlay_form(self.unpacker, blob, layer, staged.directory_handle()?, &self.watch())?;
                derived(staged, reader.as_ref(), &left_out)
            })
            .map_err(|error| self.storage.explain(error, layer, &self.image.reference))
    }

    /// The layers up to one, made one.
    fn merged(&self, index: usize) -> Result<Tree> {
        let layers = self.layers.get(..=index).unwrap_or_default();
        let name = LayerDescriptor::of(merged_name(self.image.layers.get(..=index).unwrap_or_default()));
        let reader = readers_of(layers);
        self.made.ensure_with(&name, reader.as_ref(), &self.watch(), |staged| {
            let options = writer_options(self.unpacker, &self.options.cancel);
            let mut merge = Merge::new(staged.directory_handle()?, options)?;
            let mut left_out = LeftOut::default();
            for tree in layers {
                let record = LayerRecord::from_json(&tree.layer_record()?)?;
                left_out.add(&merge.add(PreservedLayer { tree: tree.directory(), record: &record })?);
            }
            merge.finish()?;
            layers.iter().try_for_each(Tree::check_whole)?;
            derived(staged, reader.as_ref(), &left_out)
        })
    }

    /// A root directory like that of a layer, without content.
    fn root(&self, index: usize) -> Result<Tree> {
        let tree = self.layers.get(index).ok_or(Error::Interrupted)?;
        let name = LayerDescriptor::of(root_name(self.descriptor(index)?));
        let reader = readers_of(std::slice::from_ref(tree));
        self.made.ensure_with(&name, reader.as_ref(), &self.watch(), |staged| {
            let from: OwnedFd = tree.directory().try_clone_to_owned().map_err(|e| Error::io("hold", b"/", e))?;
            let options = writer_options(self.unpacker, &self.options.cancel);
            let mut writer = TreeWriter::new(staged.directory_handle()?, options)?;
            writer.put_directory(&TreePath::root(), &source::directory(&from, b"/")?)?;
            let left_out = writer.finish_layer()?.left_out;
            writer.finish()?;
            tree.check_whole()?;
            derived(staged, reader.as_ref(), &left_out)
        })
    }
}

/// What is said of a tree that was made of trees that were verified, and of what it could not hold of them.
fn derived(staged: &StagedTree, reader: Option<&Digest>, left_out: &LeftOut) -> Result<Unpacked> {
    let digest = staged.layer().digest.clone();
    let record = serde_json::to_vec(&serde_json::json!({ "left_out": left_out }))
        .map_err(|error| Error::io("describe", b"a merged tree", error))?;
    Ok(Unpacked {
        blob: digest.clone(),
        blob_bytes: 0,
        decoded_bytes: 0,
        diff_id: digest,
        record,
        reader: reader.cloned(),
        reports: Vec::new(),
    })
}

fn unsupported(what: &str) -> Error {
    Error::Unsupported { what: format!("{what} in a mount of overlayfs") }
}

fn form(record: &LayerRecord, below: &[&Tree], repeated: bool) -> Result<Form> {
    if record.counts.entries == 0 {
        return Ok(Form::Nothing);
    }
    // Directories that are there for markers alone would be shown, and overlayfs does not look whether the root is opaque.
    let root_is_opaque = record.markers.iter().any(|marker| matches!(marker, Marker::Opaque(path) if path.is_root()));
    let depends = !record.links.is_empty() || !record.late.is_empty() || !record.marker_dirs.is_empty();
    if repeated || depends || root_is_opaque {
        return Ok(Form::Merged);
    }
    for path in &record.implied {
        for tree in below {
            if is_there(tree.directory(), path.as_bytes())? {
                return Ok(Form::Merged);
            }
        }
    }
    Ok(match (record.markers.is_empty(), below.is_empty()) {
        (true, _) => Form::AsItIs,
        // Nothing is below that could be removed.
        (false, true) => Form::Merged,
        (false, false) => Form::Overlay,
    })
}

/// Whether a tree has something at a path, or on the way to it something that is no directory.
fn is_there(tree: BorrowedFd<'_>, path: &[u8]) -> Result<bool> {
    let mut dir: Option<OwnedFd> = None;
    for name in path.split(|&byte| byte == b'/') {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let at = dir.as_ref().map_or(tree, |dir| dir.as_fd());
        match rustix::fs::openat(at, name, flags, Permissions::empty()) {
            Ok(next) => dir = Some(next),
            Err(Errno::NOENT) => return Ok(false),
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(true),
            Err(errno) => return Err(errno).explain("look at", path),
        }
    }
    Ok(true)
}
