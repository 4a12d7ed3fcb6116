//! Runs a plugin natively, in ordinary tests: on layers made in memory or read from a file, with settings and with a
//! network of the test's own.
//!
//! ```
//! use cofferdam_sdk::testing::{Host, Sample};
//! use cofferdam_sdk::{Entry, Failure, Inspector, Interest, Layer};
//!
//! struct Count(u64);
//!
//! impl Inspector for Count {
//!     fn begin(_: Layer) -> Result<Self, Failure> {
//!         Ok(Self(0))
//!     }
//!     fn see(&mut self, entry: Entry) -> Result<Interest, Failure> {
//!         self.0 += u64::from(entry.is_file());
//!         Ok(Interest::None)
//!     }
//!     fn finish(self) -> Result<Vec<u8>, Failure> {
//!         Ok(self.0.to_string().into_bytes())
//!     }
//! }
//!
//! let layer = Sample::new().directory("etc").file("etc/hostname", "debian\n");
//! let run = Host::new().inspect::<Count>(&layer);
//! assert_eq!(run.result, Ok(b"1".to_vec()));
//! ```
//!
//! Natively nothing is sandboxed and no limit is kept. Where the real host would end the plugin, for a call that is out of
//! contract, the harness panics.

pub(crate) mod host;
mod sample;

use std::fmt;

use crate::bounds::EntryBounds;
use crate::decoder::{self, Decoder};
use crate::entry::Entry;
use crate::extractor::{self, Extractor};
use crate::failure::Failure;
use crate::inspector::{Inspector, Interest, Layer};
use crate::log::Level;
use crate::verifier::{Image, Verifier};

pub use sample::Sample;

#[cfg(feature = "http")]
type Network = Box<dyn FnMut(&crate::http::Request) -> Result<crate::http::Response, crate::http::Error>>;

/// What the harness plays, and how: settings, the size of the pieces that streams come in, bounds, the network.
pub struct Host {
    settings: Vec<(String, String)>,
    piece: usize,
    entry_bounds: EntryBounds,
    window: u64,
    #[cfg(feature = "http")]
    network: Option<Network>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("settings", &self.settings).field("piece", &self.piece).finish_non_exhaustive()
    }
}

/// What a plugin did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run<T> {
    /// What it returned.
    pub result: Result<T, Failure>,
    /// Its messages, in order.
    pub log: Vec<(Level, String)>,
    /// Of an inspector: the entries that it saw. Of an extractor: those that it put.
    pub entries: Vec<Entry>,
    /// Of an inspector: the paths whose content it asked for. Of an extractor: nothing.
    pub asked: Vec<Vec<u8>>,
    /// Of an extractor: the content of each entry, in their order. Of an inspector: nothing.
    pub contents: Vec<Vec<u8>>,
    /// Of a decoder: what it wrote, also if it failed later.
    pub written: Vec<u8>,
}

impl<T> Run<T> {
    /// The reason of a failure, however it is classed; empty if there was none.
    pub fn reason(&self) -> String {
        self.result.as_ref().err().map(ToString::to_string).unwrap_or_default()
    }
}

impl Run<Vec<u8>> {
    /// The report as text. Panics if the layer was refused or the report is no UTF-8.
    pub fn report(&self) -> &str {
        match &self.result {
            Ok(report) => std::str::from_utf8(report).expect("a report in UTF-8"),
            Err(failure) => panic!("no report, but a failure: {failure}"),
        }
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// A host with the real one's defaults, no settings and no network.
    pub fn new() -> Self {
        Self {
            settings: Vec::new(),
            piece: 64 << 10,
            entry_bounds: EntryBounds::default(),
            window: 128 << 20,
            #[cfg(feature = "http")]
            network: None,
        }
    }

    /// Sets a setting.
    #[must_use]
    pub fn setting(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((key.into(), value.into()));
        self
    }

    /// Hands out streams and contents in pieces of at most so many bytes. A plugin must work with 1.
    #[must_use]
    pub fn piece(mut self, bytes: usize) -> Self {
        self.piece = bytes.max(1);
        self
    }

    /// Sets what [`crate::bounds::entry`] says.
    #[must_use]
    pub fn entry_bounds(mut self, bounds: EntryBounds) -> Self {
        self.entry_bounds = bounds;
        self
    }

    /// Sets what [`crate::bounds::window`] says.
    #[must_use]
    pub fn window(mut self, bytes: u64) -> Self {
        self.window = bytes;
        self
    }

    /// Answers the plugin's requests. Without it each is [`crate::http::Error::Denied`].
    #[cfg(feature = "http")]
    #[must_use]
    pub fn network(
        mut self,
        answer: impl FnMut(&crate::http::Request) -> Result<crate::http::Response, crate::http::Error> + 'static,
    ) -> Self {
        self.network = Some(Box::new(answer));
        self
    }

    /// Shows a layer to an inspector.
    pub fn inspect<T: Inspector>(self, sample: &Sample) -> Run<Vec<u8>> {
        let piece = self.piece;
        host::run(self, &[], || {
            let mut seen = host::Seen::default();
            let layer = Layer { digest: sample.digest.clone(), media_type: sample.media_type.clone() };
            let result = T::begin(layer).and_then(|mut inspector| {
                for (entry, content) in &sample.entries {
                    seen.entries.push(entry.clone());
                    if inspector.see(entry.clone())? == Interest::Content {
                        seen.asked.push(entry.path.clone());
                        content.chunks(piece).try_for_each(|bytes| inspector.content(bytes))?;
                    }
                }
                inspector.finish()
            });
            (result, seen)
        })
    }

    /// Has a decoder decode a blob; what it wrote is in [`Run::written`].
    pub fn decode<T: Decoder>(self, blob: &[u8]) -> Run<()> {
        host::run(self, blob, || (decoder::run::<T>(), host::Seen::default()))
    }

    /// Has an extractor read an archive; what it put is in [`Run::entries`] and [`Run::contents`].
    pub fn extract<T: Extractor>(self, archive: &[u8]) -> Run<()> {
        host::run(self, archive, || (extractor::run::<T>(), host::Seen::default()))
    }

    /// Has a verifier judge an image.
    pub fn verify<T: Verifier>(self, image: &Image) -> Run<String> {
        host::run(self, &[], || (T::verify(image.clone()), host::Seen::default()))
    }
}
