//! Pull: an image from its source into the store, fetched, verified and unpacked at the same time.
//!
//! ```text
//! name ─▶ index ─▶ manifest ─▶ configuration ─▶ layers, several at once ─▶ reference
//! ```
//!
//! The reference is published last: who finds it finds an image that is whole. What is in the store is not fetched
//! again. When a pull fails or is cancelled, all of its work has ended, nothing is staged and its trees are taken back when it
//! returns; when it is dropped, its work ends on its own shortly after, and trees that were finished stay.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_core::ImageBudget;
use cofferdam_core::cancel::Cancel;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use cofferdam_core::progress::{Event, Progress};
use cofferdam_core::threads;
use cofferdam_documents::{Configuration, Descriptor, Documents, PlatformChoice, RawDocument, Resolved, resolve_image};
use cofferdam_store::{BlobKind, Claim, ImageObject, ImageRef, ImageStorage, LayerDescriptor, Lease, check_reference};
use cofferdam_tree::LayerUnpacker;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::admission::{Admission, Candidate};
use super::fetch;
use super::layer::{Brought, Layers, distinct};
use super::retry::RetryPolicy;
use super::tasks::Tasks;
use crate::image_source::ImageSource;

/// How to pull.
#[derive(Clone)]
pub struct PullOptions {
    /// Which platform's image.
    pub platform: PlatformChoice,
    /// Layers at once. Each takes up to six threads while it is fetched and extracted.
    pub concurrency: NonZeroUsize,
    /// How patient to be.
    pub retry: RetryPolicy,
    /// The name under which the image is published; without one, the source's.
    pub publish_as: Option<String>,
    /// Who is asked whether the image may be used, when its manifest is known and nothing of its layers is fetched.
    pub admission: Option<Arc<dyn Admission>>,
    /// How the caller gives up. Unlike dropping the pull, this takes back what it made, and ends when that is done.
    pub cancel: Cancel,
}

impl Default for PullOptions {
    /// The host's platform, three layers at once.
    fn default() -> Self {
        Self {
            platform: PlatformChoice::default(),
            concurrency: const { NonZeroUsize::new(3).unwrap() },
            retry: RetryPolicy::default(),
            publish_as: None,
            admission: None,
            cancel: Cancel::new(),
        }
    }
}

/// An image that was pulled.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The image.
    pub image: ImageObject,
    /// The reference that was published.
    pub published: ImageRef,
    /// Layers that had to be downloaded, each counted once.
    pub downloaded_layers: usize,
    /// Bytes of layers that were downloaded.
    pub downloaded_bytes: u64,
    /// Layers whose blob was there, and was unpacked.
    pub unpacked_layers: usize,
    /// Layers whose tree was there.
    pub cached_layers: usize,
    /// Keeps the image's parts from being freed, even if somebody removes its reference, until this and its clones are dropped.
    pub lease: Lease,
}

/// Pulls an image into a store. What fails, or is given up, leaves nothing but verified blobs, which save the next pull a
/// download.
///
/// # Errors
/// All that a source, a store and an unpacker may say; the first thing that went wrong, with the layer it happened to.
pub async fn pull(
    source: &dyn ImageSource,
    storage: &ImageStorage,
    unpacker: Arc<dyn LayerUnpacker>,
    options: &PullOptions,
    progress: &Progress,
) -> Result<Pulled> {
    let tasks = Tasks::new();
    let made = Mutex::default();
    let budget = ImageBudget::new(storage.limits());
    let work =
        Layers { source, storage, unpacker, retry: &options.retry, progress, tasks: &tasks, budget, made: &made };
    let outcome = tokio::select! {
        biased;
        outcome = attempt(&work, options) => outcome,
        () = options.cancel.cancelled() => Err(Error::Interrupted),
    };
    drop(work);
    if outcome.is_err() {
        tasks.stop_all().await;
        withdraw(storage, made.into_inner().unwrap_or_else(PoisonError::into_inner)).await;
    }
    outcome
}

async fn attempt(work: &Layers<'_>, options: &PullOptions) -> Result<Pulled> {
    let Layers { source, storage, progress, tasks, .. } = *work;
    let documents = ThroughStore { source, storage, retry: &options.retry };
    let limits = storage.limits();
    let resolved = resolve_image(&source.name(), &documents, &options.platform, limits).await?;
    let (manifest, digest) = (&resolved.manifest, &resolved.raw.digest);
    manifest.check_layers(|media_type| work.unpacker.reads(media_type))?;
    let config = documents.config(&manifest.config).await?;
    let head = Configuration::parse(&config, &manifest.config.digest, manifest.layers.len())?;
    resolved.check_config(&options.platform, &source.name(), head.platform.as_ref())?;
    let own_name = source.store_name();
    let name = options.publish_as.clone().map_or_else(|| source.store_name(), Ok)?;
    let pulled_as = own_name.ok().filter(|own| *own != name);
    // What the store would refuse at the end is refused before a layer is fetched.
    check_reference(&name)?;
    let layers = distinct(&manifest.layers, &head.diff_ids, digest)?;
    let decision = match &options.admission {
        Some(admission) => {
            let (admission, candidate) = (Arc::clone(admission), Candidate::of(&name, source.server(), &resolved));
            let stop = tasks.stop();
            tasks.spawn(move || admission.admit(&candidate, &stop)).join().await?
        }
        None => None,
    };
    // Before the first look for any of it: what is found stays until the reference is published. Documents that were read from
    // the store above are kept again below.
    let documents = resolved.indexes.iter().map(|index| &index.digest).chain([digest, &manifest.config.digest]);
    let leased = documents.chain(layers.iter().map(|(_, layer)| &layer.digest)).cloned().collect::<Vec<_>>();
    let lease = storage.lease(leased).await?;
    let (store, needed) = (storage.clone(), layers.clone());
    tasks.spawn(move || store.check_space(needed.iter().map(|(_, layer)| layer))).join().await?;
    progress.emit(Event::Resolved {
        reference: name.clone(),
        manifest: digest.clone(),
        layers: layers.len(),
        bytes: layers.iter().fold(0, |sum, (descriptor, _)| sum.saturating_add(descriptor.size)),
    });
    let (brought, ()) = tokio::try_join!(
        bring_all(work, &layers, options.concurrency),
        save_documents(storage, tasks, &resolved, &config)
    )?;
    let published = ImageRef {
        reference: name,
        manifest: digest.clone(),
        index: resolved.indexes.first().map(|index| index.digest.clone()),
        platform: Some(options.platform.platform().to_string()),
        pulled_at: 0,
        pulled_as,
        decision,
    };
    let (store, reference, held) = (storage.clone(), published.clone(), lease.clone());
    let image = tasks.spawn(move || store.publish(reference, &held)).join().await?;
    storage.promote_later();
    let downloaded = brought.iter().filter_map(|brought| match brought {
        Brought::Downloaded(bytes) => Some(bytes),
        Brought::Cached | Brought::Unpacked => None,
    });
    let count = |what: Brought| brought.iter().filter(|brought| **brought == what).count();
    Ok(Pulled {
        image,
        published,
        downloaded_layers: downloaded.clone().count(),
        downloaded_bytes: downloaded.sum(),
        unpacked_layers: count(Brought::Unpacked),
        cached_layers: count(Brought::Cached),
        lease,
    })
}

/// Removes the trees that a failed pull made: an image of which a part is bad leaves nothing under `extracted/`.
async fn withdraw(storage: &ImageStorage, made: Vec<Digest>) {
    if made.is_empty() {
        return;
    }
    let (store, trees) = (storage.clone(), made.clone());
    let withdrawn = match threads::blocking("cofferdam-pull", move || store.withdraw_trees(&trees)).await {
        // For want of a thread: on this one, since nothing else is under way here.
        Err(Error::Io { .. }) => storage.withdraw_trees(&made),
        withdrawn => withdrawn,
    };
    if let Err(error) = withdrawn {
        tracing::warn!(%error, "cannot remove the trees of a pull that failed");
    }
}

async fn bring_all(
    work: &Layers<'_>,
    layers: &[(Descriptor, LayerDescriptor)],
    concurrency: NonZeroUsize,
) -> Result<Vec<Brought>> {
    stream::iter(layers)
        .map(|(descriptor, layer)| work.bring(descriptor, layer))
        .buffer_unordered(concurrency.get())
        .try_collect()
        .await
}

/// Keeps indexes, manifest and configuration, beside the layers' downloads: each waits for the disk.
async fn save_documents(storage: &ImageStorage, tasks: &Tasks, resolved: &Resolved, config: &Bytes) -> Result<()> {
    let documents: Vec<_> = resolved.indexes.iter().chain([&resolved.raw]).cloned().collect();
    let store = storage.clone();
    let saving = tasks.spawn(move || {
        documents.iter().try_for_each(|raw| store.save_manifest_bytes(&raw.bytes, &raw.digest.to_string()))
    });
    let descriptor = &resolved.manifest.config;
    let claim = storage.begin_blob(BlobKind::Config, &descriptor.digest, Some(descriptor.size)).await?;
    if let Claim::Granted(mut staged) = claim {
        let bytes = config.clone();
        let saving = tasks.spawn(move || {
            std::io::Write::write_all(&mut staged, &bytes)
                .map_err(|error| Error::io("write the configuration", staged.digest().to_string().as_bytes(), error))?;
            staged.verify()?.commit()
        });
        saving.join().await?;
    }
    saving.join().await
}

/// Documents of the store where they are there, else of the source.
struct ThroughStore<'a> {
    source: &'a dyn ImageSource,
    storage: &'a ImageStorage,
    retry: &'a RetryPolicy,
}

#[async_trait]
impl Documents for ThroughStore<'_> {
    async fn top(&self) -> Result<RawDocument> {
        if let Some(digest) = self.source.pinned()
            && let Some(bytes) = self.storage.manifest_bytes(digest)?
        {
            return Ok(RawDocument { bytes: bytes.into(), digest: digest.clone(), media_type: None });
        }
        fetch::top(self.source, self.retry).await
    }

    async fn document(&self, descriptor: &Descriptor) -> Result<RawDocument> {
        if let Some(bytes) = self.storage.manifest_bytes(&descriptor.digest)? {
            descriptor.verify(&format!("the manifest {}", descriptor.digest), &bytes)?;
            return Ok(RawDocument {
                bytes: bytes.into(),
                digest: descriptor.digest.clone(),
                media_type: Some(descriptor.media_type.clone()),
            });
        }
        fetch::document(self.source, descriptor, self.retry).await
    }

    async fn config(&self, descriptor: &Descriptor) -> Result<Bytes> {
        if let Some(bytes) = self.storage.config_bytes(&descriptor.digest)? {
            descriptor.verify(&format!("the image configuration {}", descriptor.digest), &bytes)?;
            return Ok(bytes.into());
        }
        fetch::config(self.source, descriptor, self.retry).await
    }
}
