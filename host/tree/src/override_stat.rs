//! `user.containers.override_stat`: owner, mode and type of a file that an unprivileged process could only make as its own.
//!
//! The value is `uid:gid:mode:type`, the mode octal with at least four digits, the type one of `file`, `dir`, `symlink`,
//! `pipe`, `socket`, `block-MAJOR-MINOR` and `char-MAJOR-MINOR`. Source: containers/storage, `pkg/idtools`.

use std::fmt;
use std::os::fd::AsFd;

use cofferdam_core::error::{Error, Result};
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::entry::Device;

/// The attribute's name.
pub(super) const NAME: &str = "user.containers.override_stat";

/// What a file really is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverrideKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Pipe,
    /// A socket.
    Socket,
    /// A block device.
    Block(Device),
    /// A character device.
    Char(Device),
}

impl fmt::Display for OverrideKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("file"),
            Self::Directory => f.write_str("dir"),
            Self::Symlink => f.write_str("symlink"),
            Self::Pipe => f.write_str("pipe"),
            Self::Socket => f.write_str("socket"),
            Self::Block(device) => write!(f, "block-{}-{}", device.major, device.minor),
            Self::Char(device) => write!(f, "char-{}-{}", device.major, device.minor),
        }
    }
}

/// Owner, mode and type as recorded beside a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverrideStat {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// 12 permission bits.
    pub mode: u16,
    /// Type.
    pub kind: OverrideKind,
}

impl OverrideStat {
    /// Reads a value. Nothing if it is not exactly of the form.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let mut fields = text.split(':');
        let (uid, gid, mode, kind) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        if fields.next().is_some() || mode.is_empty() || !mode.bytes().all(|b| matches!(b, b'0'..=b'7')) {
            return None;
        }
        let mode = u16::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o7777)?;
        Some(Self { uid: number(uid)?, gid: number(gid)?, mode, kind: parse_kind(kind)? })
    }

    /// What is recorded beside an open file or directory, if anything is.
    pub fn read(fd: impl AsFd) -> Result<Option<Self>> {
        let mut buffer = [0; 128];
        match rustix::fs::fgetxattr(fd, NAME, &mut buffer[..]) {
            Ok(length) => {
                let value = buffer.get(..length).unwrap_or_default();
                let invalid = || Error::refused(value, format!("not a value of {NAME}"));
                Self::parse(value).map(Some).ok_or_else(invalid)
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(Error::io("read", NAME.as_bytes(), errno)),
        }
    }

    /// Records beside an open file or directory. The process must be allowed to write to the file, so this comes before
    /// its mode is narrowed.
    pub fn write(&self, fd: impl AsFd) -> Result<()> {
        self.set(fd).map_err(|errno| Error::io("write", NAME.as_bytes(), errno))
    }

    /// The same, with the bare error.
    pub(super) fn set(&self, fd: impl AsFd) -> rustix::io::Result<()> {
        rustix::fs::fsetxattr(fd, NAME, self.to_string().as_bytes(), XattrFlags::empty())
    }
}

impl fmt::Display for OverrideStat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{:04o}:{}", self.uid, self.gid, self.mode, self.kind)
    }
}

/// A bare decimal number; `u32::from_str` would also take a sign.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn parse_kind(text: &str) -> Option<OverrideKind> {
    let mut parts = text.split('-');
    let name = parts.next()?;
    let kind = match name {
        "file" => OverrideKind::File,
        "dir" => OverrideKind::Directory,
        "symlink" => OverrideKind::Symlink,
        "pipe" => OverrideKind::Pipe,
        "socket" => OverrideKind::Socket,
        "block" | "char" => {
            let device = Device { major: number(parts.next()?)?, minor: number(parts.next()?)? };
            if name == "block" { OverrideKind::Block(device) } else { OverrideKind::Char(device) }
        }
        _ => return None,
    };
    parts.next().is_none().then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_both_ways() {
        for text in [
            "0:0:0755:dir",
            "1000:4294967294:4755:file",
            "0:0:0000:symlink",
            "0:0:0644:pipe",
            "0:0:0644:socket",
            "0:6:0660:block-8-1",
            "0:0:0666:char-1-3",
        ] {
            let parsed = OverrideStat::parse(text.as_bytes()).unwrap();
            assert_eq!(parsed.to_string(), text);
        }
    }

    #[test]
    fn other_values_are_not_taken() {
        for text in [
            "",
            "0:0:0755",
            "0:0:0755:dir:x",
            "0:0:10000:file",
            "0:0:8:file",
            "+1:0:0644:file",
            "-1:0:0644:file",
            "4294967296:0:0644:file",
            "0:0:0644:char-1",
            "0:0:0644:char-1-2-3",
            "0:0:0644:file-1-2",
            ":0:0644:file",
            "0:0::file",
            "0:0:0644:FILE",
        ] {
            assert_eq!(OverrideStat::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(OverrideStat::parse(b"0:0:0644:\xff"), None);
    }
}
