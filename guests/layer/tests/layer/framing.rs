//! Rule 7: where an archive ends.

use cofferdam_layer::{Failure, Layer, Limits};

use crate::archive::*;

#[test]
fn nothing_and_zero_blocks_are_empty_layers() {
    accepts(&[], &[]);
    accepts(&[0; 512], &[]);
    accepts(&[0; 1024], &[]);
    accepts(&[0; 10240], &[]);
}

#[test]
fn the_end_marker_may_be_missing_or_half() {
    let archive = Archive::new().file("a", "1").dir("b");
    let lines = ["F a \"1\"", "D b"];
    accepts(&archive.0, &lines);
    accepts(&archive.clone().raw([0; 512]).0, &lines);
    accepts(&archive.end(), &lines);
}

#[test]
fn nothing_behind_the_marker_is_read() {
    let bytes = Archive::new().dir("a").raw([0; 1024]).dir("../b").raw(b"garbage").0;
    accepts(&bytes, &["D a"]);
    let mut source = &bytes[..];
    let mut layer = Layer::new(Limits::default());
    while layer.next(&mut source).unwrap().is_some() {}
    assert_eq!(source.len(), bytes.len() - 512 - 1024, "the reader stops right behind the marker");
    assert!(layer.next(&mut source).unwrap().is_none(), "the end stays the end");
}

#[test]
fn data_behind_a_lone_zero_block_is_refused() {
    refuses(&Archive::new().dir("a").raw([0; 512]).dir("b").end());
    refuses(&Archive::new().raw([0; 512]).file("b", "x").0);
    refuses(&Archive::new().raw([0; 512]).raw([1; 512]).0);
}

#[test]
fn what_is_cut_is_corrupt() {
    corrupt(&[0; 100]);
    corrupt(&[0; 513]);
    corrupt(b"garbage");
    corrupt(&[1; 512]);
    let whole = Archive::new()
        .pax(&[("comment", b"x")])
        .long_name("name/".repeat(120))
        .file("a", [7; 700])
        .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")])
        .file("s", [b"1\n0\n2\n", &[0; 506][..], b"xy"].concat())
        .dir("d")
        .0;
    assert_eq!(list(&whole).unwrap().len(), 3);
    // Where the archive may end: at the start, behind either file, with its padding or without any of it.
    let boundaries = [0, 512 * 6 + 700, 512 * 8, 512 * 12 + 2, 512 * 13];
    for length in 0..whole.len() {
        let result = list(&whole[..length]);
        if boundaries.contains(&length) {
            assert!(result.is_ok(), "{length}: {result:?}");
        } else {
            assert!(matches!(result, Err(Failure::Corrupt(_))), "{length}: {result:?}");
        }
    }
}

/// umoci 0.4.7, `insert --opaque`.
#[test]
fn the_last_padding_may_be_missing() {
    let bytes = Archive::new().dir("a").file("b", "12").0;
    accepts(&bytes[..1026], &["D a", "F b \"12\""]);
    corrupt(&bytes[..1027]);
    corrupt(&bytes[..1535]);
    accepts(&bytes, &["D a", "F b \"12\""]);
    // Not in the middle, and not that of an extended header.
    assert!(list(&[&bytes[..1026], &bytes[..512]].concat()).is_err());
    corrupt(&Archive::new().pax(&[("uid", b"1")]).0[..521]);
    let ignored = Archive::new().file(".wh..wh.plnk", "12").0;
    accepts(&ignored[..514], &[]);
    corrupt(&ignored[..513]);
    corrupt(&ignored[..515]);
}

#[test]
fn content_is_not_parsed_and_padding_is_skipped() {
    let inner = Archive::new().file("inner", "x").end();
    for size in [0, 1, 511, 512, 513, 1024] {
        let body = &inner[..size];
        let bytes = Archive::new().file("a", body).file("b", "2").end();
        accepts(&bytes, &[&format!("F a {:?}", body.escape_ascii().to_string()), "F b \"2\""]);
    }
}

#[test]
fn content_may_be_skipped() {
    let bytes = Archive::new().file("a", [b'x'; 700]).file("b", "").symlink("c", "d").end();
    let mut source = &bytes[..];
    let mut layer = Layer::new(Limits::default());
    let mut paths = Vec::new();
    while let Some(entry) = layer.next(&mut source).unwrap() {
        paths.push(entry.path.to_vec());
        layer.skip_content();
    }
    assert_eq!(paths, [b"a", b"b", b"c"]);
    let mut source = &bytes[..1000];
    let mut layer = Layer::new(Limits::default());
    layer.next(&mut source).unwrap();
    layer.skip_content();
    assert!(layer.next(&mut source).is_err());
}

#[test]
fn a_failure_is_final() {
    let bytes = Archive::new().dir("../a").dir("b").end();
    let mut source = &bytes[..];
    let mut layer = Layer::new(Limits::default());
    assert!(matches!(layer.next(&mut source), Err(Failure::Refused { .. })));
    assert!(layer.next(&mut source).is_err());
    assert!(layer.next(&mut source).is_err());
}

/// A layer is read with one call for a header, two with an extended one (performance is part of the contract).
#[test]
fn reads_are_few() {
    struct Counting<'a>(&'a [u8], usize);
    impl cofferdam_layer::Source for Counting<'_> {
        type Error = Failure;
        fn read(&mut self, skip: u64, max: u32, into: &mut Vec<u8>) -> Result<(), Failure> {
            self.1 += 1;
            self.0.read(skip, max, into)
        }
    }
    let count = |archive: Archive| {
        let bytes = archive.end();
        let mut source = Counting(&bytes, 0);
        let mut layer = Layer::new(Limits::default());
        while layer.next(&mut source).unwrap().is_some() {
            layer.skip_content();
        }
        source.1 - 2
    };
    assert_eq!(count(Archive::new().file("a", [0; 5000]).dir("b").symlink("c", "d")), 3);
    assert_eq!(count(Archive::new().pax(&[("mtime", b"1.5")]).file("a", [0; 5000])), 2);
    assert_eq!(count(Archive::new().long_name("x").long_link("y").symlink("c", "d")), 3);
}

#[test]
fn failures_say_where() {
    let mut bytes = Archive::new().file("a", [0; 700]).dir("b").end();
    bytes[512 * 3] ^= 1;
    match fails(&bytes) {
        Failure::Corrupt(reason) => assert!(reason.contains("byte 1536"), "{reason}"),
        other => panic!("{other:?}"),
    }
    match fails(&Archive::new().long_name("x/../../y").file("a", "").end()) {
        Failure::Refused { path, reason } => {
            assert_eq!(path, b"x/../../y");
            assert!(!reason.contains('\n') && !reason.is_empty());
        }
        other => panic!("{other:?}"),
    }
}
