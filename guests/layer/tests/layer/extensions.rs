//! Rules 9 to 11: what stands in front of a member.

use crate::archive::*;

#[test]
fn names_and_targets_by_extension() {
    let long = format!("{}/{}", "a".repeat(200), "b".repeat(200));
    accepts(&Archive::new().long_name(&long).file("short", "1").end(), &[&format!("F {long} \"1\"")]);
    accepts(&Archive::new().pax(&[("path", long.as_bytes())]).file("short", "1").end(), &[&format!("F {long} \"1\"")]);
    accepts(&Archive::new().long_link(&long).symlink("s", "short").end(), &[&format!("S s {long}")]);
    accepts(&Archive::new().pax(&[("linkpath", b"t")]).symlink("s", "u").end(), &["S s t"]);
    accepts(&Archive::new().long_name("n").long_link("l").symlink("s", "u").end(), &["S n l"]);
    accepts(&Archive::new().long_link("l").long_name("n").hard_link("s", "u").end(), &["H n l"]);
    accepts(&Archive::new().pax(&[("linkpath", b"p")]).long_name("n").hard_link("s", "u").end(), &["H n p"]);
}

#[test]
fn they_are_for_one_member_only() {
    accepts(&Archive::new().long_name("n").dir("a").dir("b").end(), &["D n", "D b"]);
    accepts(&Archive::new().pax(&[("path", b"n")]).dir("a").dir("b").end(), &["D n", "D b"]);
    let bytes = Archive::new().pax(&[("uid", b"5"), ("SCHILY.xattr.user.a", b"1")]).dir("a").dir("b").end();
    let mut seen = Vec::new();
    read(&bytes, usize::MAX, |entry, _| seen.push((entry.uid, entry.attributes.len()))).unwrap();
    assert_eq!(seen, [(5, 1), (0, 0)]);
}

/// Also CVE-2026-53655, RUSTSEC-2026-0112 and RUSTSEC-2026-0145.
#[test]
fn ghsa_3pv8_6f4r_ffg2_they_are_never_for_each_other() {
    // Scenario 32: the size is the file's, not that of the long name.
    let bytes = Archive::new()
        .pax(&[("size", b"5")])
        .long_name("n")
        .block(&Block::new(b'0', "a"))
        .raw("12345")
        .pad()
        .file("b", "2")
        .end();
    accepts(&bytes, &["F n \"12345\"", "F b \"2\""]);
    let bytes = Archive::new().pax(&[("linkpath", b"x")]).long_name("n").symlink("a", "b").end();
    accepts(&bytes, &["S n x"]);
}

#[test]
fn wrong_sequences_fail() {
    let x = || Archive::new().pax(&[("mtime", b"1")]);
    let archives = [
        x().pax(&[("mtime", b"2")]).dir("a"),
        Archive::new().long_name("n").long_name("n").dir("a"),
        Archive::new().long_link("n").long_link("n").symlink("a", "b"),
        x().long_name("n").pax(&[("uid", b"1")]).dir("a"),
        Archive::new().long_name("n").long_link("l").long_name("n").dir("a"),
        x().global(&[("comment", b"")]).dir("a"),
        x().long_name("n").global(&[("comment", b"")]).dir("a"),
        x(),
        Archive::new().long_name("n"),
        Archive::new().long_link("n"),
        Archive::new().dir("a").long_link("n"),
        Archive::new().pax(&[("path", b"p")]).long_name("n").dir("a"),
        Archive::new().long_name("n").pax(&[("path", b"n")]).dir("a"),
        Archive::new().pax(&[("linkpath", b"p")]).long_link("n").symlink("a", "b"),
    ];
    for (number, archive) in archives.into_iter().enumerate() {
        let (ended, bare) = (archive.clone().end(), archive.clone().0);
        assert!(list(&ended).is_err(), "number {number}, with an end marker");
        assert!(list(&bare).is_err(), "number {number}, without an end marker");
        assert!(list(&archive.raw([0; 512]).0).is_err(), "number {number}, with half an end marker");
    }
    // In any other order they are right.
    accepts(&x().long_name("n").long_link("l").symlink("a", "b").end(), &["S n l"]);
    accepts(&Archive::new().long_name("n").pax(&[("mtime", b"1")]).dir("a").end(), &["D n"]);
    accepts(&Archive::new().long_name("n").global(&[("comment", b"c")]).dir("a").end(), &["D n"]);
}

#[test]
fn global_headers_create_and_change_nothing() {
    let bytes = Archive::new()
        .global(&[("comment", b"deadbeef"), ("uid", b"7"), ("mtime", b"99")])
        .global(&[])
        .dir("a")
        .global(&[("SCHILY.xattr.user.a", b"x")])
        .end();
    let mut seen = Vec::new();
    read(&bytes, usize::MAX, |entry, _| {
        seen.push((entry.path.to_vec(), entry.uid, entry.modified.seconds, entry.attributes.len()));
    })
    .unwrap();
    assert_eq!(seen, [(b"a".to_vec(), 0, 0, 0)]);
    for key in ["path", "linkpath", "size", "GNU.sparse.realsize", "GNU.sparse.name", "GNU.sparse.anything"] {
        refuses(&Archive::new().global(&[(key, b"1")]).dir("a").end());
    }
    corrupt(&Archive::new().body(&mut Block::new(b'g', "g"), "9 a=b\n").dir("a").end());
}

#[test]
fn long_names_stop_at_the_first_nul() {
    let l = |payload: &str| Archive::new().body(Block::new(b'L', "x").gnu(), payload);
    accepts(&l("n").dir("a").end(), &["D n"]);
    accepts(&l("n\0").dir("a").end(), &["D n"]);
    accepts(&l("n\0/../../etc\0").dir("a").end(), &["D n"]);
    refuses(&l("").dir("a").end());
    refuses(&l("\0n").dir("a").end());
    let k = |payload: &str| Archive::new().body(Block::new(b'K', "x").gnu(), payload);
    accepts(&k("n\0m").symlink("a", "b").end(), &["S a n"]);
    refuses(&k("").symlink("a", "b").end());
    accepts(&k("").dir("a").end(), &["D a"]);
    // Ustar headers may bring them too.
    accepts(&Archive::new().body(&mut Block::new(b'L', "x"), "n").dir("a").end(), &["D n"]);
}

/// Whatever the header says; also CVE-2026-33055.
#[test]
fn cve_2025_62518_the_effective_size_is_the_record_s() {
    let inner = Archive::new().file("smuggled", "x").end();
    let length = inner.len().to_string();
    for header_size in [0, 512, 1024, 99_999] {
        let mut block = Block::new(b'0', "a");
        block.size(header_size);
        let bytes =
            Archive::new().pax(&[("size", length.as_bytes())]).block(&block).raw(&inner).pad().file("b", "2").end();
        accepts(&bytes, &[&format!("F a {:?}", inner.escape_ascii().to_string()), "F b \"2\""]);
    }
    let mut block = Block::new(b'0', "a");
    block.size(512);
    let bytes = Archive::new().pax(&[("size", b"0")]).block(&block).file("b", "2").end();
    accepts(&bytes, &["F a \"\"", "F b \"2\""]);
    // What the header says must be a number all the same.
    fails(&Archive::new().pax(&[("size", b"0")]).block(Block::new(b'0', "a").set(124, [0xff; 12])).end());
}

#[test]
fn of_two_records_the_last_counts() {
    let bytes =
        Archive::new().pax(&[("path", b"a"), ("size", b"9"), ("path", b"b"), ("size", b"1")]).file("f", "x").end();
    accepts(&bytes, &["F b \"x\""]);
}

#[test]
fn cve_2026_32766_malformed_records_fail() {
    for payload in [&b"11 path=a\n"[..], b"9 path=a\n9", b"9 path=a\n\0", b"\n", b"09 path=a\n", b" 9 path=a\n"] {
        corrupt(&Archive::new().body(&mut Block::new(b'x', "x"), payload).dir("a").end());
    }
}

#[test]
fn cve_2026_59875_paths_have_no_nul() {
    fails(&Archive::new().pax(&[("path", b"a\0b")]).dir("a").end());
    fails(&Archive::new().pax(&[("linkpath", b"a\0")]).dir("a").end());
    fails(&Archive::new().pax(&[("GNU.sparse.name", b"a\0")]).file("a", "").end());
}

/// To POSIX an empty value deletes the header's field, to Go it keeps it.
#[test]
fn empty_values_are_no_values() {
    refuses(&Archive::new().pax(&[("path", b"")]).dir("a").end());
    refuses(&Archive::new().pax(&[("linkpath", b"")]).symlink("a", "b").end());
    fails(&Archive::new().pax(&[("size", b"")]).file("a", "").end());
}

#[test]
fn unknown_records_are_ignored() {
    let bytes = Archive::new()
        .pax(&[
            ("hdrcharset", b"ISO-IR 10646 2000 UTF-8"),
            ("charset", b"\0"),
            ("uname", b"root"),
            ("gname", b""),
            ("SCHILY.acl.access", b"u::rwx"),
            ("LIBARCHIVE.xattr.user.x", b"x"),
            ("VENDOR.path", b"../x"),
            ("PATH", b"../x"),
            ("path.", b"../x"),
        ])
        .dir("a")
        .end();
    accepts(&bytes, &["D a"]);
}

/// The budget is for all that is said about one member, and decided before it is read.
#[test]
fn cve_2022_2879_metadata_is_limited() {
    let huge = |kind: u8| Archive::new().block(Block::new(kind, "x").size((8 << 30) - 1)).end();
    for kind in [b'x', b'g', b'L', b'K'] {
        limits(&huge(kind));
        let mut block = Block::new(kind, "x");
        block.set(124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff");
        limits(&Archive::new().block(&block).end());
        limits(&Archive::new().block(Block::new(kind, "x").size((1 << 20) + 1)).raw(vec![0; 2 << 20]).end());
    }
    let comment = |length: usize| Archive::new().pax(&[("comment", &vec![b'x'; length])]);
    assert!(list(&comment(1_000_000).dir("a").end()).is_ok());
    limits(&comment(1_000_000).long_name(vec![b'n'; 60_000]).dir("a").end());
    limits(&comment(1_000_000).long_name([b"n\0".to_vec(), vec![b'n'; 60_000]].concat()).dir("a").end());
    // The budget is per member, and a global header has its own.
    assert!(list(&comment(1_000_000).dir("a").raw(comment(1_000_000).0).dir("b").end()).is_ok());
    let both = comment(1_000_000).dir("a").global(&[("comment", &vec![b'x'; 1_000_000])]).dir("b");
    assert!(list(&both.end()).is_ok());
}

/// Found by fuzzing: Python reads the name up to the first NUL, wherever that is.
#[test]
fn a_long_name_ends_in_its_payload() {
    for kind in [b'L', b'K'] {
        let long = |tail: &[u8]| {
            let mut block = Block::new(kind, "././@LongLink");
            let archive = Archive::new().block(block.gnu().size(4)).raw(b"name").raw(tail).pad();
            archive.symlink("short", "target").end()
        };
        corrupt(&long(b"more"));
        assert_eq!(list(&long(b"")).unwrap().len(), 1);
    }
}
