//! The consumer's end of the queue: a forward-only view of the decoded bytes.

use cofferdam_core::error::{Error, Result};
use cofferdam_tree::entry::Content;
use crossbeam_channel::Receiver;

use super::chunk::{Chunk, Message};

/// The decoded bytes of one layer.
pub(super) struct DecodedStream {
    queue: Receiver<Message>,
    chunk: Option<Chunk>,
    used: usize,
    ended: bool,
    position: u64,
}

impl DecodedStream {
    pub(super) fn new(queue: Receiver<Message>) -> Self {
        Self { queue, chunk: None, used: 0, ended: false, position: 0 }
    }

    /// How many bytes were taken.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The bytes at hand; none at the end.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`] when the decoder failed: then the decoder's error is the one that counts.
    fn peek(&mut self) -> Result<&[u8]> {
        while !self.ended && self.chunk.as_ref().is_none_or(|chunk| self.used == chunk.len()) {
            self.used = 0;
            self.chunk = None; // before waiting: its buffer may be the one that the decoder waits for
            match self.queue.recv() {
                Ok(Message::Chunk(chunk)) => self.chunk = Some(chunk),
                Ok(Message::End) => self.ended = true,
                Err(_) => return Err(Error::Interrupted),
            }
        }
        Ok(self.chunk.as_ref().map_or(&[], |chunk| &chunk[self.used..]))
    }

    fn take(&mut self, count: usize) {
        self.used += count;
        self.position += count as u64;
    }

    /// Drops exactly `skip` bytes, then gives up to `max`; none at the end. A stream that ends before is cut short.
    pub(super) fn read(&mut self, skip: u64, max: usize) -> Result<Vec<u8>> {
        let mut left = skip;
        while left > 0 {
            let count = (self.peek()?.len() as u64).min(left);
            if count == 0 {
                return Err(cut_short());
            }
            self.take(usize::try_from(count).unwrap_or(usize::MAX));
            left -= count;
        }
        let at_hand = self.peek()?;
        let bytes = at_hand[..at_hand.len().min(max)].to_vec();
        self.take(bytes.len());
        Ok(bytes)
    }

    /// Drops everything that is left; says how much that was.
    pub(super) fn drain(&mut self) -> Result<u64> {
        let from = self.position;
        loop {
            let count = self.peek()?.len();
            if count == 0 {
                return Ok(self.position - from);
            }
            self.take(count);
        }
    }
}

impl Content for DecodedStream {
    fn chunk(&mut self) -> Result<&[u8]> {
        if self.peek()?.is_empty() { Err(cut_short()) } else { self.peek() }
    }

    fn advance(&mut self, count: usize) {
        let at_hand = self.chunk.as_ref().map_or(0, |chunk| chunk.len() - self.used);
        self.take(count.min(at_hand));
    }
}

fn cut_short() -> Error {
    Error::Corrupt { subject: "the layer".into(), reason: "it is cut short".into() }
}
