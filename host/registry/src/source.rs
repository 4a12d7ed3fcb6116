//! An image in a registry, as an [`ImageSource`].
//!
//! Source: OCI distribution spec 1.1, "Pull". Three requests, `GET` each: a manifest by tag, a manifest by digest, a blob.
//! Addresses are made of a [`Reference`] and of parsed digests only; of a descriptor neither `urls` nor `data` is used.

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use cofferdam_documents::Reference;
use cofferdam_documents::{Descriptor, MediaType, RawDocument, verify_digest};
use futures_util::stream::{self, StreamExt as _};
use http::StatusCode;
use http::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RANGE};
use tokio::sync::OnceCell;

use super::answer;
use super::authorize::Authorizer;
use super::client::{Registries, ends_with_connection, header, network, shown_host};
use super::http::Response;
use crate::image_source::{Blob, Failure, ImageSource, Server, wrong_size};

static DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// One image in a registry.
#[derive(Debug)]
pub struct RegistrySource {
    registries: Registries,
    reference: Reference,
    authorizer: OnceCell<Authorizer>,
}

impl RegistrySource {
    pub(super) fn new(registries: Registries, reference: Reference) -> Self {
        Self { registries, reference, authorizer: OnceCell::new() }
    }

    /// The reference.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Whether the registry is asked as nobody.
    pub(super) fn is_anonymous(&self) -> bool {
        self.registries.access().get(self.reference.registry()).auth == super::Auth::Anonymous
    }

    async fn get(&self, path: &str, headers: HeaderMap, what: &str) -> Result<Response, Failure> {
        let authorizer = self
            .authorizer
            .get_or_try_init(|| async { Authorizer::new(self.registries.clone(), self.reference.clone()) })
            .await?;
        authorizer.get(path, headers, what).await
    }

    async fn failure(&self, response: Response, what: &str) -> Failure {
        let host = match self.authorizer.get() {
            Some(authorizer) => authorizer.name_of(response.url()),
            None => self.reference.registry().to_string(),
        };
        answer::failure(&self.registries, response, what, &host).await
    }

    /// A document of at most `limit` bytes, with what the registry says of it.
    async fn fetch(&self, key: &str, limit: u64, what: &str) -> Result<Received, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(MediaType::ACCEPT_DOCUMENTS));
        let work = async {
            let response = self.get(&format!("manifests/{key}"), headers, what).await?;
            if response.status() != StatusCode::OK {
                return Err(self.failure(response, what).await);
            }
            let media_type = header(response.headers(), &CONTENT_TYPE).map(MediaType::new);
            let digest = header(response.headers(), &DOCKER_CONTENT_DIGEST).and_then(|text| text.parse().ok());
            let cut_is_silent = ends_with_connection(&response);
            let host = shown_host(response.url());
            let bytes = self.registries.body(response, limit, what).await?;
            if media_type.as_ref().is_some_and(|sent| sent.as_str() == "text/html")
                && bytes.trim_ascii().starts_with(b"<")
            {
                return Err(network(what, format!("{host} answers with a web page; is it a registry?")).into());
            }
            Ok(Received { bytes, media_type, digest, cut_is_silent })
        };
        self.registries.in_time(what, Box::pin(work)).await
    }
}

/// A document as it arrived.
struct Received {
    bytes: Bytes,
    media_type: Option<MediaType>,
    /// What the registry says that it hashes to.
    digest: Option<Digest>,
    /// Whether a lost connection would have looked like its end.
    cut_is_silent: bool,
}

#[async_trait]
impl ImageSource for RegistrySource {
    fn name(&self) -> String {
        self.reference.to_string()
    }

    fn pinned(&self) -> Option<&Digest> {
        self.reference.digest()
    }

    fn server(&self) -> Option<Server> {
        let registry = self.reference.registry();
        let transport = self.registries.access().get(registry).transport;
        let scheme = if transport == super::Transport::PlainHttp { "http" } else { "https" };
        let authority = format!("{scheme}://{}", registry.authority()).parse().ok()?;
        let any_certificate = transport == super::Transport::InsecureTls;
        Some(Server { authority, any_certificate, repository: self.reference.repository().to_owned() })
    }

    async fn resolve(&self) -> Result<RawDocument, Failure> {
        let what = format!("`{}`", self.reference);
        let limit = self.registries.limits().manifest_bytes;
        let Received { bytes, media_type, digest: said, .. } =
            self.fetch(&self.reference.manifest_key(), limit, &what).await?;
        let subject = format!("the manifest of {what}");
        // A digest that was asked for decides alone. Behind a tag, the registry must not contradict itself.
        let Some(digest) = self.reference.digest() else {
            if let Some(said) = &said {
                verify_digest(&subject, said, &bytes)?;
            }
            return Ok(RawDocument { digest: Digest::of(&bytes), bytes, media_type });
        };
        verify_digest(&subject, digest, &bytes)?;
        if let Some(said) = said.filter(|said| verify_digest(&subject, said, &bytes).is_err()) {
            tracing::warn!("{subject} is right, although its registry says that it hashes to {said}");
        }
        Ok(RawDocument { bytes, digest: digest.clone(), media_type })
    }

    async fn document(&self, descriptor: &Descriptor) -> Result<RawDocument, Failure> {
        let what = format!("the manifest {} of `{}`", descriptor.digest, self.reference);
        let limit = self.registries.limits().manifest_bytes;
        if descriptor.size > limit {
            return Err(Error::Limit { subject: what, what: "bytes in a manifest", limit }.into());
        }
        // A little more than declared is let in, so that what is wrong is called by its name.
        let limit = limit.min(descriptor.size.saturating_add(4096));
        let received = self.fetch(&descriptor.digest.to_string(), limit, &what).await.map_err(|failure| {
            let Error::Limit { .. } = failure.error else { return failure };
            let (expected, actual) = (descriptor.size, limit.saturating_add(1));
            Failure::from(Error::SizeMismatch { subject: what.clone(), expected, actual })
        })?;
        if received.cut_is_silent && (received.bytes.len() as u64) < descriptor.size {
            return Err(Failure::passing(lost(&what, received.bytes.len() as u64, descriptor.size)));
        }
        descriptor.verify(&what, &received.bytes)?;
        let sent = received.media_type.filter(MediaType::is_stated);
        if let Some(sent) = sent.filter(|sent| *sent != descriptor.media_type) {
            let reason = format!("its index says that it is `{}`, but it was sent as `{sent}`", descriptor.media_type);
            return Err(Error::Refused { subject: what, reason }.into());
        }
        Ok(RawDocument {
            bytes: received.bytes,
            digest: descriptor.digest.clone(),
            media_type: Some(descriptor.media_type.clone()),
        })
    }

    async fn blob(&self, descriptor: &Descriptor, from: u64) -> Result<Blob, Failure> {
        let Descriptor { digest, size, .. } = descriptor;
        let what = format!("the blob {digest} of `{}`", self.reference);
        let path = format!("blobs/{digest}");
        let ask = |headers| self.registries.in_time(&what, self.get(&path, headers, &what));
        let (mut response, mut partial) = (None, false);
        if from > 0 {
            // Nothing but digits: this is always a header.
            let range =
                HeaderValue::from_str(&format!("bytes={from}-")).map_err(|error| network(&what, error.to_string()))?;
            let part = ask(HeaderMap::from_iter([(RANGE, range)])).await?;
            match usable(&part, from, *size) {
                Ok(()) => {
                    partial = part.status() == StatusCode::PARTIAL_CONTENT;
                    response = Some(part);
                }
                // A registry that makes a mess of ranges may still know the whole.
                Err(reason) => tracing::debug!("{what}: {reason}; asking for all of it"),
            }
        }
        let response = match response {
            Some(response) => response,
            None => ask(HeaderMap::new()).await?,
        };
        let start = match response.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if partial => from,
            _ => return Err(self.failure(response, &what).await),
        };
        let rest = size.saturating_sub(start);
        if let Some(length) = response.content_length().filter(|length| *length != rest) {
            return Err(wrong_size(digest, *size, start.saturating_add(length)).into());
        }
        let cut_is_silent = ends_with_connection(&response);
        let (registries, size) = (self.registries.clone(), *size);
        let body = Body { response, registries, what, size, position: start, cut_is_silent };
        let chunks = stream::unfold(Some(body), |body| async {
            let mut body = body?;
            match body.next().await {
                Ok(Some(chunk)) => Some((Ok(chunk), Some(body))),
                Ok(None) => None,
                Err(failure) => Some((Err(failure), None)),
            }
        });
        Ok(Blob::new(descriptor, start, chunks.boxed()))
    }
}

/// A blob's body on its way in.
struct Body {
    response: Response,
    registries: Registries,
    /// The blob, for people.
    what: String,
    size: u64,
    position: u64,
    /// Whether a lost connection looks like the body's end.
    cut_is_silent: bool,
}

impl Body {
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let chunk = self.response.chunk().await.map_err(|error| self.broken(error))?;
        self.position = self.position.saturating_add(chunk.as_ref().map_or(0, |chunk| chunk.len() as u64));
        if chunk.is_none() && self.cut_is_silent && self.position < self.size {
            return Err(Failure::passing(lost(&self.what, self.position, self.size)));
        }
        Ok(chunk)
    }

    /// The failure of a body that broke off: the network's fault, and not the blob's, of which nothing is known.
    fn broken(&self, error: super::http::Fault) -> Failure {
        if error.is_timeout() {
            return self.registries.failed(&self.what, self.response.url(), error);
        }
        Failure::passing(lost(&self.what, self.position, self.size))
    }
}

/// A connection that ended before what it brought.
fn lost(what: &str, arrived: u64, size: u64) -> Error {
    network(what, format!("the connection was lost after {arrived} of {size} bytes"))
}

/// Whether the answer to a request for a part says anything about the blob: that part, all of it, or a failure that has
/// nothing to do with ranges.
fn usable(response: &Response, from: u64, size: u64) -> Result<(), String> {
    match response.status() {
        StatusCode::PARTIAL_CONTENT => check_range(header(response.headers(), &CONTENT_RANGE), from, size),
        status @ (StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED) => {
            Err(format!("it answered {}", status.as_u16()))
        }
        _ => Ok(()),
    }
}

/// Holds a `Content-Range` against what was asked for. A registry that sends another part would otherwise be found out
/// only by the digest, after all of it was fetched.
fn check_range(value: Option<&str>, from: u64, size: u64) -> Result<(), String> {
    let value = value.ok_or("it sent a part without saying which")?;
    let parsed = value.trim().strip_prefix("bytes ").and_then(|range| {
        let (range, total) = range.split_once('/')?;
        let (start, end) = range.split_once('-')?;
        let total = if total == "*" { size } else { total.parse().ok()? };
        Some((start.parse::<u64>().ok()?, end.parse::<u64>().ok()?, total))
    });
    match parsed {
        Some((start, end, total)) if start == from && end.checked_add(1) == Some(size) && total == size => Ok(()),
        _ => Err(format!("it sent another part than the one from byte {from} of {size}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_must_be_the_one_that_was_asked_for() {
        for good in ["bytes 5-9/10", "bytes 5-9/*"] {
            check_range(Some(good), 5, 10).unwrap();
        }
        for bad in [
            "bytes 4-9/10",
            "bytes 5-8/10",
            "bytes 5-9/11",
            "bytes */10",
            "items 5-9/10",
            "",
            "bytes 5-18446744073709551615/10",
        ] {
            check_range(Some(bad), 5, 10).unwrap_err();
        }
        check_range(None, 5, 10).unwrap_err();
    }
}
