//! Strict streaming decoders for layer blobs, without I/O of their own: [`gzip`] and [`zstd`].
//!
//! Both read a [`Source`] to its end and hand decoded bytes to a [`Target`] in large pieces. They verify all that the
//! formats offer to verify, accept several members or frames, and take nothing that is not part of the format: a blob with
//! garbage behind its last member is corrupt.

pub mod gzip;
mod reader;
pub mod zstd;

/// Where compressed bytes come from.
pub trait Source {
    /// The next bytes, at least one and at most `max`; none at the end.
    fn read(&mut self, max: u32) -> Vec<u8>;
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
