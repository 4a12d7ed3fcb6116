//! Layers to show to inspectors.

use std::io;
use std::path::Path;

use crate::entry::{Attribute, Entry, Node};
use crate::failure::Failure;

/// A layer: its entries in order, each with its content.
///
/// The methods that change an entry's metadata change the last one that was added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    pub(super) digest: String,
    pub(super) media_type: String,
    /// The entries, each with its content.
    pub entries: Vec<(Entry, Vec<u8>)>,
}

impl Sample {
    /// A layer without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets which layer the plugin is told that this is.
    #[must_use]
    pub fn named(mut self, digest: impl Into<String>, media_type: impl Into<String>) -> Self {
        self.digest = digest.into();
        self.media_type = media_type.into();
        self
    }

    /// Adds any entry.
    #[must_use]
    pub fn entry(mut self, entry: Entry, content: impl Into<Vec<u8>>) -> Self {
        let content = content.into();
        assert_eq!(entry.content_bytes(), content.len() as u64, "the entry and its content differ in size");
        self.entries.push((entry, content));
        self
    }

    /// Adds a directory.
    #[must_use]
    pub fn directory(self, path: impl Into<Vec<u8>>) -> Self {
        self.entry(Entry::new(path, Node::Directory), "")
    }

    /// Adds a file.
    #[must_use]
    pub fn file(self, path: impl Into<Vec<u8>>, content: impl Into<Vec<u8>>) -> Self {
        let content = content.into();
        self.entry(Entry::new(path, Node::File { size: content.len() as u64 }), content)
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, path: impl Into<Vec<u8>>, target: impl Into<Vec<u8>>) -> Self {
        self.entry(Entry::new(path, Node::Symlink { target: target.into() }), "")
    }

    /// Adds a hard link.
    #[must_use]
    pub fn hard_link(self, path: impl Into<Vec<u8>>, target: impl Into<Vec<u8>>) -> Self {
        self.entry(Entry::new(path, Node::HardLink { target: target.into() }), "")
    }

    /// Adds a whiteout.
    #[must_use]
    pub fn whiteout(self, path: impl Into<Vec<u8>>) -> Self {
        self.entry(Entry::new(path, Node::Whiteout), "")
    }

    /// Sets the last entry's mode.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.last().mode = mode;
        self
    }

    /// Sets the last entry's owner and group.
    #[must_use]
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        (self.last().uid, self.last().gid) = (uid, gid);
        self
    }

    /// Adds an extended attribute to the last entry.
    #[must_use]
    pub fn attribute(mut self, name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.last().attributes.push(Attribute { name: name.into(), value: value.into() });
        self
    }

    fn last(&mut self) -> &mut Entry {
        &mut self.entries.last_mut().expect("there is an entry").0
    }

    /// Reads a tar stream as the host's own extractor does.
    pub fn from_tar(mut tar: &[u8]) -> Result<Self, Failure> {
        let mut layer = cofferdam_layer::Layer::new(cofferdam_layer::Limits::default());
        let mut entries = Vec::new();
        while let Some(read) = layer.next(&mut tar)? {
            let entry = Entry::from(&read);
            let size = usize::try_from(entry.content_bytes()).unwrap_or(usize::MAX);
            let (content, rest) =
                tar.split_at_checked(size).ok_or_else(|| Failure::corrupt("the archive is cut short"))?;
            tar = rest;
            entries.push((entry, content.to_vec()));
        }
        Ok(Self { entries, ..Self::default() })
    }

    /// Reads a layer that is a tar stream, plain or compressed by gzip or zstd.
    pub fn from_blob(blob: &[u8]) -> Result<Self, Failure> {
        let mut tar = Decoded(Vec::new());
        let decoded = match blob {
            [0x1f, 0x8b, ..] => cofferdam_decode::gzip::decode(&mut Blob(blob), &mut tar),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => cofferdam_decode::zstd::decode(&mut Blob(blob), &mut tar),
            plain => return Self::from_tar(plain),
        };
        decoded.map_err(|failure| match failure {
            cofferdam_decode::Failure::Corrupt(reason) => Failure::Corrupt(reason),
            cofferdam_decode::Failure::Refused(reason) => Failure::refused(reason),
            cofferdam_decode::Failure::Limit(reason) => Failure::Limit(reason),
        })?;
        Self::from_tar(&tar.0)
    }

    /// Reads a layer from a file, as [`Sample::from_blob`] does.
    #[allow(clippy::disallowed_methods, reason = "a test's file, in Cofferdam's own workspace where that is linted")]
    pub fn from_file(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self::from_blob(&std::fs::read(path)?)?)
    }
}

struct Blob<'a>(&'a [u8]);

impl cofferdam_decode::Source for Blob<'_> {
    fn read(&mut self, max: u32) -> Vec<u8> {
        let (now, later) = self.0.split_at(self.0.len().min(max as usize));
        self.0 = later;
        now.to_vec()
    }
}

struct Decoded(Vec<u8>);

impl cofferdam_decode::Target for Decoded {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}
