//! A FUSE file system that is one regular file, the disk, and logs what it is told.
//!
//! It speaks the kernel's protocol over `/dev/fuse` itself: a dozen messages, one at a time, so that the log has the order
//! in which the kernel gave them out. It is a process of its own, since whoever dies while the kernel waits for its own
//! answer does not die.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use rustix::io::Errno;

use super::log::Writer;
use crate::registry::run;

/// What a message asks for, by the numbers of `linux/fuse.h`.
mod op {
    pub(super) const FORGET: u32 = 2;
    pub(super) const GETATTR: u32 = 3;
    pub(super) const SETATTR: u32 = 4;
    pub(super) const OPEN: u32 = 14;
    pub(super) const READ: u32 = 15;
    pub(super) const WRITE: u32 = 16;
    pub(super) const STATFS: u32 = 17;
    pub(super) const RELEASE: u32 = 18;
    pub(super) const FSYNC: u32 = 20;
    pub(super) const FLUSH: u32 = 25;
    pub(super) const INIT: u32 = 26;
    pub(super) const INTERRUPT: u32 = 36;
    pub(super) const DESTROY: u32 = 38;
    pub(super) const BATCH_FORGET: u32 = 42;
    pub(super) const FALLOCATE: u32 = 43;
}

const IN_HEADER: usize = 40;
const MAX_WRITE: u32 = 1 << 20;

/// Mounts the file over `mountpoint`, a regular file. Returns what the process that serves it reads and writes.
pub fn mount(mountpoint: &Path) -> Result<File> {
    let device = File::options().read(true).write(true).open("/dev/fuse").context("cannot open /dev/fuse")?;
    let options = "fd=0,rootmode=100644,user_id=0,group_id=0,allow_other";
    let mut mount = Command::new("mount");
    mount.args(["-i", "-t", "fuse", "-o", options, "cofferdam-power"]).arg(mountpoint);
    let status = mount.stdin(Stdio::from(device.try_clone()?)).status()?;
    anyhow::ensure!(status.success(), "{mount:?} ended with {status}");
    Ok(device)
}

/// Unmounts it, which ends the process that serves it.
pub fn unmount(mountpoint: &Path) -> Result<()> {
    run(Command::new("umount").arg(mountpoint))
}

/// Answers until the file system is unmounted. `image` holds the disk's content.
pub fn serve(mut device: File, image: File, log: Writer) -> Result<()> {
    let mut server = Server { size: image.metadata()?.len(), image, log };
    let mut buffer = vec![0; MAX_WRITE as usize + (64 << 10)];
    loop {
        let count = match device.read(&mut buffer) {
            Ok(count) => count,
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NODEV) => return Ok(()),
                Some(Errno::INTR | Errno::NOENT | Errno::AGAIN) => continue,
                _ => return Err(error).context("reading from /dev/fuse"),
            },
        };
        let message = Message::parse(buffer.get(..count).unwrap_or_default()).context("a message cut short")?;
        let answer = match server.answer(&message) {
            Ok(Answer::Nothing) => continue,
            Ok(Answer::Bytes(bytes)) => Ok(bytes),
            Err(errno) => Err(errno),
        };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(errno) => (-errno.raw_os_error(), Vec::new()),
        };
        let mut reply = Fields::default();
        reply.u32(u32::try_from(16 + body.len())?).u32(error.cast_unsigned()).u64(message.unique);
        reply.0.extend_from_slice(&body);
        match device.write(&reply.0) {
            // The kernel gave up on this one.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => {}
            written => drop(written.context("writing to /dev/fuse")?),
        }
    }
}

struct Message<'a> {
    opcode: u32,
    unique: u64,
    body: &'a [u8],
}

impl<'a> Message<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let opcode = u32::from_ne_bytes(bytes.get(4..8)?.try_into().ok()?);
        let unique = u64::from_ne_bytes(bytes.get(8..16)?.try_into().ok()?);
        Some(Self { opcode, unique, body: bytes.get(IN_HEADER..)? })
    }

    fn u32(&self, at: usize) -> Result<u32, Errno> {
        let bytes = self.body.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_ne_bytes).ok_or(Errno::INVAL)
    }

    fn u64(&self, at: usize) -> Result<u64, Errno> {
        let bytes = self.body.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u64::from_ne_bytes).ok_or(Errno::INVAL)
    }
}

/// The fields of a message of ours, one behind the other.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn u16(&mut self, value: u16) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn zeros(&mut self, count: usize) -> &mut Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }
}

enum Answer {
    Bytes(Vec<u8>),
    /// Messages that want none.
    Nothing,
}

struct Server {
    image: File,
    size: u64,
    log: Writer,
}

impl Server {
    fn answer(&mut self, message: &Message<'_>) -> Result<Answer, Errno> {
        let mut fields = Fields::default();
        match message.opcode {
            op::FORGET | op::BATCH_FORGET | op::INTERRUPT => return Ok(Answer::Nothing),
            op::INIT => init(message, &mut fields)?,
            op::GETATTR | op::SETATTR => self.attributes(&mut fields),
            // FOPEN_DIRECT_IO: no page cache between the loop device and the log.
            op::OPEN => drop(fields.u64(1).u32(1).u32(0)),
            op::READ => return self.read(message).map(Answer::Bytes),
            op::WRITE => drop(fields.u32(self.write(message)?).u32(0)),
            op::FSYNC => self.log.flush().map_err(|_| Errno::IO)?,
            op::FALLOCATE => self.clear(message)?,
            op::STATFS => drop(fields.zeros(80)),
            op::RELEASE | op::FLUSH | op::DESTROY => {}
            _ => return Err(Errno::NOSYS),
        }
        Ok(Answer::Bytes(fields.0))
    }

    fn attributes(&self, fields: &mut Fields) {
        fields.u64(3600).u32(0).u32(0);
        fields.u64(1).u64(self.size).u64(self.size / 512).u64(0).u64(0).u64(0).u32(0).u32(0).u32(0);
        fields.u32(0o100_644).u32(1).u32(0).u32(0).u32(0).u32(4096).u32(0);
    }

    fn read(&self, message: &Message<'_>) -> Result<Vec<u8>, Errno> {
        let (offset, length) = (message.u64(8)?, u64::from(message.u32(16)?));
        let length = length.min(self.size.saturating_sub(offset));
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| Errno::INVAL)?];
        self.image.read_exact_at(&mut bytes, offset).map_err(|error| errno(&error))?;
        Ok(bytes)
    }

    fn write(&mut self, message: &Message<'_>) -> Result<u32, Errno> {
        let (offset, length) = (message.u64(8)?, message.u32(16)?);
        let bytes = message.body.get(40..40 + length as usize).ok_or(Errno::INVAL)?;
        if offset.checked_add(u64::from(length)).is_none_or(|end| end > self.size) {
            return Err(Errno::NOSPC);
        }
        self.image.write_all_at(bytes, offset).map_err(|error| errno(&error))?;
        self.log.write(offset, bytes).map_err(|_| Errno::IO)?;
        Ok(length)
    }

    /// How the loop driver discards and clears: by holes and ranges of zeros.
    fn clear(&mut self, message: &Message<'_>) -> Result<(), Errno> {
        const KEEP_SIZE: u32 = 1;
        const PUNCH_HOLE: u32 = 2;
        const ZERO_RANGE: u32 = 16;
        let (offset, length, mode) = (message.u64(8)?, message.u64(16)?, message.u32(24)?);
        if mode & (PUNCH_HOLE | ZERO_RANGE) == 0 || mode & !(KEEP_SIZE | PUNCH_HOLE | ZERO_RANGE) != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        zero(&self.image, offset, length.min(self.size.saturating_sub(offset))).map_err(|error| errno(&error))?;
        self.log.zero(offset, length).map_err(|_| Errno::IO)
    }
}

/// Clears a range of an image.
pub(super) fn zero(image: &File, offset: u64, length: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    fallocate(image, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length)?;
    Ok(())
}

fn init(message: &Message<'_>, fields: &mut Fields) -> Result<(), Errno> {
    const BIG_WRITES: u32 = 1 << 5;
    const MAX_PAGES: u32 = 1 << 22;
    let (major, readahead) = (message.u32(0)?, message.u32(8)?);
    if major != 7 {
        return Err(Errno::PROTO);
    }
    fields.u32(7).u32(31).u32(readahead).u32(BIG_WRITES | MAX_PAGES);
    fields.u16(16).u16(12).u32(MAX_WRITE).u32(1).u16(256).u16(0).zeros(32);
    Ok(())
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
