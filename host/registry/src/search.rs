//! A name that several registries may hold.

use async_trait::async_trait;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, ErrorKind, Result};
use cofferdam_documents::{Descriptor, RawDocument};
use cofferdam_documents::{Reference, RegistryHost};
use tokio::sync::OnceCell;

use super::client::Registries;
use super::source::RegistrySource;
use crate::image_source::{Blob, Failure, ImageSource, Server};

/// An image that is looked for in one registry after the other. The first that has it is the one.
///
/// A registry that does not know the name, or that asks somebody unknown for credentials (which is how many say the
/// same), is passed over. Any other failure ends the search: a name must not mean another image because a registry is
/// out of order or a password is wrong.
#[derive(Debug)]
pub struct RegistrySearch {
    candidates: Vec<RegistrySource>,
    found: OnceCell<usize>,
}

impl Registries {
    /// An image by the name that people give, with the registries to look in if that names none. Nothing is sent yet.
    pub fn search(&self, name: &str, registries: &[RegistryHost]) -> Result<RegistrySearch> {
        let candidates = Reference::candidates(name, registries)?;
        Ok(RegistrySearch {
            candidates: candidates.into_iter().map(|reference| self.source(reference)).collect(),
            found: OnceCell::new(),
        })
    }
}

impl RegistrySearch {
    /// The references that the name may mean.
    pub fn candidates(&self) -> impl Iterator<Item = &Reference> {
        self.candidates.iter().map(RegistrySource::reference)
    }

    /// The one that was found, or the only one that it can be.
    fn found(&self) -> Option<&RegistrySource> {
        match (self.found.get(), self.candidates.as_slice()) {
            (Some(&index), candidates) => candidates.get(index),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }

    fn chosen(&self) -> Result<&RegistrySource> {
        self.found().ok_or_else(|| Error::NotFound { what: format!("an image named {}", self.name()), hint: None })
    }
}

#[async_trait]
impl ImageSource for RegistrySearch {
    fn name(&self) -> String {
        let names = || self.candidates.iter().map(ImageSource::name).collect::<Vec<_>>().join(" or ");
        self.found().map_or_else(names, ImageSource::name)
    }

    fn store_name(&self) -> Result<String> {
        self.chosen()?.store_name()
    }

    fn pinned(&self) -> Option<&Digest> {
        self.found()?.pinned()
    }

    fn server(&self) -> Option<Server> {
        self.found()?.server()
    }

    async fn resolve(&self) -> Result<RawDocument, Failure> {
        let mut last = None;
        for (index, candidate) in self.candidates.iter().enumerate() {
            match candidate.resolve().await {
                Ok(document) => {
                    self.found.set(index).ok();
                    return Ok(document);
                }
                Err(failure) => match failure.error.kind() {
                    ErrorKind::NotFound => last = Some(failure),
                    ErrorKind::Authentication if candidate.is_anonymous() => last = Some(failure),
                    _ => return Err(failure),
                },
            }
        }
        if let (Some(failure), [_]) = (last, self.candidates.as_slice()) {
            return Err(failure);
        }
        Err(Error::NotFound {
            what: self.name(),
            hint: Some("check the name, or name the registry: host/name:tag".into()),
        }
        .into())
    }

    async fn document(&self, descriptor: &Descriptor) -> Result<RawDocument, Failure> {
        self.chosen()?.document(descriptor).await
    }

    async fn blob(&self, descriptor: &Descriptor, from: u64) -> Result<Blob, Failure> {
        self.chosen()?.blob(descriptor, from).await
    }
}
