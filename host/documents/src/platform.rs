//! Platforms: what an image runs on, and which of the images in an index runs on a given platform.
//!
//! Source: OCI image spec 1.1, `image-index.md`, "Platform Variants". Variants are ordered: what asks for `arm/v7` can
//! run `v6` and `v5`, what asks for `amd64/v3` can run `v2` and plain `amd64`; the nearest one wins.

use std::fmt;
use std::str::FromStr;

use cofferdam_core::error::{Error, Result};

/// An operating system, an architecture and perhaps a variant of it, in the names that Go gives them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Platform {
    os: String,
    architecture: String,
    /// Empty for the architecture's baseline: `amd64` is `amd64/v1`, `arm64` is `arm64/v8`.
    variant: String,
}

/// What an image's configuration says that it runs on. Most say no variant, whatever they were built for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatedPlatform {
    platform: Platform,
    has_variant: bool,
}

impl StatedPlatform {
    /// From the words of a configuration; nothing where they are no platform. One that names an architecture and no operating system
    /// is for Linux, as containerd has it.
    pub(super) fn new(os: &str, architecture: &str, variant: &str) -> Option<Self> {
        let os = if os.is_empty() { "linux" } else { os };
        Some(Self { platform: Platform::new(os, architecture, variant)?, has_variant: !variant.is_empty() })
    }

    /// From the words of an image object, of which any may be `unknown`.
    pub fn of_words(words: &str) -> Option<Self> {
        if words.split('/').any(|word| word == "unknown") { None } else { words.parse().ok() }
    }

    /// What this says, as a platform that may be chosen.
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Whether such an image may be what was asked for. A variant that is not stated is not held against it: if the image
    /// was chosen from an index, that was the index's word already.
    pub fn suits(&self, wanted: &Platform) -> bool {
        let Platform { os, architecture, .. } = &self.platform;
        wanted.distance(&self.platform).is_some()
            || (!self.has_variant && wanted.os == *os && wanted.architecture == *architecture)
    }
}

impl FromStr for StatedPlatform {
    type Err = Error;

    /// Reads `os/arch[/variant]`.
    fn from_str(text: &str) -> Result<Self> {
        Ok(Self { platform: text.parse()?, has_variant: text.matches('/').count() > 1 })
    }
}

impl fmt::Display for StatedPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Platform { os, architecture, .. } = &self.platform;
        if self.has_variant { self.platform.fmt(f) } else { write!(f, "{os}/{architecture}") }
    }
}

impl Platform {
    /// The platform of this program: Linux on the architecture that it was compiled for, in its baseline variant.
    ///
    /// What the processor can do beyond the baseline is not asked: the image may be meant for a virtual machine that
    /// shows less of it, and the same pull gives the same image on each machine.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86" => "386",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            other => other,
        };
        Self::new("linux", architecture, "").unwrap_or_else(|| Self {
            os: "linux".into(),
            architecture: "unknown".into(),
            variant: String::new(),
        })
    }

    /// Puts the many spellings of a platform into one. Nothing for an empty or impossible name.
    pub(super) fn new(os: &str, architecture: &str, variant: &str) -> Option<Self> {
        let name = |text: &str| {
            let fits = text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            fits.then(|| text.to_ascii_lowercase())
        };
        let (os, architecture, variant) = (name(os)?, name(architecture)?, name(variant)?);
        if os.is_empty() || architecture.is_empty() {
            return None;
        }
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("x86_64" | "x86-64" | "amd64", "" | "v1" | "1") => ("amd64", String::new()),
            ("x86_64" | "x86-64" | "amd64", _) => ("amd64", with_v(&variant)),
            ("aarch64" | "arm64", "" | "v8" | "8" | "v8.0") => ("arm64", String::new()),
            ("aarch64" | "arm64", _) => ("arm64", with_v(&variant)),
            ("armhf", _) | ("arm", "") => ("arm", "v7".into()),
            ("armel", _) => ("arm", "v6".into()),
            ("arm", _) => ("arm", with_v(&variant)),
            ("i386" | "i686" | "x86", _) => ("386", String::new()),
            (other, _) => (other, variant.clone()),
        };
        Some(Self { os, architecture: architecture.to_owned(), variant })
    }

    /// The operating system, such as `linux`.
    pub fn os(&self) -> &str {
        &self.os
    }

    /// The architecture, such as `amd64`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The variant beyond the baseline, such as `v7`.
    pub fn variant(&self) -> Option<&str> {
        (!self.variant.is_empty()).then_some(self.variant.as_str())
    }

    /// How well an image for `offer` runs on this platform: nothing if it does not, else 0 for an exact fit and more for
    /// a lesser variant.
    pub fn distance(&self, offer: &Self) -> Option<u32> {
        if self.os != offer.os || self.architecture != offer.architecture {
            return None;
        }
        if self.variant == offer.variant {
            return Some(0);
        }
        let (wanted, offered) = (self.level()?, offer.level()?);
        (offered < wanted).then(|| wanted - offered)
    }

    /// The variant as a number that orders the variants of one architecture: tenths, for `arm64/v8.2`.
    fn level(&self) -> Option<u32> {
        let variant = match (self.architecture.as_str(), self.variant.as_str()) {
            ("amd64", "") => "v1",
            ("arm64", "") => "v8",
            ("amd64" | "arm64" | "arm", variant) => variant,
            _ => return None,
        };
        let digits = variant.strip_prefix('v')?;
        let (major, minor) = digits.split_once('.').unwrap_or((digits, "0"));
        let (major, minor): (u8, u8) = (major.parse().ok()?, minor.parse().ok()?);
        (minor < 100).then(|| u32::from(major) * 100 + u32::from(minor))
    }
}

fn with_v(variant: &str) -> String {
    if variant.starts_with(|c: char| c.is_ascii_digit()) { format!("v{variant}") } else { variant.to_owned() }
}

impl FromStr for Platform {
    type Err = Error;

    /// Reads `os/arch[/variant]`.
    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split('/');
        let platform = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(os), Some(architecture), variant, None) if variant != Some("") => {
                Self::new(os, architecture, variant.unwrap_or_default())
            }
            _ => None,
        };
        platform.ok_or_else(|| Error::Usage {
            reason: format!("{:?} is not a platform", text.chars().take(200).collect::<String>()),
            hint: Some("write os/arch or os/arch/variant, such as linux/arm64 or linux/arm/v7".into()),
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn spellings_of_one_platform_are_one() {
        for (spelling, name) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("Linux/AMD64/V3", "linux/amd64/v3"),
            ("linux/aarch64/v8", "linux/arm64"),
            ("linux/arm64/8.2", "linux/arm64/v8.2"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("linux/riscv64", "linux/riscv64"),
        ] {
            assert_eq!(platform(spelling).to_string(), name);
        }
    }

    #[test]
    fn what_is_no_platform_is_a_usage_error() {
        for text in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux/arm/", "linux/a b", "linux/\n"] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_lesser_variant_runs_and_a_greater_one_does_not() {
        for (wanted, offered, distance) in [
            ("linux/arm/v7", "linux/arm/v7", Some(0)),
            ("linux/arm/v7", "linux/arm/v6", Some(100)),
            ("linux/arm/v7", "linux/arm/v5", Some(200)),
            ("linux/arm/v6", "linux/arm/v7", None),
            ("linux/arm64", "linux/arm64/v8", Some(0)),
            ("linux/arm64", "linux/arm64/v9", None),
            ("linux/arm64/v9", "linux/arm64", Some(100)),
            ("linux/arm64", "linux/arm/v7", None),
            ("linux/amd64/v3", "linux/amd64", Some(200)),
            ("linux/amd64/v3", "linux/amd64/v2", Some(100)),
            ("linux/amd64", "linux/amd64/v2", None),
            ("linux/amd64", "windows/amd64", None),
            ("linux/riscv64", "linux/riscv64", Some(0)),
            ("linux/amd64/v3", "linux/amd64/strange", None),
        ] {
            assert_eq!(platform(wanted).distance(&platform(offered)), distance, "{wanted} {offered}");
        }
    }

    #[test]
    fn the_host_is_a_platform() {
        let host = Platform::host();
        assert_eq!(host.to_string().parse::<Platform>().unwrap(), host);
    }
}
