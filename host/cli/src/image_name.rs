//! What a user may call an image: a name in the store, in a registry, or a directory.

use std::path::PathBuf;

use cofferdam::registry::Reference;
use cofferdam::store::ImageStorage;
use cofferdam::transport::{LayoutName, layout_reference};
use cofferdam::{Digest, Error, ErrorKind, ambient};

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
            let name = layout_name(name)?;
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

    /// The same, for a verb that needs the image's files only: of a layout that is gone, those in the store.
    pub(crate) fn there(text: &str) -> Result<Self, Failure> {
        match Self::parse(text)? {
            Self::Layout(path, _) if is_gone(&path) => Ok(Self::Reference(text.to_owned())),
            name => Ok(name),
        }
    }
}

fn is_gone(path: &std::path::Path) -> bool {
    ambient::hold(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Reads what stands behind `oci:`: a directory as it is called, or, where there is none of that name, as the store shows it.
fn layout_name(text: &str) -> Result<LayoutName, Failure> {
    let name: LayoutName = text.parse()?;
    if is_gone(name.path())
        && let Some(shown) = LayoutName::of_shown(text)
        && !is_gone(shown.path())
    {
        return Ok(shown);
    }
    Ok(name)
}

/// The name under which the store keeps an image: as it is shown there, in any form that a registry's or a layout's name may have, as
/// `NAME@DIGEST` with the digest of its manifest or index, or the digest alone.
pub(crate) fn in_store(text: &str, storage: &ImageStorage) -> Result<String, Failure> {
    if text.parse::<Digest>().is_ok() {
        return Ok(text.to_owned());
    }
    if let Ok(Some(found)) = storage.resolve(text) {
        return Ok(found.reference);
    }
    let full = match text.strip_prefix("oci:") {
        Some(name) => layout_reference(&layout_name(name)?)?,
        None => registry_name(text)?.to_string(),
    };
    if let Ok(Some(found)) = storage.resolve(&full) {
        return Ok(found.reference);
    }
    let found = with_digest(text, &full, storage)?;
    Ok(found.and_then(|found| found.into_iter().next()).unwrap_or(full))
}

/// The one name that `rm` is to remove. A text with a digest may fit several names of one image, and none but the one that is meant may go.
pub(crate) fn to_remove(text: &str, storage: &ImageStorage) -> Result<String, Failure> {
    let names = if let Ok(digest) = text.parse::<Digest>() {
        Some(
            storage
                .images()?
                .into_iter()
                .filter(|image| image.has_digest(&digest))
                .map(|image| image.reference)
                .collect(),
        )
    } else {
        let full = match text.strip_prefix("oci:") {
            Some(name) => Some(layout_reference(&layout_name(name)?)?),
            // What is no name of a registry is looked up as it stands.
            None => registry_name(text).ok().map(|name| name.to_string()),
        };
        let full = full.unwrap_or_else(|| text.to_owned());
        let names = with_digest(text, &full, storage)?;
        // A stored name is itself, whatever else it fits.
        if names.as_ref().is_some_and(|names| names.contains(&full)) {
            return Ok(full);
        }
        names
    };
    match names.as_deref() {
        None => in_store(text, storage),
        Some([]) => Err(Error::NotFound { what: format!("an image `{text}` in the store"), hint: None }.into()),
        Some([name]) => Ok(name.clone()),
        Some(names) => {
            let reason = format!("`{text}` fits {} names: {}", names.len(), names.join(", "));
            Err(usage(reason, Some("give the names that are to be removed".into())))
        }
    }
}

/// The stored names that a text with a digest fits: those with its tag, or with any where it has none. `full` is the text as a name in
/// full. Nothing for a text without a digest.
fn with_digest(text: &str, full: &str, storage: &ImageStorage) -> Result<Option<Vec<String>>, Failure> {
    let digest = text.rsplit_once('@').and_then(|(_, digest)| digest.parse::<Digest>().ok());
    let Some(digest) = digest else { return Ok(None) };
    let wanted = bare(full);
    let fits = |name: &str| bare(name) == wanted || repository(name) == wanted;
    let images = storage.images()?.into_iter().filter(|image| image.has_digest(&digest));
    let mut found: Vec<_> = images.map(|image| image.reference).filter(|name| fits(name)).collect();
    found.sort_by_key(|name| bare(name) != wanted);
    Ok(Some(found))
}

/// The name of an image that a name is to be given to.
pub(crate) fn new_name(text: &str) -> Result<String, Failure> {
    match text.strip_prefix("oci:") {
        Some(name) => Ok(layout_reference(&layout_name(name)?)?),
        None => Ok(registry_name(text)?.to_string()),
    }
}

fn registry_name(text: &str) -> Result<Reference, Failure> {
    let text = text.strip_prefix("docker://").unwrap_or(text);
    let candidates = Reference::candidates(text, &[])?;
    candidates.into_iter().next().ok_or_else(|| usage(format!("{text:?} names no image"), None))
}

/// One name for exactly this image, which every verb takes: with the digest of its manifest, whatever else it names it by.
pub(crate) fn pinned(reference: &str, manifest: &Digest) -> String {
    format!("{}@{manifest}", bare(reference))
}

/// A name in full without its digest; of a layout, without its tag too, since that ends a layout's name.
fn bare(reference: &str) -> &str {
    let without = match reference.rsplit_once('@') {
        Some((name, digest)) if digest.parse::<Digest>().is_ok() => name,
        _ => reference,
    };
    if reference.starts_with("oci:") { repository(without) } else { without }
}

/// A name in full without its tag and digest.
fn repository(reference: &str) -> &str {
    if let Some(layout) = reference.strip_prefix("oci:") {
        // Both are encoded in a directory.
        return reference.get(.."oci:".len() + layout.find([':', '@']).unwrap_or(layout.len())).unwrap_or(reference);
    }
    let name = reference.split('@').next().unwrap_or(reference);
    let last = name.rfind('/').unwrap_or(0);
    name.get(last..).and_then(|end| end.find(':')).and_then(|colon| name.get(..last + colon)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_one_name_with_its_digest() {
        let (digest, other) = (Digest::of(b"a"), Digest::of(b"b"));
        for (reference, name) in [
            ("h.test:5000/a/b:1".to_owned(), "h.test:5000/a/b:1"),
            (format!("h.test/a/b@{other}"), "h.test/a/b"),
            (format!("h.test/a/b:1@{other}"), "h.test/a/b:1"),
            ("oci:/l:1".to_owned(), "oci:/l"),
            ("oci:/l:h.test/a:1".to_owned(), "oci:/l"),
            (format!("oci:/l@{other}"), "oci:/l"),
            ("oci:/a%3Ab".to_owned(), "oci:/a%3Ab"),
        ] {
            assert_eq!(pinned(&reference, &digest), format!("{name}@{digest}"));
        }
        assert_eq!(repository("h.test:5000/a/b:1@x"), "h.test:5000/a/b");
        assert_eq!(repository("h.test:5000/a"), "h.test:5000/a");
    }
}
