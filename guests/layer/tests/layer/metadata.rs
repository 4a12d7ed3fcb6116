//! Rules 22, 24 and 25: owners, modes, times, attributes.

use cofferdam_layer::Failure;

use crate::archive::*;

#[derive(Debug, PartialEq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    time: (i64, u32),
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

fn see(archive: Archive) -> Result<Seen, Failure> {
    let mut seen = Vec::new();
    read(&archive.end(), usize::MAX, |entry, _| {
        seen.push(Seen {
            mode: entry.mode,
            owner: (entry.uid, entry.gid),
            time: (entry.modified.seconds, entry.modified.nanoseconds),
            attributes: entry.attributes.iter().map(|a| (a.name.to_vec(), a.value.to_vec())).collect(),
        });
    })?;
    assert_eq!(seen.len(), 1);
    Ok(seen.remove(0))
}

fn header(set: impl FnOnce(&mut Block) -> &mut Block) -> Result<Seen, Failure> {
    let mut block = Block::new(b'0', "a");
    set(&mut block);
    see(Archive::new().block(&block))
}

fn record(key: &str, value: &[u8]) -> Result<Seen, Failure> {
    see(Archive::new().pax(&[(key, value)]).file("a", ""))
}

#[test]
fn modes_have_twelve_bits() {
    let mode = |value| header(|block| block.mode(value)).unwrap().mode;
    assert_eq!(mode(0o644), 0o644);
    assert_eq!(mode(0o7777), 0o7777);
    assert_eq!(mode(0o104_755), 0o4755);
    assert_eq!(mode(0), 0);
    assert!(header(|block| block.set(100, [0xff; 8])).is_err());
}

#[test]
fn owners_are_exact_or_refused() {
    let wide = |owner: i64| {
        let mut field = owner.to_be_bytes();
        field[0] |= 0x80;
        header(|block| block.set(108, field).set(116, field)).map(|seen| seen.owner)
    };
    let (most, beyond) = (u32::MAX - 1, i64::from(u32::MAX));
    assert_eq!(wide(0), Ok((0, 0)));
    assert_eq!(wide(i64::from(most)), Ok((most, most)));
    // Scenario 31; boxlite truncates.
    for owner in [beyond, beyond + 1, 1 << 40, -1, -5] {
        assert!(matches!(wide(owner), Err(Failure::Refused { .. })), "{owner}");
    }
    for key in ["uid", "gid"] {
        assert!(record(key, most.to_string().as_bytes()).is_ok());
        for value in ["4294967295", "4294967296", "-1", "18446744073709551616"] {
            let result = record(key, value.as_bytes());
            assert!(matches!(result, Err(Failure::Refused { .. })), "{key}={value}: {result:?}");
        }
    }
    assert_eq!(record("uid", b"70000").unwrap().owner, (70_000, 0));
    assert_eq!(record("gid", b"70000").unwrap().owner, (0, 70_000));
    // The record's counts, also where the header's would be refused.
    let mut block = Block::new(b'0', "a");
    block.set(108, [0xff; 8]);
    assert_eq!(see(Archive::new().pax(&[("uid", b"1")]).block(&block)).unwrap().owner, (1, 0));
    // Markers and hard links too: their metadata is ignored, not unchecked.
    refuses(&Archive::new().block(Block::new(b'1', "a").link("b").set(108, [0xff; 8])).end());
}

#[test]
fn times_have_nanoseconds_and_a_sign() {
    let time = |value: &str| record("mtime", value.as_bytes()).map(|seen| seen.time);
    assert_eq!(time("1350244992.023960108"), Ok((1_350_244_992, 23_960_108)));
    assert_eq!(time("1.1234567899"), Ok((1, 123_456_789)));
    assert_eq!(time("-1.5"), Ok((-2, 500_000_000)));
    assert_eq!(time("-1"), Ok((-1, 0)));
    assert_eq!(time("9223372036854775807"), Ok((i64::MAX, 0)));
    for value in ["18446744073709551615", "9223372036854775808", "-9223372036854775809"] {
        assert!(matches!(time(value), Err(Failure::Refused { .. })), "{value}");
    }
    for value in ["", "-", "1,5", ".5", "+1", "1e3", " 1"] {
        assert!(time(value).is_err(), "{value}");
    }
    assert_eq!(header(|block| block.mtime(8_589_934_591)).unwrap().time, (8_589_934_591, 0));
    assert_eq!(header(|block| block.set(136, [0xff; 12])).unwrap().time, (-1, 0));
    let field = b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff";
    assert!(matches!(header(|block| block.set(136, field)), Err(Failure::Refused { .. })));
    assert_eq!(see(Archive::new().block(&Block::new(b'2', "a").link("b").mtime(7).clone())).unwrap().time, (7, 0));
}

#[test]
fn attributes_are_byte_exact_and_reserved_ones_vanish() {
    let seen = see(Archive::new()
        .pax(&[
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\n=\xff"),
            ("SCHILY.xattr.user.empty", b""),
            ("SCHILY.xattr.user.with=equals", b"x"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.", b"y"),
            ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.containers.override_stat", b"0:0:04755:file"),
            ("SCHILY.xattr.user.containers.override_statx", b"kept"),
            ("SCHILY.xattr.trusted.overlayfs", b"kept"),
        ])
        .dir("a"))
    .unwrap();
    let pairs: Vec<_> = seen.attributes.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    assert_eq!(
        pairs,
        [
            (&b"security.capability"[..], &b"\x01\0\0\x02\n=\xff"[..]),
            (b"trusted.overlayfs", b"kept"),
            (b"user.containers.override_statx", b"kept"),
            (b"user.empty", b""),
            // The key ends at the first `=`.
            (b"user.with", b"equals=x"),
        ]
    );
}

#[test]
fn ghsa_g3rx_2m58_rr63_attributes_are_limited() {
    let names: Vec<_> = (0..257).map(|i| format!("SCHILY.xattr.user.{i}")).collect();
    let records: Vec<_> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    assert_eq!(see(Archive::new().pax(&records[..256]).dir("a")).unwrap().attributes.len(), 256);
    limits(&Archive::new().pax(&records).dir("a").end());
    limits(&Archive::new().pax(&[("SCHILY.xattr.user.a", &vec![0; 65_536])]).dir("a").end());
    let long = format!("SCHILY.xattr.user.{}", "n".repeat(300));
    limits(&Archive::new().pax(&[(&long, b"")]).dir("a").end());
}
