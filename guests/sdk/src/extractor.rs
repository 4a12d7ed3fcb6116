//! The world `extractor`: an archive format.

use std::io::{self, Read};

use crate::entry::Entry;
use crate::failure::Failure;
use crate::host;

/// An archive format. The macro `extractor!` makes a component of it.
pub trait Extractor {
    /// Reads `archive` up to its end marker and puts each entry into `tree`. Bytes behind the marker are the host's to drain.
    fn extract(archive: &mut Archive, tree: &mut Tree) -> Result<(), Failure>;
}

/// The decoded layer, forward only and not buffered: what was read is gone, and nothing else is.
///
/// Behind [`Tree::put`] of a file the host takes the file's content out of it, and the next read begins behind that.
#[derive(Debug)]
pub struct Archive {
    skip: u64,
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self { skip: 0 }
    }

    /// Drops bytes, with the next read. If the stream ends before, the host ends the plugin: the layer is cut short.
    pub fn skip(&mut self, bytes: u64) {
        self.skip = self.skip.saturating_add(bytes);
    }

    /// The next `N` bytes; nothing if the stream has ended. That it ends within them is [`Failure::Corrupt`].
    pub fn array<const N: usize>(&mut self) -> Result<Option<[u8; N]>, Failure> {
        let mut bytes = [0; N];
        let mut have = 0;
        while have < N {
            match self.read(&mut bytes[have..])? {
                0 if have == 0 => return Ok(None),
                0 => return Err(Failure::corrupt("the archive is cut short")),
                count => have += count,
            }
        }
        Ok(Some(bytes))
    }
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let max = u32::try_from(buffer.len()).unwrap_or(u32::MAX).min(1 << 20);
        let bytes = host::read(std::mem::take(&mut self.skip), max);
        bytes.as_slice().read(buffer)
    }
}

/// The tree to build, seen through one verb.
#[derive(Debug)]
pub struct Tree(());

impl Tree {
    pub(crate) fn new() -> Self {
        Self(())
    }

    /// Makes an entry, in the archive's order. A later entry of the same path replaces an earlier one.
    ///
    /// The content of a file, [`Entry::content_bytes`], must be next in the archive: the host moves it.
    pub fn put(&mut self, entry: Entry) {
        host::put(entry);
    }
}

#[doc(hidden)]
pub fn run<T: Extractor>() -> Result<(), Failure> {
    T::extract(&mut Archive::new(), &mut Tree::new())
}
