//! What a new file or directory takes from the directory around it, and how it is taken away again.
//!
//! A directory with a default ACL gives it to everything that is made inside, whatever mode the maker asks for; one with the
//! set-group-ID bit gives its group, and to directories the bit as well. Nothing that this library makes keeps either: a
//! tree has the owners, modes and access lists that its layers say, and the store is its owner's alone.
//!
//! A named user of an inherited ACL can act as soon as the file has its name. So what may inherit is made with no
//! permissions for the group (which then bound those of every named user), disinherited, and opened up after that.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat};
use rustix::io::Errno;

/// The access list of a file or directory. Its mode is part of it.
pub const ACCESS: &str = "system.posix_acl_access";

/// The access list that a directory gives to what is made inside.
pub const DEFAULT: &str = "system.posix_acl_default";

/// The bits of a mode with which something may be made that may inherit: named users have no more than the group.
pub const OWNER_ONLY: u16 = 0o700;

/// Returns true if what is made inside of a directory inherits anything from it.
pub fn is_handed_on(dir: impl AsFd) -> rustix::io::Result<bool> {
    let sets_group = rustix::fs::fstat(&dir)?.st_mode & Mode::SGID.bits() != 0;
    Ok(sets_group || is_set(rustix::fs::fgetxattr(&dir, DEFAULT, &mut [0_u8; 0][..]))?)
}

/// Takes from an open file or directory that was just made what it inherited. Its owner's permissions stay.
pub fn disinherit(made: impl AsFd) -> rustix::io::Result<()> {
    let stat = rustix::fs::fstat(&made)?;
    remove(&made, ACCESS)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        remove(&made, DEFAULT)?;
    }
    if let Some(group) = foreign_group(&stat) {
        rustix::fs::fchown(&made, None, Some(group))?;
    }
    clear_set_group(made, &stat)
}

/// Does the same to something that is held and must not be opened, by its name in `/proc`.
pub fn disinherit_held(held: impl AsFd, stat: &Stat, name: &str) -> rustix::io::Result<()> {
    // A link has no access list.
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink
        && is_set(rustix::fs::getxattr(name, ACCESS, &mut [0_u8; 0][..]))?
    {
        rustix::fs::removexattr(name, ACCESS)?;
    }
    match foreign_group(stat) {
        Some(group) => rustix::fs::chownat(held, "", None, Some(group), AtFlags::EMPTY_PATH),
        None => Ok(()),
    }
}

/// Takes from a directory of the store what it would give to what is made inside. An older version may have left it there.
pub fn hand_nothing_on(dir: impl AsFd) -> rustix::io::Result<()> {
    remove(&dir, DEFAULT)?;
    let stat = rustix::fs::fstat(&dir)?;
    clear_set_group(dir, &stat)
}

fn clear_set_group(made: impl AsFd, stat: &Stat) -> rustix::io::Result<()> {
    let set_group = Mode::SGID.bits();
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if is_directory && stat.st_mode & set_group != 0 {
        rustix::fs::fchmod(made, Mode::from_raw_mode(stat.st_mode & 0o7777 & !set_group))?;
    }
    Ok(())
}

/// The process's group, if something that it made has another one.
fn foreign_group(stat: &Stat) -> Option<Gid> {
    let group = rustix::process::getegid();
    (stat.st_gid != group.as_raw()).then_some(group)
}

/// Removes an access list if there is one. Looks first: on a file system that is mounted for reading only, there is none to
/// remove and the attempt would fail.
fn remove(made: impl AsFd, name: &str) -> rustix::io::Result<()> {
    if is_set(rustix::fs::fgetxattr(&made, name, &mut [0_u8; 0][..]))? {
        rustix::fs::fremovexattr(made, name)?;
    }
    Ok(())
}

/// Whether an attribute is there, from the answer to a question for its length.
fn is_set(answer: rustix::io::Result<usize>) -> rustix::io::Result<bool> {
    match answer {
        Ok(_) | Err(Errno::RANGE) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_testing::inherited::{contaminate, contaminated};

    use super::*;

    #[test]
    fn a_directory_above_gives_nothing_to_what_is_disinherited() {
        let temp = tempfile::tempdir().unwrap();
        contaminate(temp.path());
        let dir = crate::ambient::open_dir(temp.path()).unwrap();
        assert!(is_handed_on(&dir).unwrap());
        let mode = Mode::from_raw_mode(OWNER_ONLY.into());
        rustix::fs::mkdirat(&dir, "d", mode).unwrap();
        let made = crate::ambient::open_dir(&temp.path().join("d")).unwrap();
        assert!(is_handed_on(&made).unwrap(), "this file system has no default ACLs");
        let inside = temp.path().join("d");
        assert_eq!(contaminated(&inside), [""]);
        disinherit(&made).unwrap();
        assert!(!is_handed_on(&made).unwrap());
        assert!(contaminated(&inside).is_empty());
        contaminate(&inside);
        hand_nothing_on(&made).unwrap();
        assert!(!is_handed_on(&made).unwrap());
    }
}
