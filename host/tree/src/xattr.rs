//! Extended attributes, set and read as bytes.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd};

use cofferdam_core::error::{Error, Escaped, Result};
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::entry::Xattr;
use super::left_out::{CAPABILITY, LeftOut, Lossy};
use super::override_stat;
use super::sys::{self, Explain as _, through_proc};

/// What attributes begin with that a layer may not set: overlayfs, fuse-overlayfs or the store would act on them. Of
/// fuse-overlayfs (its `utils.h`), also the one that it writes as root.
const RESERVED: [&[u8]; 5] =
    [b"trusted.overlay.", b"user.overlay.", b"user.fuseoverlayfs.", b"security.fuseoverlayfs.", b"user.cofferdam."];

/// Returns true for a name that a layer may not set: one of `RESERVED`, or the owner record of rootless runtimes.
pub fn is_reserved(name: &[u8]) -> bool {
    RESERVED.iter().any(|prefix| name.starts_with(prefix)) || name == override_stat::NAME.as_bytes()
}

/// Something that has attributes.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// An open file or directory.
    Open(BorrowedFd<'a>),
    /// Something held that cannot be opened.
    Held(BorrowedFd<'a>),
}

impl Target<'_> {
    fn set(self, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Held(fd) => rustix::fs::setxattr(through_proc(fd), name, value, XattrFlags::empty()),
        }
    }

    fn remove(self, name: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => rustix::fs::fremovexattr(fd, name),
            Self::Held(fd) => rustix::fs::removexattr(through_proc(fd), name),
        }
    }

    fn names(self, buffer: &mut Vec<u8>) -> rustix::io::Result<usize> {
        match self {
            Self::Open(fd) => rustix::fs::flistxattr(fd, buffer.as_mut_slice()),
            Self::Held(fd) => rustix::fs::listxattr(through_proc(fd), buffer.as_mut_slice()),
        }
    }

    /// Whether the file system has room for as much and more.
    fn has_space_for(self, bytes: usize) -> bool {
        let (Self::Open(fd) | Self::Held(fd)) = self;
        let free = rustix::fs::fstatfs(fd).map(|stat| stat.f_bavail.saturating_mul(stat.f_bsize.unsigned_abs()));
        free.is_ok_and(|free| free / 16 > bytes as u64)
    }

    fn value(self, name: &[u8], buffer: &mut Vec<u8>) -> rustix::io::Result<usize> {
        match self {
            Self::Open(fd) => rustix::fs::fgetxattr(fd, name, buffer.as_mut_slice()),
            Self::Held(fd) => rustix::fs::getxattr(through_proc(fd), name, buffer.as_mut_slice()),
        }
    }
}

/// Sets attributes, without the reserved ones. Leaves out and counts those that cannot be held here, but for capabilities
/// where losing them was not allowed.
pub(super) fn set_all(target: Target<'_>, xattrs: &[Xattr], holding: &Holding, path: &[u8]) -> Result<()> {
    for Xattr { name, value } in xattrs.iter().filter(|x| !is_reserved(&x.name)) {
        let Err(errno) = target.set(name, value) else { continue };
        if !cannot_hold(target, name, errno) {
            return Err(refused(target, name, value.len(), path, errno));
        }
        if name == CAPABILITY.as_bytes() && !holding.lossy.capabilities {
            return Err(Error::CannotHold {
                subject: Escaped(path).to_string(),
                name: CAPABILITY,
                source: errno.into(),
            });
        }
        tracing::debug!(path = %Escaped(path), name = %Escaped(name), %errno, "left out an extended attribute");
        holding.left_out.borrow_mut().note(name);
    }
    Ok(())
}

/// Returns true if an attribute could not be set since the file system or the process has no such attributes, whatever the
/// value: a foreign name space, a label, what takes privilege, user attributes where there are none (links, devices, pipes).
fn cannot_hold(target: Target<'_>, name: &[u8], errno: Errno) -> bool {
    let begins = |prefix: &[u8]| name.starts_with(prefix);
    match errno {
        Errno::OPNOTSUPP | Errno::NOSYS => true,
        // Of a file that can be written to, this is about the file.
        Errno::PERM | Errno::ACCESS => !begins(b"user.") || matches!(target, Target::Held(_)),
        // A label that the loaded policy does not know, an id that this user namespace does not map.
        Errno::INVAL => (begins(b"security.") && name != CAPABILITY.as_bytes()) || begins(b"system."),
        _ => false,
    }
}

/// What may be lost of a tree, and what was.
#[derive(Debug, Default)]
pub(super) struct Holding {
    pub(super) lossy: Lossy,
    pub(super) left_out: RefCell<LeftOut>,
}

/// Makes an open directory's attributes exactly these. Keeps those that are not a layer's: the reserved ones and the
/// labels of security modules.
pub(super) fn replace_all(
    fd: impl AsFd,
    xattrs: &[Xattr],
    privileged: bool,
    holding: &Holding,
    path: &[u8],
) -> Result<()> {
    let target = Target::Open(fd.as_fd());
    for name in names(target, path)? {
        let ours = is_reserved(&name)
            || xattrs.iter().any(|x| x.name == name)
            || (name.starts_with(b"security.") && name != b"security.capability");
        if ours {
            continue;
        }
        match target.remove(&name) {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(errno) if !privileged && !name.starts_with(b"user.") => {
                tracing::debug!(path = %Escaped(path), name = %Escaped(&name), %errno, "kept an extended attribute");
            }
            Err(errno) => return Err(sys::failed("remove an extended attribute of", path, errno)),
        }
    }
    set_all(target, xattrs, holding, path)
}

/// All attributes of something, the reserved ones included.
pub fn read_all(target: Target<'_>, path: &[u8]) -> Result<Vec<Xattr>> {
    let mut xattrs = Vec::new();
    for name in names(target, path)? {
        let value = grow(|buffer| target.value(&name, buffer));
        match value {
            Ok(value) => xattrs.push(Xattr { name, value }),
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(sys::failed("read an extended attribute of", path, errno)),
        }
    }
    Ok(xattrs)
}

fn names(target: Target<'_>, path: &[u8]) -> Result<Vec<Vec<u8>>> {
    match grow(|buffer| target.names(buffer)) {
        Ok(list) => Ok(list.split(|&b| b == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()),
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        other => other.map(|_| Vec::new()).explain("list the extended attributes of", path),
    }
}

/// Reads into a buffer that grows until everything fits; the kernel's own bound is 64 KiB.
fn grow(mut read: impl FnMut(&mut Vec<u8>) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 8, 0),
            Err(errno) => return Err(errno),
        }
    }
}

fn refused(target: Target<'_>, name: &[u8], length: usize, path: &[u8], errno: Errno) -> Error {
    let what = format!("the extended attribute `{}` of {length} bytes", Escaped(name));
    match errno {
        // Ext4 says so too where its room for attributes, a block or two, is what is full.
        Errno::NOSPC if target.has_space_for(length) => {
            Error::refused(path, format!("the file system does not take {what}"))
        }
        Errno::TOOBIG | Errno::RANGE | Errno::NAMETOOLONG | Errno::INVAL => {
            Error::refused(path, format!("the file system does not take {what}"))
        }
        _ => Error::io(&format!("set {what} on"), path, errno),
    }
}
