//! One line of a list.

use std::fmt::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};

use cofferdam_core::cancel::Cancel;
use cofferdam_core::error::{Error, Escaped, Result};
use cofferdam_tree::xattr::{self, Target};
use cofferdam_tree::{Explain as _, HOLD, kind_of};
use rustix::fs::{FileType, Mode, OFlags};

use super::content::{Contents, Form};
use super::walk::{Found, inode};

/// The longest line that is read, in bytes: a path and attributes within all limits, encoded.
pub(super) const LONGEST: u64 = 4 << 20;

/// Describes an entry. `form` is how a file is to be hashed, if that is decided.
pub(super) fn describe(
    found: &Found<'_>,
    contents: &mut Contents,
    form: Option<Form>,
    cancel: &Cancel,
) -> Result<String> {
    let Found { stat, path, .. } = found;
    let kind = kind_of(stat);
    let handle = open(found, kind)?;
    let mut line = String::with_capacity(192 + path.len());
    line.push('.');
    if !path.is_empty() {
        line.push('/');
        encode(path, &mut line);
    }
    let _ = write!(
        line,
        " type={} mode={:04o} uid={} gid={} time={}.{:09}",
        word(kind),
        stat.st_mode & 0o7777,
        stat.st_uid,
        stat.st_gid,
        stat.st_mtime,
        stat.st_mtime_nsec
    );
    if kind != FileType::Directory {
        let _ = write!(line, " nlink={}", stat.st_nlink);
    }
    let open = matches!(kind, FileType::Directory | FileType::RegularFile);
    let target = if open { Target::Open(handle.as_fd()) } else { Target::Held(handle.as_fd()) };
    let mut xattrs = xattr::read_all(target, path)?;
    xattrs.retain(|xattr| is_of_layer(&xattr.name));
    xattrs.sort_by(|a, b| a.name.cmp(&b.name));
    match kind {
        FileType::RegularFile => {
            let form = form.unwrap_or_else(|| Form::of(stat));
            let digest =
                contents.hash(handle, stat, form, cancel).map_err(|e| e.context(format!("`{}`", Escaped(path))))?;
            let _ = write!(line, " size={} {}={}", stat.st_size, form.keyword(), digest.hex());
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(&handle, "", Vec::new()).explain("read the link", path)?;
            line.push_str(" link=");
            encode(target.as_bytes(), &mut line);
        }
        FileType::CharacterDevice | FileType::BlockDevice => {
            let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
            let _ = write!(line, " device=linux,{major},{minor}");
        }
        _ => {}
    }
    for xattr in xattrs {
        line.push_str(" xattr.");
        encode(&xattr.name, &mut line);
        line.push('=');
        base64(&xattr.value, &mut line);
    }
    Ok(line)
}

/// Opens what may be opened, and holds everything else.
fn open(found: &Found<'_>, kind: FileType) -> Result<OwnedFd> {
    let reading = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let flags = match kind {
        FileType::RegularFile => reading,
        FileType::Directory => reading | OFlags::DIRECTORY,
        _ => HOLD,
    };
    let name = if found.name.is_empty() { b"." } else { found.name };
    let handle = rustix::fs::openat(found.dir, name, flags, Mode::empty()).explain("open", found.path)?;
    let stat = rustix::fs::fstat(&handle).explain("look at", found.path)?;
    if inode(&stat) == inode(&found.stat) && kind_of(&stat) == kind {
        return Ok(handle);
    }
    Err(Error::Busy { what: format!("`{}`, which was replaced meanwhile,", Escaped(found.path)) })
}

/// Whether an attribute can be the layer's doing.
fn is_of_layer(name: &[u8]) -> bool {
    !name.starts_with(b"user.cofferdam.") && (!name.starts_with(b"security.") || name == b"security.capability")
}

fn word(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "file",
        FileType::Directory => "dir",
        FileType::Symlink => "link",
        FileType::CharacterDevice => "char",
        FileType::BlockDevice => "block",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::Unknown => "unknown",
    }
}

/// Writes bytes as mtree does: what is not a plain character as a backslash and three octal digits.
pub(super) fn encode(bytes: &[u8], line: &mut String) {
    for &byte in bytes {
        if byte.is_ascii_graphic() && !b"\\#=*?[".contains(&byte) {
            line.push(char::from(byte));
        } else {
            let _ = write!(line, "\\{byte:03o}");
        }
    }
}

/// The path of a line, and its keywords. Nothing for a line that is none.
pub(super) fn parse(line: &[u8]) -> Option<(Vec<u8>, &str)> {
    let line = str::from_utf8(line).ok()?;
    let (path, keywords) = line.split_once(' ')?;
    match path {
        "." => Some((Vec::new(), keywords)),
        _ => Some((decode(path.strip_prefix("./")?)?, keywords)),
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'\\' {
            let (digits, after) = tail.split_at_checked(3)?;
            bytes.push(u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    Some(bytes)
}

fn base64(bytes: &[u8], line: &mut String) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in bytes.chunks(3) {
        let at = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4_usize {
            let value = (bits >> (18 - 6 * digit)) & 63;
            let shown = DIGITS.get(value as usize).copied().unwrap_or(b'=');
            line.push(if digit > group.len() { '=' } else { char::from(shown) });
        }
    }
}
