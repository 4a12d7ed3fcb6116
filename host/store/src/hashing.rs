//! A writer that hashes what passes through it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use cofferdam_core::digest::{Algorithm, Digest, Hasher};

/// Hashes exactly the bytes that the inner writer accepted. Fits wherever an [`AsyncWrite`] is wanted, such as
/// `oci_client::Client::pull_blob`.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
    written: u64,
    /// The bytes after which writing fails.
    limit: u64,
}

impl<W: AsyncWrite + Unpin> HashingWriter<W> {
    /// Wraps a writer; the hash is SHA-256.
    pub fn new(inner: W) -> Self {
        Self::bounded(inner, Algorithm::Sha256, u64::MAX)
    }

    /// Wraps a writer that takes at most `limit` bytes.
    pub(super) fn bounded(inner: W, algorithm: Algorithm, limit: u64) -> Self {
        Self { inner, hasher: Hasher::new(algorithm), written: 0, limit }
    }

    /// The writer, the hash as lowercase hex, and the number of bytes written. What the inner writer holds back is not
    /// flushed by this.
    pub fn finalize(self) -> (W, String, u64) {
        let (inner, digest, written) = self.into_parts();
        (inner, digest.hex().to_owned(), written)
    }

    pub(super) fn into_parts(self) -> (W, Digest, u64) {
        (self.inner, self.hasher.finish(), self.written)
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for HashingWriter<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let room = usize::try_from(this.limit - this.written).unwrap_or(usize::MAX);
        if room == 0 && !buf.is_empty() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::FileTooLarge, "more bytes than were declared")));
        }
        let buf = buf.get(..room).unwrap_or(buf);
        let accepted = ready!(Pin::new(&mut this.inner).poll_write(cx, buf))?;
        let Some(bytes) = buf.get(..accepted) else {
            return Poll::Ready(Err(io::Error::other("a writer accepted more bytes than it was given")));
        };
        this.hasher.update(bytes);
        this.written += accepted as u64;
        Poll::Ready(Ok(accepted))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// Accepts at most three bytes at a time, and every other time none yet.
    struct Reluctant(Vec<u8>, bool);

    impl AsyncWrite for Reluctant {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.1 = !self.1;
            if self.1 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let count = buf.len().min(3);
            self.0.extend_from_slice(&buf[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn only_accepted_bytes_are_hashed() {
        let mut writer = HashingWriter::new(Reluctant(Vec::new(), false));
        writer.write_all(b"hello world").await.unwrap();
        let (inner, hex, written) = writer.finalize();
        assert_eq!(inner.0, b"hello world");
        assert_eq!(hex, Digest::of(b"hello world").hex());
        assert_eq!(written, 11);
    }

    #[tokio::test]
    async fn a_bound_is_kept() {
        let mut writer = HashingWriter::bounded(Vec::new(), Algorithm::Sha256, 5);
        assert_eq!(writer.write_all(b"123456").await.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let (inner, hex, written) = writer.finalize();
        assert_eq!((inner.as_slice(), written), (&b"12345"[..], 5));
        assert_eq!(hex, Digest::of(b"12345").hex());
    }
}
