//! From a name to one image: through indexes, by platform.

use async_trait::async_trait;

use super::descriptor::Descriptor;
use super::manifest::{Document, Index, IndexEntry, Manifest};
use super::platform::{Platform, StatedPlatform};
use super::source::RawDocument;
use crate::error::{Error, Result};
use crate::limits::Limits;

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
}

impl Resolved {
    /// The document that the name stands for.
    pub fn top(&self) -> &RawDocument {
        self.indexes.first().unwrap_or(&self.raw)
    }
}

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
    let platform = choice.platform();
    let mut indexes = Vec::new();
    let mut raw = documents.top().await?;
    loop {
        match Document::parse(&raw, limits)? {
            Document::Manifest(manifest) => return Ok(Resolved { indexes, raw, manifest }),
            Document::Index(index) => {
                if indexes.len() >= limits.index_depth {
                    return Err(Error::Limit {
                        subject: format!("the index {}", raw.digest),
                        what: "indexes inside of indexes",
                        limit: limits.index_depth as u64,
                    });
                }
                let descriptor = index.choose(image, &platform)?.descriptor.clone();
                indexes.push(raw);
                raw = documents.document(&descriptor).await?;
            }
        }
    }
}

impl Index {
    /// The entry whose image suits the platform best; of equals the first. Where no entry that states a platform does, a
    /// single one that states none is taken.
    pub fn choose(&self, image: &str, platform: &Platform) -> Result<&IndexEntry> {
        let suited = self
            .entries
            .iter()
            .filter_map(|entry| Some((platform.distance(entry.platform.as_ref()?)?, entry)))
            .min_by_key(|(distance, _)| *distance);
        if let Some((_, entry)) = suited {
            return Ok(entry);
        }
        let mut unstated = self.entries.iter().filter(|entry| entry.platform.is_none());
        if let (Some(entry), None) = (unstated.next(), unstated.next()) {
            return Ok(entry);
        }
        let mut there: Vec<_> =
            self.entries.iter().filter_map(|entry| Some(entry.platform.as_ref()?.to_string())).collect();
        there.sort_unstable();
        there.dedup();
        there.truncate(32);
        Err(Error::NotFound {
            what: format!("an image for {platform} in {image}"),
            hint: (!there.is_empty()).then(|| format!("there are images for {}", there.join(", "))),
        })
    }
}
