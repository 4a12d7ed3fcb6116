//! References: which manifest a name stands for, each a small file that people can read.
//!
//! The file name is the reference with everything but letters, digits, `-`, `_` and `.` percent-encoded, so it holds no
//! separator and does not begin with a dot. One that would be too long ends in a hash instead; no short one looks like
//! that, for `~` is encoded. The time of a file's last change is that of the image's last use. What counts is the reference inside: a file whose name does not follow from it is ignored.

use std::sync::Arc;

use cap_std::fs::Dir;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::decision::Decision;
use crate::file::{self, Flush};
use crate::layout;

/// The longest reference, in bytes.
const LONGEST: usize = 1024;
/// The longest encoded name that is used whole, in bytes; with its ending it stays below 255.
const LONGEST_NAME: usize = 200;
/// The largest file of a reference that is read, in bytes.
const LIMIT: u64 = 64 << 10;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRef {
    /// The name in full, such as `docker.io/library/alpine:3.20`.
    pub reference: String,
    /// The digest of the image's manifest.
    pub manifest: Digest,
    /// The digest of the index from which the manifest was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Digest>,
    /// The platform that was asked for: `os/arch` or `os/arch/variant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// When it was published: seconds since 1970, UTC. Set by the store.
    #[serde(default)]
    pub pulled_at: u64,
    /// The name under which it was pulled, if it was given this one later. What is required of images of that name is required of this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pulled_as: Option<String>,
    /// Why it was let in, if anybody was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
}

impl ImageRef {
    /// An image without a name.
    pub fn unnamed(manifest: Digest) -> Self {
        Self {
            reference: String::new(),
            manifest,
            index: None,
            platform: None,
            pulled_at: 0,
            pulled_as: None,
            decision: None,
        }
    }

    /// The same image under another name. The name under which it was pulled stays with it.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        let first = self.pulled_as.unwrap_or(self.reference);
        Self { reference: name.to_owned(), pulled_as: (first != name).then_some(first), ..self }
    }

    /// The names whose rules hold for it: its own, and that under which it was pulled.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        [&*self.reference].into_iter().chain(self.pulled_as.as_deref())
    }

    /// Whether a digest is that of the image: of its manifest, or of the index from which that was chosen.
    pub fn has_digest(&self, digest: &Digest) -> bool {
        self.manifest == *digest || self.index.as_ref() == Some(digest)
    }
}

/// The directory of references.
#[derive(Debug)]
pub(super) struct Refs(Arc<Dir>);

/// All references that can be read, and the names of files that cannot.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) refs: Vec<ImageRef>,
    pub(super) unreadable: Vec<String>,
    /// Those that a power cut left: they count for nothing.
    pub(super) blank: Vec<String>,
}

impl Refs {
    pub(super) fn new(dir: Arc<Dir>) -> Self {
        Self(dir)
    }

    /// Sets what a reference stands for, in one step.
    pub(super) fn set(&self, image: &ImageRef, flush: Flush) -> Result<()> {
        let name = file_name(&image.reference)?;
        let mut text =
            serde_json::to_vec_pretty(image).map_err(|e| Error::io("write", image.reference.as_bytes(), e))?;
        text.push(b'\n');
        file::replace(&self.0, &name, &text, flush)
    }

    /// What a reference stands for.
    pub(super) fn get(&self, reference: &str) -> Result<Option<ImageRef>> {
        let name = file_name(reference)?;
        if rustix::fs::statat(&*self.0, &name, AtFlags::SYMLINK_NOFOLLOW).is_err_and(|error| error == Errno::NOENT) {
            return Ok(None);
        }
        match file::read_trusted(&self.0, &name, LIMIT) {
            Ok(Some(text)) if is_blank(&text) => Ok(None),
            _ => self.read(&name).map(Some),
        }
    }

    /// What the file of this name holds.
    pub(super) fn read(&self, name: &str) -> Result<ImageRef> {
        match file::read_trusted(&self.0, name, LIMIT) {
            Ok(Some(text)) => parse(name, &text),
            Ok(None) => Err(damaged(name, "it is not a regular file".into())),
            Err(Error::Limit { .. }) => Err(damaged(name, "it is too large".into())),
            Err(error) => Err(error),
        }
    }

    /// Takes away the file of a reference that cannot be read, and says how it is called now. Nothing if it can be read by now.
    pub(super) fn set_aside(&self, name: &str) -> Result<Option<String>> {
        if self.read(name).is_ok() {
            return Ok(None);
        }
        let Some(aside) = file::set_aside(&self.0, name)? else { return Ok(None) };
        // Somebody may have published it since it was read.
        if let Ok(Some(text)) = file::read_trusted(&self.0, &aside, LIMIT)
            && parse(name, &text).is_ok()
        {
            file::publish_new(&self.0, &aside, name)?;
            file::sync_dir(&self.0)?;
            return Ok(None);
        }
        Ok(Some(aside))
    }

    /// Notes that what a reference stands for is used now: the time of its file's last change says when that was.
    pub(super) fn touch(&self, reference: &str) -> Result<()> {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        let name = file_name(reference)?;
        rustix::fs::utimensat(&*self.0, &name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| Error::io("note the use of", name.as_bytes(), e))
    }

    /// When a reference was set, or what it stands for used; seconds since 1970, UTC.
    pub(super) fn used_at(&self, reference: &str) -> Option<u64> {
        let stat = rustix::fs::statat(&*self.0, file_name(reference).ok()?, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        u64::try_from(stat.st_mtime).ok()
    }

    /// Removes a reference and says whether it was there.
    pub(super) fn remove(&self, reference: &str) -> Result<bool> {
        file::remove(&self.0, &file_name(reference)?)
    }

    /// Removes references, durably.
    pub(super) fn remove_all<'a>(&self, references: impl IntoIterator<Item = &'a str>) -> Result<()> {
        for reference in references {
            let name = file_name(reference)?;
            match rustix::fs::unlinkat(&*self.0, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(Error::io("remove", name.as_bytes(), error)),
            }
        }
        file::sync_dir(&self.0)
    }

    /// All references, in order.
    pub(super) fn list(&self) -> Result<Listing> {
        let mut listing = Listing::default();
        for name in layout::names(&self.0, "refs")? {
            if name.strip_suffix(".json").is_none() {
                continue;
            }
            let text = match file::read_trusted(&self.0, &name, LIMIT) {
                Ok(Some(text)) if is_blank(&text) => {
                    tracing::warn!(name, "a reference is empty, as a power cut leaves it");
                    listing.blank.push(name);
                    continue;
                }
                Ok(Some(text)) => text,
                // Removed between the listing and the look.
                Ok(None) if rustix::fs::statat(&*self.0, &name, AtFlags::SYMLINK_NOFOLLOW).is_err() => continue,
                Ok(None) => {
                    tracing::warn!(name, "a reference is not a regular file");
                    listing.unreadable.push(name);
                    continue;
                }
                Err(error) => {
                    tracing::warn!(name, %error, "a reference cannot be read");
                    listing.unreadable.push(name);
                    continue;
                }
            };
            match parse(&name, &text) {
                Ok(image) => listing.refs.push(image),
                Err(error) => {
                    tracing::warn!(name, %error, "a reference cannot be read");
                    listing.unreadable.push(name);
                }
            }
        }
        listing.refs.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(listing)
    }
}

/// Whether a power cut took what was written: then the reference was never published for good, since what is published for good
/// is on disk before its name is. See [`super::Durability::None`].
fn is_blank(text: &[u8]) -> bool {
    text.iter().all(|&byte| byte == 0)
}

fn parse(name: &str, text: &[u8]) -> Result<ImageRef> {
    let corrupt = |reason: String| damaged(name, reason);
    let image: ImageRef = serde_json::from_slice(text).map_err(|e| corrupt(e.to_string()))?;
    if file_name(&image.reference).is_ok_and(|expected| expected == name) {
        Ok(image)
    } else {
        Err(corrupt("the file holds another name's reference".into()))
    }
}

/// Where a reference's file is, from the store's directory.
pub(super) fn path(reference: &str) -> Result<String> {
    file_name(reference).map(|name| format!("refs/{name}"))
}

fn damaged(name: &str, reason: String) -> Error {
    Error::Damaged {
        subject: format!("the reference in `refs/{name}`"),
        reason,
        hint: format!("pull the image again: cofferdam pull {}", decoded(name)),
    }
}

/// The reference for which a file is named, as far as the name tells.
pub(super) fn decoded(name: &str) -> String {
    let text = name.strip_suffix(".json").unwrap_or(name);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|digits| str::from_utf8(digits).ok());
        let escaped = digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Refuses a name under which nothing can be published.
pub fn check_reference(reference: &str) -> Result<()> {
    file_name(reference).map(drop)
}

fn file_name(reference: &str) -> Result<String> {
    let invalid = |reason: &str| Error::InvalidReference {
        text: reference.chars().take(200).collect(),
        reason: reason.to_owned(),
    };
    if reference.is_empty() {
        return Err(invalid("it is empty"));
    }
    if reference.len() > LONGEST {
        return Err(invalid("it is longer than 1024 bytes"));
    }
    if !reference.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(invalid("it holds something else than printable ASCII"));
    }
    let mut name = String::with_capacity(reference.len() + 16);
    for (at, byte) in reference.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(byte.into()),
            b'.' if at > 0 => name.push('.'),
            _ => name.extend(['%', hex(byte >> 4), hex(byte & 15)]),
        }
    }
    if name.len() > LONGEST_NAME {
        name.truncate(LONGEST_NAME / 2);
        name.push('~');
        name.push_str(Digest::of(reference.as_bytes()).hex());
    }
    name.push_str(".json");
    Ok(name)
}

fn hex(digit: u8) -> char {
    char::from_digit(digit.into(), 16).map_or('0', |digit| digit.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temp() -> (tempfile::TempDir, Refs) {
        let temp = tempfile::tempdir().unwrap();
        let dir = cofferdam_core::ambient::open_dir(temp.path()).unwrap();
        (temp, Refs::new(Arc::new(dir)))
    }

    fn image(reference: &str) -> ImageRef {
        ImageRef {
            reference: reference.into(),
            manifest: Digest::of(reference.as_bytes()),
            index: None,
            platform: Some("linux/amd64".into()),
            pulled_at: 1,
            pulled_as: None,
            decision: None,
        }
    }

    #[test]
    fn names_are_safe_and_tell_references_apart() {
        let long = format!("host/{}:tag", "a".repeat(300));
        let longer = format!("host/{}:tag", "a".repeat(301));
        let references = [
            "alpine",
            "docker.io/library/alpine:3.20",
            "docker.io/library/alpine%3A3.20",
            "localhost:5000/a/b@sha256:00",
            "../../etc/passwd",
            "..",
            ".hidden",
            "%2e%2e",
            "a~b",
            long.as_str(),
            longer.as_str(),
        ];
        let names: Vec<_> = references.iter().map(|r| file_name(r).unwrap()).collect();
        for (at, name) in names.iter().enumerate() {
            assert!(!name.contains('/') && !name.starts_with('.') && name.len() < 255, "{name}");
            assert!(!names[..at].contains(name), "{name} stands for two references");
            assert!(crate::names::parse(name).is_none(), "{name} would be swept");
        }
        assert_eq!(names[1], "docker.io%2Flibrary%2Falpine%3A3.20.json");
        for (reference, name) in references.iter().zip(&names).filter(|(reference, _)| reference.len() < 100) {
            assert_eq!(decoded(name), *reference);
        }
        for text in ["", "a b", "a\nb", "a\0", "é", &"a".repeat(1025)] {
            assert!(matches!(file_name(text), Err(Error::InvalidReference { .. })), "{text:?}");
        }
    }

    #[test]
    fn references_are_set_listed_replaced_and_removed() {
        let (_temp, refs) = temp();
        for name in ["b:1", "a:1"] {
            refs.set(&image(name), Flush::Now).unwrap();
        }
        assert_eq!(refs.get("a:1").unwrap(), Some(image("a:1")));
        assert_eq!(refs.list().unwrap().refs, [image("a:1"), image("b:1")]);
        let newer = ImageRef { manifest: Digest::of(b"newer"), ..image("a:1") };
        refs.set(&newer, Flush::Now).unwrap();
        assert_eq!(refs.get("a:1").unwrap(), Some(newer));
        assert!(refs.remove("a:1").unwrap());
        assert!(!refs.remove("a:1").unwrap());
        assert_eq!(refs.get("a:1").unwrap(), None);
    }

    #[test]
    fn a_file_that_says_something_else_than_its_name_is_not_believed() {
        let (_temp, refs) = temp();
        refs.set(&image("a:1"), Flush::Now).unwrap();
        refs.0.rename("a%3A1.json", &refs.0, "b%3A1.json").unwrap();
        refs.0.write("c.json", "{").unwrap();
        assert!(matches!(refs.get("b:1"), Err(Error::Damaged { .. })));
        let listing = refs.list().unwrap();
        assert_eq!((listing.refs.len(), listing.unreadable.len()), (0, 2));
    }

    #[test]
    fn a_reference_that_a_power_cut_emptied_was_never_there() {
        let (_temp, refs) = temp();
        for blank in [&b""[..], &[0; 200]] {
            refs.0.write("a%3A1.json", blank).unwrap();
            assert_eq!(refs.get("a:1").unwrap(), None);
            let listing = refs.list().unwrap();
            assert_eq!((listing.refs.len(), listing.unreadable.len()), (0, 0));
        }
    }
}
