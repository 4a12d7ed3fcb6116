//! Owner, mode, times, attributes and devices.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use cofferdam_testing::inherited;

use super::{Bytes, Lab, RESOLVERS, is_root, notation, open, options, put, snapshot, write};
use crate::entry::{Entry, Extent, Metadata, Node, Sink as _, Timestamp, Xattr};
use crate::{Mode, Ownership, TreeWriter, WriterOptions};

fn described(root: &Path) -> BTreeMap<String, String> {
    let describe = |(name, path): (String, std::path::PathBuf)| {
        let stat = std::fs::symlink_metadata(path).unwrap();
        let mode = stat.mode() & 0o7777;
        (name, format!("{mode:o} {}:{} @{}", stat.uid(), stat.gid(), stat.mtime()))
    };
    snapshot::full(root).into_keys().map(|name| (name.clone(), root.join(&name))).map(describe).collect()
}

fn expect(layers: &[&str], expected: &[(&str, &str)]) {
    for resolver in RESOLVERS {
        let lab = Lab::new();
        write(&lab.dest(), options(Mode::Apply, resolver), layers).unwrap();
        let found = described(&lab.dest());
        for (name, text) in expected {
            assert_eq!(found.get(*name).map(String::as_str), Some(*text), "{name} of {layers:?}");
        }
    }
}

#[test]
fn owners_modes_and_times_are_exact() {
    if !is_root() {
        return;
    }
    expect(
        &[
            "D d 2755 1:2 @5, F d/f 4711 3:4 @-7, S d/s->x 5:6 @8, P d/p 0606 7:8 @9, C d/c 1 3 0620 9:10 @11, B d/b 8 1 @12, D d/z 0000, F d/z/f 0000 0:4294967294",
        ],
        &[
            ("d", "2755 1:2 @5"),
            ("d/f", "4711 3:4 @-7"),
            ("d/s", "777 5:6 @8"),
            ("d/p", "606 7:8 @9"),
            ("d/c", "620 9:10 @11"),
            ("d/b", "644 0:0 @12"),
            ("d/z", "0 0:0 @1006"),
            ("d/z/f", "0 0:4294967294 @1007"),
        ],
    );
}

#[test]
fn a_set_group_id_directory_passes_nothing_on() {
    if !is_root() {
        return;
    }
    expect(
        &["D d 2775 0:50, F d/f, D d/e, S d/s->x, P d/p, F d/i/f"],
        &[
            ("d/f", "644 0:0 @1001"),
            ("d/e", "755 0:0 @1002"),
            ("d/s", "777 0:0 @1003"),
            ("d/p", "644 0:0 @1004"),
            ("d/i", "755 0:0 @0"),
        ],
    );
}

/// Rule 26: a default ACL and a group of the directory to write to, or of one that a layer has made, show nowhere.
#[test]
fn what_is_made_inherits_nothing_from_its_directory() {
    const ALL: &str = "F f, D d, D d/e, S d/s->x, F i/m/f, P p, H h->f, H late->x, F x, W d/.wh.gone, W w/.wh..wh..opq, F closed 0640";
    for mode in [Mode::Apply, Mode::Preserve, Mode::Overlay] {
        for (ownership, resolver) in [(Ownership::Auto, RESOLVERS[0]), (Ownership::Recorded, RESOLVERS[1])] {
            let lab = Lab::new();
            inherited::contaminate(&lab.dest());
            let options = WriterOptions { ownership, ..options(mode, resolver) };
            let writer = TreeWriter::new(open(&lab.dest()), options.clone()).unwrap();
            assert!(writer.may_inherit);
            drop(writer);
            write(&lab.dest(), options, &[ALL]).unwrap();
            let found = inherited::contaminated(&lab.dest());
            assert_eq!(found, [""], "{mode:?} {ownership:?}: the root is the caller's, all else the layer's");
            if is_root() && ownership == Ownership::Auto {
                let made = described(&lab.dest());
                for (name, text) in [("f", "644 0:0"), ("d/e", "755 0:0"), ("i/m", "755 0:0"), ("closed", "640 0:0")] {
                    assert!(made[name].starts_with(text), "{name} is {}", made[name]);
                }
            }
        }
    }
    // Onto what is there: a directory inside has a default ACL.
    let lab = Lab::new();
    std::fs::create_dir(lab.dest().join("d")).unwrap();
    inherited::contaminate(&lab.dest().join("d"));
    write(&lab.dest(), WriterOptions::new(Mode::Apply), &["F d/f, D d/e, S d/s->x, P d/p"]).unwrap();
    assert_eq!(inherited::contaminated(&lab.dest()), ["d"]);
}

/// What the layer says of a directory is that directory's alone.
#[test]
fn an_access_list_of_a_layer_is_not_handed_on() {
    for mode in [Mode::Apply, Mode::Preserve] {
        let lab = Lab::new();
        let mut listed = notation::literal("D d");
        let list = inherited::list();
        listed.0.metadata.xattrs.push(Xattr { name: inherited::DEFAULT.into(), value: list.clone() });
        let mut writer = TreeWriter::new(open(&lab.dest()), WriterOptions::new(mode)).unwrap();
        put(&mut writer, &listed).unwrap();
        for entry in ["F d/f 0640", "D d/e", "F d/i/f", "P d/p"] {
            put(&mut writer, &notation::literal(entry)).unwrap();
        }
        writer.finish().unwrap();
        assert_eq!(inherited::contaminated(&lab.dest()), ["d"]);
        assert_eq!(snapshot::xattrs(&lab.dest().join("d"))[inherited::DEFAULT], list);
    }
}

#[test]
fn unlisted_directories_keep_everything_whatever_changes_inside() {
    if !is_root() {
        return;
    }
    for change in [
        "F usr/bin/[",
        "D usr/bin/d",
        "S usr/bin/l->x",
        "H usr/bin/h->usr/bin/a",
        "W usr/bin/.wh.a",
        "W usr/bin/.wh..wh..opq",
    ] {
        expect(
            &["D . 0711 @3, D usr 0700 1:1 @4, D usr/bin 0555 2:2 @5, F usr/bin/a", change],
            &[(".", "711 0:0 @3"), ("usr", "700 1:1 @4"), ("usr/bin", "555 2:2 @5")],
        );
    }
    expect(&["D d @77, F d/x, W d/.wh.y"], &[("d", "755 0:0 @77")]);
}

/// A time is a directory's, not its path's.
#[test]
fn times_do_not_outlive_their_directory() {
    if !is_root() {
        return;
    }
    expect(&["D d @5, S e->d, F d, D x @6, S x->y, D y @7"], &[("y", "755 0:0 @7"), ("x", "777 0:0 @1004")]);
    expect(&["D d @5", "F d/f, F d, D d/e @6"], &[("d", "755 0:0 @0"), ("d/e", "755 0:0 @6")]);
    expect(&["D d @5", "W .wh.d, F d/f"], &[("d", "755 0:0 @0")]);
    expect(&["D d 0700 1:1 @5 user.a=1, F d/low", "F d/f, W .wh.d"], &[("d", "755 0:0 @0")]);
    expect(
        &["D d @5, D d/e 0700 @6, F d/e/low", "F d/e/f, W d/.wh..wh..opq"],
        &[("d", "755 0:0 @5"), ("d/e", "755 0:0 @0")],
    );
}

#[test]
fn a_directory_again_replaces_its_metadata() {
    if !is_root() {
        return;
    }
    for resolver in RESOLVERS {
        let lab = Lab::new();
        let layers = ["D d 0700 1:1 user.a=1 trusted.t=1, F d/child", "D d 0750 2:2 @9 user.b=2"];
        write(&lab.dest(), options(Mode::Apply, resolver), &layers).unwrap();
        assert_eq!(described(&lab.dest())["d"], "750 2:2 @9");
        assert_eq!(snapshot::xattrs(&lab.dest().join("d")), BTreeMap::from([("user.b".into(), b"2".to_vec())]));
        assert!(lab.listing().contains("d/child"));
    }
}

#[test]
fn attributes_are_exact_and_capabilities_survive() {
    if !is_root() {
        return;
    }
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let lab = Lab::new();
    let (mut file, content) = notation::literal(r#"F f 4755 5:6 user.b=x "data""#);
    let xattr = |name: &str, value: &[u8]| Xattr { name: name.into(), value: value.to_vec() };
    file.metadata.xattrs.push(xattr("security.capability", &capability));
    file.metadata.xattrs.push(xattr("user.\u{e9}", b"\0\xff\n"));
    let mut writer = TreeWriter::new(open(&lab.dest()), WriterOptions::new(Mode::Apply)).unwrap();
    put(&mut writer, &(file, content)).unwrap();
    put(&mut writer, &notation::literal("S s->x trusted.t=1 user.lost=1")).unwrap();
    put(&mut writer, &notation::literal("P p trusted.t=2 user.lost=1")).unwrap();
    writer.finish().unwrap();
    let found = snapshot::xattrs(&lab.dest().join("f"));
    assert_eq!(found["security.capability"], capability);
    assert_eq!(found["user.\u{e9}"], b"\0\xff\n");
    assert_eq!(found.len(), 3);
    // The kernel has no user attributes on links and pipes.
    assert_eq!(snapshot::xattrs(&lab.dest().join("s")), BTreeMap::from([("trusted.t".into(), b"1".to_vec())]));
    assert_eq!(snapshot::xattrs(&lab.dest().join("p")), BTreeMap::from([("trusted.t".into(), b"2".to_vec())]));
}

/// Rule 24: what the system has no place for is counted, in each mode and on each kind of thing.
#[test]
fn attributes_that_cannot_be_held_are_counted() {
    let xattr = |name: &str| Xattr { name: name.into(), value: b"1".to_vec() };
    for mode in [Mode::Apply, Mode::Preserve, Mode::Overlay] {
        let lab = Lab::new();
        let mut writer = TreeWriter::new(open(&lab.dest()), WriterOptions::new(mode)).unwrap();
        for entry in ["D d", "F f", "S s->x", "F d/f", "D d"] {
            let mut entry = notation::literal(entry);
            entry.0.metadata.xattrs.extend(["com.apple.provenance", "system.nfs4_acl"].map(xattr));
            put(&mut writer, &entry).unwrap();
        }
        let record = writer.finish_layer().unwrap();
        writer.finish().unwrap();
        let counted: Vec<_> = record.left_out.iter().collect();
        assert_eq!(counted, [("com.apple.provenance", 5), ("system.nfs4_acl", 5)]);
        assert!(snapshot::xattrs(&lab.dest().join("f")).keys().all(|name| name.starts_with("user.containers.")));
    }
}

/// Nothing lies under the name of an entry that was refused, whatever of it was made.
#[test]
fn refused_entries_leave_nothing_under_their_names() {
    let bad = Xattr { name: b"user.a".to_vec(), value: vec![b'x'; 1 << 17] };
    for (entry, attribute) in [("F d/f \"content\"", true), ("D d/e", true), ("F d/f \"content\"", false)] {
        for lower in ["D d, F d/f, D d/x", "D d, H d/f->later"] {
            let lab = Lab::new();
            let mut writer = TreeWriter::new(open(&lab.dest()), WriterOptions::new(Mode::Apply)).unwrap();
            for entry in &notation::layer(lower) {
                put(&mut writer, entry).unwrap();
            }
            let (mut entry, content) = notation::literal(entry);
            let content = if attribute {
                entry.metadata.xattrs.push(bad.clone());
                content
            } else {
                content[..3].to_vec()
            };
            writer.put(entry, &mut Bytes(&content)).unwrap_err();
            drop(writer);
            let left = lab.listing();
            let kept = if lower.contains("d/x") { ["d/ d/x/", "d/ d/f d/x/"] } else { ["d/", "d/"] };
            assert!(kept.contains(&&*left), "{left}");
        }
    }
}

#[test]
fn strange_times_do_no_harm() {
    for (seconds, nanoseconds) in [(i64::MAX, 999_999_999), (i64::MIN, 0), (-1, 1), (0, u32::MAX), (1 << 62, 5)] {
        for node in [Node::Directory, Node::File { size: 0 }, Node::Symlink { target: b"x".to_vec() }] {
            let lab = Lab::new();
            let mut writer = TreeWriter::new(open(&lab.dest()), WriterOptions::new(Mode::Apply)).unwrap();
            let mtime = Timestamp { seconds, nanoseconds };
            let metadata = Metadata { mode: 0o700, mtime, ..Metadata::default() };
            writer.put(Entry { path: notation::path("x"), node, metadata }, &mut Bytes(b"")).unwrap();
            writer.finish().unwrap();
        }
    }
}

#[test]
fn owners_and_devices_that_do_not_exist_are_refused() {
    if !is_root() {
        return;
    }
    for entry in ["F f 4294967295:0", "D d 0:4294967295", "S s->x 4294967295:0", "C c 4096 0", "B b 0 1048576"] {
        let lab = Lab::new();
        let error = write(&lab.dest(), options(Mode::Apply, RESOLVERS[0]), &[entry]).unwrap_err();
        assert_eq!(error.kind(), cofferdam_core::ErrorKind::Refused, "{entry}");
    }
}

#[test]
fn holes_stay_holes() {
    let lab = Lab::new();
    let extents = vec![
        Extent { offset: 0, length: 3 },
        Extent { offset: 10 << 20, length: 4 },
        Extent { offset: 20 << 20, length: 0 },
    ];
    let entry = |extents| Entry {
        path: notation::path("f"),
        node: Node::Sparse { size: 30 << 20, extents },
        metadata: Metadata { mode: 0o644, ..Metadata::default() },
    };
    let mut writer = TreeWriter::new(open(&lab.dest()), WriterOptions::new(Mode::Apply)).unwrap();
    writer.put(entry(extents), &mut Bytes(b"oneisle")).unwrap();
    let content = std::fs::read(lab.dest().join("f")).unwrap();
    assert_eq!(
        (content.len(), &content[..3], &content[10 << 20..(10 << 20) + 4]),
        (30 << 20, &b"one"[..], &b"isle"[..])
    );
    assert!(std::fs::metadata(lab.dest().join("f")).unwrap().blocks() * 512 < 1 << 20);
    for bad in [[(5, 5), (4, 1)], [(0, 1), (u64::MAX, 1)], [(0, 1), ((30 << 20) - 1, 2)]] {
        let extents = bad.map(|(offset, length)| Extent { offset, length }).to_vec();
        assert!(writer.put(entry(extents), &mut Bytes(&[0; 64])).is_err(), "{bad:?}");
    }
}

/// In a process of its own thread group the umask would be another's; so this checks that it is never relied upon.
#[test]
fn the_umask_changes_nothing() {
    let old = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let lab = Lab::new();
    let layer = "F deeply/nested/implied 0666, D d 0777, F e 0755, P p 0666";
    let outcome = write(&lab.dest(), options(Mode::Apply, RESOLVERS[0]), &[layer]);
    rustix::process::umask(old);
    outcome.unwrap();
    let mode = |name: &str| std::fs::symlink_metadata(lab.dest().join(name)).unwrap().permissions().mode() & 0o7777;
    if is_root() {
        assert_eq!(
            ["deeply", "deeply/nested", "deeply/nested/implied", "d", "e", "p"].map(mode),
            [0o755, 0o755, 0o666, 0o777, 0o755, 0o666]
        );
    }
}
