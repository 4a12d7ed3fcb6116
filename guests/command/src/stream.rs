//! The decoded stream of a file: plain, gzip or zstd, as its first bytes say.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::rc::Rc;

use cofferdam_decode::{Decode, Failure, Pull, Source, Target, gzip, zstd};

use crate::problem::Problem;

/// A file that is read to its end. A decoder takes a failure for the end; whoever asks the decoder looks here first.
pub(crate) struct Reading {
    file: File,
    failed: Rc<RefCell<Option<io::Error>>>,
}

impl Source for Reading {
    fn read(&mut self, max: u32) -> Vec<u8> {
        let mut bytes = vec![0; max as usize];
        loop {
            match self.file.read(&mut bytes) {
                Ok(count) => {
                    bytes.truncate(count);
                    return bytes;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    *self.failed.borrow_mut() = Some(error);
                    return Vec::new();
                }
            }
        }
    }
}

/// What is not compressed.
pub(crate) struct Plain(Reading);

impl Decode for Plain {
    fn step(&mut self, target: &mut impl Target) -> Result<bool, Failure> {
        let bytes = self.0.read(256 << 10);
        if bytes.is_empty() {
            return Ok(false);
        }
        target.write(&bytes);
        Ok(true)
    }
}

enum Format {
    Plain(Pull<Plain>),
    Gzip(Pull<gzip::Decoder<Reading>>),
    Zstd(Pull<zstd::Decoder<Reading>>),
}

/// The decoded bytes of a blob, on demand.
pub(crate) struct Stream {
    format: Format,
    failed: Rc<RefCell<Option<io::Error>>>,
}

impl Stream {
    /// Looks at the first bytes, as the host does.
    pub(crate) fn new(mut file: File) -> Result<Self, Problem> {
        let mut magic = Vec::new();
        let read = file.by_ref().take(4).read_to_end(&mut magic).and_then(|_| file.rewind());
        read.map_err(|error| Problem::io("read the layer", error))?;
        let failed = Rc::default();
        let reading = Reading { file, failed: Rc::clone(&failed) };
        let format = match magic[..] {
            [0x1f, 0x8b, ..] => Format::Gzip(Pull::new(gzip::Decoder::new(reading))),
            [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
                Format::Zstd(Pull::new(zstd::Decoder::new(reading, zstd::MAX_WINDOW)?))
            }
            _ => Format::Plain(Pull::new(Plain(reading))),
        };
        Ok(Self { format, failed })
    }

    /// The next bytes, none at the end.
    pub(crate) fn peek(&mut self) -> Result<&[u8], Problem> {
        let bytes = match &mut self.format {
            Format::Plain(pull) => pull.peek(),
            Format::Gzip(pull) => pull.peek(),
            Format::Zstd(pull) => pull.peek(),
        };
        if let Some(error) = self.failed.borrow_mut().take() {
            return Err(Problem::io("read the layer", error));
        }
        Ok(bytes?)
    }

    /// Drops bytes that were peeked at.
    pub(crate) fn consume(&mut self, count: usize) {
        match &mut self.format {
            Format::Plain(pull) => pull.consume(count),
            Format::Gzip(pull) => pull.consume(count),
            Format::Zstd(pull) => pull.consume(count),
        }
    }
}
