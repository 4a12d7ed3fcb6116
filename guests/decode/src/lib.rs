//! Strict streaming decoders for layer blobs, without I/O of their own: [`gzip`] and [`zstd`].
//!
//! Both read a [`Source`] to its end and hand decoded bytes to a [`Target`] in large pieces, or give them when they are asked for
//! ([`Pull`]). They verify all that the
//! formats offer to verify, accept several members or frames, and take nothing that is not part of the format: a blob with
//! garbage behind its last member is corrupt.

pub mod gzip;
mod pull;
mod reader;
pub mod zstd;

pub use pull::Pull;

/// Where compressed bytes come from.
pub trait Source {
    /// The next bytes, at least one and at most `max`; none at the end.
    fn read(&mut self, max: u32) -> Vec<u8>;
}

impl<S: Source> Source for &mut S {
    fn read(&mut self, max: u32) -> Vec<u8> {
        (**self).read(max)
    }
}

/// A decoder at work.
pub trait Decode {
    /// Decodes a little more, a few hundred KiB at most, into `target`. False at the end of the blob: then all of it was
    /// decoded and verified. Not to be called again after that, or after a failure.
    fn step(&mut self, target: &mut impl Target) -> Result<bool, Failure>;
}

/// Where decoded bytes go.
pub trait Target {
    /// Takes the next bytes, never none.
    fn write(&mut self, bytes: &[u8]);
}

/// Why decoding stopped. The text is one line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The stream is broken.
    Corrupt(String),
    /// The stream is well formed, but uses what is refused here.
    Refused(String),
    /// A limit was crossed.
    Limit(String),
}

impl Failure {
    fn corrupt(reason: impl Into<String>) -> Self {
        Self::Corrupt(reason.into())
    }
}

/// How many compressed bytes are asked for at a time.
const READ: u32 = 128 << 10;

/// How many decoded bytes are handed over at a time.
const WRITE: usize = 256 << 10;

#[cfg(test)]
mod testing {
    use super::{Source, Target};

    /// Hands out bytes in pieces of at most `piece`.
    pub(crate) struct Pieces<'a> {
        pub(crate) bytes: &'a [u8],
        pub(crate) piece: usize,
    }

    impl Source for Pieces<'_> {
        fn read(&mut self, max: u32) -> Vec<u8> {
            let count = self.bytes.len().min(self.piece).min(max as usize);
            let (now, later) = self.bytes.split_at(count);
            self.bytes = later;
            now.to_vec()
        }
    }

    impl Target for Vec<u8> {
        fn write(&mut self, bytes: &[u8]) {
            assert!(!bytes.is_empty(), "an empty write");
            self.extend_from_slice(bytes);
        }
    }
}
