//! A descriptor: what one document says of another, or of a blob.
//!
//! Source: OCI image spec 1.1, `descriptor.md`. Of its optional fields `urls` is never followed (a manifest must not choose
//! whom we connect to) and `data` is never trusted. What is not needed of a descriptor refuses nothing.

use std::fmt;

use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, ErrorKind, Result};
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::json::{Member, Named, scalars};
use super::media_type::MediaType;
use super::platform::Platform;

/// Digest, size and media type of something, as declared by a document that points to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// What it is said to be.
    pub media_type: MediaType,
    /// What its bytes must hash to.
    pub digest: Digest,
    /// How many bytes it must have.
    pub size: u64,
    /// Whether it names other places where the blob may be had. What those are is never read.
    pub has_urls: bool,
}

impl Descriptor {
    /// Returns true for a layer that its image's registry need not have: one that is not to be distributed, or that names other places
    /// where it may be had.
    pub fn is_foreign(&self) -> bool {
        self.has_urls || self.media_type.is_foreign()
    }

    /// Says of an error about this layer, which was not where its image is, that it is a foreign one.
    pub fn explain_absence(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::NotFound && self.is_foreign() { foreign(&self.digest, &error) } else { error }
    }

    /// Checks that some bytes are what this descriptor says: the size first, then the hash.
    pub fn verify(&self, subject: &str, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 != self.size {
            return Err(Error::SizeMismatch {
                subject: subject.to_owned(),
                expected: self.size,
                actual: bytes.len() as u64,
            });
        }
        verify_digest(subject, &self.digest, bytes)
    }
}

/// The error of a foreign layer that is not where its image is.
pub fn foreign(digest: &Digest, error: &Error) -> Error {
    let what = match error.root() {
        Error::NotFound { what, .. } => what.clone(),
        _ => format!("the layer {digest}"),
    };
    Error::NotFound {
        what: format!("{what}, a foreign layer (not to be distributed with the image: its manifest names `urls` for it),"),
        hint: Some(
            "an address that a manifest names is never asked; push the image with its foreign layers to a registry of your own".into(),
        ),
    }
}

/// Checks that some bytes hash to `expected`.
pub fn verify_digest(subject: &str, expected: &Digest, bytes: &[u8]) -> Result<()> {
    let mut hasher = cofferdam_core::digest::Hasher::new(expected.algorithm());
    hasher.update(bytes);
    let actual = hasher.finish();
    if actual == *expected {
        Ok(())
    } else {
        Err(Error::DigestMismatch { subject: subject.to_owned(), expected: expected.clone(), actual })
    }
}

/// A descriptor as it stands in JSON. Nothing in it is judged before it is needed.
#[derive(Debug, Default)]
pub(super) struct RawDescriptor {
    media_type: Member,
    digest: Member,
    size: Member,
    pub(super) platform: Option<Platform>,
    artifact_type: Member,
    /// `org.opencontainers.image.ref.name`.
    pub(super) name: Option<String>,
    /// Whether it is of something beside an image, such as an attestation: its annotations say so, or its platform does.
    pub(super) is_beside: bool,
    /// Whether it says where else it may be had.
    has_urls: bool,
    /// Whether it is no object, or has a member twice.
    odd: bool,
}

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const ATTESTATION: &str = "vnd.docker.reference.type";

impl<'de> Deserialize<'de> for RawDescriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(DescriptorVisitor)
    }
}

struct DescriptorVisitor;

impl<'de> Visitor<'de> for DescriptorVisitor {
    type Value = RawDescriptor;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a descriptor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<RawDescriptor, A::Error> {
        let mut raw = RawDescriptor::default();
        let mut seen: Vec<String> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let known = ["mediaType", "digest", "size", "platform", "artifactType", "annotations", "urls"];
            if !known.contains(&key.as_str()) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            match key.as_str() {
                "mediaType" => raw.media_type = map.next_value()?,
                "digest" => raw.digest = map.next_value()?,
                "size" => raw.size = map.next_value()?,
                "artifactType" => raw.artifact_type = map.next_value()?,
                "platform" => {
                    let [os, architecture, variant] = &map.next_value_seed(Named(["os", "architecture", "variant"]))?;
                    raw.platform = match variant {
                        Member::Number(_) | Member::Odd => None,
                        variant => os.text().zip(architecture.text()).and_then(|(os, architecture)| {
                            Platform::new(os, architecture, variant.text().unwrap_or_default())
                        }),
                    };
                    raw.is_beside |= [os, architecture].into_iter().any(|word| word.text() == Some("unknown"));
                }
                "annotations" => {
                    let [name, attestation] = map.next_value_seed(Named([REF_NAME, ATTESTATION]))?;
                    raw.name = name.text().map(str::to_owned);
                    raw.is_beside |= attestation != Member::Absent;
                }
                _ => raw.has_urls = map.next_value::<Urls>()?.0,
            }
            raw.odd |= seen.contains(&key);
            seen.push(key);
        }
        Ok(raw)
    }

    scalars!(absent: RawDescriptor::odd(), others: RawDescriptor::odd());

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<RawDescriptor, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(RawDescriptor::odd())
    }
}

/// Whether a list has anything in it.
struct Urls(bool);

impl<'de> Deserialize<'de> for Urls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct UrlsVisitor;
        impl<'de> Visitor<'de> for UrlsVisitor {
            type Value = Urls;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            scalars!(absent: Urls(false), others: Urls(false));

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Urls, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Urls(false))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Urls, A::Error> {
                let mut any = false;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    any = true;
                }
                Ok(Urls(any))
            }
        }
        deserializer.deserialize_any(UrlsVisitor)
    }
}

impl RawDescriptor {
    fn odd() -> Self {
        Self { odd: true, ..Self::default() }
    }

    /// The checked form. `subject` says where it stands, for the error.
    pub(super) fn check(&self, subject: &str) -> Result<Descriptor> {
        let refused = |reason: String| Error::Refused { subject: subject.to_owned(), reason };
        if self.odd {
            return Err(refused("one of its descriptors is no object, or has a member twice".into()));
        }
        let Member::Text(digest) = &self.digest else {
            return Err(refused("one of its descriptors has no `digest`, or one that is no text".into()));
        };
        let digest = digest.parse::<Digest>().map_err(|error| error.context(subject.to_owned()))?;
        let Member::Number(size) = self.size else {
            return Err(refused(format!("the size of {digest} is missing, negative or no whole number")));
        };
        // No specification has more, and no other reader.
        if i64::try_from(size).is_err() {
            return Err(refused(format!("the size of {digest} is {size} bytes")));
        }
        if !matches!(self.media_type, Member::Text(_) | Member::Absent) {
            return Err(refused(format!("the media type of {digest} is no text")));
        }
        Ok(Descriptor { media_type: self.media_type(), digest, size, has_urls: self.has_urls })
    }

    /// The media type; an empty one if it says none.
    pub(super) fn media_type(&self) -> MediaType {
        MediaType::new(self.media_type.text().unwrap_or_default())
    }

    /// Whether it says that it is an artifact which is no image. What an image's manifest may say there is the type of its
    /// configuration (image spec 1.1, `descriptor.md`).
    pub(super) fn is_other_artifact(&self) -> bool {
        match &self.artifact_type {
            Member::Absent => false,
            Member::Text(text) => {
                let artifact = MediaType::new(text);
                !artifact.as_str().is_empty() && !artifact.is_config()
            }
            Member::Number(_) | Member::Odd => true,
        }
    }
}
