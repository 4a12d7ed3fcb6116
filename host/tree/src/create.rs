//! Makes what entries say: each thing anew, under a name that was free or has been freed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use cofferdam_core::error::{Error, Escaped, Result};
use cofferdam_core::inherited;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::entry::{Content, Device, Extent, Metadata, TreePath};
use super::handle::{Dir, Spot};
use super::ids::PathId;
use super::metadata::{IMPLIED, UNLISTED, set_times};
use super::options::Mode as TreeMode;
use super::override_stat::OverrideKind;
use super::resolve::Absent;
use super::sys::{self, Explain as _, HOLD, is_marker_name, open_directory};
use super::writer::TreeWriter;

/// How a file is made: by us, now, or not at all.
const NEW_FILE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl TreeWriter {
    /// Makes something at a place, after removing what is there. Most places are free, so that is tried first.
    pub(super) fn create<T>(
        &mut self,
        spot: &Spot<'_>,
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> rustix::io::Result<T>,
    ) -> Result<T> {
        self.watch_creation(spot)?;
        self.note(&spot.dir)?;
        for _ in 0..sys::RETRIES {
            match rustix::io::retry_on_intr(|| make(spot.dir.as_fd(), spot.name)) {
                Ok(made) => {
                    self.made(spot);
                    return Ok(made);
                }
                Err(Errno::EXIST) => {
                    self.displace(spot)?;
                }
                Err(errno) => return Err(sys::failed("create", spot.path, errno)),
            }
        }
        Err(sys::contended(spot.path))
    }

    /// A place is the layer's own from now on, and a link that was to be made there is void.
    pub(super) fn made(&mut self, spot: &Spot<'_>) {
        self.claim(spot.id);
        if !self.pending.is_empty() {
            self.pending.remove(&spot.id);
        }
    }

    /// A place is the layer's own from now on.
    fn claim(&mut self, id: PathId) {
        if let Some(own) = &mut self.own {
            own.insert(id);
        }
    }

    /// The permissions to make something with. They are the owner's alone where it may inherit an access list.
    fn creation_mode(&self, kind: OverrideKind, mode: u16) -> Mode {
        let bits = if self.may_inherit { mode & inherited::OWNER_ONLY } else { mode };
        self.owners.initial_mode(kind, bits)
    }

    /// Takes from an open file or directory that was just made what it inherited.
    fn disinherit(&self, made: impl AsFd, path: &[u8]) -> Result<()> {
        if self.may_inherit { inherited::disinherit(made).explain("set the owner of", path) } else { Ok(()) }
    }

    /// Notes that a directory has metadata which it may hand on to what is made inside.
    fn watch_inheritance(&mut self, metadata: &Metadata) {
        self.may_inherit |= metadata.xattrs.iter().any(|xattr| xattr.name == inherited::DEFAULT.as_bytes());
    }

    /// Makes a regular file, which `fill` fills; it returns the number of bytes of data.
    pub fn put_file(
        &mut self,
        path: &TreePath,
        metadata: &Metadata,
        fill: impl FnOnce(&OwnedFd) -> Result<u64>,
    ) -> Result<()> {
        let kind = OverrideKind::File;
        let path = not_root(path)?;
        let spot = self.spot(path)?;
        let mode = self.creation_mode(kind, metadata.mode);
        let file = self.create(&spot, |dir, name| rustix::fs::openat(dir, name, NEW_FILE, mode))?;
        let filled = || {
            self.disinherit(&file, path)?;
            let bytes = fill(&file)?;
            self.owners.stamp(&file, metadata, kind, path)?;
            set_times(&file, metadata.mtime).explain("set the times of", path)?;
            Ok(bytes)
        };
        let bytes = unmade_if(filled(), &spot, AtFlags::empty())?;
        self.record.counts.files += 1;
        self.record.counts.bytes = self.record.counts.bytes.saturating_add(bytes);
        Ok(())
    }

    /// Makes a directory, or gives the one that is there this metadata.
    pub fn put_directory(&mut self, path: &TreePath, metadata: &Metadata) -> Result<()> {
        let path = path.as_bytes();
        self.watch_inheritance(metadata);
        let dir = if path.is_empty() {
            let root = Arc::clone(&self.root);
            self.owners.restamp(&root.fd, metadata, path)?;
            self.record.root = true;
            root
        } else {
            let spot = self.spot(path)?;
            let (dir, is_new) = self.make_directory(&spot, metadata, true)?;
            let listed = self.list_directory(&dir, metadata, path);
            if is_new {
                unmade_if(listed, &spot, AtFlags::REMOVEDIR)?;
            } else {
                listed?;
            }
            if self.implied.remove(&*dir.path) || self.marker_dirs.remove(&*dir.path) {
                self.late.insert(dir.path.to_vec());
            }
            self.marker_ids.remove(&dir.id);
            self.made(&spot);
            self.cache.insert(path, &dir);
            return Ok(());
        };
        self.list_directory(&dir, metadata, path)
    }

    /// Remembers what an entry says of a directory that is there by now.
    fn list_directory(&mut self, dir: &Dir, metadata: &Metadata, path: &[u8]) -> Result<()> {
        self.watch_listing(dir.id, metadata, path)?;
        self.set_due(dir.id, &dir.path, metadata.mtime)
    }

    /// Makes a directory that no entry has mentioned so far.
    pub(super) fn imply(&mut self, parent: &Arc<Dir>, name: &[u8], absent: Absent, path: &[u8]) -> Result<Arc<Dir>> {
        debug_assert!(!is_marker_name(name));
        self.pay_for_implied(path)?;
        let spot = Spot { dir: Arc::clone(parent), name, id: self.ids.child(parent.id, name), path };
        let metadata = Metadata { mode: IMPLIED, mtime: UNLISTED, ..Metadata::default() };
        let (dir, _) = self.make_directory(&spot, &metadata, false)?;
        self.claim(dir.id);
        self.void_replaced_link(dir.id)?;
        self.set_due(dir.id, &dir.path, UNLISTED)?;
        if self.options.mode != TreeMode::Apply {
            self.budget.charge(&dir.path)?;
            if absent == Absent::Mark {
                self.marker_dirs.insert(dir.path.to_vec());
                self.marker_ids.insert(dir.id);
            } else {
                self.promote(&parent.path);
                self.marker_dirs.remove(&*dir.path);
                self.implied.insert(dir.path.to_vec());
            }
        }
        self.cache.offer(&dir);
        Ok(dir)
    }

    /// Counts a directory that no entry mentions. A short name can be made of hundreds of them, and be replaced again and
    /// again.
    fn pay_for_implied(&mut self, path: &[u8]) -> Result<()> {
        const PER_ENTRY: u64 = 2;
        // A merge makes, in another order, what trees hold; they paid for it when they were extracted.
        if self.strict.is_some() {
            return Ok(());
        }
        self.implied_so_far += 1;
        let limit = self.options.limits.implied_directories.saturating_add(PER_ENTRY * self.record.counts.entries);
        if self.implied_so_far > limit {
            let what = "directories that are made without being listed";
            return Err(Error::Limit { subject: format!("`{}`", Escaped(path)), what, limit });
        }
        Ok(())
    }

    /// Something other than a marker is going into a directory: that implies it, and those around it.
    pub(super) fn promote(&mut self, path: &[u8]) {
        let mut path = path;
        while !self.marker_dirs.is_empty() && self.marker_dirs.remove(path) {
            self.implied.insert(path.to_vec());
            path = sys::split(path).0;
        }
    }

    /// Makes a directory at a place. One that is there is kept, and gets this metadata if it is `listed`. Tells whether it was
    /// made.
    fn make_directory(&mut self, spot: &Spot<'_>, metadata: &Metadata, listed: bool) -> Result<(Arc<Dir>, bool)> {
        let kind = OverrideKind::Directory;
        self.watch_directory(spot)?;
        let place = self.place(&spot.dir, spot.name, spot.path)?;
        let mode = self.creation_mode(kind, metadata.mode);
        self.note(&spot.dir)?;
        let mut displaced = false;
        for _ in 0..sys::RETRIES {
            let made = match rustix::fs::mkdirat(&spot.dir, spot.name, mode) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(errno) => return Err(sys::failed("create", spot.path, errno)),
            };
            let fd = match open_directory(&spot.dir, spot.name) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => continue,
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    displaced |= self.displace(spot)?;
                    continue;
                }
                Err(errno) => return Err(sys::failed("open", spot.path, errno)),
            };
            if made {
                let stamped =
                    self.disinherit(&fd, spot.path).and_then(|()| self.owners.stamp(&fd, metadata, kind, spot.path));
                unmade_if(stamped, spot, AtFlags::REMOVEDIR)?;
            } else if listed {
                self.owners.restamp(&fd, metadata, spot.path)?;
            }
            let dir = Dir::new(fd, place, spot.id);
            if made && self.own.is_some() {
                self.fresh.insert(spot.id);
            }
            if displaced {
                self.cut_off(&dir)?;
            }
            return Ok((dir, made));
        }
        Err(sys::contended(spot.path))
    }

    /// Makes a symbolic link.
    pub fn put_symlink(&mut self, path: &TreePath, metadata: &Metadata, target: &[u8]) -> Result<()> {
        let path = not_root(path)?;
        if target.is_empty() || target.contains(&0) {
            return Err(Error::refused(path, "a symbolic link with an empty target or a NUL in it"));
        }
        let spot = self.spot(path)?;
        self.create(&spot, |dir, name| rustix::fs::symlinkat(target, dir, name))?;
        self.stamp_made(&spot, metadata, FileType::Symlink, 0)
    }

    /// Makes a device or a pipe.
    pub fn put_special(&mut self, path: &TreePath, metadata: &Metadata, kind: FileType, device: Device) -> Result<()> {
        let path = not_root(path)?;
        // Larger numbers would be cut off (containerd 0205398ac).
        if device.major >= 1 << 12 || device.minor >= 1 << 20 {
            return Err(Error::refused(path, format!("no device is numbered {}:{}", device.major, device.minor)));
        }
        self.record.note_device(kind, device);
        let number = rustix::fs::makedev(device.major, device.minor);
        if self.options.mode == TreeMode::Overlay && kind == FileType::CharacterDevice && number == 0 {
            return Err(Error::refused(path, "the device 0:0 would be a removal in an overlay"));
        }
        let spot = self.spot(path)?;
        if self.owners.are_recorded() {
            let recorded = match kind {
                FileType::CharacterDevice => OverrideKind::Char(device),
                FileType::BlockDevice => OverrideKind::Block(device),
                _ => OverrideKind::Pipe,
            };
            let mode = self.creation_mode(recorded, metadata.mode);
            let file = self.create(&spot, |dir, name| rustix::fs::openat(dir, name, NEW_FILE, mode))?;
            let stamped = || {
                self.disinherit(&file, path)?;
                self.owners.stamp(&file, metadata, recorded, path)?;
                set_times(&file, metadata.mtime).explain("set the times of", path)
            };
            return unmade_if(stamped(), &spot, AtFlags::empty());
        }
        let mode = self.creation_mode(OverrideKind::File, metadata.mode);
        self.create(&spot, |dir, name| rustix::fs::mknodat(dir, name, kind, mode, number))?;
        self.stamp_made(&spot, metadata, kind, number)
    }

    /// Makes an empty file under a name that is not an entry's: a marker, a placeholder. Tells its inode.
    pub(super) fn put_empty(&mut self, spot: &Spot<'_>, mode: u16) -> Result<(u64, u64)> {
        debug_assert_eq!(mode & inherited::OWNER_ONLY, mode);
        let raw = Mode::from_raw_mode(mode.into());
        let file = self.create(spot, |dir, name| rustix::fs::openat(dir, name, NEW_FILE, raw))?;
        // Always: the directory may be a layer's that sets the group of what is made inside.
        let stamped = inherited::disinherit(&file)
            .explain("set the owner of", spot.path)
            .and_then(|()| set_times(&file, UNLISTED).explain("set the times of", spot.path))
            .and_then(|()| rustix::fs::fstat(&file).explain("examine", spot.path));
        unmade_if(stamped, spot, AtFlags::empty()).map(|stat| sys::inode_of(&stat))
    }

    /// Gives metadata to something just made that must not be opened.
    pub(super) fn stamp_made(&self, spot: &Spot<'_>, metadata: &Metadata, kind: FileType, number: u64) -> Result<()> {
        let stamped = || {
            let held = rustix::fs::openat(&spot.dir, spot.name, HOLD, Mode::empty()).explain("hold", spot.path)?;
            self.owners.stamp_held(&held, metadata, self.may_inherit, (kind, number), spot.path)
        };
        unmade_if(stamped(), spot, AtFlags::empty())
    }
}

/// Removes what was just made at a place if the rest of its entry failed: nothing lies under the name of an entry that was
/// refused. Passes the result on.
pub(super) fn unmade_if<T>(made: Result<T>, spot: &Spot<'_>, flags: AtFlags) -> Result<T> {
    made.inspect_err(|_| {
        let _ = rustix::fs::unlinkat(&spot.dir, spot.name, flags);
    })
}

/// An entry's path, which only a directory may have as the root.
pub(super) fn not_root(path: &TreePath) -> Result<&[u8]> {
    if path.is_root() { Err(Error::refused(b"/", "the root must be a directory")) } else { Ok(path.as_bytes()) }
}

/// Moves content into a file, from where it lies to where it belongs.
pub(super) fn pour(content: &mut dyn Content, file: &OwnedFd, mut at: u64, size: u64, path: &[u8]) -> Result<()> {
    let mut left = size;
    while left > 0 {
        let chunk = content.chunk()?;
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        let piece = chunk.get(..most).unwrap_or_default();
        if piece.is_empty() {
            let reason = "it ends within a file".into();
            return Err(Error::Corrupt { subject: format!("the content of `{}`", Escaped(path)), reason });
        }
        let written = rustix::io::retry_on_intr(|| rustix::io::pwrite(file, piece, at)).explain("write to", path)?;
        if written == 0 {
            return Err(sys::failed("write to", path, Errno::IO));
        }
        content.advance(written);
        at += written as u64;
        left -= written as u64;
    }
    Ok(())
}

/// Passes over content that belongs nowhere.
pub(super) fn skip(content: &mut dyn Content, bytes: u64) -> Result<()> {
    let mut left = bytes;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(content.chunk()?.len());
        if most == 0 {
            return Err(Error::Corrupt { subject: "the content of a file".into(), reason: "it ends within it".into() });
        }
        content.advance(most);
        left -= most as u64;
    }
    Ok(())
}

/// Moves the content of a sparse file's extents into it; between them stay holes. Tells the number of bytes.
pub(super) fn pour_extents(
    content: &mut dyn Content,
    file: &OwnedFd,
    size: u64,
    extents: &[Extent],
    path: &[u8],
) -> Result<u64> {
    rustix::fs::ftruncate(file, size).explain("set the size of", path)?;
    let mut bytes = 0;
    let mut end = 0;
    for &Extent { offset, length } in extents {
        let next = offset.checked_add(length).filter(|&next| offset >= end && next <= size);
        end = next.ok_or_else(|| Error::refused(path, "extents that overlap or lie outside of the file"))?;
        pour(content, file, offset, length, path)?;
        bytes += length;
    }
    Ok(bytes)
}
