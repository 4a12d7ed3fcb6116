//! Reading a tree.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::{Entry, Name, Node, Shown, Snapshot};

/// What to read beyond what is always read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Where the data of regular files lies: tells holes from zeros.
    pub extents: bool,
}

impl Snapshot {
    /// Reads the tree at `root`, which may be behind a link.
    pub fn read(root: &Path) -> Result<Self> {
        Self::read_with(root, Options::default())
    }

    /// The same, with options.
    pub fn read_with(root: &Path, options: Options) -> Result<Self> {
        let read = || -> Result<Self> {
            let fd = fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            let mut reader =
                Reader { options, entries: BTreeMap::new(), inodes: BTreeMap::new(), buffer: vec![0; 1 << 17] };
            let entry = reader.entry(fd.as_fd(), c".", &fs::fstat(&fd)?)?;
            reader.entries.insert(Name::new(), entry);
            reader.directory(fd, &[])?;
            Ok(reader.finish())
        };
        read().with_context(|| format!("cannot read the tree {}", root.display()))
    }
}

struct Reader {
    options: Options,
    entries: BTreeMap<Name, Entry>,
    /// Device and inode number → names inside, and the link count.
    inodes: BTreeMap<(u64, u64), (BTreeSet<Name>, u64)>,
    buffer: Vec<u8>,
}

impl Reader {
    fn directory(&mut self, fd: OwnedFd, path: &[u8]) -> Result<()> {
        for found in Dir::read_from(&fd).with_context(|| format!("reading `{}`", Shown(path)))? {
            let found = found?;
            let name = found.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let mut child = path.to_vec();
            if !child.is_empty() {
                child.push(b'/');
            }
            child.extend_from_slice(name.to_bytes());
            self.child(fd.as_fd(), name, child.clone()).with_context(|| format!("at `{}`", Shown(&child)))?;
        }
        Ok(())
    }

    fn child(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: Name) -> Result<()> {
        let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let entry = self.entry(parent, name, &stat)?;
        let is_directory = entry.node == Node::Directory;
        if !is_directory && stat.st_nlink > 1 {
            #[allow(clippy::useless_conversion, reason = "narrower on some targets")]
            let links = u64::from(stat.st_nlink);
            self.inodes.entry((stat.st_dev, stat.st_ino)).or_insert((BTreeSet::new(), links)).0.insert(path.clone());
        }
        self.entries.insert(path.clone(), entry);
        if is_directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            self.directory(fs::openat(parent, name, flags, Mode::empty())?, &path)?;
        }
        Ok(())
    }

    fn entry(&mut self, parent: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<Entry> {
        let node = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Node::Directory,
            FileType::RegularFile => self.file(parent, name, stat)?,
            FileType::Symlink => Node::Symlink(fs::readlinkat(parent, name, Vec::new())?.into_bytes()),
            FileType::CharacterDevice => Node::CharDevice(fs::major(stat.st_rdev), fs::minor(stat.st_rdev)),
            FileType::BlockDevice => Node::BlockDevice(fs::major(stat.st_rdev), fs::minor(stat.st_rdev)),
            FileType::Fifo => Node::Fifo,
            FileType::Socket => Node::Socket,
            FileType::Unknown => anyhow::bail!("unknown file type, mode {:o}", stat.st_mode),
        };
        Ok(Entry {
            node,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec)?),
            xattrs: xattrs(parent, name)?,
            links: BTreeSet::new(),
            outside_links: 0,
        })
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<Node> {
        // NONBLOCK: should the name have become a FIFO meanwhile, opening it must not hang.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(parent, name, flags, Mode::empty())?);
        let size = u64::try_from(stat.st_size)?;
        let extents = if self.options.extents { Some(extents(file.as_fd(), size)?) } else { None };
        let mut hasher = Sha256::new();
        loop {
            match file.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(count) => hasher.update(&self.buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Node::File { size, hash: hasher.finalize().into(), extents })
    }

    fn finish(mut self) -> Snapshot {
        for (names, count) in self.inodes.into_values() {
            for name in &names {
                if let Some(entry) = self.entries.get_mut(name) {
                    entry.outside_links = count - names.len() as u64;
                    if names.len() > 1 {
                        entry.links.clone_from(&names);
                    }
                }
            }
        }
        Snapshot { entries: self.entries }
    }
}

/// Attributes of a name whatever its type: the `l` calls through the parent's handle, since symlinks and special files
/// cannot be opened for them.
fn xattrs(parent: BorrowedFd<'_>, name: &CStr) -> Result<BTreeMap<Name, Vec<u8>>> {
    let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    let mut names = vec![0; 1 << 16];
    let count = match fs::llistxattr(path.as_slice(), &mut names[..]) {
        Ok(count) => count,
        Err(Errno::NOTSUP) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error).context("listing extended attributes"),
    };
    let mut value = vec![0; 1 << 16];
    let mut found = BTreeMap::new();
    for name in names[..count].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let length = fs::lgetxattr(path.as_slice(), name, &mut value[..])
            .with_context(|| format!("reading the extended attribute {}", Shown(name)))?;
        found.insert(name.to_vec(), value[..length].to_vec());
    }
    Ok(found)
}

fn extents(file: BorrowedFd<'_>, size: u64) -> Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        at = fs::seek(file, SeekFrom::Hole(start))?;
        found.push((start, at - start));
    }
    fs::seek(file, SeekFrom::Start(0))?;
    Ok(found)
}
