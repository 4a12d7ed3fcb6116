//! What to give to overlayfs so that a mount shows an image's root filesystem, without copying it.
//!
//! `plan.rs` decides for each layer how it becomes a lower directory, so that the mount shows what `unpack` makes. Device numbers 0:0, by
//! which overlayfs means a removal, cannot be shown and are refused. Source: the kernel's
//! `Documentation/filesystems/overlayfs.rst`.
//!
//! # Names
//!
//! The options of `mount(2)` must fit into a page, and a value of `fsconfig(2)` into 255 bytes: too little for the paths of many
//! directories. So a directory of links to them is made, with names of one or two letters, from which to mount:
//!
//! ```text
//! overlay/extracted/sha256-<name of the image's layers>/0   -> ../../../extracted/sha256-<layer>
//!                                                       1   -> ../sha256-<made for overlayfs>
//! ```
//!
//! The links are the plan as well. The record of that directory says which trees it was made for, and counts for no other ones.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use cofferdam_core::Watch;
use cofferdam_tree::merge::source;
use cofferdam_tree::merge::{Merge, PreservedLayer};
use cofferdam_tree::{Mode, UnpackedLayer};
use rustix::io::Errno;

use super::plan::{Form, Plan, Planner, link_names};
use super::provide::LayerProvider as _;
use super::stage;
use super::unpack::{UnpackOptions, apply, trees, writer_options};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::store::{
    ImageObject, ImageStorage, LayerDescriptor, StagedTree, Tree, Trees, Unpacked, check_claims, links_name, measured,
    merged_name, overlay_name, plain_root_name, readers_of, root_name, trees_identity,
};
use crate::tree::entry::TreePath;
use crate::tree::{Explain as _, LayerRecord, LeftOut, TreeWriter};
use crate::unpack::{Unpacker, layer_of};

/// What to give to overlayfs. Nothing frees these directories while this lives, nor while the image is in the store.
#[derive(Debug)]
pub struct MountSpec {
    lower: Vec<Tree>,
    links: Tree,
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

    /// The directory to mount from: in it, each of [`MountSpec::names`] is a link to a lower directory.
    pub fn chdir(&self) -> PathBuf {
        self.links.path()
    }

    /// The lower directories once more, topmost first, as short names in [`MountSpec::chdir`]. Joined by `:`, those of the most
    /// layers that overlayfs takes fit into a page, and each is a value for `lowerdir+` of `fsconfig(2)`.
    pub fn names(&self) -> impl ExactSizeIterator<Item = String> {
        link_names(self.lower.len())
    }
}

/// Makes what is missing for a mount of `image`, which is in `storage`. Blocks.
///
/// # Errors
///
/// Those of extracting layers; [`Error::Unsupported`] for an image that overlayfs cannot show.
pub fn mount_spec(
    image: &ImageObject,
    storage: &ImageStorage,
    unpacker: &Unpacker,
    options: &UnpackOptions,
) -> Result<MountSpec> {
    let _lease = storage.lease_object(image, &options.cancel)?;
    let layers = trees(image, storage, unpacker.limits(), options)?;
    let making = Making { image, layers: &layers, storage, made: storage.overlay_trees()?, unpacker, options };
    making.run()
}

struct Making<'a> {
    image: &'a ImageObject,
    layers: &'a [Tree],
    storage: &'a ImageStorage,
    made: Trees,
    unpacker: &'a Unpacker,
    options: &'a UnpackOptions,
}

/// How often somebody else may put another plan in the place of ours.
const ATTEMPTS: usize = 4;

impl Making<'_> {
    fn run(&self) -> Result<MountSpec> {
        let identity = trees_identity(self.layers);
        let name = LayerDescriptor::of(links_name(&self.image.layers));
        for _ in 0..ATTEMPTS {
            let kept = match self.made.open(&name, Some(&identity))? {
                Some(links) => self.kept_plan(&links)?,
                None => None,
            };
            let plan = if let Some(plan) = kept {
                plan
            } else {
                let has_blob = |tree: &Tree| self.storage.has_layer(&tree.record().digest.to_string());
                Planner::new(self.layers, &self.options.cancel).plan(has_blob)?
            };
            let lower = plan.0.iter().map(|(index, form)| self.make(*index, *form)).collect::<Result<Vec<_>>>()?;
            let links = self.made.ensure_with(&name, Some(&identity), &self.watch(), |staged| {
                self.link(staged, &plan)?;
                derived(staged, Some(&identity), &LeftOut::default())
            })?;
            match self.kept_plan(&links)? {
                Some(kept) if self.targets(&kept)? == self.targets(&plan)? => return Ok(MountSpec { lower, links }),
                // Somebody else's, who had other blobs.
                Some(_) => {}
                None => self.made.retire_tree(links)?,
            }
        }
        Err(Error::Busy { what: format!("the mount of {}", self.image.reference) })
    }

    fn make(&self, index: usize, form: Form) -> Result<Tree> {
        self.options.cancel.check()?;
        match form {
            Form::AsItIs => self.layer(index),
            Form::Overlay => self.overlay(index),
            Form::Merged => self.merged(index),
            Form::Root | Form::PlainRoot => self.root(index, form),
        }
    }

    /// Where the link to a lower directory leads.
    fn target(&self, index: usize, form: Form) -> Result<String> {
        let layer = self.descriptor(index)?;
        let made = match form {
            Form::AsItIs => return Ok(format!("../../../extracted/{}", layer.digest.file_stem())),
            Form::Overlay => overlay_name(layer),
            Form::Merged => merged_name(self.image.layers.get(..=index).unwrap_or_default()),
            Form::Root => root_name(layer),
            Form::PlainRoot => plain_root_name(),
        };
        Ok(format!("../{}", made.file_stem()))
    }

    fn targets(&self, plan: &Plan) -> Result<Vec<String>> {
        plan.0.iter().map(|(index, form)| self.target(*index, *form)).collect()
    }

    fn link(&self, staged: &StagedTree, plan: &Plan) -> Result<()> {
        for (target, name) in self.targets(plan)?.into_iter().rev().zip(link_names(plan.0.len())) {
            rustix::fs::symlinkat(target, staged.directory(), &name).explain("create", name.as_bytes())?;
        }
        Ok(())
    }

    /// Reads a plan back from its links. Returns nothing if they are not those of a plan for these layers.
    fn kept_plan(&self, links: &Tree) -> Result<Option<Plan>> {
        let mut known = HashMap::new();
        for index in 0..self.image.layers.len() {
            for form in [Form::AsItIs, Form::Overlay, Form::Merged, Form::Root, Form::PlainRoot] {
                // A layer that comes twice is known by its first place, and is merged in its second.
                known.entry(self.target(index, form)?).or_insert((index, form));
            }
        }
        let mut plan = Vec::new();
        for name in link_names(known.len()) {
            match rustix::fs::readlinkat(links.directory(), &name, Vec::new()) {
                Ok(target) => match target.to_str().ok().and_then(|target| known.get(target)) {
                    Some(part) => plan.push(*part),
                    None => return Ok(None),
                },
                Err(Errno::NOENT) => break,
                Err(Errno::INVAL) => return Ok(None),
                Err(errno) => return Err(Error::io("read the link", name.as_bytes(), errno)),
            }
        }
        plan.reverse();
        Ok((plan.len() >= 2).then_some(Plan(plan)))
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
            let left_out = match self.merge(layers, staged) {
                // Only applying gets it right.
                Err(error) if matches!(error.root(), Error::Unsupported { .. }) => {
                    tracing::info!("{}: {}; applying the layers instead", self.image.reference, error.root());
                    let root = staged.directory_handle()?;
                    stage::clear(&root)?;
                    stage::plain(&root).explain("prepare", b"/")?;
                    let image = self.image.layers.get(..=index).unwrap_or_default();
                    apply(&self.image.reference, image, self.storage, self.unpacker, root, self.options)?
                }
                merged => merged?,
            };
            derived(staged, reader.as_ref(), &left_out)
        })
    }

    fn merge(&self, layers: &[Tree], staged: &StagedTree) -> Result<LeftOut> {
        let options = writer_options(self.unpacker, &self.options.cancel);
        let mut merge = Merge::new(staged.directory_handle()?, options)?;
        let mut left_out = LeftOut::default();
        for tree in layers {
            let record = LayerRecord::from_json(&tree.layer_record()?)?;
            left_out.add(&merge.add(PreservedLayer { tree: tree.directory(), record: &record })?);
        }
        merge.finish()?;
        layers.iter().try_for_each(Tree::check_whole)?;
        Ok(left_out)
    }

    /// A root directory without content: like that of a layer, or as it is when no layer lists it.
    fn root(&self, index: usize, form: Form) -> Result<Tree> {
        if form == Form::PlainRoot {
            let name = LayerDescriptor::of(plain_root_name());
            return self
                .made
                .ensure_with(&name, None, &self.watch(), |staged| derived(staged, None, &LeftOut::default()));
        }
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

/// Unpacks a layer alone into the empty directory `dest`, with its whiteouts as overlayfs has them. Returns the attributes that
/// `dest` could not hold. Checks all that the descriptor declares.
fn overlay_form(
    unpacker: &Unpacker,
    blob: File,
    layer: &LayerDescriptor,
    dest: OwnedFd,
    watch: &Watch,
) -> Result<LeftOut> {
    let (blob, sized, measured) = measured(blob, layer, &watch.cancel)?;
    let source = layer_of(Box::new(blob), &sized, watch);
    let (report, record) = unpacker.unpack_alone(source, dest, Mode::Overlay, &watch.cancel)?;
    let (blob, blob_bytes) = measured.finish();
    let unpacked = UnpackedLayer {
        diff_id: report.diff_id,
        decoded_bytes: report.decoded_bytes,
        record: Vec::new(),
        reader: report.reader,
        reports: Vec::new(),
    };
    check_claims(layer, &Unpacked { blob, blob_bytes, layer: unpacked })?;
    Ok(record.left_out)
}

/// What is said of a tree that was made of trees that were verified, and of what it could not hold of them.
fn derived(staged: &StagedTree, reader: Option<&Digest>, left_out: &LeftOut) -> Result<Unpacked> {
    let digest = staged.layer().digest.clone();
    let record = serde_json::to_vec(&serde_json::json!({ "left_out": left_out }))
        .map_err(|error| Error::io("describe", b"a merged tree", error))?;
    let layer = UnpackedLayer {
        diff_id: digest.clone(),
        decoded_bytes: 0,
        record,
        reader: reader.cloned(),
        reports: Vec::new(),
    };
    Ok(Unpacked { blob: digest, blob_bytes: 0, layer })
}
