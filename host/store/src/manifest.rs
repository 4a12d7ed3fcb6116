//! Manifests and indexes: kept as received, verified each time they are read.
//!
//! The reference hands over a *typed* manifest, which is serialised again and so, as a rule, no longer hashes to its
//! digest. Such bytes cannot be verified, only remembered: `records/manifest.<digest>.json` holds the hash of what was
//! written, so that damage and foreign bytes are found all the same. Only [`ImageStorage::load_manifest`] believes such a
//! note; pulling, copying and unpacking use [`ImageStorage::manifest_bytes`], which returns verified bytes or nothing.

use std::io::Write as _;
use std::path::PathBuf;

use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use oci_client::manifest::OciManifest;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::file::{self, Flush};
use crate::layout::{self, BlobKind};
use crate::stage::{Draft, Staged};
use crate::storage::{ImageStorage, blob_lock, check_bytes};

const KIND: BlobKind = BlobKind::Manifest;

/// A note about a manifest that was saved in its typed form.
#[derive(Debug, Serialize, Deserialize)]
struct AsSaved {
    /// The digest that the caller named.
    digest: Digest,
    /// The digest of the bytes that were written.
    saved: Digest,
}

impl ImageStorage {
    /// Saves a manifest in its typed form. Idempotent; a manifest that is there already, verified or saved like this, stays.
    ///
    /// The digest is the caller's word. Whoever has the bytes should use [`ImageStorage::save_manifest_bytes`].
    pub fn save_manifest(&self, manifest: &OciManifest, digest: &str) -> Result<()> {
        self.writable()?;
        let digest: Digest = digest.parse()?;
        self.keep_unreferenced()?;
        let failed = |e: serde_json::Error| Error::io("write", digest.to_string().as_bytes(), e);
        let _lock = self.locks().acquire(&blob_lock(KIND, &digest))?;
        if self.is_saved(&digest)? {
            return Ok(());
        }
        // A manifest that was made here, or written by a program with the same habits, can be restored to its very bytes.
        let compact = serde_json::to_vec(manifest).map_err(failed)?;
        let pretty = serde_json::to_vec_pretty(manifest).map_err(failed)?;
        for bytes in [&compact, &pretty] {
            if check_bytes(bytes, &digest, String::new).is_ok() {
                return self.save_bytes(bytes, &digest);
            }
        }
        self.check_length(&pretty, &digest)?;
        // The note first: it vouches for bytes with this hash alone, so it does no harm before they are there.
        let note = AsSaved { digest: digest.clone(), saved: Digest::of(&pretty) };
        let note = serde_json::to_vec_pretty(&note).map_err(failed)?;
        file::replace(&self.rooms().records, &note_name(&digest), &note, Flush::Now)?;
        file::replace(self.rooms().blobs(KIND), &KIND.file_name(&digest), &pretty, Flush::Now)
    }

    /// Saves the exact bytes of a manifest or an index. Idempotent. [`Error::DigestMismatch`] if they do not hash to the
    /// digest, [`Error::Limit`] if they are too many. Bytes that were there under this digest and do not hash to it are
    /// replaced.
    pub fn save_manifest_bytes(&self, bytes: &[u8], digest: &str) -> Result<()> {
        self.writable()?;
        let digest: Digest = digest.parse()?;
        self.check_length(bytes, &digest)?;
        check_bytes(bytes, &digest, || format!("manifest {digest}"))?;
        let _lock = self.locks().acquire(&blob_lock(KIND, &digest))?;
        self.save_bytes(bytes, &digest)
    }

    /// Loads a manifest or an index, verified: its bytes hash to the digest, or to the note of
    /// [`ImageStorage::save_manifest`]. [`Error::DigestMismatch`] for any others, which are set aside to be fetched again, [`Error::NotFound`] if there are none.
    pub fn load_manifest(&self, digest: &str) -> Result<OciManifest> {
        let digest: Digest = digest.parse()?;
        match self.load(&digest) {
            Ok(Some(manifest)) => Ok(manifest),
            Ok(None) => {
                self.complain_manifest(&digest);
                Err(not_found(&digest))
            }
            Err(error) => {
                self.complain_manifest(&digest);
                Err(error)
            }
        }
    }

    /// Sees to it that a manifest which is damaged is fetched again. One that another program may have written in its own form stays:
    /// it counts as absent, and is that program's all the same.
    pub(super) fn complain_manifest(&self, digest: &Digest) {
        if !self.keeps_unreferenced() {
            self.complain(KIND, digest);
        }
    }

    /// The exact bytes of a manifest or an index if they are there and hash to the digest. Others count as absent: to be
    /// fetched again.
    pub fn manifest_bytes(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        self.read_verified(KIND, digest)
    }

    /// Returns true if [`ImageStorage::load_manifest`] would load the manifest. One that boxlite serialised again does not hash to its
    /// name, and one that is damaged does not either: the caller fetches it, and saves it over that. Reads and hashes it.
    pub fn has_manifest(&self, digest: &str) -> bool {
        digest.parse().is_ok_and(|digest| matches!(self.load(&digest), Ok(Some(_))))
    }

    /// The path of a manifest. No I/O.
    pub fn manifest_path(&self, digest: &str) -> PathBuf {
        layout::blob_path(self.images_dir(), KIND, digest)
    }

    fn load(&self, digest: &Digest) -> Result<Option<OciManifest>> {
        let bytes = match self.read_document(KIND, digest) {
            Ok(None) => return Ok(None),
            Ok(Some(bytes)) => bytes,
            Err(error @ Error::DigestMismatch { .. }) => self.read_as_saved(digest)?.ok_or(error)?,
            Err(error) => return Err(error),
        };
        parse(&bytes, digest).map(Some)
    }

    /// Whether what is there must stay: exact bytes, whether they can be read or not, or a typed manifest as it was saved.
    /// Anything else than bytes that are absent or wrong is no leave to write over them.
    fn is_saved(&self, digest: &Digest) -> Result<bool> {
        match self.read_document(KIND, digest) {
            Ok(bytes) => Ok(bytes.is_some()),
            Err(Error::DigestMismatch { .. }) => {
                Ok(self.read_as_saved(digest)?.is_some_and(|bytes| parse(&bytes, digest).is_ok()))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether what is there is what [`ImageStorage::save_manifest`] wrote.
    pub(super) fn is_as_saved(&self, digest: &Digest) -> Result<bool> {
        match self.read_as_saved(digest) {
            Ok(bytes) => Ok(bytes.is_some()),
            Err(Error::Limit { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The bytes that [`ImageStorage::save_manifest`] wrote, if they still are what it wrote.
    fn read_as_saved(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let Some(note) = file::read_trusted(&self.rooms().records, &note_name(digest), 64 << 10)? else {
            return Ok(None);
        };
        let Ok(note) = serde_json::from_slice::<AsSaved>(&note) else { return Ok(None) };
        let bytes = file::read(self.rooms().blobs(KIND), &KIND.file_name(digest), self.limit_of(KIND))?;
        Ok(bytes.filter(|bytes| note.digest == *digest && note.saved == Digest::of(bytes)))
    }

    /// The lock of the manifest is held: a typed manifest must not take the place of exact bytes.
    fn save_bytes(&self, bytes: &[u8], digest: &Digest) -> Result<()> {
        if self.read_verified(KIND, digest)?.is_some() {
            return Ok(());
        }
        let expected = self.expect(KIND, digest.clone(), Some(bytes.len() as u64))?;
        let mut staged = Staged::new(Draft::create(self.rooms().blobs(KIND), expected, self.locks(), None)?);
        staged.write_all(bytes).map_err(|e| Error::io("write", KIND.file_name(digest).as_bytes(), e))?;
        staged.verify()?.commit()?;
        file::remove(&self.rooms().records, &note_name(digest)).map(drop)
    }

    fn check_length(&self, bytes: &[u8], digest: &Digest) -> Result<()> {
        self.expect(KIND, digest.clone(), Some(bytes.len() as u64)).map(drop)
    }
}

/// Parses a manifest or an index. A document that could be taken for either is refused: two programs would see two images
/// under one digest (CVE-2021-41190).
pub(super) fn parse(bytes: &[u8], digest: &Digest) -> Result<OciManifest> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        schema_version: u32,
        media_type: Option<String>,
        manifests: Option<IgnoredAny>,
        layers: Option<IgnoredAny>,
        config: Option<IgnoredAny>,
    }
    let refused = |reason: String| Error::Refused { subject: format!("manifest {digest}"), reason };
    let invalid = |e: serde_json::Error| refused(format!("it is not a manifest: {e}"));
    let shape: Shape = serde_json::from_slice(bytes).map_err(invalid)?;
    if shape.schema_version != 2 {
        return Err(Error::Unsupported { what: format!("a manifest of schema version {}", shape.schema_version) });
    }
    let index = shape.manifests.is_some();
    if index && (shape.layers.is_some() || shape.config.is_some()) {
        return Err(refused("it is an index and an image in one".into()));
    }
    let claims_index = shape.media_type.as_deref().map(|t| t.contains("image.index") || t.contains("manifest.list"));
    if claims_index.is_some_and(|claims| claims != index) {
        return Err(refused("its media type contradicts its content".into()));
    }
    if index {
        serde_json::from_slice(bytes).map(OciManifest::ImageIndex).map_err(invalid)
    } else {
        serde_json::from_slice(bytes).map(OciManifest::Image).map_err(invalid)
    }
}

pub(super) fn not_found(digest: &Digest) -> Error {
    Error::NotFound {
        what: format!("manifest {digest}"),
        hint: Some("pull the image first: cofferdam pull REF".into()),
    }
}

/// The name of the note about a manifest that was saved in its typed form.
pub(super) fn note_name(digest: &Digest) -> String {
    format!("manifest.{}.json", digest.file_stem())
}
