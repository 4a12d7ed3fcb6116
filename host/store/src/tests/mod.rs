//! The store's promises, each tried from outside of the room.

#![expect(clippy::disallowed_methods, reason = "tests look at the store from outside, by path")]

mod blobs;
mod collect;
mod crash;
mod crowd;
mod documents;
mod durability;
mod images;
mod plugins;
mod reports;
mod trees;
mod trust;

use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cofferdam_core::Watch;
use cofferdam_core::digest::{Digest, Hasher};
use cofferdam_core::error::{Error, ErrorKind, Result};
use cofferdam_core::limits::Limits;
use cofferdam_documents::plugin::InspectorReport;
use cofferdam_tree::{LayerUnpacker, UnpackedLayer};

use super::*;

/// A store in a directory that goes when the test ends.
pub(super) struct Fixture {
    pub(super) storage: ImageStorage,
    unpacker: Arc<Toy>,
    temp: tempfile::TempDir,
}

impl Fixture {
    pub(super) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let unpacker = Arc::new(Toy::default());
        let storage = open(&temp.path().join("images"), &unpacker);
        Self { storage, unpacker, temp }
    }

    pub(super) fn path(&self, relative: &str) -> std::path::PathBuf {
        self.temp.path().join("images").join(relative)
    }

    /// The store as another process would see it: opened anew.
    fn reopen(&self) -> ImageStorage {
        open(&self.temp.path().join("images"), &self.unpacker)
    }

    /// Puts bytes under a layer's name without asking whether they are right.
    fn plant_layer(&self, digest: &Digest, bytes: &[u8]) {
        std::fs::write(self.storage.layer_tarball_path(&digest.to_string()), bytes).unwrap();
    }

    /// Commits a layer in the right way.
    pub(super) fn add_layer(&self, bytes: &[u8]) -> LayerDescriptor {
        let digest = Digest::of(bytes);
        let expected = self.storage.expect(BlobKind::Layer, digest.clone(), Some(bytes.len() as u64)).unwrap();
        let dir = self.storage.rooms().blobs(BlobKind::Layer);
        let draft = stage::Draft::create(dir, expected, self.storage.locks(), None).unwrap();
        let mut staged = Staged::new(draft);
        staged.write_all(bytes).unwrap();
        staged.verify().unwrap().commit().unwrap();
        LayerDescriptor {
            digest,
            size: Some(bytes.len() as u64),
            media_type: Some("application/vnd.oci.image.layer.v1.tar".into()),
            diff_id: Some(toy_diff_id(bytes)),
        }
    }
}

/// Opens a store of which the opening is what is tested.
pub(super) fn try_open(path: impl AsRef<Path>) -> Result<ImageStorage> {
    ImageStorage::open(path.as_ref(), Limits::default(), Arc::<Toy>::default())
}

fn open(path: &Path, unpacker: &Arc<Toy>) -> ImageStorage {
    ImageStorage::open(path, Limits::default(), Arc::clone(unpacker) as Arc<dyn LayerUnpacker>).unwrap()
}

/// Unpacks a blob into a tree with one file that holds its bytes; "decodes" it by hashing them twice over.
#[derive(Default)]
struct Toy {
    calls: AtomicU32,
    /// Who inspects layers: each refuses one that says `bad`.
    inspectors: Vec<Digest>,
    /// The plugin that reads layers of media types of its own.
    plugin: Option<Digest>,
}

/// A layer's media type that only a plugin reads.
const FOREIGN: &str = "application/vnd.example.layer";

impl Toy {
    fn look(&self, bytes: &[u8]) -> Result<Vec<InspectorReport>> {
        if !self.inspectors.is_empty() && bytes.starts_with(b"bad") {
            return Err(Error::refused(b"etc/content", "it is bad"));
        }
        let report = |identity: &Digest| InspectorReport {
            plugin: "toy".into(),
            identity: identity.clone(),
            report: bytes.to_vec(),
        };
        Ok(self.inspectors.iter().map(report).collect())
    }
}

impl LayerUnpacker for Toy {
    fn unpack(
        &self,
        mut blob: Box<dyn Read + Send>,
        layer: &LayerDescriptor,
        dest: OwnedFd,
        _: &Watch,
    ) -> Result<UnpackedLayer> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let dest = cap_std::fs::Dir::from_std_file(dest.into());
        let mut bytes = Vec::new();
        blob.read_to_end(&mut bytes).unwrap();
        dest.create_dir("etc").unwrap();
        dest.create("etc/content").unwrap().write_all(&bytes).unwrap();
        if bytes == b"hostile" {
            return Err(Error::refused(b"../x", "it climbs"));
        }
        if bytes.starts_with(b"slow") {
            // Long enough for others to arrive; nothing depends on it.
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(UnpackedLayer {
            decoded_bytes: 0,
            diff_id: match &layer.diff_id {
                Some(claimed) => {
                    let mut hasher = Hasher::new(claimed.algorithm());
                    hasher.update(&bytes.repeat(2));
                    hasher.finish()
                }
                None => toy_diff_id(&bytes),
            },
            record: br#"{"links":[]}"#.to_vec(),
            reader: self.reader(layer.media_type.as_deref(), &bytes)?,
            reports: self.look(&bytes)?,
        })
    }

    fn reader(&self, media_type: Option<&str>, first_bytes: &[u8]) -> Result<Option<Digest>> {
        match media_type {
            Some(FOREIGN) if self.plugin.is_none() => Err(Error::Unsupported { what: FOREIGN.into() }),
            Some(FOREIGN) => Ok(self.plugin.clone()),
            None if first_bytes.starts_with(b"foreign") => Ok(self.plugin.clone()),
            _ => Ok(None),
        }
    }

    fn inspectors(&self) -> Vec<Digest> {
        self.inspectors.clone()
    }

    fn inspect(&self, mut blob: Box<dyn Read + Send>, _: &LayerDescriptor, _: &Watch) -> Result<Vec<InspectorReport>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mut bytes = Vec::new();
        blob.read_to_end(&mut bytes).unwrap();
        self.look(&bytes)
    }

    fn with_limits(self: Arc<Self>, _: &Limits) -> Arc<dyn LayerUnpacker> {
        self
    }
}

fn toy_diff_id(bytes: &[u8]) -> Digest {
    Digest::of(&bytes.repeat(2))
}

/// The names in a directory of the store, sorted.
fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn assert_nothing_staged(fixture: &Fixture) {
    for dir in ["layers", "configs", "manifests", "extracted", "refs", "records", "."] {
        for name in names(&fixture.path(dir)) {
            assert!(!name.ends_with("ing"), "{dir}/{name} was left behind");
        }
    }
    let locks: Vec<_> = names(&fixture.path("locks"))
        .into_iter()
        .filter(|name| !["store.lock", "gate.lock"].contains(&name.as_str()))
        .collect();
    assert!(locks.is_empty(), "locks were left behind: {locks:?}");
}

fn age(path: &Path, by: Duration) {
    let file = File::open(path).unwrap();
    file.set_modified(std::time::SystemTime::now() - by).unwrap();
}
