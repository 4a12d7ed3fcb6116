//! What the `tar` crate sees, and where it is known to see something else than the rules say.

use std::io::{self, Read as _};

use tar::{Archive, Entry, EntryType};

use crate::archive::{Oddities, until_nul};
use crate::listing::{self, CONTENT, Kind, Seen};

/// Whether the crate reads such archives as the rules say. Where it does not:
///
/// * version bytes other than `00`: it takes the header for v7, without prefix and extensions (CONFORMANCE 8 takes any);
/// * a key twice: it takes the first, POSIX and CONFORMANCE 9 the last;
/// * a newline in a value: it splits the payload at newlines before it looks at lengths, and loses what follows;
/// * `L` or `K` in front of `g`: it gives them to the `g`, CONFORMANCE 10 to the next member;
/// * a size on a link, a directory, a device or a FIFO: it skips as many bytes, CONFORMANCE 12 none.
pub fn understands(odd: Oddities) -> bool {
    !(odd.version || odd.duplicate || odd.newline || odd.long_before_global || odd.void_size)
}

/// Lists an archive.
pub fn read(archive: &[u8]) -> io::Result<Vec<Seen>> {
    let mut list = Vec::new();
    for entry in Archive::new(archive).entries()? {
        if let Some(seen) = seen(&mut entry?)? {
            list.extend(seen.normal());
        }
    }
    Ok(list)
}

fn seen(entry: &mut Entry<'_, &[u8]>) -> io::Result<Option<Seen>> {
    let mut modified = entry.header().mtime().ok().map(u64::cast_signed);
    let mut is_sparse = false;
    if entry.header().entry_type() == EntryType::XGlobalHeader {
        return Ok(None); // it hands these out as entries
    }
    for record in entry.pax_extensions()?.into_iter().flatten() {
        let record = record?;
        is_sparse |= record.key_bytes().starts_with(b"GNU.sparse.");
        if record.key_bytes() == b"mtime" {
            modified = record.value().ok().and_then(listing::seconds);
        }
    }
    let header = entry.header();
    // It keeps what stands behind a NUL in `L` and `K`; CONFORMANCE 10 does not.
    let path = until_nul(&entry.path_bytes()).to_vec();
    let kind = match header.entry_type() {
        EntryType::Regular if header.as_old().linkflag == [0] && path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Link => Kind::HardLink,
        EntryType::Char => Kind::Character,
        EntryType::Block => Kind::Block,
        EntryType::Fifo => Kind::Fifo,
        other => return Err(io::Error::other(format!("type {other:?}"))),
    };
    let number = |number: io::Result<Option<u32>>| number.ok().flatten().map(u64::from);
    let mut seen = Seen {
        size: Some(entry.size()),
        link: entry.link_name_bytes().map(|link| until_nul(&link).to_vec()),
        device: number(header.device_major()).zip(number(header.device_minor())),
        mode: header.mode().ok().map(u64::from),
        uid: header.uid().ok().map(i128::from),
        gid: header.gid().ok().map(i128::from),
        modified,
        ..Seen::new(path, kind)
    };
    if is_sparse {
        // It knows only the old form, and shows these as files whose content begins with the map.
        seen.path = None;
    } else if kind == Kind::File && entry.size() <= CONTENT {
        let size = entry.size();
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        if content.len() as u64 != size {
            return Err(io::Error::other("the content is cut short"));
        }
        seen.content = Some(listing::hash(&content));
    }
    Ok(Some(seen))
}
