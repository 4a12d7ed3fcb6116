//! Unpacking while others are at work in the store.

#![expect(clippy::disallowed_methods, reason = "tests look at the store from outside, by path")]

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use super::{LayerProvider, Strategy, UnpackOptions, unpack};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::sandbox::{Sandbox, SandboxOptions};
use crate::store::{
    ImageObject, ImageRef, ImageStorage, LayerDescriptor, LayerUnpacker, Lease, Tree, UnpackedLayer, Watch,
};
use crate::tree::{LayerRecord, Mode, TreeWriter, WriterOptions};
use crate::unpack::Unpacker;

/// A layer becomes one empty directory, of the name that its blob is.
struct Naming;

impl LayerUnpacker for Naming {
    fn unpack(
        &self,
        mut blob: Box<dyn Read + Send>,
        _: &LayerDescriptor,
        dest: OwnedFd,
        _: &Watch,
    ) -> Result<UnpackedLayer> {
        let mut name = String::new();
        blob.read_to_string(&mut name).unwrap();
        let mut writer = TreeWriter::new(dest.try_clone().unwrap(), WriterOptions::new(Mode::Preserve))?;
        rustix::fs::mkdirat(&dest, name.as_str(), rustix::fs::Mode::RWXU).unwrap();
        let record: LayerRecord = writer.finish_layer()?;
        writer.finish()?;
        let digest = Digest::of(name.as_bytes());
        Ok(UnpackedLayer {
            decoded_bytes: 0,
            diff_id: digest,
            record: record.to_json()?,
            reader: None,
            reports: Vec::new(),
        })
    }

    fn with_limits(self: Arc<Self>, _: &Limits) -> Arc<dyn LayerUnpacker> {
        self
    }
}

fn open(path: &Path) -> ImageStorage {
    ImageStorage::open(path, Limits::default(), Arc::new(Naming)).unwrap()
}

fn unpacker() -> Unpacker {
    Unpacker::new(Arc::new(Sandbox::new(&SandboxOptions::default()).unwrap()), Limits::default())
}

/// An image of these layers, published as `a:1`.
fn publish(storage: &ImageStorage, names: &[&str]) -> ImageObject {
    let digests: Vec<_> = names.iter().map(|name| Digest::of(name.as_bytes())).collect();
    for (name, digest) in names.iter().zip(&digests) {
        std::fs::write(storage.layer_tarball_path(&digest.to_string()), name).unwrap();
    }
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": digests },
    })
    .to_string();
    let config_digest = Digest::of(config.as_bytes());
    std::fs::write(storage.config_path(&config_digest.to_string()), &config).unwrap();
    let layers: Vec<_> = names
        .iter()
        .zip(&digests)
        .map(|(name, digest)| {
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": name.len(),
            })
        })
        .collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config.len(),
        },
        "layers": layers,
    })
    .to_string();
    let digest = Digest::of(manifest.as_bytes());
    storage.save_manifest_bytes(manifest.as_bytes(), &digest.to_string()).unwrap();
    let image = ImageRef {
        reference: "a:1".into(),
        manifest: digest,
        index: None,
        platform: None,
        pulled_at: 0,
        pulled_as: None,
        decision: None,
    };
    storage.publish(image, &storage.in_use_blocking().unwrap()).unwrap()
}

/// Does something to the store when the last layer is asked for.
struct Meddled<'a, F: Fn() + Sync> {
    storage: &'a ImageStorage,
    last: Digest,
    meddle: F,
}

impl<F: Fn() + Sync> LayerProvider for Meddled<'_, F> {
    fn lease(&self, image: &ImageObject, cancel: &Cancel) -> Result<Lease> {
        self.storage.lease_object(image, cancel)
    }

    fn tree(&self, layer: &LayerDescriptor, watch: &Watch) -> Result<Tree> {
        let tree = self.storage.tree(layer, watch)?;
        if layer.digest == self.last {
            (self.meddle)();
        }
        Ok(tree)
    }

    fn blob(&self, layer: &LayerDescriptor) -> Result<File> {
        self.storage.open_layer(&layer.digest)
    }
}

fn alone() -> UnpackOptions {
    UnpackOptions { concurrency: const { std::num::NonZeroUsize::new(1).unwrap() }, ..UnpackOptions::default() }
}

/// An embedder unpacks, another process removes the image.
#[test]
fn a_removal_takes_no_layer_away_from_an_unpack() {
    let temp = tempfile::tempdir().unwrap();
    let storage = open(&temp.path().join("store"));
    let image = publish(&storage, &["one", "two"]);
    let other = open(&temp.path().join("store"));
    let meddled = Meddled {
        storage: &storage,
        last: Digest::of(b"two"),
        meddle: || {
            let removed = other.remove("a:1").unwrap();
            assert!(removed.kept.is_some() && removed.trees.is_empty() && removed.blobs.is_empty());
        },
    };
    let dest = temp.path().join("rootfs");
    assert_eq!(unpack(&image, &meddled, &unpacker(), &dest, &alone()).unwrap().strategy, Strategy::Copy);
    assert!(dest.join("one").is_dir() && dest.join("two").is_dir());
    assert!(storage.has_layer(&Digest::of(b"one").to_string()));
}

/// A tree itself is enough: it says that the store is in use for as long as it lives.
#[test]
fn a_tree_holds_the_store() {
    let temp = tempfile::tempdir().unwrap();
    let storage = open(&temp.path().join("store"));
    let image = publish(&storage, &["one"]);
    let tree = storage.ensure_tree(&image.layers[0]).unwrap();
    assert!(open(&temp.path().join("store")).remove("a:1").unwrap().kept.is_some());
    assert!(tree.path().join("one").is_dir());
}

/// Somebody who takes no locks removes a tree, or puts another in its place: that is said, and nothing is unpacked.
#[test]
fn a_layer_is_never_missing_without_a_word() {
    for replaced in [false, true] {
        let temp = tempfile::tempdir().unwrap();
        let storage = open(&temp.path().join("store"));
        let image = publish(&storage, &["one", "two"]);
        let path = storage.trees().path(&Digest::of(b"one"));
        let meddled = Meddled {
            storage: &storage,
            last: Digest::of(b"two"),
            meddle: || {
                std::fs::remove_dir_all(&path).unwrap();
                if replaced {
                    std::fs::create_dir(&path).unwrap();
                }
            },
        };
        let dest = temp.path().join("rootfs");
        let error = unpack(&image, &meddled, &unpacker(), &dest, &alone()).unwrap_err();
        assert!(matches!(error.root(), Error::Busy { .. }), "{error}");
        assert!(!dest.exists());
    }
}

#[test]
fn an_unpack_that_waits_for_another_ends_when_it_is_given_up() {
    let temp = tempfile::tempdir().unwrap();
    let storage = open(&temp.path().join("store"));
    let image = publish(&storage, &["one"]);
    let staged = storage.trees().begin(&image.layers[0], None).unwrap().granted().unwrap();
    let options = UnpackOptions::default();
    let dest = temp.path().join("rootfs");
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| unpack(&image, &storage, &unpacker(), &dest, &options));
        options.cancel.cancel();
        assert!(matches!(waiter.join().unwrap().unwrap_err().root(), Error::Interrupted));
    });
    drop(staged);
    assert!(!dest.exists());
}
