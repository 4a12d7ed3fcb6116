//! What an implementation sees in an archive, in a form that can be compared.
//!
//! Names are made canonical here for all oracles alike, and by other code than that under test.

use std::hash::{DefaultHasher, Hasher as _};

/// Files above this size are not read for comparison.
pub const CONTENT: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file, sparse ones among them.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A hard link.
    HardLink,
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
    /// A whiteout or an opaque marker: whatever its type, the name decides.
    Marker,
}

/// An entry. What is `None` was not looked at, or the oracle cannot tell.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The canonical path, with the name of a marker as it stands in the archive; `None` where the oracle does not
    /// understand the entry and only knows that there is one.
    pub path: Option<Vec<u8>>,
    /// What it is.
    pub kind: Kind,
    /// The size of a file, holes included.
    pub size: Option<u64>,
    /// The target of a symbolic link as it stands, of a hard link in canonical form.
    pub link: Option<Vec<u8>>,
    /// The number of a device.
    pub device: Option<(u64, u64)>,
    /// 12 bits.
    pub mode: Option<u64>,
    /// Owner.
    pub uid: Option<i128>,
    /// Group.
    pub gid: Option<i128>,
    /// Seconds since 1970, rounded down.
    pub modified: Option<i64>,
    /// A hash of a file's content.
    pub content: Option<u64>,
}

impl Seen {
    /// An entry of which nothing but path and kind is known.
    pub fn new(path: Vec<u8>, kind: Kind) -> Self {
        let (size, link, device, content) = (None, None, None, None);
        let (mode, uid, gid, modified) = (None, None, None, None);
        Self { path: Some(path), kind, size, link, device, mode, uid, gid, modified, content }
    }

    /// Puts what an oracle says into the form of comparison: the canonical path, and the rules on markers. Nothing is left
    /// of AUFS's own files, and nothing but the name of a marker; hard links have no metadata of their own.
    pub fn normal(mut self) -> Option<Self> {
        let Some(raw) = self.path.take() else { return Some(self) };
        let path = clean(&raw);
        let mut components = path.split(|&byte| byte == b'/');
        if components.clone().any(|name| name.starts_with(b".wh..wh.") && name != b".wh..wh..opq") {
            return None;
        }
        if components.next_back().is_some_and(|name| name.starts_with(b".wh.")) {
            return Some(Self::new(path, Kind::Marker));
        }
        if self.kind == Kind::HardLink {
            let link = self.link.map(|link| clean(&link));
            return Some(Self { link, ..Self::new(path, Kind::HardLink) });
        }
        self.path = Some(path);
        if self.kind != Kind::File {
            self.size = None;
            self.content = None;
        }
        if self.kind != Kind::Symlink {
            self.link = None;
        }
        if !matches!(self.kind, Kind::Character | Kind::Block) {
            self.device = None;
        }
        self.mode = self.mode.map(|mode| mode & 0o7777);
        Some(self)
    }
}

/// A path without empty and `.` components, `..` taken back.
pub fn clean(raw: &[u8]) -> Vec<u8> {
    let mut components: Vec<&[u8]> = Vec::new();
    for component in raw.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(components.pop()),
            component => components.push(component),
        }
    }
    components.join(&b'/')
}

/// A hash of content.
pub fn hash(content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(content);
    hasher.finish()
}

/// The whole seconds of a PAX time, rounded down.
pub fn seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let below = whole.starts_with('-') && fraction.bytes().take(9).any(|digit| digit != b'0');
    whole.parse::<i64>().ok()?.checked_sub(i64::from(below))
}
