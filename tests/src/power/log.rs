//! What a disk was told, in its order.
//!
//! ```text
//! record   kind: 1 byte (w, z, f) · offset: 8 bytes · length: 8 bytes · for a write, its bytes
//! ```

use std::fs::{self, File};
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

const WRITE: u8 = b'w';
const ZERO: u8 = b'z';
const FLUSH: u8 = b'f';
const HEAD: usize = 17;

/// The end of a log that grows.
#[derive(Debug)]
pub struct Writer(File);

impl Writer {
    /// Begins a log.
    pub fn create(path: &Path) -> Result<Self> {
        File::create_new(path).map(Self).with_context(|| format!("cannot create {}", path.display()))
    }

    /// Bytes were written.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.record(WRITE, offset, bytes.len() as u64, bytes)
    }

    /// A range was cleared.
    pub fn zero(&mut self, offset: u64, length: u64) -> Result<()> {
        self.record(ZERO, offset, length, &[])
    }

    /// All that was written until now has to outlive a power cut.
    pub fn flush(&mut self) -> Result<()> {
        self.record(FLUSH, 0, 0, &[])
    }

    fn record(&mut self, kind: u8, offset: u64, length: u64, bytes: &[u8]) -> Result<()> {
        let mut record = Vec::with_capacity(HEAD + bytes.len());
        record.push(kind);
        record.extend_from_slice(&offset.to_le_bytes());
        record.extend_from_slice(&length.to_le_bytes());
        record.extend_from_slice(bytes);
        // In one piece: the file's length is a moment that others note.
        Ok(self.0.write_all(&record)?)
    }
}

/// Something that a disk was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// To write the bytes at this place of the log.
    Write {
        /// Where on the disk.
        offset: u64,
        /// Which bytes of the log.
        bytes: Range<usize>,
    },
    /// To clear a range.
    Zero {
        /// Where on the disk.
        offset: u64,
        /// How much.
        length: u64,
    },
    /// To make durable what it was told before.
    Flush,
}

/// A log that was read.
#[derive(Debug, Default)]
pub struct Log {
    bytes: Vec<u8>,
    records: Vec<Record>,
    /// Where each record ends in the file.
    ends: Vec<u64>,
}

impl Log {
    /// Reads a log that grows no more.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(bytes)
    }

    fn parse(bytes: Vec<u8>) -> Result<Self> {
        let (mut records, mut ends) = (Vec::new(), Vec::new());
        let mut at = 0;
        while let Some(head) = bytes.get(at..at + HEAD) {
            let number = |from: usize| -> Result<u64> { Ok(u64::from_le_bytes(head[from..from + 8].try_into()?)) };
            let (offset, length) = (number(1)?, number(9)?);
            at += HEAD;
            records.push(match head[0] {
                WRITE => {
                    let from = at;
                    at += usize::try_from(length)?;
                    Record::Write { offset, bytes: from..at }
                }
                ZERO => Record::Zero { offset, length },
                FLUSH => Record::Flush,
                other => bail!("a record of the unknown kind {other}"),
            });
            ends.push(at as u64);
        }
        if at != bytes.len() {
            bail!("the log ends within a record");
        }
        Ok(Self { bytes, records, ends })
    }

    /// The records, oldest first.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The bytes of a write.
    pub fn bytes(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }

    /// How many records there were when the log had so many bytes.
    pub fn position(&self, length: u64) -> usize {
        self.ends.partition_point(|&end| end <= length)
    }

    /// How many bytes were written between two records.
    pub fn written(&self, range: Range<usize>) -> u64 {
        let records = self.records.get(range).unwrap_or_default();
        records.iter().map(|record| if let Record::Write { bytes, .. } = record { bytes.len() as u64 } else { 0 }).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scratch;

    #[test]
    fn a_log_says_what_was_written_to_it() -> Result<()> {
        let scratch = Scratch::new()?;
        let path = scratch.join("log");
        let mut writer = Writer::create(&path)?;
        writer.write(4096, b"abc")?;
        writer.flush()?;
        let moment = fs::metadata(&path)?.len();
        writer.zero(0, 512)?;
        let log = Log::read(&path)?;
        let [Record::Write { offset: 4096, bytes }, Record::Flush, Record::Zero { offset: 0, length: 512 }] =
            log.records()
        else {
            bail!("{:?}", log.records());
        };
        assert_eq!(log.bytes(bytes), b"abc");
        assert_eq!((log.position(moment), log.position(moment - 1), log.position(0)), (2, 1, 0));
        assert_eq!(log.written(0..3), 3);
        fs::OpenOptions::new().append(true).open(&path)?.write_all(b"w")?;
        assert!(Log::read(&path).is_err());
        Ok(())
    }
}
