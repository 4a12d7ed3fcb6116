//! A buffer over a source: what both formats need to look at headers byte by byte and at data in bulk.

use crate::{Failure, READ, Source};

pub(crate) struct Reader<S> {
    source: S,
    buffer: Vec<u8>,
    used: usize,
    ended: bool,
}

impl<S: Source> Reader<S> {
    pub(crate) fn new(source: S) -> Self {
        Self { source, buffer: Vec::new(), used: 0, ended: false }
    }

    /// The bytes at hand, at least one unless the source has ended.
    pub(crate) fn peek(&mut self) -> &[u8] {
        if self.used == self.buffer.len() && !self.ended {
            self.buffer = self.source.read(READ);
            self.used = 0;
            self.ended = self.buffer.is_empty();
        }
        self.buffer.get(self.used..).unwrap_or_default()
    }

    /// Drops bytes that were peeked at.
    pub(crate) fn consume(&mut self, count: usize) {
        self.used = self.buffer.len().min(self.used + count);
    }

    pub(crate) fn at_end(&mut self) -> bool {
        self.peek().is_empty()
    }

    /// The next byte; a stream that ends here was cut.
    pub(crate) fn byte(&mut self) -> Result<u8, Failure> {
        let byte = self.peek().first().copied().ok_or_else(|| Failure::corrupt("the stream is cut short"))?;
        self.consume(1);
        Ok(byte)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            *byte = self.byte()?;
        }
        Ok(bytes)
    }

    /// Drops exactly `count` bytes.
    pub(crate) fn skip(&mut self, mut count: u64) -> Result<(), Failure> {
        while count > 0 {
            let at_hand = self.peek().len() as u64;
            if at_hand == 0 {
                return Err(Failure::corrupt("the stream is cut short"));
            }
            let now = at_hand.min(count);
            self.consume(usize::try_from(now).unwrap_or(usize::MAX));
            count -= now;
        }
        Ok(())
    }
}

impl<S: Source> std::io::Read for Reader<S> {
    fn read(&mut self, target: &mut [u8]) -> std::io::Result<usize> {
        let at_hand = self.peek();
        let count = at_hand.len().min(target.len());
        target[..count].copy_from_slice(&at_hand[..count]);
        self.consume(count);
        Ok(count)
    }
}
