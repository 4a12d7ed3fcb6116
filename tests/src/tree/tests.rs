//! Each test makes two trees that differ in one thing, and looks for exactly that.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::Result;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use super::*;
use crate::{Scratch, require};

/// A tree with everything in it that an ordinary user can make, all of it dated.
fn make(root: &Path) -> Result<()> {
    fs::create_dir_all(root.join("d/e"))?;
    fs::write(root.join("d/f"), "content")?;
    fs::hard_link(root.join("d/f"), root.join("d/g"))?;
    fs::write(root.join(OsStr::from_bytes(b"odd \xff\n")), "")?;
    symlink("d/f", root.join("l"))?;
    rustix::fs::mknodat(CWD, root.join("p"), FileType::Fifo, Mode::from_raw_mode(0o640), 0)?;
    for name in [&b"odd \xff\n"[..], b"l", b"p", b"d/f", b"d/e", b"d", b""] {
        date(&root.join(OsStr::from_bytes(name)), 1_000_000_000)?;
    }
    Ok(())
}

fn date(path: &Path, seconds: i64) -> Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 5 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// What `change` changes, as path and field.
fn found(change: impl FnOnce(&Path) -> Result<()>) -> Result<Vec<(String, Field)>> {
    let scratch = Scratch::new()?;
    let (left, right) = (scratch.dir("left")?, scratch.dir("right")?);
    make(&left)?;
    make(&right)?;
    change(&right)?;
    let found = differences(&Snapshot::read(&left)?, &Snapshot::read(&right)?, |_, _| false);
    Ok(found.lines.into_iter().map(|(path, field, _)| (Shown(&path).to_string(), field)).collect())
}

fn is(found: &[(String, Field)], path: &str, field: Field) {
    assert_eq!(found, [(path.to_owned(), field)]);
}

#[test]
fn the_same_tree_twice_has_no_difference() -> Result<()> {
    assert_eq!(found(|_| Ok(()))?, []);
    Ok(())
}

#[test]
fn everything_is_seen() -> Result<()> {
    let scratch = Scratch::new()?;
    make(scratch.path())?;
    let tree = Snapshot::read(scratch.path())?;
    let names: Vec<_> = tree.entries.keys().map(|name| Shown(name).to_string()).collect();
    assert_eq!(names, ["", "d", "d/e", "d/f", "d/g", "l", "odd \\xff\\x0a", "p"]);
    assert_eq!(tree.entries[&b"l"[..]].node, Node::Symlink(b"d/f".to_vec()));
    assert_eq!(tree.entries[&b"p"[..]].node, Node::Fifo);
    assert_eq!(tree.entries[&b"d/f"[..]].mtime, (1_000_000_000, 5));
    assert_eq!(tree.entries[&b"d/f"[..]].links.len(), 2);
    assert_eq!(tree.content_bytes(), 7);
    Ok(())
}

#[test]
fn content_and_presence_are_compared() -> Result<()> {
    let changed = found(|root| {
        fs::write(root.join("d/f"), "CONTENT")?;
        date(&root.join("d/f"), 1_000_000_000)
    })?;
    assert_eq!(changed, [("d/f".to_owned(), Field::Content), ("d/g".to_owned(), Field::Content)]);
    let added = found(|root| {
        fs::create_dir(root.join("d/e/new"))?;
        date(&root.join("d/e"), 1_000_000_000)
    })?;
    is(&added, "d/e/new", Field::Presence);
    let removed = found(|root| {
        fs::remove_file(root.join("p"))?;
        date(root, 1_000_000_000)
    })?;
    is(&removed, "p", Field::Presence);
    Ok(())
}

#[test]
fn metadata_is_compared() -> Result<()> {
    is(
        &found(|root| Ok(fs::set_permissions(root.join("d/e"), fs::Permissions::from_mode(0o1711))?))?,
        "d/e",
        Field::Mode,
    );
    is(&found(|root| date(&root.join("l"), 1_000_000_001))?, "l", Field::Mtime);
    is(&found(|root| date(root, 7))?, "", Field::Mtime);
    Ok(())
}

#[test]
fn attributes_are_compared() -> Result<()> {
    let changed = found(|root| {
        rustix::fs::setxattr(root.join("d/e"), "user.note", b"\x00v", XattrFlags::empty())?;
        Ok(())
    })?;
    is(&changed, "d/e", Field::Xattrs);
    Ok(())
}

#[test]
fn a_copy_is_no_hard_link() -> Result<()> {
    let changed = found(|root| {
        fs::remove_file(root.join("d/g"))?;
        fs::write(root.join("d/g"), "content")?;
        date(&root.join("d/g"), 1_000_000_000)?;
        date(&root.join("d"), 1_000_000_000)
    })?;
    assert_eq!(changed, [("d/f".to_owned(), Field::Links), ("d/g".to_owned(), Field::Links)]);
    Ok(())
}

#[test]
fn a_link_to_the_outside_is_seen() -> Result<()> {
    let scratch = Scratch::new()?;
    let inside = scratch.dir("inside")?;
    fs::write(inside.join("f"), "")?;
    assert_eq!(Snapshot::read(&inside)?.entries[&b"f"[..]].outside_links, 0);
    fs::hard_link(inside.join("f"), scratch.join("outside"))?;
    assert_eq!(Snapshot::read(&inside)?.entries[&b"f"[..]].outside_links, 1);
    Ok(())
}

#[test]
fn targets_and_types_are_compared() -> Result<()> {
    let retarget = |target: &'static str| {
        move |root: &Path| {
            fs::remove_file(root.join("l"))?;
            symlink(target, root.join("l"))?;
            date(&root.join("l"), 1_000_000_000)?;
            date(root, 1_000_000_000)
        }
    };
    assert_eq!(found(retarget("d/f"))?, []);
    is(&found(retarget("d/g"))?, "l", Field::Target);
    let changed = found(|root| {
        fs::remove_file(root.join("p"))?;
        fs::write(root.join("p"), "")?;
        fs::set_permissions(root.join("p"), fs::Permissions::from_mode(0o640))?;
        date(&root.join("p"), 1_000_000_000)?;
        date(root, 1_000_000_000)
    })?;
    is(&changed, "p", Field::Type);
    Ok(())
}

#[test]
fn owners_and_devices_are_compared() -> Result<()> {
    require!("root");
    let changed = found(|root| Ok(std::os::unix::fs::lchown(root.join("l"), Some(1234), Some(70_000))?))?;
    is(&changed, "l", Field::Owner);

    let scratch = Scratch::new()?;
    for (side, minor) in [("left", 3), ("right", 5)] {
        let device = scratch.dir(side)?.join("null");
        rustix::fs::mknodat(CWD, &device, FileType::CharacterDevice, Mode::RUSR, rustix::fs::makedev(1, minor))?;
        date(&device, 0)?;
        date(&scratch.join(side), 0)?;
    }
    let (left, right) = (Snapshot::read(&scratch.join("left"))?, Snapshot::read(&scratch.join("right"))?);
    let found = differences(&left, &right, |_, _| false);
    assert_eq!(found.lines.len(), 1, "{found}");
    assert_eq!(found.lines[0].1, Field::Device);
    Ok(())
}

#[test]
fn holes_are_told_from_zeros() -> Result<()> {
    let scratch = Scratch::new()?;
    let options = Options { extents: true };
    for (side, sparse) in [("left", true), ("right", false)] {
        let path = scratch.dir(side)?.join("f");
        if sparse {
            fs::File::create(&path)?.set_len(1 << 20)?;
        } else {
            fs::write(&path, vec![0; 1 << 20])?;
        }
        date(&path, 0)?;
        date(&scratch.join(side), 0)?;
    }
    let left = Snapshot::read_with(&scratch.join("left"), options)?;
    let right = Snapshot::read_with(&scratch.join("right"), options)?;
    let found = differences(&left, &right, |_, _| false);
    assert_eq!(found.lines.iter().map(|line| line.1).collect::<Vec<_>>(), [Field::Extents], "{found}");
    assert!(differences(&left, &right, |_, field| field == Field::Extents).is_empty());
    Ok(())
}
