//! A layer's blob: decoded, hashed and bounded on its way to who reads it.

use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;

use cofferdam_layer::Source;
use sha2::{Digest as _, Sha256};

use crate::problem::Problem;
use crate::stream::Stream;

/// The most that a layer may decode to, in bytes: the default of Cofferdam's host.
const MOST: u64 = 32 << 30;

/// A layer that is read once, front to back.
pub(crate) struct Blob {
    stream: Stream,
    hasher: Sha256,
    decoded: u64,
}

impl Blob {
    pub(crate) fn open(path: &Path) -> Result<Self, Problem> {
        let file = File::open(path).map_err(|error| Problem::io(&format!("open `{}`", path.display()), error))?;
        Ok(Self { stream: Stream::new(file)?, hasher: Sha256::new(), decoded: 0 })
    }

    /// Takes up to `most` of the next bytes; none at the end.
    pub(crate) fn take(
        &mut self,
        most: u64,
        mut use_them: impl FnMut(&[u8]) -> Result<(), Problem>,
    ) -> Result<u64, Problem> {
        let bytes = self.stream.peek()?;
        let bytes = bytes.get(..usize::try_from(most).unwrap_or(usize::MAX)).unwrap_or(bytes);
        self.hasher.update(bytes);
        let count = bytes.len();
        use_them(bytes)?;
        self.stream.consume(count);
        self.decoded += count as u64;
        if self.decoded > MOST {
            return Err(Problem::Refused(format!("the layer decodes to more than {MOST} bytes")));
        }
        Ok(count as u64)
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

    /// Reads what is left, and says what all of it hashes to, and how much that was.
    pub(crate) fn finish(&mut self) -> Result<(String, u64), Problem> {
        while self.take(u64::MAX, |_| Ok(()))? > 0 {}
        let mut text = String::from("sha256:");
        for byte in self.hasher.finalize_reset() {
            let _ = write!(text, "{byte:02x}");
        }
        Ok((text, self.decoded))
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
