//! A layer's blob: decoded, hashed and bounded on its way to whoever reads it.

use std::fs::File;
use std::io::Read;

use cofferdam_layer::Source;

use crate::digest::{Digest, Hasher};
use crate::limits::{Known, Limits};
use crate::problem::Problem;
use crate::stream::Stream;

/// A layer that is read once, front to back.
pub(crate) struct Blob {
    stream: Stream,
    size: Option<u64>,
    hasher: Option<Hasher>,
    decoded: u64,
    limits: Limits,
}

impl Blob {
    /// Opens a file, or standard input as `-`. Without a hasher, [`Blob::finish`] tells no digest.
    pub(crate) fn open(path: &str, hasher: Option<Hasher>, limits: &Limits) -> Result<Self, Problem> {
        if path == "-" {
            return Self::new(Box::new(std::io::stdin()), None, hasher, limits);
        }
        let failed = |error| Problem::io(&format!("open `{path}`"), error);
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(Problem::Usage(format!("`{path}` is a directory, not a layer")));
        }
        let size = metadata.is_file().then_some(metadata.len());
        Self::new(Box::new(file), size, hasher, limits)
    }

    pub(crate) fn new(
        input: Box<dyn Read>,
        size: Option<u64>,
        hasher: Option<Hasher>,
        limits: &Limits,
    ) -> Result<Self, Problem> {
        let stream = Stream::new(input, limits.zstd_window)?;
        Ok(Self { stream, size, hasher, decoded: 0, limits: limits.clone() })
    }

    pub(crate) fn known(&self) -> Known {
        let total = self.limits.total(self.size, self.stream.is_compressed());
        Known { blob: self.size.unwrap_or_else(|| self.stream.bytes_read()), left: total.saturating_sub(self.decoded) }
    }

    /// Takes up to `most` of the next bytes; none at the end.
    pub(crate) fn take(
        &mut self,
        most: u64,
        mut use_them: impl FnMut(&[u8]) -> Result<(), Problem>,
    ) -> Result<u64, Problem> {
        let bytes = self.stream.peek()?;
        let bytes = bytes.get(..usize::try_from(most).unwrap_or(usize::MAX)).unwrap_or(bytes);
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        let count = bytes.len();
        use_them(bytes)?;
        self.stream.consume(count);
        self.decoded += count as u64;
        self.check()?;
        Ok(count as u64)
    }

    fn check(&self) -> Result<(), Problem> {
        let Limits { layer_bytes, ratio, ratio_from, .. } = self.limits;
        let over = |what, limit, name| Err(Problem::limit("the layer", what, limit, name));
        if self.decoded > layer_bytes {
            return over("decoded bytes", layer_bytes, "layer-bytes");
        }
        let read = self.stream.bytes_read();
        if self.decoded > ratio_from && self.decoded > read.saturating_mul(ratio) {
            return over("decoded bytes for each byte of the blob", ratio, "ratio");
        }
        // A stream without an end may decode to nothing: that has to end too. No compressor doubles what it is given.
        let most = layer_bytes.saturating_mul(2).max(1 << 20);
        if read > most { over("bytes of the blob", most, "layer-bytes") } else { Ok(()) }
    }

    /// Takes exactly so many bytes: the content of a file.
    pub(crate) fn take_all(
        &mut self,
        mut left: u64,
        mut use_them: impl FnMut(&[u8]) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        while left > 0 {
            let taken = self.take(left, &mut use_them)?;
            if taken == 0 {
                return Err(Problem::Corrupt("the archive is cut short".into()));
            }
            left -= taken;
        }
        Ok(())
    }

    /// Reads what is left, and says how much all of it was and, if that was asked for, what it hashes to. Fails if that is
    /// not what is expected.
    pub(crate) fn finish(&mut self, expected: Option<&Digest>) -> Result<(u64, Option<Digest>), Problem> {
        while self.take(u64::MAX, |_| Ok(()))? > 0 {}
        let found = self.hasher.as_mut().map(Hasher::finish);
        match (expected, &found) {
            (Some(expected), Some(found)) if expected != found => Err(Problem::Corrupt(format!(
                "the decoded layer hashes to {}, not to {}",
                found.as_str(),
                expected.as_str()
            ))),
            _ => Ok((self.decoded, found)),
        }
    }
}

impl Source for Blob {
    type Error = Problem;

    fn read(&mut self, skip: u64, max: u32, into: &mut Vec<u8>) -> Result<(), Problem> {
        self.take_all(skip, |_| Ok(()))?;
        self.take(u64::from(max), |bytes| {
            into.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(())
    }
}
