//! Rule 20: whiteouts by name. (Their effect is the tree writer's.)

use crate::archive::*;

#[test]
fn empty_files_and_hard_links_are_markers() {
    accepts(&Archive::new().file("a/.wh.x", "").end(), &["W a/x"]);
    accepts(&Archive::new().block(&Block::new(0, ".wh.x")).end(), &["W x"]);
    accepts(&Archive::new().block(&Block::new(b'7', ".wh.x")).end(), &["W x"]);
    accepts(&Archive::new().file("a/.wh..wh..opq", "").end(), &["O a"]);
    accepts(&Archive::new().file(".wh..wh..opq", "").end(), &["O "]);
    accepts(&Archive::new().file(".wh.x/", "").end(), &["W x"]);
    // Scenario 10, and markers that are linked to each other.
    accepts(&Archive::new().hard_link("tmp/.wh.KEY", "tmp/CERN.repo").end(), &["W tmp/KEY"]);
    accepts(&Archive::new().hard_link(".wh.b", ".wh.a").end(), &["W b"]);
    accepts(&Archive::new().hard_link("a/.wh..wh..opq", ".wh.a").end(), &["O a"]);
    // Scenario 7 and 9.
    accepts(&Archive::new().file("dne/../.wh.etc", "").end(), &["W etc"]);
    accepts(&Archive::new().file(".wh..hiddenroot", "").end(), &["W .hiddenroot"]);
    accepts(&Archive::new().file(b".wh.\xff", "").end(), &["W \\xff"]);
    let long = "l".repeat(255);
    accepts(&Archive::new().long_name(format!(".wh.{long}")).file("x", "").end(), &[&format!("W {long}")]);
}

#[test]
fn anything_else_of_such_a_name_is_refused() {
    for name in [".wh.x", "a/.wh..wh..opq"] {
        refuses(&Archive::new().dir(name).end());
        refuses(&Archive::new().symlink(name, "t").end());
        refuses(&Archive::new().file(name, "body").end());
        refuses(&Archive::new().block(Block::new(b'3', name).device(0, 0)).end());
        refuses(&Archive::new().block(Block::new(b'4', name).device(0, 0)).end());
        refuses(&Archive::new().block(&Block::new(b'6', name)).end());
        refuses(&Archive::new().block(&Block::new(0, format!("{name}/"))).end());
        refuses(&Archive::new().hard_link(name, "").end());
        refuses(&Archive::new().pax(&[("size", b"4")]).block(&Block::new(b'0', name)).raw("body").pad().end());
        let hole: &[(&str, &[u8])] =
            &[("GNU.sparse.size", b"9"), ("GNU.sparse.numblocks", b"0"), ("GNU.sparse.map", b"")];
        refuses(&Archive::new().pax(hole).file(name, "").end());
    }
    // Scenario 8.
    for name in [".wh.", "etc/.wh..", "etc/.wh...", ".wh.etc/somefile", "a/.wh.b/c", ".wh..wh..opq/x"] {
        refuses(&Archive::new().file(name, "").end());
        refuses(&Archive::new().hard_link(name, "t").end());
    }
    refuses(&Archive::new().dir(".wh.etc/").end());
    // Scenario 11.
    refuses(&Archive::new().file("../../victim/.wh.hello", "").end());
}

#[test]
fn the_bookkeeping_of_aufs_is_ignored() {
    let bytes = Archive::new()
        .file("a", "1")
        .file(".wh..wh.aufs", "")
        .dir(".wh..wh.plnk/")
        .file(".wh..wh.plnk/123.456", [b'x'; 700])
        .file(".wh..wh.plnk/.wh.x/y", "z")
        .symlink(".wh..wh.orph", "t")
        .hard_link("d/.wh..wh..opq.x", ".wh..wh.aufs")
        .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")])
        .file(".wh..wh.s", [b"1\n0\n2\n", &[0; 506][..], b"xy"].concat())
        .file("b", "2")
        .end();
    accepts(&bytes, &["F a \"1\"", "F b \"2\""]);
    // It has to be well formed all the same.
    corrupt(&Archive::new().file(".wh..wh.plnk/1", [b'x'; 700]).0[..1200]);
    refuses(&Archive::new().block(&Block::new(b'V', ".wh..wh.aufs")).end());
    refuses(&Archive::new().body(&mut Block::new(b'5', ".wh..wh.plnk"), "x").end());
    refuses(&Archive::new().file(".wh..wh.plnk/../../x", "").end());
    accepts(&Archive::new().file(".wh..wh.plnk/../x", "").end(), &["F x \"\""]);
}

#[test]
fn nothing_links_to_a_marker() {
    for target in [".wh.x", "a/.wh..wh..opq", ".wh..wh.plnk/1.2", ".wh.a/b", ".wh."] {
        refuses(&Archive::new().hard_link("h", target).end());
    }
}
