//! What a file holds, as a hash.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;

use cofferdam_core::cancel::Cancel;
use cofferdam_core::digest::{Algorithm, Digest, Hasher};
use cofferdam_core::error::{Error, Result};
use rustix::fs::{SeekFrom as Seek, Stat};
use rustix::io::Errno;

use super::walk::inode;

/// Bytes that are read at a time.
const CHUNK: usize = 256 << 10;

/// The blocks of a sparse hash, in bytes. Divides [`CHUNK`].
const BLOCK: usize = 4 << 10;

/// A file of fewer bytes is never taken for sparse.
const SPARSE: u64 = 16 << 20;

/// Files of fewer bytes are read again for each of their names.
const SMALL: u64 = 16 << 10;

/// How many files with several names are remembered at once. A tree with more of them gets no list, since each of their
/// names could cost as much as the file is long.
const LINKED: usize = 1 << 17;

/// How a file was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// All bytes.
    Full,
    /// Blocks that are not zero, each behind its offset.
    Sparse,
}

impl Form {
    pub(super) const ALL: [Self; 2] = [Self::Full, Self::Sparse];

    /// The keyword in a list.
    pub(super) fn keyword(self) -> &'static str {
        match self {
            Self::Full => "sha256digest",
            Self::Sparse => "sparsesha256digest",
        }
    }

    /// The form for a file: sparse if most of a large file takes no space.
    pub(super) fn of(stat: &Stat) -> Self {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let held = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
        if size >= SPARSE && held < size / 2 { Self::Sparse } else { Self::Full }
    }
}

/// Hashes files, those with several names once.
#[derive(Default)]
pub(super) struct Contents {
    buffer: Vec<u8>,
    linked: HashMap<(u64, u64), (Form, Digest)>,
    /// Bytes that were read.
    pub(super) bytes: u64,
}

impl Contents {
    /// The hash of an open file.
    pub(super) fn hash(&mut self, file: OwnedFd, stat: &Stat, form: Form, cancel: &Cancel) -> Result<Digest> {
        let shared = stat.st_nlink > 1 && u64::try_from(stat.st_size).unwrap_or(0) >= SMALL;
        if shared
            && let Some((known, digest)) = self.linked.get(&inode(stat))
            && *known == form
        {
            return Ok(digest.clone());
        }
        if shared && self.linked.len() >= LINKED {
            let what = "large files with several names in a tree that is listed";
            return Err(Error::Limit { subject: "the tree".into(), what, limit: LINKED as u64 });
        }
        self.buffer.resize(CHUNK, 0);
        let mut file = File::from(file);
        let read = match form {
            Form::Full => full(&mut file, &mut self.buffer, cancel),
            Form::Sparse => sparse(&mut file, &mut self.buffer, cancel),
        };
        let (digest, bytes) = read?;
        self.bytes += bytes;
        if shared {
            self.linked.insert(inode(stat), (form, digest.clone()));
        }
        Ok(digest)
    }
}

fn failed(error: io::Error) -> Error {
    Error::Io { action: "read it".into(), source: error }
}

fn full(file: &mut File, buffer: &mut [u8], cancel: &Cancel) -> Result<(Digest, u64)> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut total = 0;
    loop {
        cancel.check()?;
        let count = fill(file, buffer)?;
        hasher.update(buffer.get(..count).unwrap_or_default());
        total += count as u64;
        if count < buffer.len() {
            return Ok((hasher.finish(), total));
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(filled)
}

fn sparse(file: &mut File, buffer: &mut [u8], cancel: &Cancel) -> Result<(Digest, u64)> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let (mut at, mut total) = (0, 0);
    loop {
        cancel.check()?;
        at = match rustix::fs::seek(&*file, Seek::Data(at)) {
            // Blocks are counted from the file's beginning, wherever the file system begins its data.
            Ok(data) => data - data % BLOCK as u64,
            Err(Errno::NXIO) => return Ok((hasher.finish(), total)),
            // It knows no holes: everything is data.
            Err(Errno::INVAL) => at,
            Err(error) => return Err(failed(error.into())),
        };
        file.seek(SeekFrom::Start(at)).map_err(failed)?;
        let count = fill(file, buffer)?;
        for (index, block) in buffer.get(..count).unwrap_or_default().chunks(BLOCK).enumerate() {
            if block.iter().any(|&byte| byte != 0) {
                hasher.update(&(at + (index * BLOCK) as u64).to_le_bytes());
                hasher.update(block);
            }
        }
        at += count as u64;
        total += count as u64;
        if count < buffer.len() {
            return Ok((hasher.finish(), total));
        }
    }
}
