//! The decoded stream of a blob: plain, gzip or zstd, as its first bytes say.

use std::cell::{Cell, RefCell};
use std::io::{self, Cursor, Read};
use std::rc::Rc;

use cofferdam_decode::{Decode, Failure, Pull, Source, Target, gzip, zstd};

use crate::problem::Problem;

/// What a decoder cannot tell about its input. It takes a failure for the end; whoever asks it looks here first.
#[derive(Default)]
struct Told {
    read: Cell<u64>,
    failed: RefCell<Option<io::Error>>,
}

/// A blob that is read to its end.
struct Reading {
    input: Box<dyn Read>,
    told: Rc<Told>,
}

impl Source for Reading {
    fn read(&mut self, max: u32) -> Vec<u8> {
        let mut bytes = vec![0; max as usize];
        loop {
            match self.input.read(&mut bytes) {
                Ok(count) => {
                    bytes.truncate(count);
                    self.told.read.set(self.told.read.get() + count as u64);
                    return bytes;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    *self.told.failed.borrow_mut() = Some(error);
                    return Vec::new();
                }
            }
        }
    }
}

/// What is not compressed.
struct Plain(Reading);

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
    Gzip(Box<Pull<gzip::Decoder<Reading>>>),
    Zstd(Box<Pull<zstd::Decoder<Reading>>>),
}

/// The decoded bytes of a blob, on demand.
pub(crate) struct Stream {
    format: Format,
    told: Rc<Told>,
}

impl Stream {
    /// Looks at the first bytes, as the host does. No frame of zstd may have a larger window than this.
    pub(crate) fn new(mut input: Box<dyn Read>, window: u64) -> Result<Self, Problem> {
        let mut magic = Vec::new();
        input.by_ref().take(4).read_to_end(&mut magic).map_err(|error| Problem::io("read the layer", error))?;
        let told = Rc::<Told>::default();
        let input = Box::new(Cursor::new(magic.clone()).chain(input));
        let reading = Reading { input, told: Rc::clone(&told) };
        let format = match magic[..] {
            [0x1f, 0x8b, ..] => Format::Gzip(Box::new(Pull::new(gzip::Decoder::new(reading)))),
            [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
                Format::Zstd(Box::new(Pull::new(zstd::Decoder::new(reading, window)?)))
            }
            _ => Format::Plain(Pull::new(Plain(reading))),
        };
        Ok(Self { format, told })
    }

    pub(crate) fn is_compressed(&self) -> bool {
        !matches!(self.format, Format::Plain(_))
    }

    /// How many bytes of the blob were read.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.told.read.get()
    }

    /// The next bytes, none at the end.
    pub(crate) fn peek(&mut self) -> Result<&[u8], Problem> {
        let bytes = match &mut self.format {
            Format::Plain(pull) => pull.peek(),
            Format::Gzip(pull) => pull.peek(),
            Format::Zstd(pull) => pull.peek(),
        };
        if let Some(error) = self.told.failed.borrow_mut().take() {
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
