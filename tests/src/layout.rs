//! OCI image layouts made by hand, from any layers in any encoding, right or wrong on purpose.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::layers;

/// The media type of an uncompressed layer.
pub const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
/// The media type of a gzip layer.
pub const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The media type of a zstd layer.
pub const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// An OCI layout under construction, complete after each call.
#[derive(Debug)]
pub struct OciLayout {
    dir: PathBuf,
    index: Vec<Value>,
}

/// A layer of an image to be.
#[derive(Clone, Debug)]
pub struct LayerRef {
    /// Media type.
    pub media_type: String,
    /// Digest of the blob.
    pub digest: String,
    /// Declared size of the blob.
    pub size: u64,
    /// What the configuration will claim about the decoded bytes.
    pub diff_id: String,
}

impl OciLayout {
    /// A new layout in a directory that is created.
    pub fn create(dir: impl Into<PathBuf>) -> Result<Self> {
        let layout = Self { dir: dir.into(), index: Vec::new() };
        fs::create_dir_all(layout.dir.join("blobs/sha256"))?;
        fs::write(layout.dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        layout.write_index()?;
        Ok(layout)
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// An image in skopeo's and our own form: `oci:DIR:TAG`.
    pub fn source(&self, tag: &str) -> String {
        format!("oci:{}:{tag}", self.dir.display())
    }

    /// The file of a blob: to break it.
    pub fn blob(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs").join(digest.replacen(':', "/", 1))
    }

    /// Adds a blob and returns its digest.
    pub fn add(&self, bytes: &[u8]) -> Result<String> {
        let digest = layers::digest(bytes);
        fs::write(self.blob(&digest), bytes)?;
        Ok(digest)
    }

    /// Adds a layer from memory, plain.
    pub fn add_tar(&self, tar: &[u8]) -> Result<LayerRef> {
        let digest = self.add(tar)?;
        Ok(LayerRef { media_type: TAR.into(), diff_id: digest.clone(), digest, size: tar.len() as u64 })
    }

    /// Adds a layer from memory, compressed by us with gzip.
    pub fn add_gzip(&self, tar: &[u8]) -> Result<LayerRef> {
        let blob = layers::gzip(tar)?;
        let (digest, diff_id) = (self.add(&blob)?, layers::digest(tar));
        Ok(LayerRef { media_type: GZIP.into(), digest, size: blob.len() as u64, diff_id })
    }

    /// Adds a layer from a file, whose name's end says how it is encoded.
    pub fn add_file(&self, path: &Path, diff_id: &str) -> Result<LayerRef> {
        let name = path.to_string_lossy();
        let media_type = match name.rsplit('.').next() {
            Some("gz") => GZIP,
            Some("zst") => ZSTD,
            _ => TAR,
        };
        self.add_file_as(path, media_type, diff_id)
    }

    /// Adds a layer from a file with this media type.
    pub fn add_file_as(&self, path: &Path, media_type: &str, diff_id: &str) -> Result<LayerRef> {
        let digest = layers::digest_of_file(path)?;
        let blob = self.blob(&digest);
        if !blob.exists() {
            // A copy, not a link: tests damage blobs in place.
            fs::copy(path, &blob).with_context(|| format!("cannot copy {}", path.display()))?;
        }
        let size = fs::metadata(&blob)?.len();
        Ok(LayerRef { media_type: media_type.into(), digest, size, diff_id: diff_id.into() })
    }

    /// Adds an image of these layers under a tag, and returns its manifest's digest.
    pub fn add_image(&mut self, tag: &str, layers: &[LayerRef]) -> Result<String> {
        self.add_image_with(tag, layers, |config| config)
    }

    /// The same, with a last change to the bytes of its configuration.
    pub fn add_image_with(
        &mut self,
        tag: &str,
        layers: &[LayerRef],
        change: impl FnOnce(Vec<u8>) -> Vec<u8>,
    ) -> Result<String> {
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": { "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/bin/sh"] },
            "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|l| &l.diff_id).collect::<Vec<_>>() },
        });
        let config = change(serde_json::to_vec(&config)?);
        let descriptors: Vec<_> = layers
            .iter()
            .map(|layer| json!({ "mediaType": layer.media_type, "digest": layer.digest, "size": layer.size }))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": self.add(&config)?,
                "size": config.len(),
            },
            "layers": descriptors,
        });
        let manifest = serde_json::to_vec(&manifest)?;
        let digest = self.add(&manifest)?;
        self.index.push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest,
            "size": manifest.len(),
            "annotations": { "org.opencontainers.image.ref.name": tag },
        }));
        self.write_index()?;
        Ok(digest)
    }

    /// Adds an index of such images, each for this machine's platform, under a tag, and returns its digest.
    pub fn add_index(&mut self, tag: &str, manifests: &[String]) -> Result<String> {
        let entries = manifests.iter().map(|digest| {
            Ok(json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest,
                "size": fs::metadata(self.blob(digest))?.len(),
                "platform": { "os": "linux", "architecture": architecture() },
            }))
        });
        let media_type = "application/vnd.oci.image.index.v1+json";
        let entries = entries.collect::<Result<Vec<_>>>()?;
        let index = serde_json::to_vec(&json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": entries }))?;
        let digest = self.add(&index)?;
        self.index.retain(|entry| manifests.iter().all(|manifest| entry["digest"] != manifest.as_str()));
        self.index.push(json!({
            "mediaType": media_type,
            "digest": digest,
            "size": index.len(),
            "annotations": { "org.opencontainers.image.ref.name": tag },
        }));
        self.write_index()?;
        Ok(digest)
    }

    fn write_index(&self) -> Result<()> {
        let index = json!({ "schemaVersion": 2, "manifests": self.index });
        Ok(fs::write(self.dir.join("index.json"), serde_json::to_vec(&index)?)?)
    }
}

/// This machine's architecture, in the words of OCI.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The layers of an image in a layout: digest and media type, lowest first, and their `DiffID`s.
pub fn layers_of(dir: &Path, tag: &str) -> Result<Vec<LayerRef>> {
    let blob = |digest: &str| dir.join("blobs").join(digest.replacen(':', "/", 1));
    let read = |path: PathBuf| -> Result<Value> {
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(serde_json::from_slice(&bytes)?)
    };
    let text = |value: &Value| -> Result<String> { Ok(value.as_str().context("text expected")?.to_owned()) };
    let index = read(dir.join("index.json"))?;
    let manifests = index["manifests"].as_array().context("an index without manifests")?;
    let found = manifests.iter().find(|m| m["annotations"]["org.opencontainers.image.ref.name"] == *tag);
    let manifest = read(blob(&text(&found.with_context(|| format!("no tag {tag}"))?["digest"])?))?;
    let config = read(blob(&text(&manifest["config"]["digest"])?))?;
    let diff_ids = config["rootfs"]["diff_ids"].as_array().context("a configuration without diff_ids")?;
    let layers = manifest["layers"].as_array().context("a manifest without layers")?;
    let describe = |(layer, diff_id): (&Value, &Value)| -> Result<LayerRef> {
        Ok(LayerRef {
            media_type: text(&layer["mediaType"])?,
            digest: text(&layer["digest"])?,
            size: layer["size"].as_u64().context("a layer without a size")?,
            diff_id: text(diff_id)?,
        })
    };
    layers.iter().zip(diff_ids).map(describe).collect()
}
