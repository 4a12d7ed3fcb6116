//! Lists, and what a check finds.

#![expect(clippy::disallowed_methods, reason = "tests arrange the world by path")]

use std::fs::{self, File};
use std::io::Cursor;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};

use super::*;

fn list(root: &Path) -> String {
    let mut out = Vec::new();
    write(File::open(root).unwrap().as_fd(), &mut out, &Cancel::new()).unwrap();
    String::from_utf8(out).unwrap()
}

fn compare(root: &Path, list: &str, show: usize) -> Checked {
    let mut list = Cursor::new(list.as_bytes().to_vec());
    check(File::open(root).unwrap().as_fd(), &mut list, show, &Cancel::new(), &|_| {}).unwrap()
}

/// What a check says, one line per difference.
fn said(root: &Path, list: &str) -> Vec<String> {
    compare(root, list, 100).differences.into_iter().map(|d| format!("{}: {}", d.path, d.what)).collect()
}

fn set_time(path: &Path) {
    let time = Timespec { tv_sec: 1_700_000_000, tv_nsec: 5 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// A tree with one of each, and with names that are no words. The paths in it, deepest first.
fn sample(root: &Path) {
    fs::create_dir_all(root.join("a/b")).unwrap();
    for (name, text) in [("a/b/file", "1"), ("a.b", "22"), ("a-", "333")] {
        fs::write(root.join(name), text).unwrap();
    }
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"sp ace\n#=\\\xff*")), "").unwrap();
    fs::hard_link(root.join("a.b"), root.join("a/two")).unwrap();
    symlink("to a#b", root.join("link")).unwrap();
    rustix::fs::mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let mut todo = vec![root.to_owned()];
    let mut all = Vec::new();
    while let Some(path) = todo.pop() {
        if path.symlink_metadata().unwrap().is_dir() {
            todo.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
        }
        all.push(path);
    }
    for path in all.iter().rev() {
        let kind = path.symlink_metadata().unwrap();
        if !kind.is_symlink() {
            fs::set_permissions(path, fs::Permissions::from_mode(if kind.is_dir() { 0o755 } else { 0o640 })).unwrap();
        }
        set_time(path);
    }
}

#[test]
fn a_list_is_the_field_s_own_form_and_always_the_same() {
    let temp = tempfile::tempdir().unwrap();
    sample(temp.path());
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let common =
        |kind: &str, mode: &str| format!("type={kind} mode={mode} uid={uid} gid={gid} time=1700000000.000000005");
    let file =
        |text: &str| format!("size={} sha256digest={}", text.len(), cofferdam_core::Digest::of(text.as_bytes()).hex());
    let expected = [
        "#mtree".to_owned(),
        format!(". {}", common("dir", "0755")),
        format!("./a {}", common("dir", "0755")),
        format!("./a/b {}", common("dir", "0755")),
        format!("./a/b/file {} nlink=1 {}", common("file", "0640"), file("1")),
        format!("./a/two {} nlink=2 {}", common("file", "0640"), file("22")),
        format!("./a- {} nlink=1 {}", common("file", "0640"), file("333")),
        format!("./a.b {} nlink=2 {}", common("file", "0640"), file("22")),
        format!("./link {} nlink=1 link=to\\040a\\043b", common("link", "0777")),
        format!("./pipe {} nlink=1", common("fifo", "0640")),
        format!("./sp\\040ace\\012\\043\\075\\134\\377\\052 {} nlink=1 {}", common("file", "0640"), file("")),
    ];
    let lines: Vec<_> = list(temp.path()).lines().map(str::to_owned).collect();
    assert_eq!(lines, expected);
    assert_eq!(said(temp.path(), &list(temp.path())), [""; 0]);
}

#[test]
fn every_change_is_found() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    sample(root);
    let good = list(root);
    let keep = |path: &Path| {
        let parent = path.parent().unwrap().to_owned();
        set_time(&parent);
    };
    let fresh = |change: &dyn Fn(&Path)| {
        let temp = tempfile::tempdir().unwrap();
        sample(temp.path());
        change(temp.path());
        said(temp.path(), &good)
    };
    // A flipped bit, with size and time as they were.
    let flipped = fresh(&|root| {
        fs::write(root.join("a/b/file"), "0").unwrap();
        set_time(&root.join("a/b/file"));
    });
    let (is, was) = (cofferdam_core::Digest::of(b"0"), cofferdam_core::Digest::of(b"1"));
    assert_eq!(flipped, [format!("a/b/file: sha256digest is {}, not {}", is.hex(), was.hex())]);
    let cut = fresh(&|root| fs::write(root.join("a-"), "").unwrap());
    assert_eq!(cut, ["a-: size is 0, not 3"]);
    let mode = fresh(&|root| fs::set_permissions(root.join("a/b"), fs::Permissions::from_mode(0o711)).unwrap());
    assert_eq!(mode, ["a/b: mode is 0711, not 0755"]);
    let gone = fresh(&|root| {
        fs::remove_dir_all(root.join("a/b")).unwrap();
        keep(&root.join("a/b"));
    });
    assert_eq!(gone, ["a/b: it is missing", "a/b/file: it is missing"]);
    let last = fresh(&|root| {
        fs::remove_file(root.join("pipe")).unwrap();
        set_time(root);
    });
    assert_eq!(last, ["pipe: it is missing"]);
    let more = fresh(&|root| {
        fs::create_dir(root.join("zoo")).unwrap();
        fs::write(root.join("zoo/x"), "").unwrap();
        fs::write(root.join("0"), "").unwrap();
        set_time(root);
    });
    assert_eq!(more, ["0: it is not in the layer", "zoo: it is not in the layer", "zoo/x: it is not in the layer"]);
    let relinked = fresh(&|root| {
        fs::remove_file(root.join("link")).unwrap();
        symlink("elsewhere", root.join("link")).unwrap();
        set_time(&root.join("link"));
        set_time(root);
    });
    assert_eq!(relinked, ["link: link is elsewhere, not to\\040a\\043b"]);
    let kind = fresh(&|root| {
        fs::remove_file(root.join("pipe")).unwrap();
        fs::create_dir(root.join("pipe")).unwrap();
        fs::set_permissions(root.join("pipe"), fs::Permissions::from_mode(0o640)).unwrap();
        set_time(&root.join("pipe"));
        set_time(root);
    });
    assert_eq!(kind, ["pipe: type is dir, not fifo; nlink is gone, which was 1"]);
    let attribute = fresh(&|root| {
        let none = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(root.join("a"), "user.x", b"\0\xff", none).unwrap();
        rustix::fs::setxattr(root.join("a"), "user.cofferdam.tree", b"ours", none).unwrap();
    });
    assert_eq!(attribute, ["a: xattr.user.x is AP8=, where there was none"]);
    let linked = fresh(&|root| {
        fs::hard_link(root.join("a-"), root.parent().unwrap().join(root.file_name().unwrap()).join("a/b/more"))
            .unwrap();
        set_time(&root.join("a/b"));
    });
    assert_eq!(linked, ["a/b/more: it is not in the layer", "a-: nlink is 2, not 1"]);
}

#[test]
fn many_differences_are_counted_and_few_are_kept() {
    let temp = tempfile::tempdir().unwrap();
    for number in 0..50 {
        fs::write(temp.path().join(format!("{number}")), "x").unwrap();
    }
    let good = list(temp.path());
    for number in 0..50 {
        fs::remove_file(temp.path().join(format!("{number}"))).unwrap();
    }
    let checked = compare(temp.path(), &good, 3);
    // The root's time is another too.
    assert_eq!((checked.different, checked.differences.len(), checked.entries), (51, 3, 1));
}

#[test]
fn a_hole_of_a_terabyte_costs_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("hole");
    let file = File::create(&path).unwrap();
    if file.set_len(1 << 40).is_err() {
        return; // the file system has smaller files only
    }
    std::os::unix::fs::FileExt::write_all_at(&file, b"data", (1 << 39) + 5).unwrap();
    let good = list(temp.path());
    assert!(good.contains(" sparsesha256digest="), "{good}");
    assert_eq!(said(temp.path(), &good), [""; 0]);
    let modified = file.metadata().unwrap().modified().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"date", (1 << 39) + 5).unwrap();
    file.set_modified(modified).unwrap();
    let [line] = &said(temp.path(), &good)[..] else { panic!("not one difference") };
    assert!(line.starts_with("hole: sparsesha256digest is "), "{line}");
    // Zeros are zeros, whether the file system holds them or not.
    std::os::unix::fs::FileExt::write_all_at(&file, b"data", (1 << 39) + 5).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0; 1 << 20], 12345).unwrap();
    file.set_modified(modified).unwrap();
    assert_eq!(said(temp.path(), &good), [""; 0]);
}

/// Deeper than a process may have files open, and than a path may be long.
#[test]
fn depth_needs_no_handles() {
    let temp = tempfile::tempdir().unwrap();
    let mut dir = rustix::fs::open(temp.path(), rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&dir, "deep", Mode::RWXU).unwrap();
        dir = rustix::fs::openat(&dir, "deep", rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let good = list(temp.path());
    assert_eq!(good.lines().count(), 3002);
    assert_eq!(said(temp.path(), &good), [""; 0]);
    drop(dir);
    let parent = File::open(temp.path().parent().unwrap()).unwrap();
    cofferdam_tree::remove_tree(&parent, temp.path().file_name().unwrap().as_bytes()).unwrap();
    fs::create_dir(temp.path()).unwrap();
}

#[test]
fn what_is_no_list_is_said_to_be_none() {
    let temp = tempfile::tempdir().unwrap();
    let root = File::open(temp.path()).unwrap();
    for text in ["", "#mtree", "#mtree\n. type=dir", "#mtree\nx type=dir\n", "#mtree\n./\\9 type=dir\n", "x\n"] {
        let mut list = Cursor::new(text.as_bytes().to_vec());
        let checked = check(root.as_fd(), &mut list, 9, &Cancel::new(), &|_| {});
        assert!(matches!(checked, Err(Error::Corrupt { .. })), "{text:?}");
    }
}

#[test]
fn a_list_can_be_given_up() {
    let temp = tempfile::tempdir().unwrap();
    let cancel = Cancel::new();
    cancel.cancel();
    let root = File::open(temp.path()).unwrap();
    assert!(matches!(write(root.as_fd(), &mut Vec::new(), &cancel), Err(Error::Interrupted)));
}

/// Files with several names are read once.
#[test]
fn a_large_file_with_many_names_is_read_once() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("0"), vec![7; 1 << 20]).unwrap();
    for number in 1..20 {
        fs::hard_link(temp.path().join("0"), temp.path().join(number.to_string())).unwrap();
    }
    let checked = compare(temp.path(), &list(temp.path()), 9);
    assert_eq!((checked.different, checked.bytes), (0, 1 << 20));
    let old = SystemTime::now() - Duration::from_secs(9);
    File::open(temp.path().join("3")).unwrap().set_modified(old).unwrap();
    assert_eq!(compare(temp.path(), &list(temp.path()), 9).different, 0);
}
