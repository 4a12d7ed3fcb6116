//! The strict reading of manifests and indexes.
//!
//! Source: OCI image spec 1.1, `manifest.md` and `image-index.md`; Docker's manifest schema 2. A document is exactly one
//! of the two kinds, and what the source says of it, what it says of itself and what it holds must agree
//! (CVE-2021-41190: one document that two readers take for two things).

use std::collections::HashSet;

use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use cofferdam_core::limits::Limits;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::descriptor::{Descriptor, RawDescriptor};
use super::json::{self, Member};
use super::media_type::{DocumentKind, MediaType, schema_1};
use super::platform::Platform;
use super::raw_document::RawDocument;

/// A document that was read and checked.
#[derive(Clone, Debug)]
pub enum Document {
    /// A list of images.
    Index(Index),
    /// One image.
    Manifest(Manifest),
}

/// An OCI index or a Docker manifest list.
#[derive(Clone, Debug)]
pub struct Index {
    /// What leads to an image, in the index's order. Attestations, signatures and artifacts are left out.
    pub entries: Vec<IndexEntry>,
}

/// One image of an index, or a nested index.
#[derive(Clone, Debug)]
pub struct IndexEntry {
    /// Where it is, or why that cannot be known: an entry that nobody selects may be as odd as it likes.
    pub descriptor: std::result::Result<Descriptor, OddEntry>,
    /// What it is said to be.
    pub kind: DocumentKind,
    /// What it runs on, if that is stated.
    pub platform: Option<Platform>,
    /// Its `org.opencontainers.image.ref.name`: the tag in a layout.
    pub name: Option<String>,
}

/// An OCI manifest or a Docker manifest of schema 2.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The image's configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Whether it says that it is an artifact which is no image.
    is_other_artifact: bool,
}

/// Why an entry of an index cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OddEntry {
    subject: String,
    reason: String,
}

impl IndexEntry {
    /// The descriptor of the entry that was selected.
    ///
    /// # Errors
    /// [`Error::Refused`] for one that has no digest or size, or not such as can be used.
    pub fn selected(&self) -> Result<&Descriptor> {
        self.descriptor
            .as_ref()
            .map_err(|OddEntry { subject, reason }| Error::Refused { subject: subject.clone(), reason: reason.clone() })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawJson {
    schema_version: Option<i64>,
    media_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
    #[serde(default)]
    artifact_type: Member,
    fs_layers: Option<IgnoredAny>,
}

impl Document {
    /// Reads a document whose bytes were verified.
    ///
    /// # Errors
    /// [`Error::Refused`] for what is no such document or contradicts itself, [`Error::Unsupported`] for media types that
    /// are not known, [`Error::Limit`] for too many layers or a blob that no limit allows.
    pub fn parse(raw: &RawDocument, limits: &Limits) -> Result<Self> {
        let document = Self::read(&raw.bytes, &raw.digest, raw.media_type.as_ref())?;
        if let Self::Manifest(manifest) = &document {
            manifest.check(&format!("the manifest {}", raw.digest), limits)?;
        }
        Ok(document)
    }

    /// Reads a document whose bytes were verified, whatever the limits, and whatever artifact it is of: to know what it names.
    ///
    /// # Errors
    /// As [`Document::parse`], without limits and media types of configurations.
    pub fn read(bytes: &[u8], digest: &Digest, sent_as: Option<&MediaType>) -> Result<Self> {
        let subject = format!("the manifest {digest}");
        let refused = |reason: String| Error::Refused { subject: subject.clone(), reason };
        let json: RawJson = json::parse(bytes).map_err(refused)?;
        if json.schema_version == Some(1) || json.fs_layers.is_some() {
            return Err(schema_1());
        }
        if json.schema_version != Some(2) {
            return Err(refused("its `schemaVersion` is not 2".into()));
        }
        let kind = match (&json.manifests, json.config.is_some() || json.layers.is_some()) {
            (Some(_), true) => {
                return Err(refused("it is an index and a manifest at once (CVE-2021-41190)".into()));
            }
            (Some(_), false) => DocumentKind::Index,
            (None, true) => DocumentKind::Manifest,
            (None, false) => return Err(refused("it is neither an index nor a manifest".into())),
        };
        check_media_types(&json, sent_as, kind, &refused)?;
        match kind {
            DocumentKind::Index => Ok(Self::Index(Index::of(&json, &subject))),
            DocumentKind::Manifest => Manifest::of(&json, &subject).map(Self::Manifest),
        }
    }
}

/// What the source says, what the document says and what it holds are three statements; those that are made must agree.
fn check_media_types(
    json: &RawJson,
    outside: Option<&MediaType>,
    kind: DocumentKind,
    refused: &dyn Fn(String) -> Error,
) -> Result<()> {
    let inside = json.media_type.as_deref().map(MediaType::new).filter(MediaType::is_stated);
    let outside = outside.filter(|media_type| media_type.is_stated());
    for media_type in inside.iter().chain(outside) {
        let stated = media_type.document()?;
        if stated != kind {
            return Err(refused(format!("its media type `{media_type}` means {stated}, but it holds {kind}")));
        }
    }
    match (&inside, outside) {
        (Some(inside), Some(outside)) if inside != outside => {
            Err(refused(format!("it says that it is `{inside}`, but was sent as `{outside}`")))
        }
        _ => Ok(()),
    }
}

impl Index {
    fn of(json: &RawJson, subject: &str) -> Self {
        let mut entries = Vec::new();
        for raw in json.manifests.iter().flatten() {
            let beside = raw.is_beside || raw.is_other_artifact();
            if let (false, Ok(kind)) = (beside, raw.media_type().document()) {
                let descriptor = raw.check(subject).map_err(|error| match error {
                    Error::Refused { subject, reason } => OddEntry { subject, reason },
                    other => OddEntry { subject: subject.to_owned(), reason: other.root().to_string() },
                });
                entries.push(IndexEntry { descriptor, kind, platform: raw.platform.clone(), name: raw.name.clone() });
            }
        }
        Self { entries }
    }
}

impl Manifest {
    /// Checks that somebody can read each layer: a first-party guest, or whoever `reads` what else there is.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with the first media type that nobody reads.
    pub fn check_layers(&self, reads: impl Fn(&str) -> bool) -> Result<()> {
        let unread = |layer: &&Descriptor| layer.media_type.check_layer().is_err() && !reads(layer.media_type.as_str());
        self.layers.iter().find(unread).map_or(Ok(()), |layer| layer.media_type.check_layer())
    }

    fn of(json: &RawJson, subject: &str) -> Result<Self> {
        let missing = |what: &str| Error::Refused { subject: subject.to_owned(), reason: format!("it has no {what}") };
        let raw_config = json.config.as_ref().ok_or_else(|| missing("`config`"))?;
        let raw_layers = json.layers.as_ref().ok_or_else(|| missing("`layers`"))?;
        let config = raw_config.check(subject)?;
        let is_other_artifact = match &json.artifact_type {
            Member::Absent => false,
            Member::Text(text) => !text.is_empty() && !MediaType::new(text).is_config(),
            Member::Number(_) | Member::Odd => true,
        };
        let layers = raw_layers.iter().map(|raw| raw.check(subject)).collect::<Result<_>>()?;
        Ok(Self { config, layers, is_other_artifact })
    }

    /// Checks that it is the manifest of a container image, and what it declares, before anything of it is fetched.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for other artifacts, [`Error::Limit`] for what no limit allows.
    pub fn check(&self, subject: &str, limits: &Limits) -> Result<()> {
        self.config.media_type.check_config(self.is_other_artifact)?;
        let exceeded = |subject: &str, what, limit: u64| Err(Error::Limit { subject: subject.to_owned(), what, limit });
        if self.layers.len() > limits.layers {
            return exceeded(subject, "layers", limits.layers as u64);
        }
        if self.config.size > limits.config_bytes {
            let subject = format!("the image configuration {}", self.config.digest);
            return exceeded(&subject, "bytes in an image configuration", limits.config_bytes);
        }
        let mut seen = HashSet::with_capacity(self.layers.len());
        let distinct = self.layers.iter().filter(|layer| seen.insert(&layer.digest));
        if distinct.fold(0_u64, |sum, layer| sum.saturating_add(layer.size)) > limits.image_bytes {
            return exceeded(subject, "bytes in the layers of an image", limits.image_bytes);
        }
        // A blob that is larger than what it may decode to is no layer that could ever be used.
        if let Some(layer) = self.layers.iter().find(|layer| layer.size > limits.layer_bytes) {
            return exceeded(&format!("the layer {}", layer.digest), "bytes in a layer", limits.layer_bytes);
        }
        Ok(())
    }
}
