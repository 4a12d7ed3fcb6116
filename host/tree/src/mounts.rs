//! Mount points inside of a tree. What is mounted there counts as outside: nothing is made, changed or removed across one.
//!
//! Two guards. Each directory is opened by [`open_within`], which does not enter what is mounted on it, so that no walk and no
//! path leaves the tree's mount, whoever mounts something meanwhile. And before the first thing of a directory is removed, [`check`]
//! looks whether anything is mounted inside of it, so that such a directory stays whole.
//!
//! Mounts are told apart by the kernel's mount ids and not by device numbers, which a bind mount of the same file system shares.
//! Kernels before 5.8 tell the id in `/proc/self/fdinfo` only; without that, the device has to do.

use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use cofferdam_core::ambient;
use cofferdam_core::cancel::Cancel;
use cofferdam_core::error::{Error, Escaped, Result};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::ids::{IdSet, Ids, PathId};
use super::sweep::{Left, Sweep, Visitor};
use super::sys::{self, DIRECTORY, Explain as _, HOLD, through_proc};

/// Entries that are looked at one by one before the table of mounts is read, which may be long.
const LOOKED_AT: u32 = 256;

/// Whether the kernel and the sandbox around this process have `openat2`, as far as is known.
static HAS_OPENAT2: AtomicBool = AtomicBool::new(true);

/// Opens `name` in `dir`. A link is not followed.
///
/// # Errors
///
/// [`Errno::XDEV`] where something is mounted on it.
pub(super) fn open_within(dir: impl AsFd, name: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let dir = dir.as_fd();
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if HAS_OPENAT2.load(Ordering::Relaxed) {
        let open = || rustix::fs::openat2(dir, name, flags, Mode::empty(), ResolveFlags::NO_XDEV);
        match rustix::io::retry_on_intr(open) {
            // Kernels before 5.6 do not know the call; sandboxes forbid what they do not know.
            Err(Errno::NOSYS | Errno::PERM) => HAS_OPENAT2.store(false, Ordering::Relaxed),
            other => return other,
        }
    }
    open_and_compare(dir, name, flags)
}

/// Does the same without `openat2`.
fn open_and_compare(dir: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let opened = rustix::io::retry_on_intr(|| rustix::fs::openat(dir, name, flags, Mode::empty()))?;
    if mount_of(opened.as_fd())? == mount_of(dir)? { Ok(opened) } else { Err(Errno::XDEV) }
}

/// The mount that a handle belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mount {
    Id(u64),
    /// What is left where the kernel tells no id.
    Device(u64),
}

fn mount_of(handle: BorrowedFd<'_>) -> rustix::io::Result<Mount> {
    match rustix::fs::statx(handle, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID) {
        Ok(stat) if StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID) => {
            return Ok(Mount::Id(stat.stx_mnt_id));
        }
        _ => {}
    }
    match id_by_proc(handle) {
        Some(id) => Ok(Mount::Id(id)),
        None => Ok(Mount::Device(rustix::fs::fstat(handle)?.st_dev)),
    }
}

fn id_by_proc(handle: BorrowedFd<'_>) -> Option<u64> {
    let path = format!("/proc/self/fdinfo/{}", handle.as_raw_fd());
    let info = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = String::new();
    std::fs::File::from(info).take(4096).read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
}

/// Whether something is mounted on `name` in `dir`.
pub(super) fn is_mount_point(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match rustix::fs::statx(dir, name, flags, StatxFlags::TYPE) {
        Ok(stat) if stat.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) => {
            return Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
        }
        Err(Errno::NOENT) => return Ok(false),
        _ => {}
    }
    match open_and_compare(dir, name, HOLD) {
        Ok(_) | Err(Errno::NOENT) => Ok(false),
        Err(Errno::XDEV) => Ok(true),
        Err(errno) => Err(errno),
    }
}

/// The error of a place that something is mounted in.
pub(super) fn mounted(path: &[u8], mount: &[u8]) -> Error {
    Error::Mounted { what: format!("`{}`", Escaped(path)), mount: format!("`{}`", Escaped(mount)) }
}

/// Fails if something is mounted on `name` in `dir`, or inside of it. Nothing there is no error, and what cannot be opened is
/// passed over: nobody will enter it either.
///
/// # Errors
///
/// [`Error::Mounted`], [`Error::Interrupted`], and those of reading directories.
pub fn check_tree(dir: impl AsFd, name: &[u8], cancel: Option<&Cancel>) -> Result<()> {
    let dir = dir.as_fd();
    let ids = Ids::default();
    match open_within(dir, name, DIRECTORY) {
        Ok(inside) => check(inside.as_fd(), name, &ids, ids.root(), None, cancel),
        Err(Errno::XDEV) => Err(mounted(name, &place_of(dir, name))),
        Err(Errno::NOENT) => Ok(()),
        Err(_) if is_mount_point(dir, name).explain("examine", name)? => Err(mounted(name, &place_of(dir, name))),
        Err(_) => Ok(()),
    }
}

/// Fails if something is mounted inside of the directory `dir`, of which `path` and `id` are the path and the place. Directories
/// in `known` are not entered.
///
/// The first entries are looked at one by one, and of a large directory the table of mounts is read; where that is not to be had, all
/// of it is looked at.
pub(super) fn check(
    dir: BorrowedFd<'_>,
    path: &[u8],
    ids: &Ids,
    id: PathId,
    known: Option<&IdSet>,
    cancel: Option<&Cancel>,
) -> Result<()> {
    let mut search = Search { dir, known, left: LOOKED_AT, found: None, done: false };
    Sweep::new(ids, path).unless(cancel).inside(dir, id, &mut search)?;
    search.found.map_or(Ok(()), |mount| Err(mounted(path, &mount)))
}

/// Looks for a mount point.
struct Search<'a> {
    dir: BorrowedFd<'a>,
    known: Option<&'a IdSet>,
    /// How many entries are looked at before the table is read.
    left: u32,
    found: Option<Vec<u8>>,
    done: bool,
}

impl Search<'_> {
    fn found(&mut self, dir: BorrowedFd<'_>, name: &[u8]) {
        (self.found, self.done) = (Some(place_of(dir, name)), true);
    }

    fn count(&mut self) {
        self.left = self.left.saturating_sub(1);
        if self.left > 0 {
            return;
        }
        self.left = u32::MAX;
        if let Some(found) = inside_by_table(self.dir) {
            (self.found, self.done) = (found, true);
        } else {
            tracing::debug!("the table of mounts cannot be read: each entry is looked at");
        }
    }
}

impl Visitor for Search<'_> {
    fn leaf(&mut self, dir: BorrowedFd<'_>, name: &[u8], _id: PathId, _kind: FileType) -> Result<()> {
        if is_mount_point(dir, name).explain("examine", name)? {
            self.found(dir, name);
        } else {
            self.count();
        }
        Ok(())
    }

    fn enter(&mut self, id: PathId) -> Result<bool> {
        Ok(self.known.is_none_or(|known| !known.contains(&id)))
    }

    fn leave(&mut self, _left: Left<'_>) -> Result<()> {
        self.count();
        Ok(())
    }

    fn unopened(&mut self, dir: BorrowedFd<'_>, name: &[u8], errno: Errno, path: &[u8]) -> Result<()> {
        match errno {
            Errno::XDEV => self.found(dir, name),
            // Whoever removes it will say so.
            Errno::ACCESS | Errno::NOTDIR | Errno::LOOP => {}
            errno => return Err(sys::failed("open a directory in", path, errno)),
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.done
    }
}

/// The path of something in `dir`, for people.
fn place_of(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = path_of(dir).unwrap_or_default();
    if !path.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

fn path_of(dir: BorrowedFd<'_>) -> Option<Vec<u8>> {
    Some(rustix::fs::readlinkat(CWD, through_proc(dir), Vec::new()).ok()?.into_bytes())
}

/// The path of something that is mounted inside of a directory, by the table of mounts. The outer option is empty where that table
/// does not tell.
#[expect(clippy::option_option, reason = "that nothing is there and that it is not known differ")]
fn inside_by_table(dir: BorrowedFd<'_>) -> Option<Option<Vec<u8>>> {
    let Ok(Mount::Id(mount)) = mount_of(dir) else { return None };
    let path = path_of(dir).filter(|path| path.starts_with(b"/"))?;
    in_table(&ambient::mount_table()?, mount, &path)
}

/// Looks in a table for what is mounted inside of the directory at `path` of the mount with this id.
#[expect(clippy::option_option, reason = "that nothing is there and that it is not known differ")]
fn in_table(table: &[u8], mount: u64, path: &[u8]) -> Option<Option<Vec<u8>>> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let mut is_known = false;
    for line in table.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let mut fields = line.split(|&byte| byte == b' ');
        let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse::<u64>().ok();
        let (id, parent) = (number()?, number()?);
        is_known |= id == mount;
        let place = unescaped(fields.nth(2)?);
        if parent == mount && place.strip_prefix(path).is_some_and(|rest| rest.len() > 1 && rest.starts_with(b"/")) {
            return Some(Some(place));
        }
    }
    // A mount of another name space, or out of reach: the table says nothing about it.
    is_known.then_some(None)
}

/// A path of the table, in which blanks and backslashes are three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'\\')
            .then(|| tail.split_at_checked(3))
            .flatten()
            .and_then(|(digits, tail)| Some((u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()?, tail)));
        let (byte, tail) = escaped.unwrap_or((first, tail));
        path.push(byte);
        rest = tail;
    }
    path
}

#[cfg(test)]
#[path = "tests/mounts.rs"]
mod tests;
