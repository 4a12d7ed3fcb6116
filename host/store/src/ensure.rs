//! A layer's tree, whatever it takes: found, waited for, or made.

use std::fs::File;
use std::io::Read as _;

use cofferdam_core::Watch;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, ErrorKind, Result};
use cofferdam_core::progress::Event;
use cofferdam_documents::LayerDescriptor;
use cofferdam_tree::LayerUnpacker;

use crate::stage::Claim;
use crate::stage_tree::StagedTree;
use crate::trees::{Tree, Trees};
use crate::unpacker::{Unpacked, unpack_stored};

/// How many of a blob's first bytes decide how it is read, where its media type is not known.
const FIRST_BYTES: u64 = 16;

/// Returns the identity of the reader that the unpacker has for a layer. Looks at the first bytes of the blob where no media type is
/// known; a blob that is not there counts as an archive without compression.
pub(super) fn reader_of(
    unpacker: &dyn LayerUnpacker,
    layer: &LayerDescriptor,
    blob: impl Fn() -> Result<File>,
) -> Result<Option<Digest>> {
    let mut first = Vec::new();
    if layer.media_type.is_none() {
        match blob() {
            Ok(file) => file
                .take(FIRST_BYTES)
                .read_to_end(&mut first)
                .map_err(|e| Error::io("read", layer.digest.to_string().as_bytes(), e))?,
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    unpacker.reader(layer.media_type.as_deref(), &first)
}

impl Trees {
    /// The tree of a layer: as it is there, or else extracted from `blob`. All that the descriptor claims is checked, also
    /// against a tree that is there. Of many who ask at once, in any process, one does the work and the others wait for it,
    /// until `watch` is cancelled. Blocks the thread.
    pub fn ensure(
        &self,
        layer: &LayerDescriptor,
        unpacker: &dyn LayerUnpacker,
        blob: impl Fn() -> Result<File>,
        watch: &Watch,
    ) -> Result<Tree> {
        let reader = reader_of(unpacker, layer, &blob)?;
        self.ensure_with(layer, reader.as_ref(), watch, |staged| {
            // No size: nothing is fetched.
            watch.progress.emit(Event::LayerStarted { layer: layer.digest.clone(), bytes: None });
            let unpacked = unpack_stored(unpacker, blob()?, staged.layer(), staged.directory_handle()?, watch)?;
            watch.progress.emit(Event::LayerDone { layer: layer.digest.clone() });
            Ok(unpacked)
        })
    }

    /// The same, with the tree made by `make`, whose reader this is.
    pub fn ensure_with(
        &self,
        layer: &LayerDescriptor,
        reader: Option<&Digest>,
        watch: &Watch,
        make: impl Fn(&StagedTree) -> Result<Unpacked>,
    ) -> Result<Tree> {
        let ensured = || {
            loop {
                watch.cancel.check()?;
                if let Some(tree) = self.open(layer, reader)? {
                    return Ok(tree);
                }
                // Present, but not when it was opened: only if it was replaced in between.
                if let Claim::Granted(staged) = self.begin_unless(layer, reader, Some(&watch.cancel))? {
                    let made = make(&staged)?;
                    return staged.verify(made)?.commit();
                }
            }
        };
        ensured().map_err(|error: Error| error.context(format!("extracting layer {}", layer.digest)))
    }
}
