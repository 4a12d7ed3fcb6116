//! What a name stands for, without a store: for whoever only wants to ask about an image.

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_core::error::Result;
use cofferdam_core::limits::Limits;
use cofferdam_documents::{Descriptor, Documents, PlatformChoice, RawDocument, resolve_image};

use super::admission::Candidate;
use super::fetch;
use super::retry::RetryPolicy;
use crate::image_source::ImageSource;

/// Resolves a name to the image that a pull would ask to be let in. Nothing is kept.
///
/// # Errors
/// As [`resolve_image`].
pub async fn candidate(
    source: &dyn ImageSource,
    platform: &PlatformChoice,
    limits: &Limits,
    retry: &RetryPolicy,
) -> Result<Candidate> {
    let documents = FromSource { source, retry };
    let resolved = resolve_image(&source.name(), &documents, platform, limits).await?;
    Ok(Candidate::of(&source.store_name()?, source.server(), &resolved))
}

struct FromSource<'a> {
    source: &'a dyn ImageSource,
    retry: &'a RetryPolicy,
}

#[async_trait]
impl Documents for FromSource<'_> {
    async fn top(&self) -> Result<RawDocument> {
        fetch::top(self.source, self.retry).await
    }

    async fn document(&self, descriptor: &Descriptor) -> Result<RawDocument> {
        fetch::document(self.source, descriptor, self.retry).await
    }

    async fn config(&self, descriptor: &Descriptor) -> Result<Bytes> {
        fetch::config(self.source, descriptor, self.retry).await
    }
}
