//! Rules 14 and 16: names and targets.

use crate::archive::*;

/// A name in each place that it may come from.
fn forms(name: &[u8]) -> [Vec<u8>; 4] {
    [
        Archive::new().file(name, "").end(),
        Archive::new().long_name(name).file("x", "").end(),
        Archive::new().pax(&[("path", name)]).file("x", "").end(),
        Archive::new()
            .pax(&[
                ("GNU.sparse.name", name),
                ("GNU.sparse.size", b"0"),
                ("GNU.sparse.numblocks", b"0"),
                ("GNU.sparse.map", b""),
            ])
            .file("x", "")
            .end(),
    ]
}

#[test]
fn names_are_cleaned_wherever_they_come_from() {
    for (name, clean) in [
        (&b"/etc/x"[..], "etc/x"),
        (b"./etc//x", "etc/x"),
        (b"a/../etc/./x/", "etc/x"),
        (b"..gitme", "..gitme"),
        (b"\xff\n", "\\xff\\n"),
        (b"a\\..\\..\\b", "a\\\\..\\\\..\\\\b"),
        ("é".as_bytes(), "\\xc3\\xa9"),
        ("e\u{301}".as_bytes(), "e\\xcc\\x81"),
    ] {
        for bytes in forms(name) {
            let lines = list(&bytes).unwrap();
            assert!(lines[0] == format!("F {clean} \"\"") || lines[0] == format!("Z {clean} 0 [] \"\""), "{lines:?}");
        }
    }
}

/// Scenario 14.
#[test]
fn cve_2021_21272_names_do_not_climb() {
    for name in [&b"../victim/dotdot"[..], b"/../victim/x", b"..", b"a/../../b", b"/..", b"./..", b"../"] {
        for bytes in forms(name) {
            refuses(&bytes);
        }
    }
}

/// Scenario 14.
#[test]
fn cve_2021_29136_the_root_is_a_directory() {
    for name in ["/", "./", ".", "a/..", "//", "././/"] {
        accepts(&Archive::new().dir(name).end(), &["D "]);
        refuses(&Archive::new().file(name, "").end());
        refuses(&Archive::new().symlink(name, "t").end());
        refuses(&Archive::new().hard_link(name, "t").end());
        refuses(&Archive::new().block(&Block::new(b'6', name)).end());
        refuses(&Archive::new().block(Block::new(b'3', name).device(1, 1)).end());
    }
    for kind in [b'0', 0, b'1', b'2', b'5', b'6'] {
        refuses(&Archive::new().block(Block::new(kind, "").link("t")).end());
    }
}

/// Also GHSA-m9f7-9w4p-gv38.
#[test]
fn ghsa_vqjp_4c8c_hfgg_trailing_slashes_do_not_matter_for_links() {
    accepts(&Archive::new().symlink("a/", "/etc/").end(), &["S a /etc/"]);
    accepts(&Archive::new().hard_link("a//", "b//").end(), &["H a b"]);
}

#[test]
fn targets() {
    for target in ["/etc", "../../x", "a//b/./..", "/proc/self/cwd", ".wh.x"] {
        accepts(&Archive::new().symlink("s", target).end(), &[&format!("S s {target}")]);
    }
    refuses(&Archive::new().symlink("s", "").end());
    refuses(&Archive::new().hard_link("h", "").end());
    // Scenario 25, and a clamp.
    accepts(&Archive::new().hard_link("y", "/etc/passwd").end(), &["H y etc/passwd"]);
    accepts(&Archive::new().hard_link("z", "../../etc/passwd").end(), &["H z etc/passwd"]);
    accepts(&Archive::new().hard_link("z", "a/../../b").end(), &["H z b"]);
    accepts(&Archive::new().hard_link("h", "h").end(), &["H h h"]);
    for target in ["/", ".", "..", "a/.."] {
        refuses(&Archive::new().hard_link("h", target).end());
    }
}

#[test]
fn ghsa_697p_8837_37h3_lengths_are_limited() {
    let (component, deep) = ("c".repeat(255), ["d"; 256].join("/"));
    accepts(&Archive::new().long_name(&component).dir("a").end(), &[&format!("D {component}")]);
    limits(&Archive::new().long_name("c".repeat(256)).dir("a").end());
    accepts(&Archive::new().long_name(&deep).dir("a").end(), &[&format!("D {deep}")]);
    limits(&Archive::new().long_name(format!("{deep}/d")).dir("a").end());
    let path = format!("{}/x", [component.as_str(); 16].join("/"));
    assert_eq!(path.len(), 4097);
    limits(&Archive::new().long_name(&path).dir("a").end());
    let whole = &path[..4095];
    accepts(&Archive::new().long_name(whole).dir("a").end(), &[&format!("D {whole}")]);
    limits(&Archive::new().pax(&[("path", path.as_bytes())]).dir("a").end());
    limits(&Archive::new().pax(&[("linkpath", path.as_bytes())]).hard_link("a", "b").end());
    limits(&Archive::new().pax(&[("linkpath", "c".repeat(256).as_bytes())]).hard_link("a", "b").end());
    let target = "t".repeat(4095);
    accepts(&Archive::new().long_link(&target).symlink("a", "b").end(), &[&format!("S a {target}")]);
    limits(&Archive::new().long_link(format!("{target}t")).symlink("a", "b").end());
    // What is cleaned away does not count.
    accepts(&Archive::new().long_name(format!("{}a", "./".repeat(5000))).dir("x").end(), &["D a"]);
}
