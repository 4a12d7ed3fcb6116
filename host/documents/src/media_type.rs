//! Media types: the few that say what a document or a layer is.
//!
//! Source: OCI image spec 1.1, `media-types.md`, and its compatibility matrix with the types of Docker.

use std::fmt;

use cofferdam_core::error::{Error, Escaped, Result};

use super::compression::Compression;

/// The text of a media type: lower case, without parameters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MediaType(String);

/// What a document that describes images can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DocumentKind {
    /// A list of images for several platforms: an OCI index or a Docker manifest list.
    Index,
    /// One image: an OCI manifest or a Docker manifest of schema 2.
    Manifest,
}

impl fmt::Display for DocumentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Index => "an image index",
            Self::Manifest => "an image manifest",
        })
    }
}

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_SCHEMA_1: &[&str] = &[
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// What stands for a configuration's type in manifests of Docker 1.10 to 1.12, which registries made or changed
/// (docker/distribution#1621, moby#22378, moby#22607).
const OLD_CONFIGS: &[&str] = &["", "application/json", "application/octet-stream", "text/html"];

/// What servers say when they do not know what a document is.
const UNSTATED: &[&str] =
    &["", "application/json", "application/octet-stream", "binary/octet-stream", "text/json", "text/plain"];

impl MediaType {
    /// The types of documents to ask a registry for, as an `Accept` header.
    pub const ACCEPT_DOCUMENTS: &'static str = "application/vnd.oci.image.index.v1+json, \
         application/vnd.oci.image.manifest.v1+json, \
         application/vnd.docker.distribution.manifest.list.v2+json, \
         application/vnd.docker.distribution.manifest.v2+json";

    /// The media type in a header or a document; parameters are dropped.
    pub fn new(text: &str) -> Self {
        let essence = text.split(';').next().unwrap_or_default();
        Self(essence.trim().to_ascii_lowercase())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this says anything, or is what servers send for want of better.
    pub fn is_stated(&self) -> bool {
        !UNSTATED.contains(&self.0.as_str())
    }

    /// The kind of document, if it is one that holds or leads to an image.
    ///
    /// # Errors
    /// [`Error::Unsupported`], with a sentence of its own for the manifests of schema 1.
    pub fn document(&self) -> Result<DocumentKind> {
        match self.0.as_str() {
            OCI_INDEX | DOCKER_LIST => Ok(DocumentKind::Index),
            OCI_MANIFEST | DOCKER_MANIFEST => Ok(DocumentKind::Manifest),
            old if DOCKER_SCHEMA_1.contains(&old) => Err(schema_1()),
            _ => Err(Error::Unsupported { what: format!("a document of media type `{self}`") }),
        }
    }

    /// Returns true for the types that both specifications have for an image's configuration.
    pub fn is_config(&self) -> bool {
        matches!(self.0.as_str(), OCI_CONFIG | DOCKER_CONFIG)
    }

    /// Checks that this is the configuration of a container image, not of some other artifact. The types that Docker's registries
    /// noted for want of better until 2016 count where nothing else speaks against an image.
    pub(super) fn check_config(&self, is_other_artifact: bool) -> Result<()> {
        if self.is_config() || (OLD_CONFIGS.contains(&self.0.as_str()) && !is_other_artifact) {
            return Ok(());
        }
        Err(Error::Unsupported {
            what: format!("an artifact that is no container image (its configuration has media type `{self}`)"),
        })
    }

    /// Returns true for the type of a layer that is not to be distributed with its image, such as those of Windows' base images.
    pub fn is_foreign(&self) -> bool {
        let layer = self.0.strip_prefix("application/vnd.").unwrap_or_default();
        layer.starts_with("docker.image.rootfs.foreign.diff.") || layer.starts_with("oci.image.layer.nondistributable.")
    }

    /// Checks that this is a layer of either specification.
    ///
    /// Layers that are not to be distributed ("foreign") count as layers: they are fetched by digest from the image's own
    /// source, never from the addresses that a manifest names.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for everything else, encrypted layers among it.
    pub fn check_layer(&self) -> Result<()> {
        // The shorter names that people may give a layer are none that a manifest may.
        if self.0.starts_with("application/vnd.") && Compression::from_media_type(&self.0).is_ok() {
            return Ok(());
        }
        Err(Error::Unsupported { what: format!("a layer of media type `{self}`") })
    }
}

/// The refusal of a manifest that this store was never meant to read: it has no configuration and no sizes.
pub(super) fn schema_1() -> Error {
    Error::Unsupported {
        what: "a Docker manifest of schema 1 (deprecated; have the image pushed again by a current tool)".into(),
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(self.0.as_bytes()).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_core::error::ErrorKind;

    use super::*;

    #[test]
    fn parameters_and_case_do_not_matter() {
        let media_type = MediaType::new(" Application/VND.oci.image.Index.v1+json ; charset=utf-8");
        assert_eq!(media_type.document().unwrap(), DocumentKind::Index);
    }

    #[test]
    fn each_type_that_is_asked_for_is_understood() {
        for text in MediaType::ACCEPT_DOCUMENTS.split(',') {
            MediaType::new(text).document().unwrap();
        }
    }

    #[test]
    fn what_a_server_says_for_want_of_better_is_no_statement() {
        assert!(!MediaType::new("application/json; charset=utf-8").is_stated());
        assert!(MediaType::new("text/html").is_stated());
    }

    #[test]
    fn schema_1_is_named_in_its_refusal() {
        let error = MediaType::new("application/vnd.docker.distribution.manifest.v1+prettyjws").document().unwrap_err();
        assert!(error.to_string().contains("schema 1"), "{error}");
    }

    #[test]
    fn unknown_layers_are_refused() {
        for text in [
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "application/vnd.cncf.helm.chart",
            "application/gzip",
            "tar",
            "",
        ] {
            assert_eq!(MediaType::new(text).check_layer().unwrap_err().kind(), ErrorKind::Refused);
        }
        let foreign = MediaType::new("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        foreign.check_layer().unwrap();
        assert!(foreign.is_foreign());
        assert!(MediaType::new("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd").is_foreign());
        assert!(!MediaType::new("application/vnd.oci.image.layer.v1.tar+gzip").is_foreign());
    }
}
