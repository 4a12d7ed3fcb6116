//! The image object: what a runtime wants to know about an image, checked.

use std::collections::BTreeMap;

use oci_spec::image::ImageManifest;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::limits::Limits;

/// An image: its digests, its layers, and how to run it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageObject {
    /// The name by which it was asked for.
    pub reference: String,
    /// The digest of the manifest.
    pub manifest_digest: Digest,
    /// The digest of the configuration.
    pub config_digest: Digest,
    /// `os/arch`, or `os/arch/variant`.
    pub platform: String,
    /// The layers, lowest first. Each has its size, media type and `DiffID`.
    pub layers: Vec<LayerDescriptor>,
    /// The declared size of all layers, in bytes.
    pub total_size: u64,
    /// How to run it.
    pub config: ImageConfig,
}

/// What is claimed about a layer. All of it is checked when the layer is fetched or extracted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerDescriptor {
    /// The digest of the blob.
    pub digest: Digest,
    /// The size of the blob in bytes, if declared.
    pub size: Option<u64>,
    /// The media type, if declared; without one the blob's first bytes decide.
    pub media_type: Option<String>,
    /// The digest of the decoded layer, if known.
    pub diff_id: Option<Digest>,
}

/// What is used of an image configuration. The rest of it, which can be large, is passed over and never held.
#[derive(Deserialize)]
struct RawConfig {
    os: String,
    architecture: String,
    variant: Option<String>,
    config: Option<RawRun>,
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    diff_ids: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawRun {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    #[expect(clippy::zero_sized_map_values, reason = "how the configuration writes a set")]
    exposed_ports: Option<BTreeMap<String, IgnoredAny>>,
}

/// How to run an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ImageConfig {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Default arguments, or the program if there is no entrypoint.
    pub cmd: Vec<String>,
    /// Variables, `NAME=value`.
    pub env: Vec<String>,
    /// User, or `user:group`, by name or number; empty for root.
    pub user: String,
    /// Working directory; empty for `/`.
    pub working_dir: String,
    /// Ports such as `8080/tcp`, sorted.
    pub exposed_ports: Vec<String>,
}

impl LayerDescriptor {
    /// A layer of which only the digest is known.
    pub fn of(digest: Digest) -> Self {
        Self { digest, size: None, media_type: None, diff_id: None }
    }
}

impl ImageObject {
    /// Makes the object from a manifest and a configuration whose bytes the caller has verified. [`Error::Refused`] if they
    /// are no such documents, or do not agree on the number of layers; [`Error::Limit`] for too many layers.
    pub fn parse(
        reference: &str,
        manifest_digest: &Digest,
        manifest: &[u8],
        config: &[u8],
        limits: &Limits,
    ) -> Result<Self> {
        // Tells images from indexes, and refuses what could be taken for both.
        let config_digest = config_digest(manifest, manifest_digest)?;
        let manifest: ImageManifest =
            serde_json::from_slice(manifest).map_err(|e| invalid("manifest", manifest_digest, &e))?;
        if manifest.layers().len() > limits.layers {
            return Err(Error::Limit {
                subject: format!("manifest {manifest_digest}"),
                what: "layers",
                limit: limits.layers as u64,
            });
        }
        let config: RawConfig = serde_json::from_slice(config).map_err(|e| invalid("config", &config_digest, &e))?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers().len() {
            let reason =
                format!("it lists {} layers, but the manifest has {}", diff_ids.len(), manifest.layers().len());
            return Err(Error::Refused { subject: format!("config {config_digest}"), reason });
        }
        let mut layers = Vec::with_capacity(diff_ids.len());
        let mut total_size = 0_u64;
        for (descriptor, diff_id) in manifest.layers().iter().zip(diff_ids) {
            total_size = total_size.saturating_add(descriptor.size());
            layers.push(LayerDescriptor {
                digest: descriptor.digest().to_string().parse()?,
                size: Some(descriptor.size()),
                media_type: Some(descriptor.media_type().to_string()),
                diff_id: Some(diff_id.parse()?),
            });
        }
        Ok(Self {
            reference: reference.to_owned(),
            manifest_digest: manifest_digest.clone(),
            platform: platform(&config, &config_digest)?,
            config_digest,
            layers,
            total_size,
            config: run_config(config.config),
        })
    }

    /// The digests of the layers' blobs, lowest first.
    pub fn layer_digests(&self) -> impl Iterator<Item = &Digest> {
        self.layers.iter().map(|layer| &layer.digest)
    }

    /// The digests of the decoded layers, lowest first.
    pub fn diff_ids(&self) -> impl Iterator<Item = &Digest> {
        self.layers.iter().filter_map(|layer| layer.diff_id.as_ref())
    }
}

/// The digest of the configuration that a manifest names.
pub(super) fn config_digest(manifest: &[u8], digest: &Digest) -> Result<Digest> {
    match super::manifest::parse(manifest, digest)? {
        oci_client::manifest::OciManifest::Image(image) => image.config.digest.parse(),
        oci_client::manifest::OciManifest::ImageIndex(_) => Err(is_index(digest)),
    }
}

/// The configuration and the layers that a manifest names, each layer once.
pub(super) fn named(manifest: &[u8], digest: &Digest) -> Result<(Digest, Vec<Digest>)> {
    let oci_client::manifest::OciManifest::Image(image) = super::manifest::parse(manifest, digest)? else {
        return Err(is_index(digest));
    };
    let mut layers = Vec::with_capacity(image.layers.len());
    for layer in &image.layers {
        let layer = layer.digest.parse()?;
        if !layers.contains(&layer) {
            layers.push(layer);
        }
    }
    Ok((image.config.digest.parse()?, layers))
}

fn is_index(digest: &Digest) -> Error {
    Error::Refused { subject: format!("manifest {digest}"), reason: "it is an index, not an image".into() }
}

/// The platform in words. They end up on terminals and in other programs' conditions, so they must be such words.
fn platform(config: &RawConfig, digest: &Digest) -> Result<String> {
    let (os, architecture) = (config.os.as_str(), config.architecture.as_str());
    let variant = config.variant.as_deref().unwrap_or_default();
    let fits = |word: &str| word.len() <= 64 && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if ![os, architecture, variant].into_iter().all(fits) {
        let reason = "its platform is not made of letters, digits, `.`, `_` and `-`".into();
        return Err(Error::Refused { subject: format!("config {digest}"), reason });
    }
    let slash = if variant.is_empty() { "" } else { "/" };
    Ok(format!("{os}/{architecture}{slash}{variant}"))
}

fn run_config(run: Option<RawRun>) -> ImageConfig {
    let run = run.unwrap_or_default();
    ImageConfig {
        entrypoint: run.entrypoint.unwrap_or_default(),
        cmd: run.cmd.unwrap_or_default(),
        env: run.env.unwrap_or_default(),
        user: run.user.unwrap_or_default(),
        working_dir: run.working_dir.unwrap_or_default(),
        exposed_ports: run.exposed_ports.unwrap_or_default().into_keys().collect(),
    }
}

fn invalid(noun: &str, digest: &Digest, error: &serde_json::Error) -> Error {
    Error::Refused { subject: format!("{noun} {digest}"), reason: format!("it is not a valid {noun}: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_cannot_hold_what_a_terminal_obeys() {
        let parse = |os: &str, architecture: &str, variant: &str| {
            let config = serde_json::json!({
                "os": os, "architecture": architecture, "variant": variant,
                "rootfs": {"type": "layers", "diff_ids": []},
            });
            let config = config.to_string();
            let manifest = serde_json::json!({
                "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": [],
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": Digest::of(config.as_bytes()), "size": config.len(),
                },
            });
            let manifest = manifest.to_string();
            let digest = Digest::of(manifest.as_bytes());
            ImageObject::parse("a:1", &digest, manifest.as_bytes(), config.as_bytes(), &Limits::default())
        };
        assert_eq!(parse("linux", "amd64", "").unwrap().platform, "linux/amd64");
        assert_eq!(parse("linux", "arm", "v7").unwrap().platform, "linux/arm/v7");
        let hostile = "\u{1b}]0;x\u{7}";
        for (os, architecture, variant) in
            [(hostile, "amd64", ""), ("linux", hostile, ""), ("linux", "arm", hostile), ("linux", "a/b", "")]
        {
            let error = parse(os, architecture, variant).unwrap_err();
            assert!(matches!(error, Error::Refused { .. }), "{error}");
        }
    }
}
