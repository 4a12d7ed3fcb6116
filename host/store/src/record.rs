//! Commit records: why a tree in `extracted/` may be believed.
//!
//! A tree of 50 000 files cannot be synced file by file on the hot path, and a directory does not say whether it is
//! whole. So each tree that was verified gets a record beside it, and a tree without a record that vouches for it is
//! leftover data: it is removed and extracted again. A record vouches when
//!
//! * it is of this very directory: same inode, same time of birth, and the same random mark, which is an attribute of the
//!   tree's root where the file system has attributes (inodes and times are used again, marks are not). A tree that was
//!   copied here, restored from a backup, or put in the place of ours by another program is another directory;
//! * and the machine has not been started since (same boot id), or a sync of the whole file system came after the tree
//!   was written (`synced`, see [`super::Trees::promote`]). After a power cut the files of an unsynced tree may be empty;
//! * and the same reader made it: a plugin of the same identity (component, settings, grants), or the first-party guests, with the
//!   owners of files where this process keeps them. A plugin that was replaced gives another tree;
//! * and what the merge needs to know about the layer is there in the form that this version reads. That may be large and is
//!   a file of its own, `<digest>.layer.json`, which the record names by its hash.
//!
//! A record may name a list of all that is in the tree, by which it can be checked: see `tree_list.rs`.

use std::fs::File;

use rustix::fs::{AtFlags, StatxFlags, XattrFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use cofferdam_documents::LayerDescriptor;
use cofferdam_tree::{LayerRecord, LeftOut};

/// The version of the form below. Another one vouches for nothing.
const VERSION: u32 = 2;

/// The largest record that is read, in bytes.
pub(super) const LIMIT: u64 = 64 << 10;

/// The attribute of a tree's root that holds its mark. No layer can set it, and no merge copies it.
const MARK: &str = "user.cofferdam.tree";

/// What is known about a tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TreeRecord {
    version: u32,
    /// The version of the layer's record.
    layer_version: u32,
    /// The digest of the layer's blob.
    pub digest: Digest,
    /// The digests of the decoded layer that were verified, each by another algorithm.
    pub diff_ids: Vec<Digest>,
    /// The size of the blob in bytes.
    pub blob_bytes: u64,
    /// The number of decoded bytes. Nothing in records of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoded_bytes: Option<u64>,
    /// The boot during which the tree was written, if the system told.
    pub boot_id: Option<String>,
    /// When it was written: seconds since 1970, UTC.
    pub written_at: u64,
    /// Whether the file system was synced after that.
    pub synced: bool,
    /// What the tree takes on disk, in bytes: measured after that sync, when it is known where all of it lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Tells this tree from every other one of the same layer.
    pub(super) mark: String,
    pub(super) directory: Identity,
    /// What the unpacker recorded for the merge.
    pub(super) layer: FilePart,
    /// The list of all that is in the tree, once there is one. A version that knows no lists ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) list: Option<FilePart>,
    /// How often the making of a list was interrupted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) interruptions: u32,
    /// Identity of the plugin that decoded or read the layer. Nothing for the first-party guests, whose rules have the version
    /// `layer_version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reader: Option<Digest>,
    /// Where the owners of files are kept: in the inodes, or in attributes. Nothing in records of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) owners: Option<OwnersIn>,
    /// What inspectors said of the layer, if any did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reports: Option<FilePart>,
    /// Attributes of the layer that the tree could not hold.
    #[serde(default, skip_serializing_if = "LeftOut::is_empty")]
    pub left_out: LeftOut,
}

/// The part of a layer's record that is repeated in the tree's.
#[derive(Default, Deserialize)]
struct LayerPart {
    #[serde(default)]
    left_out: LeftOut,
}

/// Where a tree keeps the owners of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OwnersIn {
    Inodes,
    Attributes,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// Hash and size of a file beside the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FilePart {
    pub(super) digest: Digest,
    pub(super) bytes: u64,
}

/// Which directory a tree is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    inode: u64,
    /// Seconds and nanoseconds, where the file system keeps it.
    born: Option<(i64, u32)>,
    /// The mark, where the file system keeps attributes.
    mark: Option<String>,
}

impl Identity {
    /// The identity of an open directory.
    pub(super) fn of(directory: &File) -> Result<Self> {
        let mask = StatxFlags::INO | StatxFlags::BTIME;
        let stat = rustix::fs::statx(directory, c"", AtFlags::EMPTY_PATH, mask)
            .map_err(|e| Error::io("look at", b"a tree", e))?;
        let known = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        let born = known.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec));
        let mut mark = [0; 64];
        let mark = match rustix::fs::fgetxattr(directory, MARK, &mut mark) {
            Ok(length) => mark.get(..length).map(|mark| String::from_utf8_lossy(mark).into_owned()),
            // Not there, not one of ours, or of a directory that can only be held.
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE | Errno::BADF | Errno::ACCESS) => None,
            Err(error) => return Err(Error::io("read the mark of", b"a tree", error)),
        };
        Ok(Self { inode: stat.stx_ino, born, mark })
    }
}

/// Marks the root of a tree. Where that cannot be, inode and time of birth have to do.
pub(super) fn mark(directory: &File) -> Result<String> {
    let mark = uuid::Uuid::new_v4().simple().to_string();
    match rustix::fs::fsetxattr(directory, MARK, mark.as_bytes(), XattrFlags::empty()) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSPC | Errno::TOOBIG) => Ok(mark),
        Err(error) => Err(Error::io("mark", b"a tree", error)),
    }
}

impl TreeRecord {
    pub(super) fn new(digest: Digest, unpacked: &super::Unpacked, mark: String, directory: Identity) -> Self {
        Self {
            version: VERSION,
            layer_version: LayerRecord::VERSION,
            digest,
            diff_ids: vec![unpacked.layer.diff_id.clone()],
            blob_bytes: unpacked.blob_bytes,
            decoded_bytes: Some(unpacked.layer.decoded_bytes),
            boot_id: None,
            written_at: 0,
            synced: false,
            disk_bytes: None,
            mark,
            directory,
            layer: FilePart { digest: Digest::of(&unpacked.layer.record), bytes: unpacked.layer.record.len() as u64 },
            list: None,
            interruptions: 0,
            reader: unpacked.layer.reader.clone(),
            owners: None,
            reports: None,
            left_out: serde_json::from_slice(&unpacked.layer.record).unwrap_or_else(|_| LayerPart::default()).left_out,
        }
    }

    /// Whether this record vouches for a directory as the tree of `digest`.
    pub(super) fn vouches(&self, digest: &Digest, directory: &Identity, boot_id: Option<&str>) -> bool {
        let same_boot = self.boot_id.is_some() && self.boot_id.as_deref() == boot_id;
        self.is_current() && self.digest == *digest && self.directory == *directory && (self.synced || same_boot)
    }

    /// Returns true if this version of the program writes such records.
    pub(super) fn is_current(&self) -> bool {
        self.version == VERSION && self.layer_version == LayerRecord::VERSION
    }

    /// Returns true if this reader made the tree, and the owners of its files are where this process keeps them. One blob can be
    /// two things to two readers, and another thing to the next version of a plugin.
    pub(super) fn was_made_by(&self, reader: Option<&Digest>, owners: OwnersIn) -> bool {
        self.reader.as_ref() == reader && self.owners.is_none_or(|noted| noted == owners)
    }

    /// Whether the tree is what the layer claims; not known if it was measured by other algorithms only.
    pub(super) fn fits(&self, layer: &LayerDescriptor) -> Result<Option<bool>> {
        if let Some(expected) = layer.size.filter(|&size| size != self.blob_bytes) {
            let subject = format!("layer {}", layer.digest);
            return Err(Error::SizeMismatch { subject, expected, actual: self.blob_bytes });
        }
        let Some(claimed) = &layer.diff_id else { return Ok(Some(true)) };
        let known = self.diff_ids.iter().find(|known| known.algorithm() == claimed.algorithm());
        known.map(|known| check_diff_id(layer, known).map(|()| true)).transpose()
    }
}

/// Compares what was measured of a layer with what it claims: the blob's digest, its size if declared, the `DiffID` if known.
pub fn check_claims(layer: &LayerDescriptor, unpacked: &super::Unpacked) -> Result<()> {
    let LayerDescriptor { digest, size, .. } = layer;
    let subject = || format!("layer {digest}");
    if unpacked.blob != *digest {
        let (expected, actual) = (digest.clone(), unpacked.blob.clone());
        return Err(Error::DigestMismatch { subject: subject(), expected, actual });
    }
    if let Some(expected) = size.filter(|&size| size != unpacked.blob_bytes) {
        return Err(Error::SizeMismatch { subject: subject(), expected, actual: unpacked.blob_bytes });
    }
    check_diff_id(layer, &unpacked.layer.diff_id)
}

/// Compares a decoded layer's digest with what the layer claims, if it does.
fn check_diff_id(layer: &LayerDescriptor, actual: &Digest) -> Result<()> {
    match &layer.diff_id {
        Some(expected) if expected != actual => Err(Error::DigestMismatch {
            subject: format!("layer {}, decoded,", layer.digest),
            expected: expected.clone(),
            actual: actual.clone(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_tree::UnpackedLayer;

    use super::*;

    #[test]
    fn a_record_vouches_for_one_directory_in_one_boot_unless_synced() {
        let digest = Digest::of(b"blob");
        let here = Identity { inode: 7, born: Some((1, 2)), mark: Some("x".into()) };
        let unpacked = crate::Unpacked {
            blob: digest.clone(),
            blob_bytes: 4,
            layer: UnpackedLayer {
                decoded_bytes: 3,
                diff_id: Digest::of(b"tar"),
                record: Vec::new(),
                reader: None,
                reports: Vec::new(),
            },
        };
        let record = TreeRecord {
            boot_id: Some("monday".into()),
            ..TreeRecord::new(digest.clone(), &unpacked, "x".into(), here.clone())
        };
        assert!(record.vouches(&digest, &here, Some("monday")));
        assert!(!record.vouches(&digest, &here, Some("tuesday")), "a power cut may lie between");
        assert!(!record.vouches(&digest, &here, None));
        assert!(!record.vouches(&Digest::of(b"other"), &here, Some("monday")));
        let others = [
            Identity { inode: 8, ..here.clone() },
            Identity { born: Some((1, 3)), ..here.clone() },
            Identity { mark: Some("y".into()), ..here.clone() },
            Identity { mark: None, ..here.clone() },
        ];
        for other in others {
            assert!(!record.vouches(&digest, &other, Some("monday")), "{other:?}");
        }
        let synced = TreeRecord { synced: true, ..record.clone() };
        assert!(synced.vouches(&digest, &here, Some("tuesday")));
        let nowhere = TreeRecord { boot_id: None, ..record.clone() };
        assert!(!nowhere.vouches(&digest, &here, None), "unknown is not the same");
        assert!(!TreeRecord { version: 1, ..synced.clone() }.vouches(&digest, &here, Some("monday")));
        assert!(!TreeRecord { layer_version: 0, ..synced }.vouches(&digest, &here, Some("monday")));
    }
}
