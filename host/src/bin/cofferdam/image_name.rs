//! What a user may call an image: a name in the store, in a registry, or a directory.

use std::path::PathBuf;

use cofferdam::Digest;
use cofferdam::registry::Reference;
use cofferdam::store::ImageStorage;
use cofferdam::transport::LayoutName;

use crate::failure::{Failure, usage};

/// An image as it was named.
#[derive(Clone, Debug)]
pub(crate) enum ImageName {
    /// In the store, or in a registry if it is to be pulled.
    Reference(String),
    /// In a registry, even if the store has it.
    Registry(String),
    /// In a local OCI layout.
    Layout(PathBuf, LayoutName),
}

impl ImageName {
    /// Reads a name by its prefix.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        if let Some(name) = text.strip_prefix("oci:") {
            let name: LayoutName = name.parse()?;
            return Ok(Self::Layout(name.path().to_owned(), name));
        }
        for later in ["oci-archive:", "docker-archive:"] {
            if text.starts_with(later) {
                let hint = "unpack the archive first, or copy it: skopeo copy SRC oci:DIR:TAG";
                return Err(usage(format!("{later} is not read yet"), Some(hint.into())));
            }
        }
        match text.strip_prefix("docker://") {
            Some(name) => Ok(Self::Registry(name.to_owned())),
            None => Ok(Self::Reference(text.to_owned())),
        }
    }
}

/// The name under which the store keeps an image: the reference in full, or a manifest's digest.
pub(crate) fn in_store(text: &str, storage: &ImageStorage) -> Result<String, Failure> {
    if text.parse::<Digest>().is_ok() {
        return Ok(text.to_owned());
    }
    if let Some(name) = text.strip_prefix("oci:") {
        // As `images` shows it, or as it was pulled.
        let shown = storage.resolve(text).is_ok_and(|found| found.is_some());
        return Ok(if shown { text.to_owned() } else { name.parse::<LayoutName>()?.reference()? });
    }
    let text = text.strip_prefix("docker://").unwrap_or(text);
    let candidates = Reference::candidates(text, &[])?;
    let first = candidates.first().ok_or_else(|| usage(format!("{text:?} names no image"), None))?;
    Ok(first.to_string())
}
