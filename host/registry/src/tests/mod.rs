//! A registry that misbehaves on demand, and what a pull makes of it.

#![expect(clippy::disallowed_methods, reason = "tests look at the store from outside, by path")]

mod asking;
mod authorizing;
mod pulling;
mod refusing;
mod server;
mod transfers;

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use cofferdam_core::limits::Limits;
use cofferdam_core::progress::Progress;
use cofferdam_store::{ImageStorage, LayerDescriptor, Watch};
use cofferdam_tree::{LayerUnpacker, UnpackedLayer};
use server::{Reply, Request, Server};

use super::{
    AccessList, Auth, HostAccess, NetworkOptions, PullOptions, Pulled, Reference, Registries, RegistryHost,
    RetryPolicy, Transport, pull,
};
use crate::image_source::ImageSource;

/// Retries without waiting.
fn impatient() -> RetryPolicy {
    RetryPolicy { pause: Duration::from_millis(1), longest: Duration::from_millis(1), ..RetryPolicy::default() }
}

fn options() -> PullOptions {
    PullOptions { retry: impatient(), ..PullOptions::default() }
}

/// Registries of which `server` is reached in the clear, with these credentials and the usual patience.
fn registries(server: &Server, auth: Auth) -> Registries {
    registries_with(server, auth, NetworkOptions::default())
}

/// As nobody, with the usual patience.
fn patient(server: &Server) -> Registries {
    registries(server, Auth::Anonymous)
}

/// As nobody, with little patience: for servers that never get done. No busy machine is to be taken for one.
fn short_of_time(server: &Server) -> Registries {
    let network = NetworkOptions {
        read_timeout: Duration::from_millis(300),
        document_timeout: Duration::from_millis(1500),
        ..NetworkOptions::default()
    };
    registries_with(server, Auth::Anonymous, network)
}

fn registries_with(server: &Server, auth: Auth, network: NetworkOptions) -> Registries {
    let access = HostAccess { transport: Transport::PlainHttp, auth, ..HostAccess::default() };
    Registries::new(AccessList::new().with(server.host(), access), network, Limits::default()).unwrap()
}

fn reference(server: &Server, rest: &str) -> Reference {
    format!("{}/{rest}", server.host()).parse().unwrap()
}

/// An image of plain layers, as a registry would serve it.
#[derive(Clone)]
struct Image {
    manifest: String,
    config: String,
    layers: Vec<Vec<u8>>,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

impl Image {
    fn new(layers: &[&[u8]]) -> Self {
        let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer)).collect();
        Self::with_diff_ids(layers, &diff_ids)
    }

    fn with_diff_ids(layers: &[&[u8]], diff_ids: &[Digest]) -> Self {
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string();
        let layer = |layer: &&[u8]| {
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": Digest::of(layer), "size": layer.len(),
                "urls": ["http://127.0.0.1:9/never"],
            })
        };
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest::of(config.as_bytes()), "size": config.len(),
            },
            "layers": layers.iter().map(layer).collect::<Vec<_>>(),
        })
        .to_string();
        Self { manifest, config, layers: layers.iter().map(|layer| layer.to_vec()).collect() }
    }

    fn digest(&self) -> Digest {
        Digest::of(self.manifest.as_bytes())
    }

    /// What a well-behaved registry answers.
    fn serve(&self, request: &Request) -> Reply {
        let key = request.path.rsplit('/').next().unwrap_or_default();
        if request.path.contains("/manifests/") && (key == "latest" || key == self.digest().to_string()) {
            return Reply::ok(&self.manifest).with("Content-Type", MANIFEST);
        }
        let blobs = self.layers.iter().map(Vec::as_slice).chain([self.config.as_bytes()]);
        let blob = blobs.into_iter().find(|blob| key == Digest::of(blob).to_string());
        match (blob, request.range()) {
            (None, _) => Reply::status(404),
            (Some(blob), None) => Reply::ok(blob),
            (Some(blob), Some(from)) => Reply::new(206, &blob[from..])
                .with("Content-Range", &format!("bytes {from}-{}/{}", blob.len() - 1, blob.len())),
        }
    }
}

/// Unpacks by copying: a layer decodes to itself and becomes one file.
struct Copying;

impl LayerUnpacker for Copying {
    fn with_limits(self: Arc<Self>, _: &Limits) -> Arc<dyn LayerUnpacker> {
        self
    }

    fn unpack(
        &self,
        mut blob: Box<dyn Read + Send>,
        layer: &LayerDescriptor,
        dest: OwnedFd,
        _: &Watch,
    ) -> Result<UnpackedLayer> {
        let mut bytes = Vec::new();
        blob.read_to_end(&mut bytes).map_err(|error| Error::io("read", layer.digest.to_string().as_bytes(), error))?;
        if bytes.starts_with(b"hostile") {
            return Err(Error::refused(b"layer", "it says so itself"));
        }
        let dir = cap_std::fs::Dir::from(dest);
        dir.write("content", &bytes).map_err(|error| Error::io("write", b"content", error))?;
        let decoded_bytes = bytes.len() as u64;
        let (record, reports) = (b"null".to_vec(), Vec::new());
        Ok(UnpackedLayer { diff_id: Digest::of(&bytes), decoded_bytes, record, reader: None, reports })
    }
}

/// A store in a directory of its own.
struct Store {
    storage: ImageStorage,
    temp: tempfile::TempDir,
}

impl Store {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let storage = ImageStorage::open(temp.path().join("images"), Limits::default(), Arc::new(Copying)).unwrap();
        Self { storage, temp }
    }

    async fn pull(&self, source: &dyn ImageSource) -> Result<Pulled> {
        self.pull_with(source, &options()).await
    }

    async fn pull_with(&self, source: &dyn ImageSource, options: &PullOptions) -> Result<Pulled> {
        pull(source, &self.storage, Arc::new(Copying), options, &Progress::none()).await
    }

    /// The names below a directory of the store.
    fn names(&self, dir: &str) -> Vec<String> {
        let entries = self.temp.path().join("images").join(dir).read_dir().unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// What is being written, or was left behind.
    fn staged(&self) -> Vec<String> {
        let dirs = ["layers", "configs", "manifests", "extracted", "refs", "records"];
        let names = dirs.iter().flat_map(|dir| self.names(dir));
        names
            .filter(|name| [".downloading", ".extracting", ".writing"].iter().any(|staging| name.contains(staging)))
            .collect()
    }
}

/// A layer that takes more than one piece.
fn large(seed: u8) -> Vec<u8> {
    (0..1_500_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed).collect()
}

fn source(server: &Server) -> super::RegistrySource {
    registries(server, Auth::Anonymous).source(reference(server, "a"))
}

/// Serves an image, except for layers: those are served by `layer`, which is told how often this layer was asked for.
fn layers_served(image: &Image, layer: impl Fn(&Request, &[u8], usize) -> Reply + Send + Sync + 'static) -> Server {
    let (image, counts) = (image.clone(), Mutex::new(HashMap::new()));
    Server::new(move |request| {
        let found = image.layers.iter().find(|layer| request.path.ends_with(&Digest::of(layer).to_string()));
        let Some(blob) = found else { return image.serve(request) };
        let count = {
            let mut counts = counts.lock().unwrap();
            let count = counts.entry(request.path.clone()).or_insert(0);
            *count += 1;
            *count
        };
        layer(request, blob, count)
    })
}
