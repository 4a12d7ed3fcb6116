//! The image configuration, as far as pulling needs it: which platform it is for and what its layers decode to.
//!
//! Source: OCI image spec 1.1, `config.md`.

use serde::Deserialize;

use super::json;
use super::platform::StatedPlatform;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// The checked part of an image configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigHead {
    /// The platform, if it is stated.
    pub platform: Option<StatedPlatform>,
    /// What each layer decodes to, lowest first.
    pub diff_ids: Vec<Digest>,
}

/// Plain fields only: what `serde` flattens it first keeps in memory, twenty times as large as its text.
#[derive(Deserialize)]
struct RawConfig {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
    rootfs: Option<RawRootfs>,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(rename = "type")]
    kind: Option<String>,
    diff_ids: Option<Vec<String>>,
}

impl ConfigHead {
    /// Reads a configuration whose bytes were verified. `layers` is how many layers the manifest has: each must have its
    /// `DiffID`, and none may be left over.
    pub fn parse(bytes: &[u8], digest: &Digest, layers: usize) -> Result<Self> {
        let subject = format!("the image configuration {digest}");
        let refused = |reason: String| Error::Refused { subject: subject.clone(), reason };
        let raw: RawConfig = json::parse(bytes).map_err(refused)?;
        let rootfs = raw.rootfs.ok_or_else(|| refused("it has no `rootfs`".into()))?;
        if rootfs.kind.as_deref().is_some_and(|kind| kind != "layers") {
            return Err(refused("its `rootfs.type` is not `layers`".into()));
        }
        let texts = rootfs.diff_ids.unwrap_or_default();
        if texts.len() != layers {
            return Err(refused(format!("it has {} DiffIDs for {layers} layers", texts.len())));
        }
        let diff_ids = texts
            .iter()
            .map(|text| text.parse::<Digest>().map_err(|error| error.context(subject.clone())))
            .collect::<Result<_>>()?;
        let platform = StatedPlatform::new(raw.os.as_deref(), raw.architecture.as_deref(), raw.variant.as_deref());
        Ok(Self { platform, diff_ids })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn parse(text: &str, layers: usize) -> Result<ConfigHead> {
        ConfigHead::parse(text.as_bytes(), &Digest::of(text.as_bytes()), layers)
    }

    #[test]
    fn each_layer_has_its_diff_id() {
        let id = Digest::of(b"x");
        let text = format!(
            r#"{{"architecture":"arm64","os":"linux","variant":"v8","rootfs":{{"type":"layers","diff_ids":["{id}"]}},"x":1}}"#
        );
        let config = parse(&text, 1).unwrap();
        assert_eq!(config.diff_ids, [id]);
        assert_eq!(config.platform, Some("linux/arm64/v8".parse().unwrap()));
        for layers in [0, 2] {
            assert_eq!(parse(&text, layers).unwrap_err().kind(), ErrorKind::Refused);
        }
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        for text in [
            "",
            "{}",
            "[]",
            r#"{"rootfs":{"type":"tree","diff_ids":[]}}"#,
            r#"{"rootfs":{"type":"layers","diff_ids":["sha256:../.."]}}"#,
        ] {
            let layers = usize::from(text.contains(".."));
            assert_eq!(parse(text, layers).unwrap_err().kind(), ErrorKind::Refused, "{text}");
        }
    }
}
