//! What the `tar` crate writes, and what it reads out of it.

use std::io::Read as _;

use crate::archive::*;

/// The archive as `tar` reads it, in our notation.
fn oracle(bytes: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let header = entry.header();
        let path = entry.path_bytes();
        let path = path.strip_suffix(b"/").unwrap_or(&path).escape_ascii().to_string();
        let target = entry.link_name_bytes().map(|target| String::from_utf8(target.to_vec()).unwrap());
        let device =
            || format!("{}:{}", header.device_major().unwrap().unwrap(), header.device_minor().unwrap().unwrap());
        let node = match header.entry_type() {
            tar::EntryType::Regular => format!("F {path} {:?}", content.escape_ascii().to_string()),
            tar::EntryType::Directory => format!("D {path}"),
            tar::EntryType::Symlink => format!("S {path} {}", target.unwrap()),
            tar::EntryType::Link => format!("H {path} {}", target.unwrap()),
            tar::EntryType::Char => format!("C {path} {}", device()),
            tar::EntryType::Block => format!("B {path} {}", device()),
            tar::EntryType::Fifo => format!("P {path}"),
            other => panic!("{other:?}"),
        };
        let (mode, uid, gid) = (header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap());
        format!("{node} {mode:o} {uid}:{gid} {}", header.mtime().unwrap())
    });
    entries.collect()
}

fn ours(bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    read(bytes, usize::MAX, |entry, content| {
        let node = line(entry, content);
        lines.push(format!("{node} {:o} {}:{} {}", entry.mode, entry.uid, entry.gid, entry.modified.seconds));
    })
    .unwrap();
    lines
}

#[test]
fn both_read_the_same() {
    for gnu in [true, false] {
        let mut builder = tar::Builder::new(Vec::new());
        let header = |kind: tar::EntryType, number: u64| {
            let mut header = if gnu { tar::Header::new_gnu() } else { tar::Header::new_ustar() };
            header.set_entry_type(kind);
            header.set_mode(0o4750);
            header.set_uid(1000 + number);
            header.set_gid(number);
            header.set_mtime(1_700_000_000 + number);
            header.set_size(0);
            header
        };
        let deep = format!("{}/{}", "d".repeat(90), "f".repeat(90));
        let long = format!("{}/{}", "e".repeat(250), "g".repeat(250));
        for (number, path) in (0..).zip(["a", "dir/b", "with space", "ünïcode", &deep]) {
            let content = vec![b'x'; usize::try_from(number).unwrap() * 300];
            let mut header = header(tar::EntryType::Regular, number);
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, &content[..]).unwrap();
        }
        builder.append_data(&mut header(tar::EntryType::Directory, 7), "dir/sub/", &[][..]).unwrap();
        builder.append_link(&mut header(tar::EntryType::Symlink, 8), "link", "../target").unwrap();
        builder.append_link(&mut header(tar::EntryType::Link, 9), "hard", "dir/b").unwrap();
        builder.append_data(&mut header(tar::EntryType::Fifo, 10), "fifo", &[][..]).unwrap();
        let mut device = header(tar::EntryType::Char, 11);
        device.set_device_major(5).unwrap();
        device.set_device_minor(1).unwrap();
        builder.append_data(&mut device, "console", &[][..]).unwrap();
        if gnu {
            // Too long for the header: `L` and `K`.
            builder.append_data(&mut header(tar::EntryType::Directory, 12), &long, &[][..]).unwrap();
            builder.append_link(&mut header(tar::EntryType::Symlink, 13), format!("{long}/s"), &long).unwrap();
            let mut wide = header(tar::EntryType::Regular, 0);
            wide.set_uid(u64::from(u32::MAX) - 1);
            builder.append_data(&mut wide, "wide", &[][..]).unwrap();
        }
        let records = [("path", long.as_bytes()), ("SCHILY.xattr.user.x", b"\0y")];
        builder.append_pax_extensions(records).unwrap();
        builder.append_data(&mut header(tar::EntryType::Directory, 14), "short", &[][..]).unwrap();
        let bytes = builder.into_inner().unwrap();
        let lines = ours(&bytes);
        assert_eq!(lines, oracle(&bytes), "gnu: {gnu}");
        assert_eq!(lines.len(), if gnu { 14 } else { 11 });
    }
}
