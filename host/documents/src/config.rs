//! The image configuration: the one reader of it, for pulling, for the store and for whoever runs images.
//!
//! Source: OCI image spec 1.1, `config.md`, and what containerd and containers/image make of configurations that leave things out: a
//! member that is missing or null is an empty one. The members that are not used here, which can be large, are read over.

use std::collections::BTreeMap;

use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::json;
use super::platform::StatedPlatform;

/// The checked part of an image configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// The platform, if it is stated.
    pub platform: Option<StatedPlatform>,
    /// The platform in words: `os/arch` or `os/arch/variant`, with `unknown` for a word that is missing or can be no name, and
    /// `linux` for a missing operating system.
    pub platform_words: String,
    /// What each layer decodes to, lowest first.
    pub diff_ids: Vec<Digest>,
    /// How to run the image.
    pub run: ImageConfig,
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

/// Plain fields only: what `serde` flattens it first keeps in memory, twenty times as large as its text.
#[derive(Deserialize)]
struct RawConfig {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
    config: Option<RawRun>,
    rootfs: Option<RawRootfs>,
}

#[derive(Default, Deserialize)]
struct RawRootfs {
    #[serde(rename = "type")]
    kind: Option<String>,
    diff_ids: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawRun {
    entrypoint: Option<Words>,
    cmd: Option<Words>,
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    #[expect(clippy::zero_sized_map_values, reason = "how the configuration writes a set")]
    exposed_ports: Option<BTreeMap<String, IgnoredAny>>,
}

/// A command: a list of words, or one word, as Docker wrote it before 1.2.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a list of texts")]
enum Words {
    Many(Vec<String>),
    One(String),
}

impl Words {
    fn into_list(self) -> Vec<String> {
        match self {
            Self::Many(words) => words,
            Self::One(word) => vec![word],
        }
    }
}

impl Configuration {
    /// Reads a configuration whose bytes were verified. `layers` is how many layers the manifest has: each must have its
    /// `DiffID`, and none may be left over.
    ///
    /// # Errors
    /// [`Error::Refused`] for what is no configuration, or not of that many layers.
    pub fn parse(bytes: &[u8], digest: &Digest, layers: usize) -> Result<Self> {
        let subject = format!("the image configuration {digest}");
        let refused = |reason: String| Error::Refused { subject: subject.clone(), reason };
        let raw: RawConfig = json::parse(bytes).map_err(refused)?;
        let rootfs = raw.rootfs.unwrap_or_default();
        if rootfs.kind.as_deref().is_some_and(|kind| !matches!(kind, "layers" | "")) {
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
        let [os, architecture, variant] =
            [&raw.os, &raw.architecture, &raw.variant].map(|word| word.as_deref().unwrap_or_default());
        let platform = StatedPlatform::new(os, architecture, variant);
        Ok(Self { platform, platform_words: words(os, architecture, variant), diff_ids, run: run_config(raw.config) })
    }
}

/// A platform in words that may be shown: they end up on terminals and in other programs' conditions.
fn words(os: &str, architecture: &str, variant: &str) -> String {
    let is_name =
        |word: &str| word.len() <= 64 && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    let shown = |word: &str| if word.is_empty() || !is_name(word) { "unknown".to_owned() } else { word.to_owned() };
    let (os, architecture) = (if os.is_empty() { "linux".into() } else { shown(os) }, shown(architecture));
    if variant.is_empty() { format!("{os}/{architecture}") } else { format!("{os}/{architecture}/{}", shown(variant)) }
}

fn run_config(run: Option<RawRun>) -> ImageConfig {
    let run = run.unwrap_or_default();
    ImageConfig {
        entrypoint: run.entrypoint.map(Words::into_list).unwrap_or_default(),
        cmd: run.cmd.map(Words::into_list).unwrap_or_default(),
        env: run.env.unwrap_or_default(),
        user: run.user.unwrap_or_default(),
        working_dir: run.working_dir.unwrap_or_default(),
        exposed_ports: run.exposed_ports.unwrap_or_default().into_keys().collect(),
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_core::error::ErrorKind;

    use super::*;

    fn parse(text: &str, layers: usize) -> Result<Configuration> {
        Configuration::parse(text.as_bytes(), &Digest::of(text.as_bytes()), layers)
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

    /// As containerd and containers/image read them: a member that is missing or null is an empty one.
    #[test]
    fn members_may_be_missing_or_null() {
        let id = Digest::of(b"x");
        let rootfs = format!(r#""rootfs":{{"diff_ids":["{id}"]}}"#);
        for (members, words, platform) in [
            (r#""os":"linux","architecture":"amd64","#, "linux/amd64", Some("linux/amd64")),
            (r#""architecture":"amd64","#, "linux/amd64", Some("linux/amd64")),
            (r#""os":null,"architecture":"arm","variant":null,"#, "linux/arm", Some("linux/arm")),
            (r#""os":"","architecture":"arm","variant":"v6","#, "linux/arm/v6", Some("linux/arm/v6")),
            (r#""os":"linux","#, "linux/unknown", None),
            (r#""os":"linux","architecture":"","#, "linux/unknown", None),
            (r#""os":null,"architecture":null,"config":null,"#, "linux/unknown", None),
            ("", "linux/unknown", None),
            (r#""os":"\u001b]0;x\u0007","architecture":"a/b","variant":"\u202e","#, "unknown/unknown/unknown", None),
        ] {
            let config = parse(&format!("{{{members}{rootfs}}}"), 1).unwrap();
            assert_eq!(config.platform_words, words, "{members}");
            assert_eq!(config.platform, platform.map(|text| text.parse().unwrap()), "{members}");
        }
        for rootfs in ["", r#""rootfs":null"#, r#""rootfs":{}"#, r#""rootfs":{"type":"","diff_ids":null}"#] {
            let text = format!("{{{rootfs}}}");
            assert_eq!(parse(&text, 0).unwrap().diff_ids, [], "{text}");
            assert_eq!(parse(&text, 1).unwrap_err().kind(), ErrorKind::Refused, "{text}");
        }
        let run = r#"{"config":{"Entrypoint":null,"Cmd":"/bin/sh","Env":null,"User":null,"ExposedPorts":null}}"#;
        let run = parse(run, 0).unwrap().run;
        assert_eq!(run, ImageConfig { cmd: vec!["/bin/sh".into()], ..ImageConfig::default() });
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        for text in [
            "",
            "[]",
            "null",
            r#"{"os":5}"#,
            r#"{"os":"linux","os":"windows"}"#,
            r#"{"config":{"User":1000}}"#,
            r#"{"rootfs":{"type":"tree","diff_ids":[]}}"#,
            r#"{"rootfs":{"type":"layers","diff_ids":["sha256:../.."]}}"#,
        ] {
            let layers = usize::from(text.contains(".."));
            assert_eq!(parse(text, layers).unwrap_err().kind(), ErrorKind::Refused, "{text}");
        }
    }
}
