//! OCI image layouts: images in a directory.
//!
//! ```text
//! oci-layout             {"imageLayoutVersion": "1.0.0"}
//! index.json             an index; annotations of its entries hold the tags
//! blobs/sha256/<hex>     manifests, configurations and layers
//! ```
//!
//! Source: OCI image spec 1.1, `image-layout.md`. A layout is as untrusted as a registry, and more can be wrong with it:
//! its files are opened below the directory's handle without following links, and only regular ones are read, so that
//! neither a link leads out nor a named pipe blocks.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cap_std::fs::Dir;
use cofferdam_core::ambient;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, ErrorKind, Escaped, Result};
use cofferdam_core::limits::Limits;
use cofferdam_core::threads;
use cofferdam_documents::{
    Configuration, Descriptor, Document, Index, IndexEntry, LayoutName, LayoutSelector, MediaType, Platform,
    RawDocument,
};
use futures_util::stream::{self, StreamExt as _};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::image_source::{Blob, Failure, ImageSource, wrong_size};

/// How much of a blob is read at a time.
const CHUNK: u64 = 512 << 10;

/// How many such pieces may wait for the one who asked.
const AHEAD: usize = 2;

/// How much of `oci-layout` is read at all.
const MARKER_BYTES: u64 = 4 << 10;

/// One image of an OCI layout.
#[derive(Debug)]
pub struct OciLayout {
    layout: Arc<Layout>,
}

#[derive(Debug)]
struct Layout {
    dir: Dir,
    name: LayoutName,
    limits: Limits,
}

/// Returns the name under which a store keeps the image of a layout. The path is resolved as far as it exists, so that every
/// spelling of it gives the same name.
///
/// # Errors
///
/// [`Error::Io`] for an empty path, and where a relative one has no working directory.
pub fn layout_reference(name: &LayoutName) -> Result<String> {
    Ok(name.reference(&ambient::absolute(name.path())?))
}

impl OciLayout {
    /// Opens the directory that the name gives.
    pub fn open(name: LayoutName, limits: Limits) -> Result<Self> {
        let dir = ambient::open_dir(name.path()).map_err(|error| match error {
            Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Error::NotFound {
                what: format!("the directory of `{name}`"),
                hint: Some("an OCI layout is a directory with the files `oci-layout` and `index.json`".into()),
            },
            other => other,
        })?;
        Ok(Self::new(dir, name, limits))
    }

    /// The layout in a directory that is open already; the name's path only serves messages.
    pub fn new(dir: Dir, name: LayoutName, limits: Limits) -> Self {
        Self { layout: Arc::new(Layout { dir, name, limits }) }
    }

    /// Opens a blob, once its file has the declared size. Its bytes are not verified.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::SizeMismatch`], and [`Error::Refused`] for what is no regular file.
    pub fn open_blob(&self, digest: &Digest, size: u64) -> Result<File> {
        let descriptor = Descriptor { media_type: MediaType::new(""), digest: digest.clone(), size, has_urls: false };
        self.layout.blob(&descriptor, 0)
    }

    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Layout) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let layout = Arc::clone(&self.layout);
        threads::blocking("cofferdam-layout", move || work(&layout)).await
    }
}

#[async_trait]
impl ImageSource for OciLayout {
    fn name(&self) -> String {
        self.layout.name.to_string()
    }

    fn store_name(&self) -> Result<String> {
        layout_reference(&self.layout.name)
    }

    async fn resolve(&self) -> Result<RawDocument, Failure> {
        let document = self.on_thread(|layout| {
            layout.check_version()?;
            let (raw, index) = layout.index()?;
            match layout.select(index) {
                Ok(Selected::Entry(entry)) => layout.document(entry.selected()?),
                Ok(Selected::ByPlatform) => Ok(raw),
                // A manifest below an index has no entry of its own, and its digest says what it is.
                Err(error) => match layout.name.selector() {
                    LayoutSelector::Digest(digest) if error.kind() == ErrorKind::NotFound => {
                        layout.unlisted(digest)?.ok_or(error)
                    }
                    _ => Err(error),
                },
            }
        });
        Ok(document.await?)
    }

    async fn document(&self, descriptor: &Descriptor) -> Result<RawDocument, Failure> {
        let descriptor = descriptor.clone();
        Ok(self.on_thread(move |layout| layout.document(&descriptor)).await?)
    }

    async fn blob(&self, descriptor: &Descriptor, from: u64) -> Result<Blob, Failure> {
        let wanted = descriptor.clone();
        let file = self.on_thread(move |layout| layout.blob(&wanted, from)).await?;
        let digest = descriptor.digest.clone();
        let (sender, receiver) = mpsc::channel(AHEAD);
        // It ends when the file does, or when nobody listens.
        threads::spawn("cofferdam-layout", move || read_chunks(&file, &digest, &sender))?;
        let chunks = stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
        Ok(Blob::new(descriptor, from, chunks.boxed()))
    }
}

/// Reads a file to its end, a piece at a time.
fn read_chunks(file: &File, digest: &Digest, chunks: &mpsc::Sender<Result<Bytes, Failure>>) {
    loop {
        let mut chunk = Vec::with_capacity(usize::try_from(CHUNK).unwrap_or(0));
        let read = match file.take(CHUNK).read_to_end(&mut chunk) {
            Ok(0) => return,
            Ok(_) => Ok(chunk.into()),
            Err(error) => Err(Error::io("read", digest.to_string().as_bytes(), error).into()),
        };
        let over = read.is_err();
        if chunks.blocking_send(read).is_err() || over {
            return;
        }
    }
}

/// What the name of an image in a layout means.
enum Selected {
    /// An entry of its index.
    Entry(Box<IndexEntry>),
    /// The index itself: an image for several platforms.
    ByPlatform,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

impl Layout {
    fn check_version(&self) -> Result<()> {
        let bytes =
            self.small_file(&self.dir, "oci-layout", "bytes", MARKER_BYTES).map_err(|error| match error.root() {
                Error::NotFound { .. } => Error::NotFound {
                    what: format!("an OCI layout in `{}`", self.name),
                    hint: Some("a layout has the files `oci-layout` and `index.json`".into()),
                },
                _ => error,
            })?;
        let marker: Marker = serde_json::from_slice(&bytes).map_err(|error| self.refused("oci-layout", &error))?;
        match marker.image_layout_version.as_str() {
            "1.0.0" => Ok(()),
            other => {
                let version: String = other.chars().take(32).collect();
                Err(Error::Unsupported { what: format!("version {version:?} of OCI layouts") })
            }
        }
    }

    fn index(&self) -> Result<(RawDocument, Index)> {
        let bytes =
            Bytes::from(self.small_file(&self.dir, "index.json", "bytes in an index", self.limits.manifest_bytes)?);
        let raw = RawDocument { digest: Digest::of(&bytes), bytes, media_type: None };
        match Document::parse(&raw, &self.limits).map_err(|error| error.context(self.subject("index.json")))? {
            Document::Index(index) => Ok((raw, index)),
            Document::Manifest(_) => Err(Error::Refused {
                subject: self.subject("index.json"),
                reason: "it is an image manifest, not an index".into(),
            }),
        }
    }

    /// The entry that the name means, or all of them, if they are one image for several platforms.
    fn select(&self, index: Index) -> Result<Selected> {
        let mut tags: Vec<_> = index
            .entries
            .iter()
            .filter_map(|entry| Some(Escaped(entry.name.as_ref()?.as_bytes()).to_string()))
            .collect();
        let found = |entry: &IndexEntry| match self.name.selector() {
            LayoutSelector::Only => true,
            LayoutSelector::Tag(tag) => entry.name.as_ref() == Some(tag),
            LayoutSelector::Digest(digest) => entry.descriptor.as_ref().is_ok_and(|found| found.digest == *digest),
        };
        if *self.name.selector() == LayoutSelector::Only && self.is_flat(&index) {
            return Ok(Selected::ByPlatform);
        }
        let mut entries = index.entries.into_iter().filter(found);
        let first = entries.next();
        let same = |entry: &IndexEntry, first: &IndexEntry| match (&entry.descriptor, &first.descriptor) {
            (Ok(entry), Ok(first)) => (&entry.digest, entry.size) == (&first.digest, first.size),
            _ => false,
        };
        let others = entries.any(|entry| first.as_ref().is_some_and(|first| !same(&entry, first)));
        tags.sort_unstable();
        tags.dedup();
        tags.truncate(64);
        let tags = (!tags.is_empty()).then(|| format!("it has the tags {}", tags.join(", ")));
        match first {
            Some(entry) if !others => Ok(Selected::Entry(Box::new(entry))),
            Some(_) if *self.name.selector() == LayoutSelector::Only => Err(Error::Usage {
                reason: format!("`{}` holds several images", self.name),
                hint: Some(match tags {
                    Some(tags) => format!("choose one with oci:DIR:TAG; {tags}"),
                    None => "choose one with oci:DIR@DIGEST".into(),
                }),
            }),
            Some(_) => Err(Error::Refused {
                subject: format!("`{}`", self.name),
                reason: "the layout gives this name to several images".into(),
            }),
            None => Err(Error::NotFound { what: format!("`{}`", self.name), hint: tags }),
        }
    }

    /// Returns true for a layout whose entries are one image: several without a name, each for a platform of its own, by its own word
    /// or by that of its configuration.
    fn is_flat(&self, index: &Index) -> bool {
        let mut usable: Vec<&IndexEntry> = Vec::new();
        for entry in &index.entries {
            // The same image twice is one.
            if entry.descriptor.is_ok() && !usable.iter().any(|other| other.descriptor == entry.descriptor) {
                usable.push(entry);
            }
        }
        if usable.len() < 2 || index.entries.iter().any(|entry| entry.name.is_some()) {
            return false;
        }
        let mut platforms = Vec::with_capacity(usable.len());
        for entry in usable {
            match entry.platform.clone().or_else(|| self.configured(entry)) {
                Some(platform) if !platforms.contains(&platform) => platforms.push(platform),
                _ => return false,
            }
        }
        true
    }

    /// The platform that the configuration of an entry's image states; nothing if there is no such image.
    fn configured(&self, entry: &IndexEntry) -> Option<Platform> {
        let raw = self.document(entry.descriptor.as_ref().ok()?).ok()?;
        let Ok(Document::Manifest(manifest)) = Document::parse(&raw, &self.limits) else { return None };
        let mut bytes = Vec::new();
        let file = self.blob(&manifest.config, 0).ok()?;
        file.take(manifest.config.size.saturating_add(1)).read_to_end(&mut bytes).ok()?;
        manifest.config.verify("the image configuration", &bytes).ok()?;
        let config = Configuration::parse(&bytes, &manifest.config.digest, manifest.layers.len()).ok()?;
        Some(config.platform?.platform().clone())
    }

    /// The document with a digest that the index does not list, if it is there.
    fn unlisted(&self, digest: &Digest) -> Result<Option<RawDocument>> {
        let found = self.directory(&self.dir, "blobs").and_then(|blobs| {
            let blobs = self.directory(&blobs, digest.algorithm().name())?;
            self.regular_file(&blobs, digest.hex())
        });
        let size = match found {
            Ok((_, size)) => size,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let descriptor = Descriptor { media_type: MediaType::new(""), digest: digest.clone(), size, has_urls: false };
        self.document(&descriptor).map(|document| Some(RawDocument { media_type: None, ..document }))
    }

    fn document(&self, descriptor: &Descriptor) -> Result<RawDocument> {
        let subject = format!("the manifest {} of `{}`", descriptor.digest, self.name);
        if descriptor.size > self.limits.manifest_bytes {
            return Err(Error::Limit { subject, what: "bytes in a manifest", limit: self.limits.manifest_bytes });
        }
        let mut bytes = Vec::new();
        // One byte more than declared is enough to see that there are too many.
        let file = self.blob(descriptor, 0)?;
        file.take(descriptor.size.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| Error::io("read", descriptor.digest.to_string().as_bytes(), error))?;
        descriptor.verify(&subject, &bytes)?;
        Ok(RawDocument {
            bytes: bytes.into(),
            digest: descriptor.digest.clone(),
            media_type: Some(descriptor.media_type.clone()),
        })
    }

    /// Opens a blob at an offset, once its file has the declared size.
    fn blob(&self, descriptor: &Descriptor, from: u64) -> Result<File> {
        let digest = &descriptor.digest;
        let blobs = self.directory(&self.dir, "blobs")?;
        let blobs = self.directory(&blobs, digest.algorithm().name())?;
        let (mut file, size) = self.regular_file(&blobs, digest.hex())?;
        if size != descriptor.size {
            return Err(wrong_size(digest, descriptor.size, size));
        }
        file.seek(SeekFrom::Start(from)).map_err(|error| Error::io("read", digest.hex().as_bytes(), error))?;
        Ok(file)
    }

    fn directory(&self, parent: impl std::os::fd::AsFd, name: &str) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(|error| self.failed(name, error))
    }

    fn regular_file(&self, parent: impl std::os::fd::AsFd, name: &str) -> Result<(File, u64)> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let handle =
            rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(|error| self.failed(name, error))?;
        let file = File::from(handle);
        let metadata = file.metadata().map_err(|error| Error::io("look at", name.as_bytes(), error))?;
        if metadata.is_file() {
            Ok((file, metadata.len()))
        } else {
            Err(Error::Refused { subject: self.subject(name), reason: "it is not a regular file".into() })
        }
    }

    fn small_file(
        &self,
        parent: impl std::os::fd::AsFd,
        name: &str,
        what: &'static str,
        limit: u64,
    ) -> Result<Vec<u8>> {
        let (file, _) = self.regular_file(parent, name)?;
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| Error::io("read", name.as_bytes(), error))?;
        if bytes.len() as u64 > limit {
            return Err(Error::Limit { subject: self.subject(name), what, limit });
        }
        Ok(bytes)
    }

    fn failed(&self, name: &str, error: Errno) -> Error {
        match error {
            Errno::NOENT => Error::NotFound { what: self.subject(name), hint: None },
            Errno::LOOP | Errno::NOTDIR => {
                Error::Refused { subject: self.subject(name), reason: "it is a link or of the wrong type".into() }
            }
            other => Error::io("open", name.as_bytes(), other),
        }
    }

    fn refused(&self, name: &str, error: &serde_json::Error) -> Error {
        Error::Refused { subject: self.subject(name), reason: format!("it is not valid JSON: {error}") }
    }

    fn subject(&self, name: &str) -> String {
        format!("`{name}` of `{}`", self.name)
    }
}
