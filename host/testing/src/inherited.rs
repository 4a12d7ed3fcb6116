//! Directories that hand an access list and a group on to what is made in them.

use std::path::Path;

use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, XattrFlags};

const ACCESS: &str = "system.posix_acl_access";
/// The attribute that holds the access list for new files.
pub const DEFAULT: &str = "system.posix_acl_default";

/// Returns a default ACL, as the attribute's value, by which user 1000 may do anything.
pub fn list() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] =
        [(1, 7, u32::MAX), (2, 7, 1000), (4, 5, u32::MAX), (0x10, 7, u32::MAX), (0x20, 5, u32::MAX)];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Gives a directory a default ACL for user 1000, and as root the set-group-ID bit with the group 50.
pub fn contaminate(dir: &Path) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(CWD, dir, flags, Mode::empty()).unwrap();
    rustix::fs::fsetxattr(&dir, DEFAULT, &list(), XattrFlags::empty()).expect("temporary files need ACLs");
    if rustix::process::geteuid().is_root() {
        rustix::fs::fchown(&dir, None, Some(Gid::from_raw(50))).unwrap();
        rustix::fs::fchmod(&dir, Mode::from_raw_mode(0o2755)).unwrap();
    }
}

/// Returns the paths below a directory, itself included, that have an access list, a foreign group or the set-group-ID bit.
pub fn contaminated(dir: &Path) -> Vec<String> {
    let group = rustix::process::getegid().as_raw();
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let stat = rustix::fs::lstat(&path).unwrap();
        let kind = FileType::from_raw_mode(stat.st_mode);
        let listed =
            [ACCESS, DEFAULT].iter().any(|name| rustix::fs::lgetxattr(&path, *name, &mut [0_u8; 0][..]).is_ok());
        let set_group = kind == FileType::Directory && stat.st_mode & Mode::SGID.bits() != 0;
        if listed || set_group || stat.st_gid != group {
            found.push(path.strip_prefix(dir).unwrap().display().to_string());
        }
        if kind == FileType::Directory {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found.sort();
    found
}
