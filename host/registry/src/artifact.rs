//! Plugins as OCI artifacts: a manifest whose one layer is the component.
//!
//! Source: "Wasm OCI Artifact layout" of the CNCF's TAG Runtime, as `wkg` writes it: configuration
//! `application/vnd.wasm.config.v0+json`, one layer `application/wasm`.

use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use cofferdam_core::limits::Limits;
use cofferdam_documents::{Descriptor, MediaType};
use serde::Deserialize;

use super::fetch;
use super::retry::RetryPolicy;
use crate::image_source::ImageSource;

/// The media type of the configuration.
pub const CONFIG_TYPE: &str = "application/vnd.wasm.config.v0+json";

/// The media type of the layer.
pub const COMPONENT_TYPE: &str = "application/wasm";

/// A component that was fetched and verified.
#[derive(Clone, Debug)]
pub struct PluginArtifact {
    /// The digest of the manifest.
    pub manifest: Digest,
    /// The component.
    pub component: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u32,
    config: RawPart,
    layers: Vec<RawPart>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPart {
    media_type: String,
    digest: String,
    size: u64,
}

/// Fetches a plugin. Every byte is verified against the digest that the name stands for.
///
/// # Errors
/// [`Error::Unsupported`] for an artifact that is no plugin, such as an image; [`Error::Limit`] for one that is too large; all
/// that a source may say.
pub async fn fetch_plugin(source: &dyn ImageSource, limits: &Limits, retry: &RetryPolicy) -> Result<PluginArtifact> {
    let name = source.name();
    let raw = fetch::top(source, retry).await?;
    let component = component_of(&raw.bytes, &name)?;
    if component.size > limits.plugin_bytes {
        return Err(Error::Limit { subject: name, what: "bytes in a plugin's component", limit: limits.plugin_bytes });
    }
    let subject = format!("the component {}", component.digest);
    let bytes = fetch::small(source, &component, retry, &subject)
        .await
        .map_err(|error| error.context(format!("fetching {subject}")))?;
    Ok(PluginArtifact { manifest: raw.digest, component: bytes })
}

/// The one layer of a manifest.
fn component_of(manifest: &[u8], name: &str) -> Result<Descriptor> {
    let refused = |reason: String| Error::Refused { subject: format!("the manifest of {name}"), reason };
    let raw: Raw = serde_json::from_slice(manifest).map_err(|error| refused(error.to_string()))?;
    if raw.schema_version != 2 {
        return Err(refused("its `schemaVersion` is not 2".into()));
    }
    if MediaType::new(&raw.config.media_type).as_str() != CONFIG_TYPE {
        let what = format!(
            "{name} as a plugin (its configuration has media type `{}`)",
            MediaType::new(&raw.config.media_type)
        );
        return Err(Error::Unsupported { what });
    }
    match raw.layers.as_slice() {
        [layer] if MediaType::new(&layer.media_type).as_str() == COMPONENT_TYPE => Ok(Descriptor {
            media_type: MediaType::new(&layer.media_type),
            digest: layer.digest.parse()?,
            size: layer.size,
            has_urls: false,
        }),
        [_] => Err(refused(format!("its layer is no `{COMPONENT_TYPE}`"))),
        layers => Err(refused(format!("it has {} layers, and a plugin has one", layers.len()))),
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_core::error::ErrorKind;

    use super::*;

    #[test]
    fn a_plugin_has_one_layer_of_its_type() {
        let part =
            |media_type: &str| format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":7}}"#, Digest::of(b"x"));
        let manifest = |config: &str, layers: &[&str]| {
            let layers: Vec<_> = layers.iter().map(|layer| part(layer)).collect();
            format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, part(config), layers.join(","))
        };
        let read = |text: String| component_of(text.as_bytes(), "a");
        let found = read(manifest(CONFIG_TYPE, &[COMPONENT_TYPE])).unwrap();
        assert_eq!((found.digest, found.size), (Digest::of(b"x"), 7));
        for text in [
            manifest("application/vnd.oci.image.config.v1+json", &[COMPONENT_TYPE]),
            manifest(CONFIG_TYPE, &[]),
            manifest(CONFIG_TYPE, &[COMPONENT_TYPE, COMPONENT_TYPE]),
            manifest(CONFIG_TYPE, &["application/vnd.oci.image.layer.v1.tar+gzip"]),
            manifest(CONFIG_TYPE, &[COMPONENT_TYPE]).replace("\"schemaVersion\":2", "\"schemaVersion\":1"),
            manifest(CONFIG_TYPE, &[COMPONENT_TYPE]).replace("sha256:", "sha256:../"),
            "{}".to_owned(),
            "garbage".to_owned(),
        ] {
            assert_eq!(read(text.clone()).unwrap_err().kind(), ErrorKind::Refused, "{text}");
        }
    }
}
