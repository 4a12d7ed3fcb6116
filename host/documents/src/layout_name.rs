//! The name of an image in an OCI layout: `DIR`, `DIR:TAG` or `DIR@DIGEST`.

use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Escaped, Result};

/// A layout's directory and which of its images is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutName {
    path: PathBuf,
    selector: LayoutSelector,
}

/// Which image of a layout is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayoutSelector {
    /// The only one that there is.
    Only,
    /// The one whose `org.opencontainers.image.ref.name` this is.
    Tag(String),
    /// The one with this digest.
    Digest(Digest),
}

impl LayoutName {
    /// An image of the layout in a directory.
    pub fn new(path: impl Into<PathBuf>, selector: LayoutSelector) -> Self {
        Self { path: path.into(), selector }
    }

    /// Reads what stands behind `oci:` in a name that [`LayoutName::reference`] gave.
    pub fn of_shown(text: &str) -> Option<Self> {
        use std::os::unix::ffi::OsStringExt as _;
        let end = text.find([':', '@']).unwrap_or(text.len());
        let (path, rest) = text.split_at(end);
        let mut bytes = Vec::with_capacity(path.len());
        let mut encoded = path.as_bytes();
        while let [first, tail @ ..] = encoded {
            let digits = tail.get(..2).filter(|_| *first == b'%').and_then(|digits| str::from_utf8(digits).ok());
            let decoded = digits.map(|digits| u8::from_str_radix(digits, 16));
            // A name that was shown has no other `%`.
            bytes.push(decoded.map_or(Some(*first).filter(|first| *first != b'%'), std::result::Result::ok)?);
            encoded = if digits.is_some() { tail.get(2..)? } else { tail };
        }
        if bytes.is_empty() || bytes.contains(&0) {
            return None;
        }
        // Its tag or digest is read as it is anywhere.
        let Self { selector, .. } = format!("d{rest}").parse().ok()?;
        Some(Self { path: std::ffi::OsString::from_vec(bytes).into(), selector })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which image is meant.
    pub fn selector(&self) -> &LayoutSelector {
        &self.selector
    }

    /// Returns the name under which a store keeps the image, in characters that any reference may have. `directory` is the
    /// absolute path of the layout, without links: that makes the name the same for every spelling of the path. Bytes
    /// that are not visible ASCII, and `%`, `:` and `@`, are written as `%XX`.
    #[must_use]
    pub fn reference(&self, directory: &Path) -> String {
        let encoded = |&byte: &u8| match byte {
            b'%' | b':' | b'@' => format!("%{byte:02X}"),
            byte if byte.is_ascii_graphic() => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        };
        let text = format!("oci:{}", directory.as_os_str().as_bytes().iter().map(encoded).collect::<String>());
        match &self.selector {
            LayoutSelector::Only => text,
            LayoutSelector::Tag(tag) => format!("{text}:{tag}"),
            LayoutSelector::Digest(digest) => format!("{text}@{digest}"),
        }
    }
}

impl FromStr for LayoutName {
    type Err = Error;

    /// Reads what stands behind `oci:`. The first colon ends the directory, as in other tools; what follows may hold
    /// slashes and colons of its own, since whole references serve as tags too.
    fn from_str(text: &str) -> Result<Self> {
        let invalid = |reason: &str| Error::InvalidReference {
            text: text.chars().take(200).collect(),
            reason: reason.to_owned(),
        };
        let digest = text.rfind('@').and_then(|at| {
            let (path, rest) = text.split_at(at);
            let digest = rest.get(1..)?;
            // Directories and tags may hold an `@` of their own.
            (["sha256:", "sha512:"].iter().any(|start| digest.starts_with(start))).then_some((path, digest))
        });
        let (path, selector) = match digest {
            Some((path, digest)) if !path.contains(':') => {
                (path, LayoutSelector::Digest(digest.parse().map_err(|error: Error| error.in_reference(text))?))
            }
            _ => match text.split_once(':') {
                Some((path, tag)) => (path, LayoutSelector::Tag(tag.to_owned())),
                None => (text, LayoutSelector::Only),
            },
        };
        if path.is_empty() {
            return Err(invalid("the directory of the layout is missing"));
        }
        if path.contains('\0') {
            return Err(invalid("there is a NUL in the directory"));
        }
        if let LayoutSelector::Tag(tag) = &selector
            && (tag.is_empty() || tag.len() > 512 || !tag.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err(invalid("the tag must have 1 to 512 visible ASCII characters"));
        }
        Ok(Self { path: path.into(), selector })
    }
}

impl fmt::Display for LayoutName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci:{}", Escaped(self.path.as_os_str().as_bytes()))?;
        match &self.selector {
            LayoutSelector::Only => Ok(()),
            LayoutSelector::Tag(tag) => write!(f, ":{tag}"),
            LayoutSelector::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_directory_and_perhaps_a_tag_or_a_digest() {
        let digest = Digest::of(b"");
        for (text, path, selector) in [
            ("dir", "dir", LayoutSelector::Only),
            ("/a/b.c/", "/a/b.c/", LayoutSelector::Only),
            ("dir:base", "dir", LayoutSelector::Tag("base".into())),
            ("dir:host:5000/a/b:1", "dir", LayoutSelector::Tag("host:5000/a/b:1".into())),
            (&format!("a@b/dir@{digest}"), "a@b/dir", LayoutSelector::Digest(digest.clone())),
            ("a@b", "a@b", LayoutSelector::Only),
            ("a@b:c", "a@b", LayoutSelector::Tag("c".into())),
            ("a:b@c", "a", LayoutSelector::Tag("b@c".into())),
        ] {
            let name: LayoutName = text.parse().unwrap();
            assert_eq!((name.path(), name.selector()), (Path::new(path), &selector), "{text}");
            assert_eq!(name.to_string(), format!("oci:{text}"));
        }
    }

    #[test]
    fn each_directory_has_one_reference_of_its_own() {
        let names = ["l", "a b", "a%20b", "a@b", "é", "a\nb", "b", &"x".repeat(200)];
        let mut seen = std::collections::HashSet::new();
        for name in names {
            let path = Path::new("/images").join(name);
            let reference = |selector| LayoutName::new(name, selector).reference(&path);
            let text = reference(LayoutSelector::Only);
            let shown = LayoutName::of_shown(&text[4..]).unwrap();
            assert_eq!((shown.path(), shown.selector()), (&*path, &LayoutSelector::Only));
            assert!(text.bytes().all(|b| b.is_ascii_graphic()) && !text[4..].contains([':', '@']), "{text}");
            assert_eq!(format!("{text}:t"), reference(LayoutSelector::Tag("t".into())));
            assert!(seen.insert(text));
        }
        assert!(seen.contains("oci:/images/a%20b"), "{seen:?}");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", ":tag", "dir:", "dir:a b", "dir@sha256:../..", "d\0r"] {
            assert_eq!(text.parse::<LayoutName>().unwrap_err().kind(), cofferdam_core::ErrorKind::Usage, "{text:?}");
        }
    }
}
