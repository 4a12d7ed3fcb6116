//! Trees of local OCI layouts, apart from the registry's.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::ambient;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::Result;
use crate::store::layout;
use crate::store::storage::ImageStorage;
use crate::store::trees::Trees;

impl ImageStorage {
    /// The directory of a local layout's trees: `local/<key>`. The key is a full hash of the layout's canonical path and
    /// its manifest's digest, which the caller has verified, so that neither another layout nor the text of a hostile one
    /// can steer it. A path that does not exist is taken as it is written. No digest: a path that never exists.
    pub fn local_bundle_cache_dir(&self, bundle_path: &Path, manifest_digest: &str) -> PathBuf {
        let local = self.images_dir().join("local");
        match manifest_digest.parse() {
            Ok(digest) => local.join(key(bundle_path, &digest)),
            Err(_) => local.join(layout::stem(manifest_digest)),
        }
    }

    /// The trees of a local layout, in [`ImageStorage::local_bundle_cache_dir`]. `manifest` must be the digest of bytes
    /// that were verified.
    pub fn local_trees(&self, bundle_path: &Path, manifest: &Digest) -> Result<Trees> {
        self.writable()?;
        open(self, &key(bundle_path, manifest))
    }
}

/// The keys of all local layouts.
pub(super) fn keys(storage: &ImageStorage) -> Result<Vec<String>> {
    let mut keys = layout::names(&storage.rooms().local, "local")?;
    keys.retain(|key| is_key(key));
    Ok(keys)
}

/// The trees of a local layout.
pub(super) fn open(storage: &ImageStorage, key: &str) -> Result<Trees> {
    let bundle = layout::private_dir(&storage.rooms().local, key)?;
    Ok(Trees::new(
        storage.images_dir().join("local").join(key).join("extracted"),
        Arc::new(layout::private_dir(&bundle, "extracted")?),
        Arc::new(layout::private_dir(&bundle, "records")?),
        storage.locks().clone(),
        format!("local-{key}"),
        storage.boot_id(),
        storage.access().clone(),
    ))
}

fn key(bundle_path: &Path, manifest: &Digest) -> String {
    let canonical = ambient::canonical(bundle_path);
    let path = canonical.as_deref().unwrap_or(bundle_path).as_os_str().as_bytes();
    let mut hasher = Hasher::new(Algorithm::Sha256);
    // The length keeps the end of the path and the beginning of the digest apart.
    hasher.update(&(path.len() as u64).to_le_bytes());
    hasher.update(path);
    hasher.update(manifest.to_string().as_bytes());
    hasher.finish().hex().to_owned()
}

fn is_key(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
