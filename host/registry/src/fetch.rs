//! Downloads: a blob's bytes on their way from a source to where they are kept.
//!
//! A download that breaks off goes on where it stopped, by a range request or by dropping what is there already; so
//! neither the hash nor whoever reads along starts again. Sizes are enforced by [`Blob`](crate::Blob), hashes
//! by who keeps the bytes.

use std::io::Write as _;

use bytes::{Buf as _, Bytes};
use cofferdam_core::error::{Error, Result};
use cofferdam_documents::{Descriptor, RawDocument};
use cofferdam_store::Staged;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::client::network;
use super::pace::Pace;
use super::retry::RetryPolicy;
use super::tail::TailWriter;
use super::tasks::Tasks;
use crate::image_source::{Failure, ImageSource, Retry};

/// The most that is handed on at a time, and how many of them may wait: 4 MiB in all.
const CHUNK: usize = 256 << 10;
const CHUNKS: usize = 16;

/// A download into the store, with somebody reading along.
pub(super) struct Download<'a> {
    pub(super) source: &'a dyn ImageSource,
    pub(super) descriptor: &'a Descriptor,
    pub(super) retry: &'a RetryPolicy,
    pub(super) tasks: &'a Tasks,
}

/// A blob that was written to the last byte, not verified, and the tail that waits for the verdict.
pub(super) struct Written {
    pub(super) staged: Staged,
    pub(super) tail: TailWriter,
}

impl Download<'_> {
    /// Downloads all of the blob, or until `unwanted` says why nobody wants it any more. Hashing and writing have a thread
    /// of their own beside the network. `arrived` is told how many bytes there are so far.
    ///
    /// On failure the staged file is gone when this returns.
    pub(super) async fn run(
        &self,
        staged: Staged,
        tail: TailWriter,
        arrived: &(dyn Fn(u64) + Sync),
        unwanted: impl Future<Output = Error>,
    ) -> Result<Written> {
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let writing = self.tasks.spawn(move || write(staged, tail, receiver));
        let received = tokio::select! {
            biased;
            received = self.receive(&sender, arrived) => received,
            reason = unwanted => Err(reason),
        };
        let complete = match &received {
            Ok(Received::All) => sender.send(Piece::End).await.is_ok(),
            Ok(Received::NobodyTakesIt) | Err(_) => false,
        };
        drop(sender);
        let written = writing.join().await;
        match received {
            Err(error) => Err(error),
            // Where the writer went away, it says why.
            Ok(_) => written.and_then(|written| if complete { Ok(written) } else { Err(Error::Interrupted) }),
        }
    }

    async fn receive(&self, sender: &mpsc::Sender<Piece>, arrived: &(dyn Fn(u64) + Sync)) -> Result<Received> {
        let mut attempts = self.retry.attempts();
        let (mut position, mut started) = (0, 0);
        loop {
            let failure = match self.attempt(&mut position, sender, arrived).await {
                Ok(received) => return Ok(received),
                Err(failure) => failure,
            };
            // It broke off behind its last byte: the hash decides whether it is whole.
            if position == self.descriptor.size && failure.retry == Retry::Soon && position > 0 {
                return Ok(Received::All);
            }
            if position - started >= self.retry.progress {
                attempts.forgive();
            }
            started = position;
            attempts.after(failure).await?;
        }
    }

    async fn attempt(
        &self,
        position: &mut u64,
        sender: &mpsc::Sender<Piece>,
        arrived: &(dyn Fn(u64) + Sync),
    ) -> Result<Received, Failure> {
        let mut blob = self.source.blob(self.descriptor, *position).await?;
        let mut announced = *position;
        let mut pace = Pace::new(self.retry);
        while let Some(mut bytes) = pace.next(&mut blob).await? {
            let begin = blob.position() - bytes.len() as u64;
            let known = usize::try_from(position.saturating_sub(begin)).unwrap_or(usize::MAX);
            bytes.advance(known.min(bytes.len()));
            while !bytes.is_empty() {
                let piece = bytes.split_to(bytes.len().min(CHUNK));
                *position += piece.len() as u64;
                if sender.send(Piece::Bytes(piece)).await.is_err() {
                    return Ok(Received::NobodyTakesIt);
                }
            }
            if *position - announced >= CHUNK as u64 {
                announced = *position;
                arrived(announced);
            }
        }
        arrived(*position);
        Ok(Received::All)
    }
}

enum Received {
    All,
    NobodyTakesIt,
}

enum Piece {
    Bytes(Bytes),
    End,
}

/// Writes what arrives. A channel that closes before the end is a download that was given up.
fn write(mut staged: Staged, tail: TailWriter, mut pieces: mpsc::Receiver<Piece>) -> Result<Written> {
    while let Some(piece) = pieces.blocking_recv() {
        let Piece::Bytes(bytes) = piece else { return Ok(Written { staged, tail }) };
        staged.write_all(&bytes).map_err(|error| {
            let name = staged.digest().to_string();
            Error::io("write the blob", name.as_bytes(), error)
        })?;
        tail.advance(staged.written());
    }
    Err(Error::Interrupted)
}

/// The document that a source's name stands for.
pub(super) async fn top(source: &dyn ImageSource, retry: &RetryPolicy) -> Result<RawDocument> {
    let mut attempts = retry.attempts();
    loop {
        match source.resolve().await {
            Ok(document) => return Ok(document),
            Err(failure) => attempts.after(failure).await?,
        }
    }
}

/// A document that another one points to.
pub(super) async fn document(
    source: &dyn ImageSource,
    descriptor: &Descriptor,
    retry: &RetryPolicy,
) -> Result<RawDocument> {
    let mut attempts = retry.attempts();
    loop {
        match source.document(descriptor).await {
            Ok(document) => return Ok(document),
            Err(failure) => attempts.after(failure).await?,
        }
    }
}

/// An image configuration.
pub(super) async fn config(source: &dyn ImageSource, descriptor: &Descriptor, retry: &RetryPolicy) -> Result<Bytes> {
    let subject = format!("the image configuration {}", descriptor.digest);
    let bytes = small(source, descriptor, retry, &subject).await;
    bytes.map(Bytes::from).map_err(|error| error.context(format!("fetching {subject}")))
}

/// Downloads a small blob into memory and verifies it. The caller has checked its declared size.
pub(super) async fn small(
    source: &dyn ImageSource,
    descriptor: &Descriptor,
    retry: &RetryPolicy,
    subject: &str,
) -> Result<Vec<u8>> {
    let mut attempts = retry.attempts();
    loop {
        let once = timeout(retry.document_timeout, small_once(source, descriptor)).await;
        let once = once.unwrap_or_else(|_| {
            let reason = format!("it did not arrive within {} s", retry.document_timeout.as_secs_f32());
            Err(Failure::passing(network(subject, reason)))
        });
        match once {
            Ok(bytes) => {
                descriptor.verify(subject, &bytes)?;
                return Ok(bytes);
            }
            Err(failure) => attempts.after(failure).await?,
        }
    }
}

async fn small_once(source: &dyn ImageSource, descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let mut blob = source.blob(descriptor, 0).await?;
    while let Some(chunk) = blob.next().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
