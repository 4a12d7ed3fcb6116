//! Without privilege: owners, modes and devices are recorded, and everything works that works with it.

use std::os::unix::fs::MetadataExt as _;

use super::{Lab, is_root, merge, options, snapshot, write};
use crate::{Mode, OverrideStat, Ownership, Resolver, WriterOptions, remove_tree};

const LAYERS: [&str; 2] = [
    r#"D d 0555 10:20, F d/f 0444 1:2 "readonly" user.x=1, F d/none 0000 3:4 "none", F d/exec 4111 0:0 "x", D closed 0000 5:6, F closed/in "in", C null 1 3 0666, P p 0600 7:8, S l->d/f 9:9, H h->d/f"#,
    "F d/new, F closed/new, W closed/.wh.in, D d/sub 0000, F d/sub/x, W .wh.null, H again->d/none",
];

/// Runs something as an ordinary user, on a thread of its own, in a directory that is this user's.
fn as_nobody(work: impl FnOnce(&Lab) + Send) {
    let lab = Lab::new();
    if is_root() {
        for path in [lab.dest(), lab.dest().parent().unwrap().to_owned()] {
            std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
        }
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if rustix::process::geteuid().is_root() {
                let (uid, gid) = (rustix::process::Uid::from_raw(65534), rustix::process::Gid::from_raw(65534));
                rustix::thread::set_thread_groups(&[]).unwrap();
                rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
                rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            }
            assert!(!rustix::process::geteuid().is_root());
            work(&lab);
        });
    });
    lab.assert_contained();
}

fn recorded(lab: &Lab, name: &str) -> String {
    let file = std::fs::File::open(lab.dest().join(name)).unwrap();
    OverrideStat::read(&file).unwrap().unwrap().to_string()
}

#[test]
fn an_ordinary_user_gets_the_whole_tree() {
    for resolver in super::RESOLVERS {
        as_nobody(|lab| {
            write(&lab.dest(), options(Mode::Apply, resolver), &LAYERS[..1]).unwrap();
            for (name, expected) in [
                ("d", "10:20:0555:dir"),
                ("d/f", "1:2:0444:file"),
                ("d/none", "3:4:0000:file"),
                ("d/exec", "0:0:4111:file"),
                ("closed", "5:6:0000:dir"),
                ("null", "0:0:0666:char-1-3"),
                ("p", "7:8:0600:pipe"),
            ] {
                assert_eq!(recorded(lab, name), expected);
            }
            assert_eq!(lab.listing(), "closed/ closed/in=in d/ d/exec=x d/f=readonly d/none=none h==d/f l->d/f null p");
            let mode = |name: &str| std::fs::metadata(lab.dest().join(name)).unwrap().mode() & 0o7777;
            assert_eq!(["d", "d/f", "d/none", "d/exec", "closed"].map(mode), [0o755, 0o444, 0o400, 0o511, 0o700]);
            remove_tree(super::open(lab.dest().parent().unwrap()), b"dest").unwrap();
            assert!(!lab.dest().exists());
        });
    }
}

#[test]
fn applying_and_merging_agree_without_privilege() {
    as_nobody(|lab| {
        write(&lab.dest(), options(Mode::Apply, Resolver::Auto), &LAYERS).unwrap();
        let merged = lab.beside("merged");
        merge(lab, &merged, &options(Mode::Apply, Resolver::Auto), &LAYERS).unwrap();
        let [mut one, mut other] = [lab.dest(), merged].map(|root| snapshot::full(&root));
        one.remove(".");
        other.remove(".");
        assert_eq!(one, other);
        assert!(one.contains_key("again") && !one.contains_key("null"));
    });
}

#[test]
fn an_ordinary_user_can_write_an_overlay() {
    as_nobody(|lab| {
        write(&lab.dest(), options(Mode::Overlay, Resolver::Auto), &["W .wh.x, D d, W d/.wh..wh..opq"]).unwrap();
        assert_eq!(lab.listing(), "d/ x[0:0]");
        assert_eq!(snapshot::xattrs(&lab.dest().join("d"))["user.overlay.opaque"], b"y");
    });
}

/// Root may merge what an ordinary user has extracted.
#[test]
fn records_become_real_with_privilege() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    let tree = lab.beside("tree");
    let recorded = WriterOptions { ownership: Ownership::Recorded, ..WriterOptions::new(Mode::Preserve) };
    let record = write(&tree, recorded, &LAYERS[..1]).unwrap().remove(0);
    let tree = super::open(&tree);
    let layer = crate::PreservedLayer { tree: std::os::fd::AsFd::as_fd(&tree), record: &record };
    let real = WriterOptions::new(Mode::Apply);
    crate::merge(&[layer], super::open(&lab.dest()), real, &cofferdam_core::Progress::none()).unwrap();
    let applied = Lab::new();
    write(&applied.dest(), WriterOptions::new(Mode::Apply), &LAYERS[..1]).unwrap();
    let [mut one, mut other] = [&lab, &applied].map(|lab| snapshot::full(&lab.dest()));
    for tree in [&mut one, &mut other] {
        tree.remove(".");
        // A link's owner cannot be recorded.
        tree.remove("l");
    }
    assert_eq!(one, other);
}
