//! What a tree holds, seen from outside.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use cofferdam_core::error::Escaped;

/// Everything about everything in a tree: a description by path.
pub(crate) type Snapshot = BTreeMap<String, String>;

/// Paths with contents and targets: `d/ d/f=content l->target c[1:3] p| h=content`. Hard links show the first path of
/// their inode: `h==f`.
pub(crate) fn listing(root: &Path) -> String {
    let mut first = HashMap::new();
    let mut parts = Vec::new();
    for (name, path) in walk(root) {
        if name == "." {
            continue;
        }
        let stat = std::fs::symlink_metadata(&path).unwrap();
        let kind = stat.file_type();
        let inode = (stat.dev(), stat.ino());
        parts.push(if kind.is_dir() {
            format!("{name}/")
        } else if let Some(first) = first.get(&inode).filter(|_| stat.nlink() > 1) {
            format!("{name}=={first}")
        } else {
            first.insert(inode, name.clone());
            if kind.is_symlink() {
                format!("{name}->{}", Escaped(std::fs::read_link(&path).unwrap().as_os_str().as_bytes()))
            } else if kind.is_char_device() || kind.is_block_device() {
                let (major, minor) = (rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev()));
                format!("{name}{}{major}:{minor}]", if kind.is_char_device() { '[' } else { '{' })
            } else if kind.is_fifo() {
                format!("{name}|")
            } else {
                match std::fs::read(&path).unwrap().as_slice() {
                    [] => name,
                    content => format!("{name}={}", Escaped(content)),
                }
            }
        });
    }
    parts.join(" ")
}

/// Type, mode, owner, mtime, size, content, target, device, hard link group and attributes of everything, the root included.
pub(crate) fn full(root: &Path) -> Snapshot {
    let mut first = HashMap::new();
    let describe = |(name, path): (String, PathBuf)| {
        let stat = std::fs::symlink_metadata(&path).unwrap();
        let kind = stat.file_type();
        let group = first.entry((stat.dev(), stat.ino())).or_insert_with(|| name.clone()).clone();
        let mut text = format!(
            "mode {:o} owner {}:{} mtime {}.{:09} device {} group {group}",
            if kind.is_symlink() { 0o120_000 } else { stat.mode() },
            stat.uid(),
            stat.gid(),
            stat.mtime(),
            stat.mtime_nsec(),
            stat.rdev(),
        );
        if kind.is_symlink() {
            let _ = write!(text, " target {}", Escaped(std::fs::read_link(&path).unwrap().as_os_str().as_bytes()));
        } else if kind.is_file() {
            let _ = write!(
                text,
                " size {} content {}",
                stat.len(),
                cofferdam_core::Digest::of(&std::fs::read(&path).unwrap())
            );
        }
        for (name, value) in xattrs(&path) {
            let _ = write!(text, " {name}={}", Escaped(&value));
        }
        (name, text)
    };
    walk(root).into_iter().map(describe).collect()
}

/// The extended attributes of something that may be a link.
pub(crate) fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap();
    let names = names[..length].split(|&b| b == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 65536];
            let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).unwrap();
            (String::from_utf8(name.to_vec()).unwrap(), value[..length].to_vec())
        })
        .collect()
}

/// All paths of a tree in order, with their names.
fn walk(root: &Path) -> Vec<(String, PathBuf)> {
    let mut found = vec![(".".to_owned(), root.to_owned())];
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            let name = Escaped(path.strip_prefix(root).unwrap().as_os_str().as_bytes()).to_string();
            if entry.file_type().unwrap().is_dir() {
                todo.push(path.clone());
            }
            found.push((name, path));
        }
    }
    found.sort();
    found
}
