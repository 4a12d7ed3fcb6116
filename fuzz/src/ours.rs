//! What our parser sees.

use cofferdam_layer::{Entry, Failure, Layer, Limits, Node, Source};

use crate::entry;
use crate::listing::{self, CONTENT, Kind, Seen};

/// Reads an archive that arrives in pieces of at most `piece` bytes, and checks each entry.
pub fn read(archive: &[u8], piece: usize) -> Result<Vec<Seen>, Failure> {
    let mut pieces = Pieces { rest: archive, piece };
    let mut layer = Layer::new(Limits::default());
    let mut list = Vec::new();
    while let Some(entry) = layer.next(&mut pieces)? {
        entry::check(&entry);
        let length = usize::try_from(entry.content_bytes()).ok().filter(|&length| length <= pieces.rest.len());
        // The host's words.
        let length = length.ok_or_else(|| Failure::Corrupt("the content is cut short".to_owned()))?;
        let (content, rest) = pieces.rest.split_at(length);
        list.push(seen(&entry, content));
        pieces.rest = rest;
    }
    Ok(list)
}

fn seen(entry: &Entry<'_>, content: &[u8]) -> Seen {
    let parent = |path: &[u8]| path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    match entry.node {
        Node::Whiteout => {
            let (parent, name) = entry.path.split_at(parent(entry.path));
            return Seen::new([parent, b".wh.", name].concat(), Kind::Marker);
        }
        Node::Opaque => {
            let slash: &[u8] = if entry.path.is_empty() { b"" } else { b"/" };
            return Seen::new([entry.path, slash, b".wh..wh..opq"].concat(), Kind::Marker);
        }
        Node::HardLink { target } => {
            return Seen { link: Some(target.to_vec()), ..Seen::new(entry.path.to_vec(), Kind::HardLink) };
        }
        _ => {}
    }
    let mut seen = Seen {
        mode: Some(entry.mode.into()),
        uid: Some(entry.uid.into()),
        gid: Some(entry.gid.into()),
        modified: Some(entry.modified.seconds),
        ..Seen::new(entry.path.to_vec(), Kind::Directory)
    };
    match entry.node {
        Node::File { size } => {
            seen.kind = Kind::File;
            seen.size = Some(size);
            seen.content = Some(listing::hash(content)).filter(|_| size <= CONTENT);
        }
        Node::Sparse { size, extents } => {
            seen.kind = Kind::File;
            seen.size = Some(size);
            if size <= CONTENT {
                let mut expanded = vec![0; usize::try_from(size).unwrap_or_default()];
                let mut rest = content;
                for extent in extents {
                    let at = usize::try_from(extent.offset).unwrap_or_default();
                    let (data, later) = rest.split_at(usize::try_from(extent.length).unwrap_or_default());
                    expanded[at..at + data.len()].copy_from_slice(data);
                    rest = later;
                }
                seen.content = Some(listing::hash(&expanded));
            }
        }
        Node::Symlink { target } => {
            seen.kind = Kind::Symlink;
            seen.link = Some(target.to_vec());
        }
        Node::CharacterDevice(device) => {
            seen.kind = Kind::Character;
            seen.device = Some((device.major.into(), device.minor.into()));
        }
        Node::BlockDevice(device) => {
            seen.kind = Kind::Block;
            seen.device = Some((device.major.into(), device.minor.into()));
        }
        Node::Fifo => seen.kind = Kind::Fifo,
        Node::Directory | Node::HardLink { .. } | Node::Whiteout | Node::Opaque => {}
    }
    seen
}

/// A source that hands out few bytes at a time.
struct Pieces<'a> {
    rest: &'a [u8],
    piece: usize,
}

impl Source for Pieces<'_> {
    type Error = Failure;

    fn read(&mut self, skip: u64, max: u32, into: &mut Vec<u8>) -> Result<(), Failure> {
        assert!((1..=1 << 20).contains(&max), "a read of {max} bytes");
        self.rest.read(skip, max.min(u32::try_from(self.piece).unwrap_or(u32::MAX)), into)
    }
}
