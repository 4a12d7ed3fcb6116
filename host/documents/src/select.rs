//! From a name to one image: through indexes, by platform.

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_core::error::{Error, ErrorKind, Result};
use cofferdam_core::limits::Limits;

use super::config::Configuration;
use super::descriptor::Descriptor;
use super::manifest::{Document, Index, IndexEntry, Manifest};
use super::platform::{Platform, StatedPlatform};
use super::raw_document::RawDocument;

/// Which platform's image is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum PlatformChoice {
    /// The host's, where there is a choice; an image that is not in an index is taken as it is.
    #[default]
    Host,
    /// This one and nothing else.
    Exactly(Platform),
}

impl PlatformChoice {
    /// The platform to look for.
    pub fn platform(&self) -> Platform {
        match self {
            Self::Host => Platform::host(),
            Self::Exactly(platform) => platform.clone(),
        }
    }

    /// Holds the platform that an image's configuration states against this choice.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it is another one.
    pub fn check_config(&self, image: &str, stated: Option<&StatedPlatform>) -> Result<()> {
        match (self, stated) {
            (Self::Exactly(wanted), Some(stated)) if !stated.suits(wanted) => Err(Error::NotFound {
                what: format!("an image for {wanted} in {image}"),
                hint: Some(format!("it is for {stated}")),
            }),
            _ => Ok(()),
        }
    }
}

/// Where [`resolve_image`] gets documents: a source, or a store that asks a source for what it lacks.
#[async_trait]
pub trait Documents: Send + Sync {
    /// The document that the name stands for.
    async fn top(&self) -> Result<RawDocument>;

    /// A document that another one points to, verified against the descriptor.
    async fn document(&self, descriptor: &Descriptor) -> Result<RawDocument>;

    /// The bytes of an image configuration, verified against the descriptor, whose size the caller has checked.
    async fn config(&self, descriptor: &Descriptor) -> Result<Bytes>;
}

/// One image of one platform, and the way to it.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The indexes that led to the manifest, outermost first; none if the name stands for the manifest itself.
    pub indexes: Vec<RawDocument>,
    /// The manifest as received.
    pub raw: RawDocument,
    /// The manifest as read.
    pub manifest: Manifest,
    /// What the innermost index that speaks of platforms says that the image is for.
    pub platform: Option<Platform>,
}

impl Resolved {
    /// The document that the name stands for.
    pub fn top(&self) -> &RawDocument {
        self.indexes.first().unwrap_or(&self.raw)
    }

    /// Holds what the image's configuration says that it is for against the choice. Where an index decided, its word counts.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it is for another platform.
    pub fn check_config(&self, choice: &PlatformChoice, image: &str, stated: Option<&StatedPlatform>) -> Result<()> {
        if self.platform.is_some() { Ok(()) } else { choice.check_config(image, stated) }
    }
}

/// The most entries without a platform whose configurations are asked for in one index.
const MOST_ASKED: usize = 32;

/// Follows a name to the manifest of one image. `image` is its name for messages.
///
/// # Errors
/// [`Error::NotFound`] when no image is for the platform, [`Error::Limit`] when indexes are nested too deep, and those of
/// [`Document::parse`].
pub async fn resolve_image(
    image: &str,
    documents: &dyn Documents,
    choice: &PlatformChoice,
    limits: &Limits,
) -> Result<Resolved> {
    let search = Search { image, documents, platform: &choice.platform(), limits };
    let top = documents.top().await?;
    search.follow(top, Vec::new(), None).await
}

/// The search for one image.
struct Search<'a> {
    image: &'a str,
    documents: &'a dyn Documents,
    platform: &'a Platform,
    limits: &'a Limits,
}

impl Search<'_> {
    /// Follows a document to a manifest. `stated` is what the indexes above say that it is for.
    async fn follow(
        &self,
        mut raw: RawDocument,
        mut indexes: Vec<RawDocument>,
        mut stated: Option<Platform>,
    ) -> Result<Resolved> {
        loop {
            match Document::parse(&raw, self.limits)? {
                Document::Manifest(manifest) => return Ok(Resolved { indexes, raw, manifest, platform: stated }),
                Document::Index(index) => {
                    if indexes.len() >= self.limits.index_depth {
                        return Err(Error::Limit {
                            subject: format!("the index {}", raw.digest),
                            what: "indexes inside of indexes",
                            limit: self.limits.index_depth as u64,
                        });
                    }
                    indexes.push(raw);
                    match index.stated(self.platform) {
                        Some(entry) => {
                            raw = self.documents.document(entry.selected()?).await?;
                            stated = entry.platform.clone().or(stated);
                        }
                        None => return self.ask(&index, indexes, stated).await,
                    }
                }
            }
        }
    }

    /// Chooses among the entries that state no platform: a single one is taken, of several the one whose configuration fits best.
    async fn ask(&self, index: &Index, indexes: Vec<RawDocument>, stated: Option<Platform>) -> Result<Resolved> {
        let unstated: Vec<_> = index.entries.iter().filter(|entry| entry.platform.is_none()).take(MOST_ASKED).collect();
        let mut there: Vec<_> =
            index.entries.iter().filter_map(|entry| Some(entry.platform.as_ref()?.to_string())).collect();
        if let [entry] = unstated.as_slice() {
            let raw = self.documents.document(entry.selected()?).await?;
            return Box::pin(self.follow(raw, indexes, stated)).await;
        }
        let mut best: Option<(u32, Resolved)> = None;
        for entry in unstated {
            let Some((mut resolved, offered)) = self.offer(entry, &indexes).await? else { continue };
            resolved.platform = resolved.platform.or_else(|| stated.clone());
            let distance = self.platform.distance(&offered);
            there.push(offered.to_string());
            if let Some(distance) = distance
                && best.as_ref().is_none_or(|(nearest, _)| distance < *nearest)
            {
                best = Some((distance, resolved));
            }
        }
        match best {
            Some((_, resolved)) => Ok(resolved),
            None => Err(not_there(self.image, self.platform, there)),
        }
    }

    /// The image of an entry, and the platform that it says it is for. Nothing for an entry that is no image, or not for anything:
    /// that is no reason why another one should not be used.
    async fn offer(&self, entry: &IndexEntry, indexes: &[RawDocument]) -> Result<Option<(Resolved, Platform)>> {
        let Ok(descriptor) = &entry.descriptor else { return Ok(None) };
        let read = async {
            let raw = self.documents.document(descriptor).await?;
            let resolved = Box::pin(self.follow(raw, indexes.to_vec(), None)).await?;
            let (layers, config) = (resolved.manifest.layers.len(), &resolved.manifest.config);
            let bytes = self.documents.config(config).await?;
            let head = Configuration::parse(&bytes, &config.digest, layers)?;
            let offered = resolved.platform.clone().or_else(|| Some(head.platform?.platform().clone()));
            Ok::<_, Error>(offered.map(|offered| (resolved, offered)))
        };
        match read.await {
            Err(error) if matches!(error.kind(), ErrorKind::Refused | ErrorKind::NotFound) => {
                tracing::debug!("{}: an entry of its index is passed over: {}", self.image, error.root());
                Ok(None)
            }
            other => other,
        }
    }
}

fn not_there(image: &str, platform: &Platform, mut there: Vec<String>) -> Error {
    there.sort_unstable();
    there.dedup();
    there.truncate(32);
    Error::NotFound {
        what: format!("an image for {platform} in {image}"),
        hint: (!there.is_empty()).then(|| format!("there are images for {}", there.join(", "))),
    }
}

impl Index {
    /// The entry that states a platform which suits this one best; of equals the first that can be used.
    pub fn stated(&self, platform: &Platform) -> Option<&IndexEntry> {
        let suited =
            self.entries.iter().filter_map(|entry| Some((platform.distance(entry.platform.as_ref()?)?, entry)));
        suited.min_by_key(|(distance, entry)| (*distance, entry.descriptor.is_err())).map(|(_, entry)| entry)
    }
}
