//! Several layers onto one directory, in apply mode: the reference's way to make a root filesystem.

use std::io::Read;
use std::path::{Path, PathBuf};

use cofferdam_core::ambient;
use cofferdam_core::error::{Error, Result};
use cofferdam_tree::{Mode, TreeWriter, WriterOptions};

use super::shared::shared;
use super::{ImageBudget, Layer, Unpacker};

/// Applies layers to a directory, lowest first.
///
/// Each layer is whole when its call returns: its hard links are made and the times of its directories are set then, so
/// there is nothing that [`LayerExtractor::finalize`] could forget if nobody calls it.
///
/// After an error the directory holds parts of the layer, and further layers are refused.
#[derive(Debug)]
pub struct LayerExtractor {
    dest: PathBuf,
    unpacker: Option<Unpacker>,
    /// What all layers may decode to: as those of one image.
    budget: Option<ImageBudget>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// No layer yet; the destination was not touched.
    New,
    /// Between layers.
    Ready(Box<TreeWriter>),
    /// A layer failed.
    Failed,
}

impl LayerExtractor {
    /// Applies layers to `dest`, which is made when the first layer comes if it is absent.
    pub fn new(dest: impl AsRef<Path>) -> Self {
        Self { dest: dest.as_ref().to_owned(), unpacker: None, budget: None, state: State::New }
    }

    /// Uses these guests and limits instead of the defaults.
    #[must_use]
    pub fn with_unpacker(mut self, unpacker: Unpacker) -> Self {
        self.unpacker = Some(unpacker);
        self
    }

    /// Applies the layer in a file, compressed or not. Returns the bytes of its files: what their data takes, without holes. Blocks.
    pub fn extract_tarball(&mut self, path: impl AsRef<Path>) -> Result<u64> {
        let path = path.as_ref();
        let (blob, size) = ambient::open_blob(path)?;
        let mut layer = Layer::new(blob).named(path.display().to_string());
        if let Some(size) = size {
            layer = layer.with_size(size);
        }
        self.extract(layer)
    }

    /// Applies the layer that a reader gives, compressed or not. Returns the bytes of its files. Blocks.
    pub fn extract_reader(&mut self, reader: impl Read + Send + 'static) -> Result<u64> {
        self.extract(Layer::new(reader))
    }

    /// Applies a layer of which more is known, such as its `DiffID`. Returns the bytes of its files. Blocks.
    pub fn extract(&mut self, layer: Layer) -> Result<u64> {
        let unpacker = match &self.unpacker {
            Some(unpacker) => unpacker.clone(),
            None => shared()?,
        };
        let writer = match std::mem::replace(&mut self.state, State::Failed) {
            State::Ready(writer) => *writer,
            State::New => {
                let options = WriterOptions { limits: unpacker.limits().clone(), ..WriterOptions::new(Mode::Apply) };
                TreeWriter::new(ambient::open_dest(&self.dest)?, options)?
            }
            State::Failed => {
                return Err(Error::Usage {
                    reason: "a layer before this one failed, so the tree is not whole".into(),
                    hint: Some("begin again with an empty directory".into()),
                });
            }
        };
        let budget = self.budget.get_or_insert_with(|| ImageBudget::new(unpacker.limits())).clone();
        let (outcome, mut writer) = unpacker.extract(layer.with_budget(Some(budget)), writer);
        outcome?;
        let record = writer.finish_layer()?;
        self.state = State::Ready(Box::new(writer));
        Ok(record.counts.bytes)
    }

    /// Ends the tree.
    pub fn finalize(self) -> Result<()> {
        match self.state {
            State::New | State::Failed => Ok(()),
            State::Ready(writer) => writer.finish(),
        }
    }
}
