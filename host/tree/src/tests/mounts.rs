use super::*;

fn root() -> OwnedFd {
    rustix::fs::openat(CWD, "/", DIRECTORY, Mode::empty()).unwrap()
}

/// `/proc` is mounted wherever there is one.
#[test]
fn a_mount_point_is_not_entered_with_and_without_openat2() {
    type Open = fn(BorrowedFd<'_>, &[u8], OFlags) -> rustix::io::Result<OwnedFd>;
    let root = root();
    let ways: [Open; 2] = [|dir, name, flags| open_within(dir, name, flags), open_and_compare];
    for open in ways {
        assert_eq!(open(root.as_fd(), b"proc", DIRECTORY).unwrap_err(), Errno::XDEV);
        assert_eq!(open(root.as_fd(), b"proc", HOLD).unwrap_err(), Errno::XDEV);
        assert_eq!(open(root.as_fd(), b"absent", DIRECTORY).unwrap_err(), Errno::NOENT);
        let temp = tempfile::tempdir().unwrap();
        let dir = rustix::fs::openat(CWD, temp.path(), DIRECTORY, Mode::empty()).unwrap();
        rustix::fs::mkdirat(&dir, "d", Mode::RWXU).unwrap();
        rustix::fs::symlinkat("d", &dir, "l").unwrap();
        open(dir.as_fd(), b"d", DIRECTORY).unwrap();
        assert!(matches!(open(dir.as_fd(), b"l", DIRECTORY), Err(Errno::NOTDIR | Errno::LOOP)));
    }
    assert!(is_mount_point(root.as_fd(), b"proc").unwrap() && !is_mount_point(root.as_fd(), b"etc").unwrap());
    assert_eq!(id_by_proc(root.as_fd()).map(Mount::Id), mount_of(root.as_fd()).ok());
}

#[test]
fn a_tree_with_a_mount_in_it_is_told_whatever_its_size() {
    let error = check_tree(root(), b"proc", None).unwrap_err();
    assert!(error.to_string().contains("`/proc` is a mount point"), "{error}");
    assert_eq!(error.kind(), cofferdam_core::ErrorKind::Refused);
    let ids = Ids::default();
    assert!(matches!(check(root().as_fd(), b"", &ids, ids.root(), None, None), Err(Error::Mounted { .. })));
    assert!(matches!(inside_by_table(root().as_fd()), Some(Some(_))));
    let temp = tempfile::tempdir().unwrap();
    let dir = rustix::fs::openat(CWD, temp.path(), DIRECTORY, Mode::empty()).unwrap();
    for name in 0..2 * LOOKED_AT {
        rustix::fs::mkdirat(&dir, name.to_string(), Mode::RWXU).unwrap();
    }
    check(dir.as_fd(), b"", &ids, ids.root(), None, None).unwrap();
    check_tree(&dir, b"absent", None).unwrap();
    assert_eq!(inside_by_table(dir.as_fd()), Some(None));
}

#[test]
fn the_table_of_mounts_is_read_by_place_and_not_by_the_start_of_a_name() {
    let table = b"1 0 8:1 / / rw - ext4 /dev/x rw\n\
        2 1 0:5 / /d/a\\040b\\134c rw shared:1 - tmpfs none rw\n\
        3 2 0:6 / /d/a\\040b\\134c/inner rw - tmpfs none rw\n\
        4 1 8:1 /x /e/file rw - ext4 /dev/x rw\n";
    let inside = |mount, path: &str| in_table(table, mount, path.as_bytes());
    assert_eq!(inside(1, "/"), Some(Some(br"/d/a b\c".to_vec())));
    assert_eq!(inside(1, "/d"), Some(Some(br"/d/a b\c".to_vec())));
    assert_eq!(inside(1, "/e"), Some(Some(b"/e/file".to_vec())));
    assert_eq!(inside(2, r"/d/a b\c"), Some(Some(br"/d/a b\c/inner".to_vec())));
    for elsewhere in ["/d/a", "/d/a b", "/ee", "/e/f", "/e/file"] {
        assert_eq!(inside(1, elsewhere), Some(None), "{elsewhere}");
    }
    assert_eq!(inside(9, "/d"), None, "a mount that the table does not know");
    assert_eq!(in_table(b"1 0 8:1 /", 1, b"/"), None, "a line that is cut short");
}
