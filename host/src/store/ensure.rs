//! A layer's tree, whatever it takes: found, waited for, or made.

use std::fs::File;

use crate::error::{Error, Result};
use crate::progress::Event;
use crate::store::image::LayerDescriptor;
use crate::store::stage::Claim;
use crate::store::stage_tree::StagedTree;
use crate::store::trees::{Tree, Trees};
use crate::store::unpacker::{LayerUnpacker, Unpacked, Watch};

impl Trees {
    /// The tree of a layer: as it is there, or else extracted from `blob`. All that the descriptor claims is checked, also
    /// against a tree that is there. Of many who ask at once, in any process, one does the work and the others wait for it,
    /// until `watch` is cancelled. Blocks the thread.
    pub(crate) fn ensure(
        &self,
        layer: &LayerDescriptor,
        unpacker: &dyn LayerUnpacker,
        blob: impl Fn() -> Result<File>,
        watch: &Watch,
    ) -> Result<Tree> {
        self.ensure_with(layer, watch, |staged| {
            // No size: nothing is fetched.
            watch.progress.emit(Event::LayerStarted { layer: layer.digest.clone(), bytes: None });
            let unpacked = unpacker.unpack(blob()?, staged.layer(), staged.directory_handle()?, watch)?;
            watch.progress.emit(Event::LayerDone { layer: layer.digest.clone() });
            Ok(unpacked)
        })
    }

    /// The same, with the tree made by `make`.
    pub(crate) fn ensure_with(
        &self,
        layer: &LayerDescriptor,
        watch: &Watch,
        make: impl Fn(&StagedTree) -> Result<Unpacked>,
    ) -> Result<Tree> {
        let ensured = || {
            loop {
                watch.cancel.check()?;
                if let Some(tree) = self.open(layer)? {
                    return Ok(tree);
                }
                // Present, but not when it was opened: only if it was replaced in between.
                if let Claim::Granted(staged) = self.begin_unless(layer, Some(&watch.cancel))? {
                    let made = make(&staged)?;
                    return staged.verify(made)?.commit();
                }
            }
        };
        ensured().map_err(|error: Error| error.context(format!("extracting layer {}", layer.digest)))
    }
}
