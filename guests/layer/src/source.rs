//! Where bytes come from, and the window on them that the parser reads through.

use crate::BLOCK;
use crate::failure::Failure;

/// A stream of decoded bytes, forward only.
pub trait Source {
    /// What reading can fail with; the parser's own failures among it.
    type Error: From<Failure>;

    /// Drops `skip` bytes, then appends the next bytes to `into`: at least one and at most `max`, or none at the stream's
    /// end. That the stream ends within the skipped bytes is an error.
    fn read(&mut self, skip: u64, max: u32, into: &mut Vec<u8>) -> Result<(), Self::Error>;
}

/// A stream in memory.
impl Source for &[u8] {
    type Error = Failure;

    fn read(&mut self, skip: u64, max: u32, into: &mut Vec<u8>) -> Result<(), Failure> {
        let rest = usize::try_from(skip).ok().and_then(|skip| self.get(skip..)).ok_or_else(Failure::cut_short)?;
        let (now, later) = rest.split_at(rest.len().min(max as usize));
        into.extend_from_slice(now);
        *self = later;
        Ok(())
    }
}

/// What was read and not yet parsed: nothing, or a few blocks. Never holds content of a file that the consumer of
/// the entries takes.
#[derive(Debug, Default)]
pub(crate) struct Window {
    bytes: Vec<u8>,
    at: usize,
    /// Bytes to drop with the next read.
    skip: u64,
    /// Bytes of padding in front of the next block.
    padding: usize,
    position: u64,
}

/// The most that one read asks for.
const READ: usize = 1 << 20;

impl Window {
    /// How far into the stream the next byte lies.
    pub(crate) fn position(&self) -> u64 {
        self.position.saturating_add(self.skip).saturating_add(self.padding as u64)
    }

    /// Drops bytes that are still in the source, with the next read.
    pub(crate) fn skip(&mut self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        debug_assert_eq!(self.at, self.bytes.len(), "skipped behind bytes that were read already");
        self.skip = self.skip.saturating_add(bytes);
    }

    /// Says how long the body was whose padding comes in front of the next block.
    pub(crate) fn pad(&mut self, body: u64) {
        self.padding = usize::try_from(body.wrapping_neg() % BLOCK as u64).unwrap_or_default();
    }

    /// Counts bytes that somebody else took from the source.
    pub(crate) fn taken(&mut self, bytes: u64) {
        self.position = self.position.saturating_add(bytes);
    }

    /// Reads until `wanted` bytes are there. Returns how many are: fewer only at the stream's end.
    pub(crate) fn fill<S: Source>(&mut self, source: &mut S, wanted: usize) -> Result<usize, S::Error> {
        if self.at == self.bytes.len() {
            self.bytes.clear();
            self.at = 0;
        }
        loop {
            let have = self.bytes.len() - self.at;
            if have >= wanted {
                return Ok(have);
            }
            let max = u32::try_from((wanted - have).min(READ)).unwrap_or(u32::MAX);
            source.read(self.skip, max, &mut self.bytes)?;
            self.position = self.position.saturating_add(self.skip);
            self.skip = 0;
            if self.bytes.len() - self.at == have {
                return Ok(have);
            }
        }
    }

    /// Takes bytes that [`Window::fill`] has made sure of; fewer if there are fewer.
    pub(crate) fn take(&mut self, count: usize) -> &[u8] {
        let start = self.at;
        self.at = start.saturating_add(count).min(self.bytes.len());
        self.position = self.position.saturating_add((self.at - start) as u64);
        &self.bytes[start..self.at]
    }

    /// Looks at the next bytes, a block or what the stream still has, without taking them. There must be no padding in front.
    pub(crate) fn peek<S: Source>(&mut self, source: &mut S) -> Result<&[u8], S::Error> {
        debug_assert_eq!(self.padding, 0, "padding in front of what is looked at");
        let have = self.fill(source, BLOCK)?.min(BLOCK);
        Ok(self.bytes.get(self.at..self.at + have).unwrap_or_default())
    }

    /// Takes the next block, nothing if the stream has ended in front of it.
    ///
    /// The padding is read, not skipped: the last member may come without any (umoci 0.4 writes such layers, and what
    /// is built on Go's `archive/tar` reads them), but not with a part of it.
    pub(crate) fn block<S: Source>(&mut self, source: &mut S) -> Result<Option<[u8; BLOCK]>, S::Error> {
        let padding = std::mem::take(&mut self.padding);
        let have = self.fill(source, padding + BLOCK)?;
        if have == 0 || have == padding {
            return Ok(None);
        }
        self.take(padding);
        match self.take(BLOCK).first_chunk() {
            Some(block) => Ok(Some(*block)),
            None => Err(Failure::cut_short().into()),
        }
    }
}
