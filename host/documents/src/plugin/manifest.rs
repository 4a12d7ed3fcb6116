//! `plugin.toml`: what a plugin says of itself.

use std::collections::BTreeMap;

use cofferdam_core::error::{Error, Result};
use cofferdam_core::limits::Limits;
use serde::{Deserialize, Serialize};

use super::capability::Capabilities;
use super::world::World;

/// The most bytes of a manifest.
pub(super) const MANIFEST_BYTES: usize = 64 << 10;

/// What a plugin says of itself. Nothing of it is trusted: it asks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct PluginManifest {
    /// What it calls itself: 1 to 64 of `a` to `z`, digits and `-`.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// The world that it implements.
    pub world: World,
    /// What it is for, in one line.
    #[serde(default)]
    pub description: String,
    /// The component's file, beside the manifest's. Of use only where the two are separate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// What a decoder decodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder: Option<DecoderTraits>,
    /// What an extractor reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extractor: Option<ExtractorTraits>,
    /// What it asks for.
    #[serde(default, skip_serializing_if = "Capabilities::is_empty")]
    pub capabilities: Capabilities,
    /// Limits of its own.
    #[serde(default)]
    pub limits: PluginLimits,
    /// Its settings, where the policy says nothing else.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
}

/// What a decoder decodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DecoderTraits {
    /// Media types of the blobs.
    pub media_types: Vec<String>,
    /// What the blobs begin with, in hexadecimal digits: 2 to 16 bytes.
    #[serde(default)]
    pub magic: Vec<String>,
}

/// What an extractor reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExtractorTraits {
    /// Media types of the blobs, which are given to it as they are.
    pub media_types: Vec<String>,
}

/// Limits that a plugin sets itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PluginLimits {
    /// Linear memory, written as the host's limit `guest-memory`; at most `plugin-memory`, and a decoder's at most
    /// `decoder-memory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Processor time whatever the input, written as the host's limit `guest-time`; no more than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

impl PluginManifest {
    /// Reads a manifest, and checks what can be checked without the component.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], with what is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |reason: String| Error::Refused { subject: "the plugin's manifest".into(), reason };
        if text.len() > MANIFEST_BYTES {
            return Err(wrong(format!("it has {} bytes, and {MANIFEST_BYTES} are allowed", text.len())));
        }
        let manifest: Self =
            toml::from_str(text).map_err(|error| wrong(error.message().trim_end().replace('\n', " ")))?;
        manifest.check().map_err(|error| match error {
            Error::Usage { reason, .. } => wrong(reason),
            other => other,
        })?;
        Ok(manifest)
    }

    /// The limits under which it runs: the host's, or its own where they are lower. Of memory it may ask for more than a guest
    /// has, up to the host's `plugin-memory`.
    #[must_use]
    pub fn limits(&self, host: &Limits) -> Limits {
        let mut limits = host.clone();
        // Checked when it was read.
        let of = |name: &str, value: &Option<String>| {
            let mut own = Limits::default();
            value.as_ref().and_then(|value| own.set(name, value).ok().map(|()| own))
        };
        if let Some(own) = of("guest-memory", &self.limits.memory) {
            limits.guest_memory = own.guest_memory.min(limits.plugin_memory);
            limits.decoder_memory = limits.decoder_memory.min(own.guest_memory);
        }
        if let Some(own) = of("guest-time", &self.limits.time) {
            limits.guest_time = limits.guest_time.min(own.guest_time);
        }
        limits
    }

    /// What a decoder's blobs begin with.
    pub fn magic(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.decoder.iter().flat_map(|decoder| &decoder.magic).filter_map(|text| bytes(text))
    }

    /// The media types of the blobs that it reads.
    pub fn media_types(&self) -> &[String] {
        match (&self.decoder, &self.extractor) {
            (Some(decoder), _) => &decoder.media_types,
            (None, Some(extractor)) => &extractor.media_types,
            (None, None) => &[],
        }
    }

    fn check(&self) -> Result<()> {
        let wrong = |reason: String| Err(Error::Usage { reason, hint: None });
        check_name(&self.name)?;
        for text in [&self.version, &self.description] {
            if text.len() > 1024 || text.chars().any(char::is_control) {
                return wrong("`version` and `description` are one line each, of at most 1024 bytes".into());
            }
        }
        if self.decoder.is_some() != (self.world == World::Decoder)
            || self.extractor.is_some() != (self.world == World::Extractor)
        {
            let world = self.world;
            return wrong(format!(
                "a plugin of the world {world} has a part [{world}] if it is a decoder or an extractor, and no other such part"
            ));
        }
        if self.media_types().iter().any(|media_type| !media_type.contains('/') || media_type.len() > 255) {
            return wrong("a media type has two parts and at most 255 bytes".into());
        }
        if let Some(decoder) = &self.decoder
            && decoder.magic.iter().any(|text| bytes(text).is_none_or(|bytes| !(2..=16).contains(&bytes.len())))
        {
            return wrong("`magic` is 2 to 16 bytes in hexadecimal digits".into());
        }
        if !self.capabilities.http_private.is_empty() {
            return wrong("`http-private` is granted, never asked for".into());
        }
        let waits = self.capabilities.clock || !self.capabilities.http.is_empty();
        if waits && matches!(self.world, World::Decoder | World::Extractor) {
            return wrong(
                "a decoder or an extractor may ask for neither `clock` nor `http`: a layer is what its bytes say"
                    .into(),
            );
        }
        self.capabilities.check()?;
        for (name, value) in [("guest-memory", &self.limits.memory), ("guest-time", &self.limits.time)] {
            if let Some(value) = value {
                Limits::default().set(name, value)?;
            }
        }
        let long = |(key, value): (&String, &String)| key.len() > 64 || value.len() > 16 << 10;
        if self.settings.len() > 256 || self.settings.iter().any(long) {
            return wrong("there are at most 256 settings, of 64 bytes and 16 KiB".into());
        }
        Ok(())
    }
}

/// Checks a plugin's name, which is also the name of its files: 1 to 64 of `a` to `z`, digits and `-`, not first.
///
/// # Errors
///
/// [`Error::Usage`].
pub fn check_name(name: &str) -> Result<()> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) || name.starts_with('-') {
        return Err(Error::Usage {
            reason: format!("{name:?} is no name for a plugin"),
            hint: Some("a name has 1 to 64 of a to z, 0 to 9 and -".into()),
        });
    }
    Ok(())
}

/// The bytes that hexadecimal digits say.
fn bytes(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const XZ: &str = r#"
        name = "xz"
        version = "0.1.0"
        world = "decoder"
        [decoder]
        media-types = ["application/vnd.oci.image.layer.v1.tar+xz"]
        magic = ["fd377a585a00"]
        [limits]
        memory = "16MiB"
    "#;

    #[test]
    fn a_manifest_says_what_a_plugin_is() {
        let manifest = PluginManifest::parse(XZ).unwrap();
        assert_eq!((manifest.name.as_str(), manifest.world), ("xz", World::Decoder));
        assert_eq!(manifest.magic().collect::<Vec<_>>(), [b"\xfd7zXZ\0".to_vec()]);
        let limits = manifest.limits(&Limits::default());
        assert_eq!((limits.decoder_memory, limits.guest_memory), (16 << 20, 16 << 20));
        let written = toml::to_string(&manifest).unwrap();
        assert_eq!(PluginManifest::parse(&written).unwrap(), manifest);
    }

    #[test]
    fn a_plugin_cannot_raise_the_limits_of_the_host() {
        let manifest = PluginManifest::parse(&XZ.replace("16MiB", "64GiB\"\ntime = \"9999s")).unwrap();
        let host = Limits::default();
        let limits = manifest.limits(&host);
        assert_eq!(limits, host.clone().with(|limits| limits.guest_memory = host.plugin_memory));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (from, to) in [
            ("name = \"xz\"", "name = \"../xz\""),
            ("name = \"xz\"", "name = \"\""),
            ("name = \"xz\"", "name = \"xz\"\nunknown = 1"),
            ("version = \"0.1.0\"", "version = \"0\\n1\""),
            ("\"decoder\"", "\"kernel\""),
            ("\"decoder\"", "\"inspector\""),
            ("[decoder]", "[extractor]"),
            ("fd377a585a00", "fd"),
            ("fd377a585a00", "xx37"),
            ("fd377a585a00", "fd3"),
            ("16MiB", "lots"),
            ("[limits]", "[capabilities]\nroot = true\n[limits]"),
            ("[limits]", "[capabilities]\nread = ['etc']\n[limits]"),
            ("[limits]", "[capabilities]\nclock = true\n[limits]"),
            ("[limits]", "[capabilities]\nhttp = ['https://a.b']\n[limits]"),
            ("[limits]", "[capabilities]\nhttp = ['*']\n[limits]"),
            ("[limits]", "[capabilities]\nhttp-private = ['https://a.b']\n[limits]"),
        ] {
            let text = XZ.replacen(from, to, 1);
            assert_ne!(text, XZ, "{from}");
            assert!(matches!(PluginManifest::parse(&text), Err(Error::Refused { .. })), "{to}");
        }
        assert!(PluginManifest::parse(&"#".repeat(MANIFEST_BYTES + 1)).is_err());
    }
}
