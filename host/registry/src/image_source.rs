//! The trait behind which images come from, and what it deals in: documents with their digest, and blobs as streams.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use cofferdam_documents::plugin::Authority;
use cofferdam_documents::{Descriptor, RawDocument};

/// One image in one place: a reference in a registry, a tag of a layout.
///
/// Implementations make one attempt at each call and say of a failure whether another one may help; who calls decides
/// how often. Nothing that a document says is used as an address.
#[async_trait]
pub trait ImageSource: Send + Sync {
    /// The image and its place, for people: `docker.io/library/debian:12`, `oci:images:base`.
    fn name(&self) -> String;

    /// The name under which a store keeps the image. Others find it by that name, so it means this image wherever it is
    /// said.
    fn store_name(&self) -> Result<String> {
        Ok(self.name())
    }

    /// The digest that the image was asked for by, if it was: what it resolves to is known without asking.
    fn pinned(&self) -> Option<&Digest> {
        None
    }

    /// The registry that the image comes from, once it is known; nothing for what is none.
    fn server(&self) -> Option<Server> {
        None
    }

    /// The document that the image's name stands for. Its bytes hash to its digest, and to the digest that was asked for.
    async fn resolve(&self) -> Result<RawDocument, Failure>;

    /// A document that another one points to. Its bytes have the size and hash to the digest of the descriptor.
    async fn document(&self, descriptor: &Descriptor) -> Result<RawDocument, Failure>;

    /// The bytes of a blob from `from` (at most its size) to its end. The caller hashes them. A source that cannot begin in
    /// the middle begins earlier: [`Blob::position`] says where.
    async fn blob(&self, descriptor: &Descriptor, from: u64) -> Result<Blob, Failure>;
}

/// A repository of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where the registry is.
    pub authority: Authority,
    /// Whether it may show any certificate: whoever named the image said so.
    pub any_certificate: bool,
    /// The repository, such as `library/debian`.
    pub repository: String,
}

/// An attempt that failed.
#[derive(Debug)]
pub struct Failure {
    /// Why.
    pub error: Error,
    /// What another attempt may bring.
    pub retry: Retry,
}

/// Whether to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It would fail again.
    Never,
    /// It may have been bad luck: a lost connection, a server in trouble.
    Soon,
    /// The server asks for this much patience.
    After(Duration),
}

impl From<Error> for Failure {
    /// A failure for good.
    fn from(error: Error) -> Self {
        Self { error, retry: Retry::Never }
    }
}

impl Failure {
    /// A failure that may have been bad luck.
    pub fn passing(error: Error) -> Self {
        Self { error, retry: Retry::Soon }
    }
}

/// The bytes of a blob as they arrive: never more than its descriptor allows, and never fewer without an error.
///
/// This is the one place where sizes are held against what arrives, whatever the source.
pub struct Blob {
    stream: BoxStream<'static, Result<Bytes, Failure>>,
    digest: Digest,
    expected: u64,
    position: u64,
    ended: bool,
}

impl Blob {
    /// A blob whose stream begins at byte `from`.
    pub fn new(descriptor: &Descriptor, from: u64, stream: BoxStream<'static, Result<Bytes, Failure>>) -> Self {
        Self { stream, digest: descriptor.digest.clone(), expected: descriptor.size, position: from, ended: false }
    }

    /// How many bytes of the whole blob lie before what comes next.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next bytes, never empty; nothing at the end, when the blob has exactly its declared size.
    ///
    /// # Errors
    /// The source's own, and [`Error::SizeMismatch`] as soon as there is a byte too many or at an end that comes too soon.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        while !self.ended {
            let Some(chunk) = self.stream.next().await else {
                self.ended = true;
                if self.position != self.expected {
                    // Where a connection's end is the body's, this is how a lost one looks.
                    return Err(Failure::passing(self.wrong_size(self.position)));
                }
                break;
            };
            let chunk = chunk.inspect_err(|_| self.ended = true)?;
            if chunk.is_empty() {
                continue;
            }
            let position = self.position.saturating_add(chunk.len() as u64);
            if position > self.expected {
                self.ended = true;
                return Err(self.wrong_size(position).into());
            }
            self.position = position;
            return Ok(Some(chunk));
        }
        Ok(None)
    }

    fn wrong_size(&self, actual: u64) -> Error {
        wrong_size(&self.digest, self.expected, actual)
    }
}

/// A blob that has more bytes than declared, or was cut short.
pub fn wrong_size(digest: &Digest, expected: u64, actual: u64) -> Error {
    let error = Error::SizeMismatch { subject: format!("the blob {digest}"), expected, actual };
    if actual < expected { error.context("the blob was cut short") } else { error }
}

impl fmt::Display for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the blob {}", self.digest)
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} at {} of {})", self.digest, self.position, self.expected)
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_documents::MediaType;

    use futures_util::stream;

    use super::*;

    fn blob(size: u64, from: u64, chunks: &[&'static str]) -> Blob {
        let descriptor = Descriptor { media_type: MediaType::new(""), digest: Digest::of(b""), size, has_urls: false };
        let chunks: Vec<_> = chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))).collect();
        Blob::new(&descriptor, from, stream::iter(chunks).boxed())
    }

    async fn read(mut blob: Blob) -> Result<usize, Error> {
        let mut seen = 0;
        while let Some(chunk) = blob.next().await.map_err(|failure| failure.error)? {
            seen += chunk.len();
        }
        Ok(seen)
    }

    #[tokio::test]
    async fn a_blob_has_its_size() {
        assert_eq!(read(blob(5, 0, &["ab", "", "cde"])).await.unwrap(), 5);
        assert_eq!(read(blob(5, 3, &["de"])).await.unwrap(), 2);
        assert_eq!(read(blob(0, 0, &[])).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_byte_too_many_or_too_few_is_an_error() {
        for (size, from, chunks) in [(4, 0, &["ab", "cde"][..]), (6, 0, &["ab", "cde"]), (5, 3, &["abc"]), (1, 0, &[])]
        {
            let error = read(blob(size, from, chunks)).await.unwrap_err();
            assert!(matches!(error.root(), Error::SizeMismatch { .. }), "{error}");
        }
    }
}
