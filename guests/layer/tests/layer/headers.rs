//! Rules 8 and 12: formats, checksums, numbers, types.

use crate::archive::*;

fn one(block: &Block) -> Vec<u8> {
    Archive::new().block(block).end()
}

#[test]
fn only_ustar_has_a_prefix() {
    accepts(&one(Block::new(b'5', "a").set(345, "pre/fix")), &["D pre/fix/a"]);
    accepts(&one(Block::new(b'5', "a").set(345, "pre").set(263, "xy")), &["D pre/a"]);
    accepts(&one(Block::new(b'5', "a").set(345, "pre").v7()), &["D a"]);
    accepts(&one(Block::new(b'5', "a").octal(345, 12, 1).octal(357, 12, 2).gnu()), &["D a"]);
    accepts(&one(Block::new(b'5', "a").set(381, "more").gnu()), &["D a"]);
    accepts(&one(Block::new(b'5', "a").set(345, "pre").set(257, "ustar 00")), &["D a"]);
    accepts(&one(Block::new(b'5', "a").set(345, "pre").set(257, "USTAR\x0000")), &["D a"]);
    accepts(&one(Block::new(b'5', "").set(345, "pre")), &["D pre"]);
    refuses(&one(Block::new(b'0', "a").set(345, "../x")));
}

/// golang.org/issue/21005: Go reads this prefix, others do not.
#[test]
fn a_prefix_in_a_gnu_header_is_refused() {
    corrupt(&one(Block::new(b'5', "a").set(345, "pre").gnu()));
    corrupt(&one(Block::new(b'5', "a").octal(345, 12, 1).set(357, "fix").gnu()));
}

#[test]
fn strings_end_at_the_first_nul() {
    accepts(&one(&Block::new(b'0', "a\0../b")), &["F a \"\""]);
    accepts(&one(Block::new(b'0', "a").set(345, "p\0/../..")), &["F p/a \"\""]);
    accepts(&one(Block::new(b'2', "a").link("t\0u")), &["S a t"]);
    let long = "n".repeat(100);
    accepts(&one(&Block::new(b'0', &long)), &[&format!("F {long} \"\"")]);
    let whole = Block::new(b'2', &long).set(345, "p".repeat(155)).link("l".repeat(100)).clone();
    accepts(&one(&whole), &[&format!("S {}/{long} {}", "p".repeat(155), "l".repeat(100))]);
}

#[test]
fn checksums_are_signed_or_unsigned_and_never_wrong() {
    let mut block = Block::new(b'0', b"\xff\xfe\x80\xe4");
    let (unsigned, signed) = (block.checksum(false), block.checksum(true));
    assert_ne!(unsigned, signed);
    block.keep_checksum();
    for good in [unsigned, signed] {
        for text in [format!("{good:06o}\0 "), format!("{good:07o}\0"), format!("{good:6o}\0 "), format!("{good:08o}")]
        {
            accepts(&one(block.set(148, text)), &["F \\xff\\xfe\\x80\\xe4 \"\""]);
        }
    }
    for bad in [unsigned + 1, unsigned - 1, signed + 1, signed - 1, 0] {
        corrupt(&one(block.set(148, format!("{bad:06o}\0 "))));
    }
    corrupt(&one(block.set(148, [0; 8])));
    corrupt(&one(block.set(148, b"        ")));
    corrupt(&one(block.set(148, format!("-{unsigned:05o}\0 "))));
    let mut binary = [0x80, 0, 0, 0, 0, 0, 0, 0];
    binary[4..].copy_from_slice(&u32::try_from(unsigned).unwrap().to_be_bytes());
    corrupt(&one(block.set(148, binary)));
}

#[test]
fn numbers_are_octal_or_base_256() {
    let sized = |field: &[u8]| {
        let mut block = Block::new(b'0', "a");
        block.set(124, field);
        Archive::new().block(&block).raw("12345").pad().end()
    };
    let lines = ["F a \"12345\""];
    accepts(&sized(b"00000000005\0"), &lines);
    accepts(&sized(b"          5 "), &lines);
    accepts(&sized(b"000000000005"), &lines);
    accepts(&sized(b"5\0\0\0\0\0\0\0\0\0\0\0"), &lines);
    accepts(&sized(b"5          \0"), &lines);
    accepts(&sized(b"5\0\0\0\0\0\0\0\0\0\x005"), &lines);
    accepts(&sized(b"00000000005\0"), &lines);
    accepts(&sized(b"5 \0junk 8\xff-"), &lines);
    accepts(&sized(b"\x80\0\0\0\0\0\0\0\0\0\0\x05"), &lines);
    accepts(&one(Block::new(b'0', "a").set(124, [0; 12])), &["F a \"\""]);
    accepts(&one(Block::new(b'0', "a").set(124, [b' '; 12])), &["F a \"\""]);
    for field in [
        &b"0000000000x\0"[..],
        b"00000000008\0",
        b"-0000000005\0",
        b"+0000000005\0",
        b"\x000000000005\0",
        b"5 5 5 5 5 5 ",
        b"0x5\0\0\0\0\0\0\0\0\0",
        b"5.0\0\0\0\0\0\0\0\0\0",
        b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x80\0\0\0\x80\0\0\0\0\0\0\0",
        b"\x80\x01\0\0\0\0\0\0\0\0\0\x05",
        b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        fails(&sized(field));
    }
    // The largest size that an offset can have: the member is cut, nothing overflows.
    corrupt(&sized(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"));
    for at in [100, 108, 116, 136] {
        fails(&one(Block::new(b'0', "a").set(at, "zzz")));
    }
}

#[test]
fn cve_2026_59874_negative_sizes_fail() {
    let header = |field: &[u8]| Archive::new().block(Block::new(b'0', "a").set(124, field)).dir("b").end();
    for field in [
        &b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..],
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe\0",
        b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0",
        b"\xc0\0\0\0\0\0\0\0\0\0\0\x05",
        b"-0000001000\0",
    ] {
        fails(&header(field));
    }
    for kind in *b"xgLK" {
        fails(&Archive::new().block(Block::new(kind, "a").set(124, [0xff; 12])).dir("b").end());
    }
    fails(&Archive::new().pax(&[("size", b"-512")]).file("a", "").end());
}

#[test]
fn types() {
    for kind in [b'0', 0, b'7'] {
        accepts(&Archive::new().body(&mut Block::new(kind, "a"), "x").end(), &["F a \"x\""]);
    }
    accepts(&one(Block::new(b'1', "a").link("b")), &["H a b"]);
    accepts(&one(Block::new(b'2', "a").link("b")), &["S a b"]);
    accepts(&one(Block::new(b'3', "a").device(1, 3)), &["C a 1:3"]);
    accepts(&one(Block::new(b'4', "a").device(8, 0)), &["B a 8:0"]);
    accepts(&one(&Block::new(b'5', "a")), &["D a"]);
    accepts(&one(&Block::new(b'6', "a")), &["P a"]);
    for kind in 0..=255 {
        if !b"\x0001234567xgLKS".contains(&kind) {
            refuses(&one(&Block::new(kind, "a")));
            refuses(&Archive::new().body(&mut Block::new(kind, "a"), "x").end());
        }
    }
}

#[test]
fn extensions_do_not_exist_in_v7_and_old_sparse_only_in_gnu() {
    for kind in [b'x', b'g', b'L', b'K'] {
        refuses(&Archive::new().body(Block::new(kind, "a").v7(), "").dir("b").end());
    }
    refuses(&one(&Block::new(b'S', "a")));
    refuses(&one(Block::new(b'S', "a").v7()));
}

#[test]
fn untyped_names_that_end_in_a_slash_are_directories() {
    accepts(&one(Block::new(0, "a/").v7()), &["D a"]);
    accepts(&one(&Block::new(0, "a//")), &["D a"]);
    accepts(&one(&Block::new(0, "./")), &["D "]);
    accepts(&one(&Block::new(0, "a")), &["F a \"\""]);
    accepts(&one(&Block::new(0, "a/.")), &["F a \"\""]);
    accepts(&one(&Block::new(b'0', "a/")), &["F a \"\""]);
    accepts(&one(&Block::new(b'7', "a/")), &["F a \"\""]);
    accepts(&Archive::new().long_name("b/").block(&Block::new(0, "a")).end(), &["D b"]);
    accepts(&Archive::new().pax(&[("path", b"b/")]).block(&Block::new(0, "a")).end(), &["D b"]);
    accepts(&Archive::new().pax(&[("path", b"b")]).block(&Block::new(0, "a/")).end(), &["F b \"\""]);
    refuses(&Archive::new().body(&mut Block::new(0, "a/"), "x").end());
    accepts(&Archive::new().block(Block::new(0, "a/").size(512)).file("b", "x").end(), &["D a", "F b \"x\""]);
}

#[test]
fn what_stands_behind_the_nul_of_a_number_is_not_looked_at() {
    for at in [100, 108, 116, 136, 329, 337] {
        for kind in *b"0156" {
            let mut block = Block::new(kind, "a");
            block.link("b").set(at, b"7\0junk8-");
            assert_eq!(list(&one(&block)).unwrap().len(), 1, "{kind} at {at}");
            fails(&one(block.set(at, b"7 junk8-")));
        }
    }
    let mut block = Block::new(b'0', "a");
    let sum = block.0.iter().map(|&byte| u32::from(byte)).sum::<u32>() + 8 * 32;
    accepts(&one(block.set(148, format!("{sum:06o}\0x")).keep_checksum()), &["F a \"\""]);
}

/// `rules_img` and commons-compress write such members; Go's reader, and so every container engine, drops the size.
#[test]
fn a_size_without_a_body_means_nothing() {
    for kind in b'1'..=b'6' {
        for size in [1, 511, 512, 513, 1024, (1 << 33) - 1] {
            let mut block = Block::new(kind, "a");
            block.link("b").device(1, 1).size(size);
            let first = list(&one(&block)).unwrap();
            assert_eq!(first.len(), 1, "{kind} at the end marker");
            let record = size.to_string();
            let by_record = Archive::new().pax(&[("size", record.as_bytes())]).block(block.size(0));
            for archive in [Archive::new().block(block.size(size)), by_record] {
                assert_eq!(list(&archive.0).unwrap(), first, "at the stream's end");
                assert_eq!(list(&archive.clone().raw([0; 512]).0).unwrap(), first);
                let both = [&first[..], &["F c \"x\"".to_owned()]].concat();
                assert_eq!(list(&archive.clone().file("c", "x").end()).unwrap(), both);
                assert_eq!(list(&archive.clone().pax(&[("uid", b"1")]).file("c", "x").end()).unwrap(), both);
                refuses(&archive.clone().raw("body").pad().file("c", "x").end());
                refuses(&archive.clone().raw([b'x'; 512]).file("c", "x").end());
                refuses(&archive.clone().raw("cut").0);
                // One zero block and more is what it is elsewhere.
                refuses(&archive.raw([0; 512]).file("c", "x").end());
            }
        }
    }
    // Before anything is made of it.
    let archive = Archive::new().file("a", "").block(Block::new(b'5', "d").size(3)).raw("xyz").pad().end();
    let mut seen = Vec::new();
    read(&archive, usize::MAX, |entry, content| seen.push(line(entry, content))).unwrap_err();
    assert_eq!(seen, ["F a \"\""]);
    // A marker that is a hard link, and what is ignored.
    accepts(
        &Archive::new().block(Block::new(b'1', ".wh.x").link("y").size(9)).file("b", "").end(),
        &["W x", "F b \"\""],
    );
    accepts(&Archive::new().block(Block::new(b'5', ".wh..wh.plnk").size(9)).file("b", "").end(), &["F b \"\""]);
}

#[test]
fn only_regular_files_have_bodies() {
    for kind in b'1'..=b'6' {
        let block = || Block::new(kind, "a").link("b").device(1, 1).clone();
        assert_eq!(list(&one(&block())).unwrap().len(), 1);
        refuses(&Archive::new().body(&mut block(), "x").end());
        refuses(&Archive::new().pax(&[("size", b"1")]).block(&block()).raw("x").pad().end());
        // The effective size is that of the record.
        assert!(list(&Archive::new().pax(&[("size", b"0")]).block(block().size(5)).end()).is_ok());
    }
}

#[test]
fn containerd_0205398ac_device_numbers_are_not_truncated() {
    let device = |kind, major, minor| one(Block::new(kind, "d").device(major, minor));
    accepts(&device(b'3', 0, 0), &["C d 0:0"]);
    accepts(&device(b'4', 4095, 1_048_575), &["B d 4095:1048575"]);
    refuses(&device(b'3', 4096, 0));
    refuses(&device(b'3', 0, 1_048_576));
    let wide = b"\x80\0\0\x01\0\0\0\x01";
    refuses(&one(Block::new(b'3', "d").device(0, 0).set(329, wide)));
    refuses(&one(Block::new(b'4', "d").device(0, 0).set(337, [0xff; 8])));
    refuses(&one(Block::new(b'3', "d").v7()));
    // Fields that nobody needs are numbers too: some readers refuse others.
    corrupt(&one(Block::new(b'0', "d").set(329, "garbage!")));
    corrupt(&one(Block::new(b'0', "d").set(337, "garbage!")));
}
