//! Progress: what long work tells its caller while it runs. The library emits events and draws nothing.

use std::fmt;
use std::sync::Arc;

use crate::digest::Digest;

/// One step of long work.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A reference was resolved to a manifest.
    Resolved {
        /// What was asked for.
        reference: String,
        /// The manifest's digest.
        manifest: Digest,
        /// How many layers it has, each counted once.
        layers: usize,
        /// Bytes of these layers, as declared.
        bytes: u64,
    },
    /// Work on a layer begins.
    LayerStarted {
        /// The layer blob's digest.
        layer: Digest,
        /// Its declared size in bytes, if known.
        bytes: Option<u64>,
    },
    /// A layer is there already; nothing is fetched.
    LayerCached {
        /// The layer blob's digest.
        layer: Digest,
    },
    /// More of a layer's blob arrived.
    Downloaded {
        /// The layer blob's digest.
        layer: Digest,
        /// Bytes so far.
        bytes: u64,
    },
    /// More of a layer's tree was written.
    Extracted {
        /// The layer blob's digest, if it is known.
        layer: Option<Digest>,
        /// Entries so far.
        entries: u64,
        /// Decoded bytes so far.
        bytes: u64,
    },
    /// A layer is verified and committed.
    LayerDone {
        /// The layer blob's digest.
        layer: Digest,
    },
    /// More of a store was checked.
    Checked {
        /// How many of the things that are in it are done.
        done: u64,
        /// How many there are.
        of: u64,
        /// Bytes that were read so far.
        bytes: u64,
    },
    /// Layers are being merged into a root filesystem.
    Merging {
        /// Number of the layer, from 1.
        layer: usize,
        /// How many there are.
        of: usize,
    },
}

/// Where events go. Cheap to clone; called from several threads; must not block for long.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<dyn Fn(Event) + Send + Sync>>);

impl Progress {
    /// Events go nowhere.
    pub fn none() -> Self {
        Self(None)
    }

    /// Events go to this function.
    pub fn new(sink: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(sink)))
    }

    /// Sends an event.
    pub fn emit(&self, event: Event) {
        if let Some(sink) = &self.0 {
            sink(event);
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Progress" } else { "Progress(none)" })
    }
}
