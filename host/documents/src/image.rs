//! The image object: what a runtime wants to know about an image, checked.

use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use cofferdam_core::limits::Limits;
use serde::Serialize;

use crate::{Configuration, Descriptor, Document, ImageConfig, Manifest, Platform, StatedPlatform};

/// An image: its digests, its layers, and how to run it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageObject {
    /// The name by which it was asked for.
    pub reference: String,
    /// The digest of the manifest.
    pub manifest_digest: Digest,
    /// The digest of the configuration.
    pub config_digest: Digest,
    /// `os/arch`, or `os/arch/variant`; `unknown` stands for a part that neither the index nor the configuration says.
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
        let manifest = read(manifest, manifest_digest)?;
        manifest.check(&format!("manifest {manifest_digest}"), limits)?;
        Self::of(reference, manifest_digest, &manifest, config)
    }

    /// Makes the object from a manifest that was read, and a configuration whose bytes the caller has verified.
    pub fn of(reference: &str, manifest_digest: &Digest, manifest: &Manifest, config: &[u8]) -> Result<Self> {
        let config_digest = manifest.config.digest.clone();
        let config = Configuration::parse(config, &config_digest, manifest.layers.len())?;
        let layer = |(descriptor, diff_id): (&Descriptor, &Digest)| LayerDescriptor {
            digest: descriptor.digest.clone(),
            size: Some(descriptor.size),
            media_type: Some(descriptor.media_type.as_str().to_owned()),
            diff_id: Some(diff_id.clone()),
        };
        let layers: Vec<_> = manifest.layers.iter().zip(&config.diff_ids).map(layer).collect();
        let total_size = manifest.layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.size));
        Ok(Self {
            reference: reference.to_owned(),
            manifest_digest: manifest_digest.clone(),
            platform: config.platform_words,
            config_digest,
            layers,
            total_size,
            config: config.run,
        })
    }

    /// The platform that the image is for, as far as it is known.
    pub fn stated_platform(&self) -> Option<StatedPlatform> {
        StatedPlatform::of_words(&self.platform)
    }

    /// The same image, chosen by an index that has this platform for it: the index decides, and what the configuration says
    /// otherwise is noted.
    #[must_use]
    pub fn chosen_for(mut self, platform: Option<&Platform>) -> Self {
        let Some(chosen) = platform else { return self };
        match self.stated_platform() {
            Some(stated) if stated.suits(chosen) => return self,
            Some(stated) => {
                tracing::info!("{}: the index has it for {chosen}, its configuration for {stated}", self.reference);
            }
            None => {}
        }
        self.platform = chosen.to_string();
        self
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

/// Reads the manifest of an image whose bytes were verified. Tells images from indexes, and refuses what could be taken for both.
fn read(manifest: &[u8], digest: &Digest) -> Result<Manifest> {
    match Document::read(manifest, digest, None)? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(_) => {
            Err(Error::Refused { subject: format!("manifest {digest}"), reason: "it is an index, not an image".into() })
        }
    }
}

/// The digest of the configuration that a manifest names.
pub fn config_digest(manifest: &[u8], digest: &Digest) -> Result<Digest> {
    read(manifest, digest).map(|manifest| manifest.config.digest)
}

/// The configuration and the layers that a manifest names, each layer once.
pub fn named(manifest: &[u8], digest: &Digest) -> Result<(Digest, Vec<Digest>)> {
    let manifest = read(manifest, digest)?;
    let mut layers = Vec::with_capacity(manifest.layers.len());
    for layer in manifest.layers {
        if !layers.contains(&layer.digest) {
            layers.push(layer.digest);
        }
    }
    Ok((manifest.config.digest, layers))
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
        for (os, architecture, variant, shown) in [
            (hostile, "amd64", "", "unknown/amd64"),
            ("linux", hostile, "", "linux/unknown"),
            ("linux", "arm", hostile, "linux/arm/unknown"),
            ("linux", "a/b", "", "linux/unknown"),
        ] {
            let image = parse(os, architecture, variant).unwrap();
            assert_eq!((image.platform.as_str(), image.stated_platform()), (shown, None));
        }
    }
}
