//! Commit records: why a tree in `extracted/` may be believed.
//!
//! A tree of 50 000 files cannot be synced file by file on the hot path, and a directory does not say whether it is
//! whole. So each tree that was verified gets a record beside it, and a tree without a record that vouches for it is
//! leftover data: it is removed and extracted again. A record vouches when
//!
//! * it is of this very directory: same inode, same time of birth. A tree that was copied here, restored from a backup, or
//!   put in the place of ours by another program is another directory;
//! * and the machine has not been started since (same boot id), or a sync of the whole file system came after the tree
//!   was written (`synced`, see [`super::Trees::promote`]). After a power cut the files of an unsynced tree may be empty.

use std::fs::File;

use rustix::fs::{AtFlags, StatxFlags};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};

/// The version of the form below. Another one vouches for nothing.
const VERSION: u32 = 1;

/// The largest record that is read, in bytes: a record may list the hard links that the merge has to make.
pub(super) const LIMIT: u64 = 256 << 20;

/// What is known about a tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TreeRecord {
    version: u32,
    /// The digest of the layer's blob.
    pub digest: Digest,
    /// The digest of the decoded layer.
    pub diff_id: Digest,
    /// The size of the blob in bytes.
    pub blob_bytes: u64,
    /// The boot during which the tree was written, if the system told.
    pub boot_id: Option<String>,
    /// Whether the file system was synced after that.
    pub synced: bool,
    pub(super) directory: Identity,
    /// What the unpacker recorded for the merge.
    pub layer: serde_json::Value,
}

/// A record without its large part.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Head {
    version: u32,
    digest: Digest,
    pub(super) diff_id: Digest,
    boot_id: Option<String>,
    pub(super) synced: bool,
    directory: Identity,
}

/// Which directory a tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    inode: u64,
    /// Seconds and nanoseconds, where the file system keeps it.
    born: Option<(i64, u32)>,
}

impl Identity {
    /// The identity of an open directory.
    pub(super) fn of(directory: &File) -> Result<Self> {
        let mask = StatxFlags::INO | StatxFlags::BTIME;
        let stat = rustix::fs::statx(directory, c"", AtFlags::EMPTY_PATH, mask)
            .map_err(|e| Error::io("look at", b"a tree", e))?;
        let known = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        Ok(Self { inode: stat.stx_ino, born: known.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec)) })
    }
}

impl TreeRecord {
    pub(super) fn new(digest: Digest, unpacked: super::Unpacked, boot_id: Option<String>, directory: Identity) -> Self {
        let super::Unpacked { blob: _, blob_bytes, diff_id, record } = unpacked;
        Self { version: VERSION, digest, diff_id, blob_bytes, boot_id, synced: false, directory, layer: record }
    }
}

impl Head {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// Whether this record vouches for a directory as the tree of `digest`.
    pub(super) fn vouches(&self, digest: &Digest, directory: Identity, boot_id: Option<&str>) -> bool {
        let same_boot = self.boot_id.is_some() && self.boot_id.as_deref() == boot_id;
        self.version == VERSION && self.digest == *digest && self.directory == directory && (self.synced || same_boot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_vouches_for_one_directory_in_one_boot_unless_synced() {
        let digest = Digest::of(b"blob");
        let here = Identity { inode: 7, born: Some((1, 2)) };
        let head = Head {
            version: VERSION,
            digest: digest.clone(),
            diff_id: Digest::of(b"tar"),
            boot_id: Some("monday".into()),
            synced: false,
            directory: here,
        };
        assert!(head.vouches(&digest, here, Some("monday")));
        assert!(!head.vouches(&digest, here, Some("tuesday")), "a power cut may lie between");
        assert!(!head.vouches(&digest, here, None));
        assert!(!head.vouches(&Digest::of(b"other"), here, Some("monday")));
        assert!(!head.vouches(&digest, Identity { inode: 8, ..here }, Some("monday")));
        assert!(!head.vouches(&digest, Identity { born: Some((1, 3)), ..here }, Some("monday")), "a reused inode");
        let synced = Head { synced: true, ..head.clone() };
        assert!(synced.vouches(&digest, here, Some("tuesday")));
        assert!(!Head { boot_id: None, ..head.clone() }.vouches(&digest, here, None), "unknown is not the same");
        assert!(!Head { version: 2, ..synced }.vouches(&digest, here, Some("monday")));
    }
}
