//! The plugins that a layer may meet, and which of them is for which layer.

use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use cofferdam_documents::Compression;
use cofferdam_documents::plugin::World;
use cofferdam_sandbox::Program;

/// Plugins beside the first-party guests. A media type or magic number of theirs is never given to a plugin.
#[derive(Clone, Debug, Default)]
pub struct Extensions {
    decoders: Vec<Program>,
    extractors: Vec<Program>,
    inspectors: Vec<Program>,
}

impl Extensions {
    /// Adds a plugin. Of two that read the same layers the first is taken.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for what has nothing to do with layers: a verifier.
    pub fn add(&mut self, program: Program) -> Result<()> {
        let world = program.manifest().map(|manifest| manifest.world);
        match world {
            Some(World::Decoder) => self.decoders.push(program),
            Some(World::Extractor) => self.extractors.push(program),
            Some(World::Inspector) => self.inspectors.push(program),
            Some(World::Verifier) | None => {
                let reason = format!("`{}` is no plugin for layers", program.name());
                return Err(Error::Usage { reason, hint: None });
            }
        }
        Ok(())
    }

    /// These, behind another one.
    ///
    /// # Errors
    ///
    /// As [`Extensions::add`].
    pub fn first(program: Program, others: &Self) -> Result<Self> {
        let mut all = Self::default();
        all.add(program)?;
        all.decoders.extend_from_slice(&others.decoders);
        all.extractors.extend_from_slice(&others.extractors);
        all.inspectors.extend_from_slice(&others.inspectors);
        Ok(all)
    }

    /// Who looks at every layer, in the order in which they were added.
    pub fn inspectors(&self) -> &[Program] {
        &self.inspectors
    }

    /// Whether a plugin reads layers of this media type.
    pub fn reads(&self, media_type: &str) -> bool {
        self.reader(media_type).is_some()
    }

    /// Returns the identity of the plugin that reads layers of this media type, or that begin with these bytes where that is not
    /// known; nothing for the first-party guests.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if nobody reads it.
    pub fn reader_identity(&self, media_type: Option<&str>, first_bytes: &[u8]) -> Result<Option<Digest>> {
        let format = match media_type {
            Some(media_type) => self.of_media_type(media_type)?,
            None => self.of_first_bytes(first_bytes),
        };
        Ok(format.plugin().map(|program| program.identity().clone()))
    }

    /// How a layer of this media type is read.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if nobody reads it.
    pub(super) fn of_media_type(&self, media_type: &str) -> Result<Format> {
        let unsupported = match Compression::from_media_type(media_type) {
            Ok(compression) => return Ok(Format::Known(compression)),
            Err(error) => error,
        };
        self.reader(media_type).ok_or(unsupported)
    }

    /// The plugin that reads layers of this media type.
    fn reader(&self, media_type: &str) -> Option<Format> {
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        let reads = |program: &&Program| {
            let manifest = program.manifest();
            manifest.is_some_and(|manifest| manifest.media_types().iter().any(|own| own.eq_ignore_ascii_case(essence)))
        };
        let decoder = self.decoders.iter().find(reads).cloned().map(Format::Decoder);
        let extractor = || self.extractors.iter().find(reads).cloned().map(Format::Extractor);
        decoder.or_else(extractor)
    }

    /// How a blob with these first bytes is read, of which nothing else is known.
    pub(super) fn of_first_bytes(&self, first: &[u8]) -> Format {
        match Compression::sniff(first) {
            Compression::None => {
                let begins = |program: &&Program| begins(program, first) == Some(true);
                self.decoders.iter().find(begins).cloned().map_or(Format::Known(Compression::None), Format::Decoder)
            }
            known => Format::Known(known),
        }
    }
}

/// Whether the bytes are what a decoder says that its blobs begin with; nothing if it says nothing.
fn begins(program: &Program, first: &[u8]) -> Option<bool> {
    let mut magic = program.manifest()?.magic().peekable();
    magic.peek()?;
    Some(magic.any(|magic| first.starts_with(&magic)))
}

/// How a layer is read.
#[derive(Clone, Debug)]
pub(super) enum Format {
    /// Decoded by a first-party guest or by nobody, then read by the one for tar.
    Known(Compression),
    /// Decoded by a plugin, then read by the guest for tar.
    Decoder(Program),
    /// Read as it is by a plugin.
    Extractor(Program),
}

impl Format {
    /// How many of the first bytes are looked at.
    pub(super) const FIRST_BYTES: usize = 16;

    pub(super) fn compression(&self) -> Compression {
        match self {
            Self::Known(compression) => *compression,
            Self::Decoder(_) => Compression::Other,
            Self::Extractor(_) => Compression::None,
        }
    }

    /// The plugin that decodes or reads it.
    pub(super) fn plugin(&self) -> Option<&Program> {
        match self {
            Self::Known(_) => None,
            Self::Decoder(program) | Self::Extractor(program) => Some(program),
        }
    }

    /// Checks a blob's first bytes against what its media type says.
    pub(super) fn check(&self, first: &[u8]) -> std::result::Result<(), String> {
        let fits = match self {
            Self::Known(compression) => Compression::sniff(first) == *compression,
            Self::Decoder(program) => begins(program, first).unwrap_or(true),
            Self::Extractor(_) => true,
        };
        if fits {
            return Ok(());
        }
        let said = match self {
            Self::Decoder(program) => format!("`{}`", program.name()),
            known => known.compression().to_string(),
        };
        Err(format!("its media type says {said}, its first bytes say {}", Compression::sniff(first)))
    }
}
