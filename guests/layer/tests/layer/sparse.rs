//! Rule 13: the four sparse forms, holes kept.

use crate::archive::*;

const HOLES: &str = "Z s 100 [10+3 50+2] \"abcde\"";

fn old(slots: &[(u64, u64)], real_size: u64, more: bool) -> Block {
    let mut block = Block::new(b'S', "s");
    block.gnu().octal(483, 12, real_size);
    for (number, (offset, length)) in slots.iter().enumerate() {
        block.octal(386 + number * 24, 12, *offset).octal(398 + number * 24, 12, *length);
    }
    block.0[482] = u8::from(more);
    block
}

fn continuation(slots: &[(u64, u64)], more: bool) -> [u8; 512] {
    let mut block = [0; 512];
    for (number, (offset, length)) in slots.iter().enumerate() {
        block[number * 24..][..24].copy_from_slice(format!("{offset:011o}\0{length:011o}\0").as_bytes());
    }
    block[504] = u8::from(more);
    block
}

fn pax(records: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let keys: Vec<_> = records.iter().map(|(key, value)| (format!("GNU.sparse.{key}"), value.as_bytes())).collect();
    let records: Vec<_> = keys.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    Archive::new().pax(&records).file("s", body).file("next", "n").end()
}

fn text(map: &str, data: &[u8]) -> Vec<u8> {
    let mut body = map.as_bytes().to_vec();
    body.resize(body.len().next_multiple_of(512), 0);
    [body, data.to_vec()].concat()
}

const V1: [(&str, &str); 3] = [("major", "1"), ("minor", "0"), ("realsize", "100")];

#[test]
fn all_forms_say_the_same() {
    let next = "F next \"n\"";
    let old_form = Archive::new().body(&mut old(&[(10, 3), (50, 2), (100, 0)], 100, false), "abcde").file("next", "n");
    accepts(&old_form.end(), &[HOLES, next]);
    let pairs =
        [("size", "100"), ("numblocks", "2"), ("offset", "10"), ("numbytes", "3"), ("offset", "50"), ("numbytes", "2")];
    accepts(&pax(&pairs, b"abcde"), &[HOLES, next]);
    accepts(&pax(&[("size", "100"), ("numblocks", "2"), ("map", "10,3,50,2")], b"abcde"), &[HOLES, next]);
    accepts(&pax(&V1, &text("2\n10\n3\n50\n2\n", b"abcde")), &[HOLES, next]);
    // The version may be said for the older ones too.
    accepts(
        &pax(&[("major", "0"), ("minor", "1"), ("size", "100"), ("numblocks", "2"), ("map", "10,3,50,2")], b"abcde"),
        &[HOLES, next],
    );
}

#[test]
fn the_name_is_that_of_the_records() {
    let records: [(&str, &[u8]); 6] = [
        ("path", b"GNUSparseFile.0/other"),
        ("GNU.sparse.name", b"./dir/real"),
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.realsize", b"4"),
        ("mtime", b"5"),
    ];
    let bytes = Archive::new().pax(&records).file("GNUSparseFile.0/x", text("0\n", b"")).end();
    accepts(&bytes, &["Z dir/real 4 [] \"\""]);
    fails(&Archive::new().pax(&records).long_name("n").file("x", text("0\n", b"")).end());
}

#[test]
fn files_of_holes_only() {
    accepts(&Archive::new().block(&old(&[], 7, false)).end(), &["Z s 7 [] \"\""]);
    accepts(&Archive::new().block(&old(&[(7, 0)], 7, false)).end(), &["Z s 7 [] \"\""]);
    accepts(&pax(&[("size", "7"), ("numblocks", "0"), ("map", "")], b""), &["Z s 7 [] \"\"", "F next \"n\""]);
    accepts(&pax(&[("size", "7"), ("numblocks", "0")], b""), &["Z s 7 [] \"\"", "F next \"n\""]);
    accepts(&pax(&V1, &text("1\n100\n0\n", b"")), &["Z s 100 [] \"\"", "F next \"n\""]);
}

#[test]
fn old_maps_go_on_in_further_blocks() {
    let slots: Vec<_> = (0..30).map(|i| (i * 10, 1)).collect();
    let data = "x".repeat(30);
    let archive = |first: &[(u64, u64)], second: &[(u64, u64)], third: &[(u64, u64)]| {
        let mut block = old(first, 1000, true);
        block.size(30);
        Archive::new()
            .block(&block)
            .raw(continuation(second, true))
            .raw(continuation(third, false))
            .raw(&data)
            .pad()
            .file("next", "n")
            .end()
    };
    let map: Vec<_> = slots.iter().map(|(offset, length)| format!("{offset}+{length}")).collect();
    let line = format!("Z s 1000 [{}] {data:?}", map.join(" "));
    accepts(&archive(&slots[..4], &slots[4..25], &slots[25..]), &[&line, "F next \"n\""]);
    // A block that is not full must be the last, or the chain need not end.
    fails(&archive(&slots[..3], &slots[3..24], &slots[24..]));
    fails(&archive(&slots[..4], &slots[4..24], &slots[24..]));
    // The chain is cut.
    corrupt(&Archive::new().block(&old(&slots[..4], 1000, true)).0);
    corrupt(&Archive::new().block(&old(&slots[..4], 1000, true)).raw([0; 100]).0);
}

#[test]
fn wrong_maps_fail() {
    for (slots, size) in [
        (&[(50, 2), (10, 3)][..], 100),
        (&[(10, 3), (12, 2)], 100),
        (&[(10, 3), (99, 2)], 100),
        (&[(10, 3), (50, 3)], 100),
        (&[(10, 3), (50, 1)], 100),
        (&[(10, 5)], 12),
        (&[], 100),
        (&[(0, 0o77_777_777_777)], 100),
    ] {
        let body = "abcde";
        fails(&Archive::new().body(&mut old(slots, size, false), body).end());
        let list: Vec<_> = slots.iter().map(|(offset, length)| format!("{offset},{length}")).collect();
        let (size, count) = (size.to_string(), slots.len().to_string());
        let records = [("size", size.as_str()), ("numblocks", &count), ("map", &list.join(","))];
        fails(&pax(&records, body.as_bytes()));
        let lines = slots.iter().map(|(offset, length)| format!("{offset}\n{length}\n")).collect::<Vec<_>>().concat();
        let records = [("major", "1"), ("minor", "0"), ("realsize", size.as_str())];
        fails(&pax(&records, &text(&format!("{count}\n{lines}"), body.as_bytes())));
    }
    for slots in [&[u64::MAX - 1, 2][..], &[u64::MAX, 1]] {
        let records = [("size", "100"), ("numblocks", "1"), ("map", &format!("{},{}", slots[0], slots[1]))];
        fails(&pax(&records, b"abcde"));
    }
}

#[test]
fn contradictory_and_stray_records_fail() {
    let whole: [(&str, &str); 3] = [("size", "100"), ("numblocks", "1"), ("map", "10,5")];
    assert!(list(&pax(&whole, b"abcde")).is_ok());
    let cases: &[&[(&str, &str)]] = &[
        &[("name", "s")],
        &[("size", "5")],
        &[("realsize", "5")],
        &[("numblocks", "0")],
        &[("major", "1"), ("minor", "0")],
        &[("major", "1")],
        &[("anything", "")],
        &[("size", "100"), ("map", "10,5")],
        &[("size", "100"), ("numblocks", "2"), ("map", "10,5")],
        &[("size", "100"), ("numblocks", "1"), ("map", "10,5,20")],
        &[("size", "100"), ("numblocks", "1"), ("map", "10,5,")],
        &[("size", "100"), ("numblocks", "1"), ("map", ",10,5")],
        &[("size", "100"), ("numblocks", "1"), ("map", "10, 5")],
        &[("size", "100"), ("numblocks", "1"), ("map", "-1,5")],
        &[("size", "100"), ("realsize", "101"), ("numblocks", "1"), ("map", "10,5")],
        &[("numblocks", "1"), ("map", "10,5")],
        &[("size", "100"), ("numblocks", "1"), ("map", "10,5"), ("offset", "10"), ("numbytes", "5")],
        &[("size", "100"), ("numblocks", "1"), ("offset", "10"), ("numbytes", "5"), ("map", "10,5")],
        &[("size", "100"), ("numblocks", "1"), ("offset", "10"), ("offset", "10"), ("numbytes", "5")],
        &[("size", "100"), ("numblocks", "1"), ("numbytes", "5"), ("offset", "10")],
        &[("size", "100"), ("numblocks", "1"), ("offset", "10"), ("numbytes", "5"), ("offset", "20")],
        &[("major", "1"), ("minor", "0"), ("size", "100"), ("numblocks", "1"), ("map", "10,5")],
        &[("major", "1"), ("minor", "1"), ("size", "100"), ("numblocks", "1"), ("map", "10,5")],
        &[("major", "0"), ("minor", "0"), ("size", "100"), ("numblocks", "1"), ("map", "10,5")],
        &[("major", "0"), ("size", "100"), ("numblocks", "1"), ("map", "10,5")],
        &[("major", "2"), ("minor", "0"), ("realsize", "100")],
    ];
    for case in cases {
        let result = list(&pax(case, b"abcde"));
        assert!(result.is_err(), "{case:?}: {result:?}");
    }
    // Of a list said twice the last counts, as of any record.
    let twice = [("size", "100"), ("numblocks", "1"), ("map", "1,1,2,2"), ("map", "10,5")];
    accepts(&pax(&twice, b"abcde"), &["Z s 100 [10+5] \"abcde\"", "F next \"n\""]);
    // A map of something that is no regular file, or has one already.
    let records: [(&str, &[u8]); 3] =
        [("GNU.sparse.size", b"0"), ("GNU.sparse.numblocks", b"0"), ("GNU.sparse.map", b"")];
    for block in [Block::new(b'5', "s"), Block::new(b'2', "s").link("t").clone(), old(&[], 0, false)] {
        fails(&Archive::new().pax(&records).block(&block).end());
    }
}

#[test]
fn wrong_texts_fail() {
    for map in [
        "",
        "\n",
        "1",
        "2\n10\n3\n",
        "1\n10\n",
        "1\n10\n5",
        "x\n",
        "-1\n",
        "1\n 10\n5\n",
        "1\n10 5\n",
        "1\r\n10\r\n5\r\n",
    ] {
        let result = list(&pax(&V1, &text(map, b"abcde")));
        assert!(result.is_err(), "{map:?}: {result:?}");
    }
    // The text takes more than the body has.
    fails(&pax(&V1, b"0\n"));
    fails(&pax(&V1, &[b'0'; 511]));
    fails(&pax(&V1, &text("200\n", b"")));
    // A text over several blocks.
    let lines = (0..90).map(|i| format!("{i}\n1\n")).collect::<Vec<_>>().concat();
    let bytes = pax(&V1, &text(&format!("90\n{lines}"), &[b'x'; 90]));
    assert_eq!(list(&bytes).unwrap().len(), 2);
}

/// Also CVE-2026-32288.
#[test]
fn cve_2025_58183_maps_are_limited() {
    let pairs = |count: usize| (0..count).map(|i| format!("{},1", i * 2)).collect::<Vec<_>>().join(",");
    let records = |count: usize, map: &str| {
        pax(&[("size", "1000000"), ("numblocks", &count.to_string()), ("map", map)], &vec![b'x'; count])
    };
    assert!(list(&records(10_000, &pairs(10_000))).is_ok());
    limits(&records(10_001, &pairs(10_001)));
    limits(&pax(&V1, &text("10001\n", b"")));
    limits(&pax(&V1, &text("18446744073709551615\n", b"")));
    // A chain of continuation blocks as long as the stream.
    let mut archive = Archive::new().block(&old(&[(0, 0); 4], 100, true));
    for _ in 0..1000 {
        archive = archive.raw(continuation(&[(0, 0); 21], true));
    }
    limits(&archive.0);
}

/// Found by fuzzing: libarchive takes the file's size from there, whatever the type.
#[test]
fn a_map_in_the_header_of_an_ordinary_file_is_corrupt() {
    for (at, width, value) in [(483, 12, 513), (386, 12, 0), (398, 12, 8)] {
        let mut block = Block::new(b'0', "file");
        block.gnu().octal(at, width, value);
        corrupt(&Archive::new().body(&mut block, "content").end());
    }
    let mut block = Block::new(b'0', "file");
    block.gnu().set(482, [1]);
    corrupt(&Archive::new().body(&mut block, "content").end());
}
