//! Copies a file's content within the kernel: shared where the file system can, else copied; holes stay holes.

use std::os::fd::OwnedFd;

use cofferdam_core::cancel::Cancel;
use cofferdam_core::error::{Error, Escaped, Result};
use rustix::fs::{SeekFrom, Stat};
use rustix::io::Errno;

use crate::Explain as _;

/// Bytes that are read at a time where the kernel cannot copy.
const BUFFER: usize = 128 << 10;

/// Bytes that the kernel is asked to copy at a time: between two, the work can be given up.
const STEP: usize = 16 << 20;

/// What was learned about the file systems so far.
#[derive(Debug)]
pub(super) struct Copier {
    can_share: bool,
    can_copy: bool,
    cancel: Cancel,
}

impl Copier {
    pub(super) fn new(cancel: Cancel) -> Self {
        Self { can_share: true, can_copy: true, cancel }
    }

    /// Fills the new, empty file `to` with the content of `from`; tells how many bytes of data that were.
    pub(super) fn copy(&mut self, from: &OwnedFd, to: &OwnedFd, stat: &Stat, path: &[u8]) -> Result<u64> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if size == 0 || self.share(from, to) {
            return Ok(size);
        }
        let allocated = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
        if allocated >= size {
            self.range(from, to, 0, size, path)?;
            return Ok(size);
        }
        rustix::fs::ftruncate(to, size).explain("set the size of", path)?;
        let (mut at, mut bytes) = (0, 0);
        while at < size {
            let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
                Ok(start) => start.min(size),
                // From here on, there is only a hole.
                Err(Errno::NXIO) => break,
                // A file system without holes.
                Err(Errno::INVAL) => at,
                Err(errno) => return Err(Error::io("find the data of", path, errno)),
            };
            let end = match rustix::fs::seek(from, SeekFrom::Hole(start)) {
                Ok(end) => end.min(size),
                Err(Errno::INVAL | Errno::NXIO) => size,
                Err(errno) => return Err(Error::io("find the holes of", path, errno)),
            };
            if end <= start {
                break;
            }
            self.range(from, to, start, end - start, path)?;
            bytes += end - start;
            at = end;
        }
        Ok(bytes)
    }

    fn share(&mut self, from: &OwnedFd, to: &OwnedFd) -> bool {
        if !self.can_share {
            return false;
        }
        match rustix::fs::ioctl_ficlone(to, from) {
            Ok(()) => true,
            // Not this file, perhaps another.
            Err(Errno::INVAL | Errno::TXTBSY) => false,
            Err(_) => {
                self.can_share = false;
                false
            }
        }
    }

    fn range(&mut self, from: &OwnedFd, to: &OwnedFd, at: u64, length: u64, path: &[u8]) -> Result<()> {
        let (mut input, mut output, end) = (at, at, at + length);
        while self.can_copy && input < end {
            self.cancel.check()?;
            let most = usize::try_from(end - input).unwrap_or(STEP).min(STEP);
            match rustix::fs::copy_file_range(from, Some(&mut input), to, Some(&mut output), most) {
                Ok(0) => return Err(shorter(path)),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::NOSYS | Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM) => {
                    self.can_copy = false;
                }
                Err(errno) => return Err(Error::io("copy the content of", path, errno)),
            }
        }
        if input < end { through_memory(from, to, input, end, path, &self.cancel) } else { Ok(()) }
    }
}

fn through_memory(from: &OwnedFd, to: &OwnedFd, mut at: u64, end: u64, path: &[u8], cancel: &Cancel) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    while at < end {
        cancel.check()?;
        let most = usize::try_from(end - at).unwrap_or(BUFFER).min(BUFFER);
        let room = buffer.get_mut(..most).unwrap_or_default();
        let read = rustix::io::retry_on_intr(|| rustix::io::pread(from, &mut *room, at)).explain("read", path)?;
        if read == 0 {
            return Err(shorter(path));
        }
        let mut piece = room.get(..read).unwrap_or_default();
        while !piece.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::pwrite(to, piece, at)).explain("write", path)?;
            if written == 0 {
                return Err(Error::io("write", path, Errno::IO));
            }
            at += written as u64;
            piece = piece.get(written..).unwrap_or_default();
        }
    }
    Ok(())
}

fn shorter(path: &[u8]) -> Error {
    let reason = "a file became shorter while it was copied".into();
    Error::Corrupt { subject: format!("the content of `{}`", Escaped(path)), reason }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, Write as _};
    use std::os::fd::AsFd as _;

    use super::*;

    fn copied(mut copier: Copier, fill: impl FnOnce(&mut std::fs::File)) -> (Vec<u8>, Stat, u64) {
        let mut from = tempfile::tempfile().unwrap();
        fill(&mut from);
        let to = tempfile::tempfile().unwrap();
        let (from, to) = (OwnedFd::from(from), OwnedFd::from(to));
        let stat = rustix::fs::fstat(&from).unwrap();
        let bytes = copier.copy(&from, &to, &stat, b"x").unwrap();
        let stat = rustix::fs::fstat(to.as_fd()).unwrap();
        let mut content = Vec::new();
        let mut to = std::fs::File::from(to);
        to.rewind().unwrap();
        to.read_to_end(&mut content).unwrap();
        (content, stat, bytes)
    }

    #[test]
    fn content_is_the_same_by_every_method() {
        let data: Vec<u8> = (0..300_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        for can_share in [false, true] {
            for can_copy in [false, true] {
                let (content, _, bytes) = copied(Copier { can_share, can_copy, cancel: Cancel::new() }, |file| {
                    file.write_all(&data).unwrap();
                });
                assert_eq!((content == data, bytes), (true, data.len() as u64));
            }
        }
    }

    /// One file may be most of an image.
    #[test]
    fn a_copy_can_be_given_up_within_a_file() {
        let mut from = tempfile::tempfile().unwrap();
        from.write_all(&[1; 4096]).unwrap();
        let (from, to) = (OwnedFd::from(from), OwnedFd::from(tempfile::tempfile().unwrap()));
        let stat = rustix::fs::fstat(&from).unwrap();
        for can_copy in [false, true] {
            let cancel = Cancel::new();
            cancel.cancel();
            let mut copier = Copier { can_share: false, can_copy, cancel };
            assert!(matches!(copier.copy(&from, &to, &stat, b"x"), Err(Error::Interrupted)));
        }
    }

    #[test]
    fn holes_stay() {
        let (content, stat, _) = copied(Copier { can_share: false, can_copy: true, cancel: Cancel::new() }, |file| {
            file.set_len(64 << 20).unwrap();
            file.seek(std::io::SeekFrom::Start(32 << 20)).unwrap();
            file.write_all(b"island").unwrap();
        });
        assert_eq!(content.len(), 64 << 20);
        assert_eq!(content.get(32 << 20..(32 << 20) + 6), Some(&b"island"[..]));
        assert!(stat.st_blocks * 512 < 1 << 20, "{} blocks", stat.st_blocks);
    }
}
