//! What a layer's tree cannot show by itself. Kept beside a preserved tree, as JSON; merging needs it.
//!
//! Paths are relative to the tree and resolved inside of it. In JSON they are text: printable ASCII as it is, every other
//! byte and `%` as `%XX` (uppercase hex).

use std::fmt::Write as _;
use std::io;

use cofferdam_core::error::{Error, Result};
use cofferdam_core::limits::Limits;
use rustix::fs::FileType;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::entry::{Device, TreePath};
use super::left_out::LeftOut;

/// The most bytes of JSON that a record may have.
const LIMIT: usize = 64 << 20;

/// How much a layer held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Entries, markers and links included.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Bytes of data in regular files, without holes.
    pub bytes: u64,
}

/// A removal of lower things.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Marker {
    /// What lies at the path is removed.
    Whiteout(#[serde(with = "escaped")] TreePath),
    /// What lies inside of the directory at the path is removed.
    Opaque(#[serde(with = "escaped")] TreePath),
    /// What lies at the path is removed: the layer replaced it, and then made a directory there. No marker says so.
    Replaced(#[serde(with = "escaped")] TreePath),
}

/// A hard link whose target only a lower layer can hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    #[serde(with = "escaped")]
    pub path: TreePath,
    #[serde(with = "escaped")]
    pub target: TreePath,
}

/// What was in a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    version: u32,
    /// How much it held.
    pub counts: Counts,
    /// Whether it lists the root, so that the root's metadata is the layer's.
    pub root: bool,
    /// Its removals in their order. All of them take effect before any content does.
    pub markers: Vec<Marker>,
    /// Directories that it does not list, made because something lies in them. Sorted.
    #[serde(with = "escaped_list")]
    pub implied: Vec<TreePath>,
    /// Directories that are there only because a marker lies in them. Sorted.
    #[serde(with = "escaped_list")]
    pub marker_dirs: Vec<TreePath>,
    /// Hard links to lower things, in their order.
    pub links: Vec<Link>,
    /// Directories that were implied first and listed, removed or replaced later. Where a lower layer has a link in such
    /// a place, what came before went elsewhere, and the tree does not tell what that was.
    #[serde(with = "escaped_list")]
    pub late: Vec<TreePath>,
    /// Whether it has a device numbered 0:0, by which overlayfs means a removal.
    removal_device: bool,
    /// Attributes of it that the tree could not hold.
    #[serde(default, skip_serializing_if = "LeftOut::is_empty")]
    pub left_out: LeftOut,
    /// Why the layer makes no sense alone, though it may on top of layers whose links lead around the trouble. Its tree lacks what it was
    /// that made none, and only applying the layers tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone_refused: Option<String>,
}

impl LayerRecord {
    /// The version that is written. Another version is not read: the tree is extracted again. Trees of version 2 may have
    /// inherited access lists, and do not tell what was left out.
    pub const VERSION: u32 = 3;

    /// The version of a record whose tree must not be merged, which versions of the program that know only [`Self::VERSION`] would.
    const ALONE_REFUSED: u32 = 4;

    pub(super) fn new() -> Self {
        Self { version: Self::VERSION, ..Self::default() }
    }

    /// Notes why the layer makes no sense alone.
    pub(super) fn refuse_alone(&mut self, why: &Error) {
        self.version = Self::ALONE_REFUSED;
        self.alone_refused.get_or_insert_with(|| why.root().to_string());
    }

    pub(super) fn note_device(&mut self, kind: FileType, device: Device) {
        self.removal_device |= kind == FileType::CharacterDevice && device == (Device { major: 0, minor: 0 });
    }

    /// Whether it has a device numbered 0:0, by which overlayfs means a removal.
    pub fn has_removal_device(&self) -> bool {
        self.removal_device
    }

    /// The record as JSON.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] for a record of more than 64 MiB.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let mut json = Capped { bytes: Vec::new(), limit: LIMIT };
        match serde_json::to_writer(&mut json, self) {
            Ok(()) => Ok(json.bytes),
            Err(error) if error.is_io() => Err(Error::Limit {
                subject: "the layer".into(),
                what: "bytes in what a merge must know about a layer",
                limit: LIMIT as u64,
            }),
            Err(error) => Err(invalid(&error)),
        }
    }

    /// Reads a record that [`LayerRecord::to_json`] made.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let record: Self = serde_json::from_slice(json).map_err(|error| invalid(&error))?;
        let version = if record.alone_refused.is_some() { Self::ALONE_REFUSED } else { Self::VERSION };
        if record.version != version {
            return Err(Error::Unsupported { what: format!("a layer record of version {}", record.version) });
        }
        Ok(record)
    }
}

/// Bytes up to a limit.
struct Capped {
    bytes: Vec<u8>,
    limit: usize,
}

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.bytes.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn invalid(error: &serde_json::Error) -> Error {
    Error::Corrupt { subject: "a layer record".into(), reason: error.to_string() }
}

fn escape(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for &byte in path {
        match byte {
            b' '..=b'~' if byte != b'%' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

/// Whatever limits the layer was read with: a path of a record is only checked for its form.
fn unescape(text: &str) -> std::result::Result<TreePath, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2).ok_or("an escape is cut short")?;
        let digits = std::str::from_utf8(digits).map_err(|_| "an escape is not hexadecimal")?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| "an escape is not hexadecimal")?);
        rest = tail;
    }
    let form = Limits::default().with(|limits| {
        limits.path_bytes = usize::MAX;
        limits.component_bytes = usize::MAX;
        limits.depth = usize::MAX;
    });
    TreePath::parse(bytes, &form).map_err(|error| error.to_string())
}

mod escaped {
    use super::{Deserialize, Deserializer, Serializer, TreePath, escape, unescape};

    pub(super) fn serialize<S: Serializer>(path: &TreePath, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&escape(path.as_bytes()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TreePath, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        unescape(&text).map_err(serde::de::Error::custom)
    }
}

mod escaped_list {
    use super::{Deserialize, Deserializer, Serialize, Serializer, TreePath};

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct One(#[serde(with = "super::escaped")] TreePath);

    pub(super) fn serialize<S: Serializer>(paths: &[TreePath], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(paths.iter().map(|path| super::escape(path.as_bytes())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TreePath>, D::Error> {
        Ok(Vec::<One>::deserialize(deserializer)?.into_iter().map(|One(path)| path).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(bytes: &[u8]) -> TreePath {
        TreePath::parse(bytes.to_vec(), &Limits::default()).unwrap()
    }

    #[test]
    fn a_record_survives_json() {
        let every: Vec<u8> = (1..=255).filter(|&b| b != b'/').collect();
        let record = LayerRecord {
            counts: Counts { entries: 3, files: 2, bytes: 1 },
            root: true,
            markers: vec![Marker::Whiteout(path(&every)), Marker::Opaque(TreePath::root())],
            implied: vec![path(b"a/b"), path(b"100%25/\xff\n\"")],
            marker_dirs: vec![path(b"m")],
            links: vec![Link { path: path(b"l"), target: path(b"t/u") }],
            late: vec![path(b"z")],
            ..LayerRecord::new()
        };
        let json = record.to_json().unwrap();
        assert!(json.is_ascii());
        assert_eq!(LayerRecord::from_json(&json).unwrap(), record);
    }

    #[test]
    fn a_record_has_a_largest_size() {
        let name = vec![b'x'; 1 << 20];
        let form = Limits::default().with(|limits| {
            limits.path_bytes = usize::MAX;
            limits.component_bytes = usize::MAX;
        });
        let implied = vec![TreePath::parse(name, &form).unwrap(); 63];
        let mut record = LayerRecord { implied, ..LayerRecord::new() };
        assert!(record.to_json().unwrap().len() > 63 << 20);
        record.implied.push(record.implied[0].clone());
        assert!(matches!(record.to_json(), Err(Error::Limit { .. })));
    }

    #[test]
    fn a_record_cannot_express_a_way_out() {
        let json = String::from_utf8(LayerRecord::new().to_json().unwrap()).unwrap();
        for bad in ["../x", "a/../b", "/etc", "%2e%2e", "a%00", "a//b", "%2", "%zz", "é%"] {
            let json = json.replace("\"implied\":[]", &format!("\"implied\":[\"{bad}\"]"));
            assert!(LayerRecord::from_json(json.as_bytes()).is_err(), "{bad}");
        }
        let [this, other] = [0, 1].map(|more| format!("\"version\":{}", LayerRecord::VERSION + more));
        assert!(LayerRecord::from_json(json.replace(&this, &other).as_bytes()).is_err());
    }
}
