//! The strict reading of manifests and indexes.
//!
//! Source: OCI image spec 1.1, `manifest.md` and `image-index.md`; Docker's manifest schema 2. A document is exactly one
//! of the two kinds, and what the source says of it, what it says of itself and what it holds must agree
//! (CVE-2021-41190: one document that two readers take for two things).

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::descriptor::{Descriptor, RawDescriptor};
use super::json;
use super::media_type::{DocumentKind, MediaType, schema_1};
use super::platform::Platform;
use super::source::RawDocument;
use crate::error::{Error, Result};
use crate::limits::Limits;

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
    /// Where it is.
    pub descriptor: Descriptor,
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
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawJson {
    schema_version: Option<i64>,
    media_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
    fs_layers: Option<IgnoredAny>,
}

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const ATTESTATION: &str = "vnd.docker.reference.type";

impl Document {
    /// Reads a document whose bytes were verified.
    ///
    /// # Errors
    /// [`Error::Refused`] for what is no such document or contradicts itself, [`Error::Unsupported`] for media types that
    /// are not known, [`Error::Limit`] for too many layers or a blob that no limit allows.
    pub fn parse(raw: &RawDocument, limits: &Limits) -> Result<Self> {
        let subject = format!("the manifest {}", raw.digest);
        let refused = |reason: String| Error::Refused { subject: subject.clone(), reason };
        let json: RawJson = json::parse(&raw.bytes).map_err(refused)?;
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
        check_media_types(&json, raw.media_type.as_ref(), kind, &refused)?;
        match kind {
            DocumentKind::Index => Index::check(&json, &subject).map(Self::Index),
            DocumentKind::Manifest => Manifest::check(&json, &subject, limits).map(Self::Manifest),
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
    fn check(json: &RawJson, subject: &str) -> Result<Self> {
        let mut entries = Vec::new();
        for raw in json.manifests.iter().flatten() {
            let platform = raw.platform.as_ref();
            let beside = raw.annotation(ATTESTATION).is_some()
                || raw.artifact_type.is_some()
                || platform.is_some_and(super::platform::RawPlatform::is_unknown);
            let media_type = MediaType::new(&raw.media_type);
            if let (false, Ok(kind)) = (beside, media_type.document()) {
                entries.push(IndexEntry {
                    descriptor: raw.check(subject)?,
                    kind,
                    platform: platform.and_then(super::platform::RawPlatform::check),
                    name: raw.annotation(REF_NAME).map(str::to_owned),
                });
            }
        }
        Ok(Self { entries })
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

    fn check(json: &RawJson, subject: &str, limits: &Limits) -> Result<Self> {
        let missing = |what: &str| Error::Refused { subject: subject.to_owned(), reason: format!("it has no {what}") };
        let raw_config = json.config.as_ref().ok_or_else(|| missing("`config`"))?;
        let raw_layers = json.layers.as_ref().ok_or_else(|| missing("`layers`"))?;
        let limit = |subject: &str, what, limit: u64| Error::Limit { subject: subject.to_owned(), what, limit };
        if raw_layers.len() > limits.layers {
            return Err(limit(subject, "layers", limits.layers as u64));
        }
        let config = raw_config.check(subject)?;
        config.media_type.check_config()?;
        if config.size > limits.config_bytes {
            let subject = format!("the image configuration {}", config.digest);
            return Err(limit(&subject, "bytes in an image configuration", limits.config_bytes));
        }
        let layers = raw_layers
            .iter()
            .map(|raw| {
                let descriptor = raw.check(subject)?;
                // A blob that is larger than what it may decode to is no layer that could ever be used.
                if descriptor.size > limits.layer_bytes {
                    let subject = format!("the layer {}", descriptor.digest);
                    return Err(limit(&subject, "bytes in a layer", limits.layer_bytes));
                }
                Ok(descriptor)
            })
            .collect::<Result<_>>()?;
        Ok(Self { config, layers })
    }
}
