//! Requests to registries: redirects, and bodies that are read only as far as they may reach.
//!
//! * A redirect never leads from HTTPS to HTTP, and never takes credentials to another origin (CVE-2020-15157).
//! * A host whose certificates need not be valid is trusted like that itself, not whoever it redirects to.
//! * Every body has a bound, those of errors too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cofferdam_core::error::{Error, Escaped, Result};
use cofferdam_core::limits::Limits;
use cofferdam_documents::{Reference, RegistryHost};
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, LOCATION, TRANSFER_ENCODING,
};
use http::{StatusCode, Version};
use rustix::io::Errno;
use url::Url;

use super::access::{AccessList, Transport};
use super::http::{Client, Fault, Response};
use super::source::RegistrySource;
use crate::image_source::Failure;

/// Redirects in a row.
pub(super) const HOPS: usize = 10;

/// How the network is used.
#[derive(Clone)]
#[non_exhaustive]
pub struct NetworkOptions {
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a server may stay silent.
    pub read_timeout: Duration,
    /// How long a manifest or a token may take in all.
    pub document_timeout: Duration,
    /// The proxy for HTTPS, as a URL.
    pub https_proxy: Option<String>,
    /// The proxy for HTTP, as a URL.
    pub http_proxy: Option<String>,
    /// Hosts that are reached without the proxies, in the form of the variable `NO_PROXY`.
    pub no_proxy: Option<String>,
    /// What to call this program.
    pub user_agent: String,
}

impl std::fmt::Debug for NetworkOptions {
    /// Without the proxies, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetworkOptions")
            .field("connect_timeout", &self.connect_timeout)
            .field("read_timeout", &self.read_timeout)
            .field("document_timeout", &self.document_timeout)
            .field("no_proxy", &self.no_proxy)
            .field("user_agent", &self.user_agent)
            .finish_non_exhaustive()
    }
}

impl Default for NetworkOptions {
    /// 15 seconds to connect, 60 of silence, 120 for a document, no proxy.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(15),
            read_timeout: Duration::from_mins(1),
            document_timeout: Duration::from_mins(2),
            https_proxy: None,
            http_proxy: None,
            no_proxy: None,
            user_agent: concat!("cofferdam/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Access to registries. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Registries(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    strict: Client,
    /// Takes any certificate; for hosts of which the caller said so.
    lenient: Client,
    access: AccessList,
    network: NetworkOptions,
    limits: Limits,
}

impl Registries {
    /// Prepares access. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Usage`] for options that make no client, such as a proxy that is no URL: never a client without them.
    pub fn new(access: AccessList, network: NetworkOptions, limits: Limits) -> Result<Self> {
        let (strict, lenient) = (Client::new(&network, false)?, Client::new(&network, true)?);
        Ok(Self(Arc::new(Shared { strict, lenient, access, network, limits })))
    }

    /// An image in its registry. Nothing is sent yet.
    pub fn source(&self, reference: Reference) -> RegistrySource {
        RegistrySource::new(self.clone(), reference)
    }

    pub(super) fn access(&self) -> &AccessList {
        &self.0.access
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Sends a request, and those to which its answers redirect. `what` is what it is for, for messages.
    pub(super) async fn get(
        &self,
        origin: &Origin,
        url: Url,
        headers: HeaderMap,
        what: &str,
    ) -> Result<Response, Failure> {
        let (mut url, mut headers) = (url, headers);
        for _ in 0..=HOPS {
            if !origin.is_of(&url) {
                headers.remove(AUTHORIZATION);
            }
            let response = self.send(origin, &url, headers.clone(), what).await?;
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            url = redirected(&url, response.headers()).map_err(|reason| network(what, reason))?;
        }
        Err(too_many_redirects(what).into())
    }

    /// Sends one request and returns its answer, whatever it is. Certificates are checked unless `url` is of a lenient
    /// `origin`.
    pub(super) async fn send(
        &self,
        origin: &Origin,
        url: &Url,
        mut headers: HeaderMap,
        what: &str,
    ) -> Result<Response, Failure> {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let client = if origin.lenient && origin.is_of(url) { &self.0.lenient } else { &self.0.strict };
        // On the heap: what waits for it holds it several times over.
        let answer = Box::pin(client.get(url, headers)).await;
        if answer.is_ok() {
            origin.answered.store(true, Ordering::Relaxed);
        }
        answer.map_err(|error| {
            // A name or a port that never led anywhere is most likely mistyped.
            let permanent = origin.named && !origin.answered.load(Ordering::Relaxed) && is_unreachable(&error);
            let failure = self.failed(what, url, error);
            if permanent { failure.error.into() } else { failure }
        })
    }

    /// A failed exchange. Any may have been bad luck, but for what cannot be sent at all and for a TLS that does not suit.
    pub(super) fn failed(&self, what: &str, url: &Url, error: Fault) -> Failure {
        if let Some(source) = machine(&error) {
            return Error::Io { action: format!("get {what}"), source }.into();
        }
        let host = match error.proxy() {
            Some(proxy) => format!("the proxy {proxy}"),
            None => shown_host(url),
        };
        let reason = if error.is_timeout() {
            let limit = if error.is_connect() { self.0.network.connect_timeout } else { self.0.network.read_timeout };
            format!("{host} did not answer within {} s", limit.as_secs_f32())
        } else if is_unknown_name(&error) {
            let name = error.proxy().unwrap_or(url.host_str().unwrap_or_default());
            format!("there is no host `{name}`: {}", innermost(&error))
        } else {
            format!("{host}: {}", innermost(&error))
        };
        let tls = is_tls(&error);
        let permanent = error.is_permanent() || tls;
        let reason = if tls {
            format!("{reason} (if it speaks plain HTTP, or has a certificate of its own making, that must be allowed)")
        } else {
            reason
        };
        let error = network(what, reason);
        if permanent { error.into() } else { Failure::passing(error) }
    }

    /// The whole body of a small answer. [`Error::Limit`] as soon as it is known to be too large.
    pub(super) async fn body(&self, mut response: Response, limit: u64, what: &str) -> Result<Bytes, Failure> {
        let manifest = limit == self.limits().manifest_bytes;
        let counted = if manifest { "bytes in a manifest" } else { "bytes in a document" };
        let over = || Error::Limit { subject: what.to_owned(), what: counted, limit };
        if response.content_length().is_some_and(|length| length > limit) {
            return Err(over().into());
        }
        let mut body = BytesMut::new();
        let url = response.url().clone();
        let ends_with_connection = ends_with_connection(&response);
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(what, &url, error))? {
            if (body.len() + chunk.len()) as u64 > limit {
                return Err(over().into());
            }
            body.extend_from_slice(&chunk);
        }
        if ends_with_connection && is_unfinished(&body) {
            let reason = format!("{}: the connection ended after {} bytes", shown_host(&url), body.len());
            return Err(Failure::passing(network(what, reason)));
        }
        Ok(body.freeze())
    }

    /// Bounds the time that a document may take in all, so that one which arrives byte by byte ends too.
    pub(super) async fn in_time<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let limit = self.0.network.document_timeout;
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
            Err(Failure::passing(network(what, format!("it did not arrive within {} s", limit.as_secs_f32()))))
        })
    }
}

/// Where credentials belong: scheme, host and port of one server.
#[derive(Debug)]
pub(super) struct Origin {
    base: Url,
    /// Whether its certificate need not be valid.
    lenient: bool,
    /// Whether the user named it.
    named: bool,
    /// Whether it ever answered.
    answered: AtomicBool,
}

impl Origin {
    /// The origin of a reference's registry.
    pub(super) fn new(reference: &Reference, transport: Transport) -> Result<Self> {
        let scheme = if transport == Transport::PlainHttp { "http" } else { "https" };
        // All of this text was parsed.
        let base = format!("{scheme}://{}/v2/", reference.registry().authority());
        let base = Url::parse(&base).map_err(|error| Error::InvalidReference {
            text: reference.to_string(),
            reason: format!("the registry makes no URL: {error}"),
        })?;
        Ok(Self { named: true, ..Self::of(&base, transport == Transport::InsecureTls) })
    }

    /// The origin of an address that a server gave.
    pub(super) fn of(url: &Url, lenient: bool) -> Self {
        Self { base: url.clone(), lenient, named: false, answered: AtomicBool::new(false) }
    }

    /// An address below `/v2/`. `path` is made of parsed text only.
    pub(super) fn url(&self, path: &str) -> Result<Url> {
        self.base.join(path).map_err(|error| network(path, format!("there is no such address: {error}")))
    }

    /// Whether a URL is of this origin.
    pub(super) fn is_of(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// The origin of a token service. A lenient registry's word counts for its own host only.
    pub(super) fn token_service(&self, url: &Url) -> Self {
        Self::of(url, self.lenient && url.host_str() == self.base.host_str())
    }

    /// Whether what is sent there can be read on the way.
    pub(super) fn is_plain(&self) -> bool {
        self.base.scheme() == "http"
    }
}

/// The host of an address, with its port unless that is the scheme's, for people.
pub(super) fn shown_host(url: &Url) -> String {
    let host = Escaped(url.host_str().unwrap_or_default().as_bytes()).to_string();
    url.port().map_or(host.clone(), |port| format!("{host}:{port}"))
}

/// The names under which an address may be known as a registry: without the port of its scheme, and with it.
pub(super) fn registries_at(url: &Url) -> impl Iterator<Item = RegistryHost> {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().map(|port| format!("{host}:{port}"));
    let bare = url.port().is_none().then(|| host.to_owned());
    bare.into_iter().chain(port).filter_map(|name| name.parse().ok())
}

pub(super) fn too_many_redirects(what: &str) -> Error {
    network(what, format!("more than {HOPS} redirects"))
}

pub(super) fn network(what: &str, reason: impl Into<String>) -> Error {
    Error::Network { what: what.to_owned(), reason: reason.into() }
}

/// The value of a header, if it is there and is text.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Returns true if the body of an answer ends where its connection does: then a lost connection looks like a short body.
pub(super) fn ends_with_connection(response: &Response) -> bool {
    let framed = [CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(|name| response.headers().contains_key(name));
    !framed && response.version() <= Version::HTTP_11
}

/// Returns true if a document is the beginning of JSON and not all of it.
fn is_unfinished(document: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(document).is_err_and(|error| error.is_eof())
}

/// Returns true if no connection could be made: there is no such name, or nothing at that address and port.
fn is_unreachable(error: &Fault) -> bool {
    use std::io::ErrorKind;
    // Not a network that is down: it may be back soon.
    let nothing_there = |error: &std::io::Error| {
        matches!(
            error.kind(),
            ErrorKind::ConnectionRefused
                | ErrorKind::HostUnreachable
                | ErrorKind::AddrNotAvailable
                | ErrorKind::TimedOut
        )
    };
    let causes = || std::iter::successors(std::error::Error::source(error), |error| error.source());
    error.is_connect()
        && (error.is_timeout()
            || is_unknown_name(error)
            || causes().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(nothing_there)))
}

/// Returns true if a host's name has no address. The resolver's error has no type of its own.
fn is_unknown_name(error: &Fault) -> bool {
    let mut causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    // A resolver that is down says that it does not know yet.
    let later = |text: &str| text.contains("Temporary failure");
    let unknown = causes.any(|cause| cause.to_string().starts_with("dns error"));
    error.is_connect() && unknown && !later(&innermost(error))
}

/// The failure of this machine that an exchange failed for, if it did: no server is to blame then, and trying again does not help.
fn machine(error: &Fault) -> Option<std::io::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        cause = error.source();
        let Some(io) = error.downcast_ref::<std::io::Error>() else { continue };
        let errno = Errno::from_io_error(io);
        if let Some(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS | Errno::AGAIN)) = errno {
            return Some(errno.into());
        }
    }
    None
}

/// Whether the two ends could not agree on TLS: a certificate that is not trusted, or no TLS at all. This is what rustls
/// reports as invalid data.
fn is_tls(error: &Fault) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        cause = error.source();
        let mut io = error.downcast_ref::<std::io::Error>();
        // One that wraps another does not name it as its source.
        while let Some(error) = io {
            if error.kind() == std::io::ErrorKind::InvalidData {
                return true;
            }
            io = error.get_ref().and_then(|inner| inner.downcast_ref());
        }
    }
    false
}

pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

pub(super) fn redirected(from: &Url, headers: &HeaderMap) -> Result<Url, String> {
    let location = header(headers, &LOCATION).ok_or("a redirect without an address")?;
    let to = from.join(location).map_err(|error| format!("a redirect to no address: {error}"))?;
    let shown = Escaped(to.host_str().unwrap_or_default().as_bytes()).to_string();
    match (from.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") if to.username().is_empty() && to.password().is_none() => Ok(to),
        ("https", "http") => Err(format!("a redirect from HTTPS to HTTP, to {shown}")),
        _ => Err(format!("a redirect to an address that is not for us, at {shown}")),
    }
}

/// The last cause of an error: what the system or the server said. The layers above it repeat the URL.
fn innermost(error: &Fault) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
