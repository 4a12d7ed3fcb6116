//! Removes a tree, whatever is in it: any depth, any modes, without following links and with a bounded number of open
//! files.

use std::os::fd::AsFd;

use cap_std::fs::Dir;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Removes the directory `name` and all below it. Nothing there is no error.
///
/// Instead of descending, each directory that is not empty is moved up to the top: no recursion, three open directories
/// at most, and every directory is moved only once.
pub(super) fn remove_tree(parent: &Dir, name: &str) -> Result<()> {
    let failed = |e: Errno| Error::io("remove the tree", name.as_bytes(), e);
    let top = match open(parent, name) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            return rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(failed);
        }
        Err(error) => return Err(failed(error)),
    };
    while empty(&top, &top, true).map_err(failed)? {}
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(failed)
}

/// Removes what is in `dir`, and moves directories that are not empty to `top`, or, if this is the top, empties them.
/// Says whether there was anything.
fn empty(top: &impl AsFd, dir: &impl AsFd, is_top: bool) -> Result<bool, Errno> {
    let mut found = false;
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        found = true;
        if !matches!(entry.file_type(), FileType::Directory | FileType::Unknown) {
            rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
            continue;
        }
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR) => rustix::fs::unlinkat(dir, name, AtFlags::empty())?,
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ACCESS) if is_top => {
                let inner = open(dir, name)?;
                while empty(top, &inner, false)? {}
                rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?;
            }
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ACCESS) => {
                // Moving a directory changes its `..`, so it must be writable.
                drop(open(dir, name)?);
                let aside = uuid::Uuid::new_v4().simple().to_string();
                rustix::fs::renameat_with(dir, name, top, &aside, RenameFlags::empty())?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Opens a directory so that it can be emptied, also when its mode forbids that to its owner.
fn open<P: rustix::path::Arg + Copy>(parent: &impl AsFd, name: P) -> Result<std::os::fd::OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            // Ours, and not readable: nobody else gets at it in a 0700 store, so its name means the same in both calls.
            let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if !FileType::from_raw_mode(stat.st_mode).is_dir() {
                return Err(Errno::NOTDIR);
            }
            rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            rustix::fs::openat(parent, name, flags, Mode::empty())?
        }
        other => other?,
    };
    if rustix::fs::fstat(&dir)?.st_mode & 0o700 != 0o700 {
        // Fails for who neither owns it nor is root; then the removal fails in its turn, and says so.
        let _ = rustix::fs::fchmod(&dir, Mode::RWXU);
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_of_any_depth_and_mode_go() {
        let temp = tempfile::tempdir().unwrap();
        let root = crate::ambient::open_dir(temp.path()).unwrap();
        root.create_dir("kept").unwrap();
        root.write("kept/file", "x").unwrap();
        root.create_dir("tree").unwrap();
        // Deeper than any path can be long.
        let mut deep = root.open_dir("tree").unwrap();
        let long = "d".repeat(200);
        for _ in 0..300 {
            deep.create_dir(&long).unwrap();
            deep.write("file", "x").unwrap();
            deep.symlink_contents("/", "root").unwrap();
            let next = deep.open_dir(&long).unwrap();
            rustix::fs::mknodat(&deep, "pipe", FileType::Fifo, Mode::empty(), 0).unwrap();
            deep = next;
        }
        drop(deep);
        root.create_dir_all("tree/closed/inner").unwrap();
        root.write("tree/closed/inner/file", "x").unwrap();
        root.symlink("../kept", "tree/closed/link").unwrap();
        for closed in ["tree/closed/inner", "tree/closed", "tree"] {
            rustix::fs::chmodat(&root, closed, Mode::empty(), AtFlags::empty()).unwrap();
        }
        remove_tree(&root, "tree").unwrap();
        assert!(!root.exists("tree"));
        assert_eq!(root.read("kept/file").unwrap(), b"x");
        remove_tree(&root, "tree").unwrap();
    }

    #[test]
    fn a_link_in_the_place_of_a_tree_is_removed_and_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let root = crate::ambient::open_dir(temp.path()).unwrap();
        root.create_dir("victim").unwrap();
        root.write("victim/hello", "x").unwrap();
        root.symlink("victim", "tree").unwrap();
        remove_tree(&root, "tree").unwrap();
        assert!(root.symlink_metadata("tree").is_err());
        assert_eq!(root.read("victim/hello").unwrap(), b"x");
    }
}
