//! The world `decoder`: a compression.

use std::io::{self, BufRead, Read, Write};

use crate::failure::Failure;
use crate::host;

/// A compression. The macro `decoder!` makes a component of it.
pub trait Decoder {
    /// Decodes the whole of `input` into `output`.
    ///
    /// Success means that the input was read to its end and that each checksum in it was right: garbage behind the
    /// compressed stream is [`Failure::Corrupt`]. The host compares what was decoded with the image's DiffID, whatever is
    /// said here.
    fn decode(input: &mut Input, output: &mut Output) -> Result<(), Failure>;
}

/// How many bytes are read and written at a time: few calls, and little memory.
const CHUNK: u32 = 128 << 10;

/// The blob, forward only.
#[derive(Debug)]
pub struct Input {
    chunk: Vec<u8>,
    at: usize,
}

impl Input {
    pub(crate) fn new() -> Self {
        Self { chunk: Vec::new(), at: 0 }
    }

    /// The next bytes as the host hands them out, without a copy: at least one and at most `max`, none at the end. `max`
    /// is cut to 1 MiB.
    pub fn next(&mut self, max: u32) -> Vec<u8> {
        let max = max.clamp(1, 1 << 20);
        if self.at == self.chunk.len() {
            return host::read(0, max);
        }
        let end = self.chunk.len().min(self.at.saturating_add(max as usize));
        let bytes = self.chunk[self.at..end].to_vec();
        self.at = end;
        bytes
    }

    /// Whether all was read.
    pub fn is_at_end(&mut self) -> bool {
        self.fill_buf().is_ok_and(<[u8]>::is_empty)
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.chunk.len() {
            self.chunk = host::read(0, CHUNK);
            self.at = 0;
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at = self.at.saturating_add(count).min(self.chunk.len());
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

/// The decoded layer. Small writes are gathered; the rest goes out at the end of [`Decoder::decode`].
#[derive(Debug)]
pub struct Output {
    gathered: Vec<u8>,
}

impl Output {
    pub(crate) fn new() -> Self {
        Self { gathered: Vec::new() }
    }

    /// Hands bytes to the host without gathering them, in pieces that it takes.
    pub fn put(&mut self, bytes: &[u8]) {
        self.send();
        bytes.chunks(1 << 20).for_each(host::write);
    }

    fn send(&mut self) {
        if !self.gathered.is_empty() {
            host::write(&self.gathered);
            self.gathered.clear();
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.gathered.len() + bytes.len() <= CHUNK as usize {
            self.gathered.extend_from_slice(bytes);
        } else {
            self.put(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send();
        Ok(())
    }
}

#[doc(hidden)]
pub fn run<T: Decoder>() -> Result<(), Failure> {
    let mut output = Output::new();
    T::decode(&mut Input::new(), &mut output)?;
    output.send();
    Ok(())
}
