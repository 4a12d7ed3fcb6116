//! Reading a file while it is written: how a layer is unpacked while it still arrives.
//!
//! The bytes that were written are in the system's memory anyway; so the reader needs no queue of its own, a slow one
//! never holds up the network, and one that went away is nobody's concern. The reader waits at the point that the writer
//! has reached. It sees the end only when the writer says that the blob is whole *and right*: a download that failed,
//! was given up or does not hash to its digest ends in an error and never looks like the end of a stream.

use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A writer and a reader of one file. The reader's handle must stand at the file's beginning and be its own.
pub(super) fn tail(file: File) -> (TailWriter, TailReader) {
    let shared = Arc::new(Shared::default());
    (TailWriter(Arc::clone(&shared)), TailReader { file, position: 0, shared })
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    written: u64,
    end: End,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    Reached,
    Broken,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is a single assignment: what a panicking holder leaves is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// Says how far the file is written. Dropping it without [`TailWriter::finish`] is an error for the reader.
#[derive(Debug)]
pub(super) struct TailWriter(Arc<Shared>);

impl TailWriter {
    /// The first `written` bytes of the file can be read.
    pub(super) fn advance(&self, written: u64) {
        self.0.change(|state| state.written = written);
    }

    /// What was written is all of it, and was verified.
    pub(super) fn finish(self) {
        self.0.change(|state| state.end = End::Reached);
    }
}

impl Drop for TailWriter {
    fn drop(&mut self) {
        self.0.change(|state| {
            if state.end == End::Open {
                state.end = End::Broken;
            }
        });
    }
}

/// Reads what is written, waiting for more. Blocks the thread.
#[derive(Debug)]
pub(super) struct TailReader {
    file: File,
    position: u64,
    shared: Arc<Shared>,
}

impl Read for TailReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let available = {
            let waiting = |state: &mut State| state.end == End::Open && state.written <= self.position;
            let state = self.shared.changed.wait_while(self.shared.lock(), waiting);
            let state = state.unwrap_or_else(PoisonError::into_inner);
            match state.end {
                // At once, whatever there is to read: nothing good will come of it.
                End::Broken => {
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the download was not completed"));
                }
                End::Open | End::Reached => state.written - self.position.min(state.written),
            }
        };
        let room = usize::try_from(available).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..room).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let count = self.file.read(buffer)?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the staged file was cut"));
        }
        self.position += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;

    /// A file with a writing handle and a tail.
    fn tailed() -> (File, TailWriter, TailReader) {
        let named = tempfile::NamedTempFile::new().unwrap();
        let reader = named.reopen().unwrap();
        let (writer, tail) = tail(reader);
        (named.into_file(), writer, tail)
    }

    #[test]
    fn the_reader_follows_the_writer_to_the_end() {
        let (mut file, writer, mut reader) = tailed();
        let reading = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).map(|_| bytes)
        });
        let mut written = 0;
        for chunk in [&b"one"[..], b"two", b"three"] {
            file.write_all(chunk).unwrap();
            written += chunk.len() as u64;
            writer.advance(written);
        }
        writer.finish();
        assert_eq!(reading.join().unwrap().unwrap(), b"onetwothree");
    }

    #[test]
    fn nothing_is_read_that_was_not_announced() {
        let (mut file, writer, mut reader) = tailed();
        file.write_all(b"onetwo").unwrap();
        writer.advance(3);
        let mut buffer = [0; 16];
        assert_eq!(reader.read(&mut buffer).unwrap(), 3);
        writer.finish();
        assert_eq!(reader.read(&mut buffer).unwrap(), 0);
        assert_eq!(reader.read(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn a_writer_that_gives_up_is_an_error_not_an_end() {
        let (mut file, writer, mut reader) = tailed();
        file.write_all(b"one").unwrap();
        writer.advance(3);
        let reading = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let result = reader.read_to_end(&mut bytes);
            (result.map_err(|error| error.kind()), reader.read(&mut [0; 1]).is_err())
        });
        drop(writer);
        assert_eq!(reading.join().unwrap(), (Err(io::ErrorKind::ConnectionAborted), true));
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let (mut file, writer, mut reader) = tailed();
        file.write_all(b"one").unwrap();
        writer.advance(3);
        file.set_len(0).unwrap();
        file.rewind().unwrap();
        writer.finish();
        assert_eq!(reader.read(&mut [0; 3]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_reader_that_went_away_is_nobodys_concern() {
        let (_file, writer, reader) = tailed();
        drop(reader);
        writer.advance(10);
        writer.finish();
    }
}
