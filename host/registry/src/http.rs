//! The HTTP/1.1 client: connections over TCP, TLS and proxies, with limits of time, and a bound on informational answers.
//!
//! It follows no redirect, keeps no cookie, decodes no content and reads no environment: who calls it decides.
//!
//! # Why not a client of a higher level
//!
//! A server may send informational answers (`100 Continue`, `103 Early Hints`; RFC 9110, 15.2) without an end before it answers. Each
//! costs processor time and none counts as silence. Only hyper's own callback sees them, and it is set on the request that hyper gets.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use cofferdam_core::error::{Error, Result};
use cofferdam_core::threads;
use http::header::{HOST, PROXY_AUTHORIZATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::percent_decode_str;
use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use tokio::sync::Notify;
use tower_service::Service;
use url::Url;

use super::client::NetworkOptions;
use super::proxy::Proxies;

/// The most informational answers to one request. Servers send one, at times a few.
pub(super) const INFORMATIONAL: usize = 100;

/// How long a connection is kept that is not in use.
const IDLE: Duration = Duration::from_secs(90);

type BoxError = Box<dyn StdError + Send + Sync>;
type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A client with a pool of connections. Cheap to clone; clones share the pool.
#[derive(Clone)]
pub(super) struct Client {
    pool: Pool<Connector, Empty<Bytes>>,
    proxies: Option<Proxies>,
    user_agent: HeaderValue,
    read_timeout: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("read_timeout", &self.read_timeout).finish_non_exhaustive()
    }
}

impl Client {
    /// Prepares a client. A `lenient` one takes any certificate.
    ///
    /// # Errors
    /// [`Error::Usage`] for options that make no client: never a client without them.
    pub(super) fn new(network: &NetworkOptions, lenient: bool) -> Result<Self> {
        let invalid = |reason: String| Error::Usage {
            reason: format!("the network cannot be used like this: {reason}"),
            hint: Some("check the proxies".into()),
        };
        let user_agent = HeaderValue::from_str(&network.user_agent)
            .map_err(|_| invalid("the name of this program is no value of a header".into()))?;
        let proxies = Proxies::new(network)?;
        let tls = tls(lenient).map_err(|error| invalid(error.to_string()))?;
        let mut tcp = HttpConnector::new_with_resolver(Names);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(15)));
        let connector = Connector {
            direct: HttpsConnector::from((tcp, Arc::clone(&tls))),
            tls,
            proxies: proxies.clone(),
            timeout: network.connect_timeout,
        };
        let pool =
            Pool::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).build(connector);
        Ok(Self { pool, proxies, user_agent, read_timeout: network.read_timeout })
    }

    /// Sends a GET request and returns its answer as soon as the head of it is there.
    pub(super) async fn get(&self, url: &Url, headers: HeaderMap) -> Result<Response, Fault> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri(url).ok_or_else(|| Fault::new(Kind::Request, None))?;
        *request.headers_mut() = headers;
        request.headers_mut().insert(USER_AGENT, self.user_agent.clone());
        // One that speaks for itself to a proxy: in a tunnel it does so while connecting.
        if url.scheme() == "http"
            && let Some(login) = self.proxies.as_ref().and_then(|proxies| proxies.of(url)).and_then(login)
        {
            request.headers_mut().insert(PROXY_AUTHORIZATION, login);
        }
        request.headers_mut().remove(HOST);
        let flooded = Arc::new(Notify::new());
        let (seen, flood) = (AtomicUsize::new(0), Arc::clone(&flooded));
        hyper::ext::on_informational(&mut request, move |_| {
            if seen.fetch_add(1, Ordering::Relaxed) >= INFORMATIONAL {
                flood.notify_one();
            }
        });
        // Its state is large, and each caller would hold it.
        let asked = Box::pin(tokio::time::timeout(self.read_timeout, self.pool.request(request)));
        let answer = tokio::select! {
            biased;
            () = flooded.notified() => return Err(Fault::new(Kind::Informational, None)),
            answer = asked => answer,
        };
        let answer = answer.map_err(|_| Fault::new(Kind::Silence, None))?.map_err(Fault::of_exchange)?;
        let (head, body) = answer.into_parts();
        Ok(Response {
            url: url.clone(),
            status: head.status,
            version: head.version,
            headers: head.headers,
            body,
            read_timeout: self.read_timeout,
        })
    }
}

/// An answer, with its body still to come.
pub(super) struct Response {
    url: Url,
    status: StatusCode,
    version: Version,
    headers: HeaderMap,
    body: Incoming,
    read_timeout: Duration,
}

impl Response {
    /// The address that answered.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The number of bytes that the body will have, if it is known.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// Returns the next bytes of the body; `None` at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            let frame = tokio::time::timeout(self.read_timeout, self.body.frame()).await;
            match frame.map_err(|_| Fault::new(Kind::Silence, None))? {
                None => return Ok(None),
                Some(Err(error)) => return Err(Fault::new(Kind::Exchange, Some(error.into()))),
                // Trailers mean nothing here.
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }
}

/// An exchange that failed.
#[derive(Debug)]
pub(super) struct Fault {
    kind: Kind,
    /// The proxy that could not be reached, or did not let the connection through: host and port.
    proxy: Option<String>,
    source: Option<BoxError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The request cannot be sent at all.
    Request,
    /// There is no connection.
    Connect,
    /// There was no connection in time.
    ConnectTimeout,
    /// The server was silent for too long.
    Silence,
    /// The server sent more informational answers than [`INFORMATIONAL`].
    Informational,
    /// The connection broke, or what came was no HTTP.
    Exchange,
}

impl Fault {
    fn new(kind: Kind, source: Option<BoxError>) -> Self {
        Self { kind, proxy: None, source }
    }

    /// From an error of the pool, of which one of the connector is a cause.
    fn of_exchange(error: hyper_util::client::legacy::Error) -> Self {
        let mut cause = StdError::source(&error);
        let mut unconnected = None;
        while let Some(error) = cause {
            unconnected = unconnected.or(error.downcast_ref::<Unconnected>());
            cause = error.source();
        }
        let kind = match unconnected {
            Some(Unconnected { source: None, .. }) => Kind::ConnectTimeout,
            _ if error.is_connect() => Kind::Connect,
            _ => Kind::Exchange,
        };
        let proxy = unconnected.and_then(|unconnected| unconnected.proxy.clone());
        Self { kind, proxy, source: Some(error.into()) }
    }

    /// Returns true if a limit of time has passed.
    pub(super) fn is_timeout(&self) -> bool {
        matches!(self.kind, Kind::ConnectTimeout | Kind::Silence)
    }

    /// Returns true if no connection came about.
    pub(super) fn is_connect(&self) -> bool {
        matches!(self.kind, Kind::Connect | Kind::ConnectTimeout)
    }

    /// Returns true if another attempt would fail in the same way.
    pub(super) fn is_permanent(&self) -> bool {
        matches!(self.kind, Kind::Request | Kind::Informational)
    }

    /// The proxy that stood in the way, as host and port.
    pub(super) fn proxy(&self) -> Option<&str> {
        self.proxy.as_deref()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Request => f.write_str("the address cannot be asked"),
            Kind::Connect => f.write_str("there is no connection"),
            Kind::ConnectTimeout | Kind::Silence => f.write_str("it did not answer in time"),
            Kind::Informational => {
                write!(f, "it sent more than {INFORMATIONAL} informational answers, and no other one")
            }
            Kind::Exchange => f.write_str("the exchange failed"),
        }
    }
}

impl StdError for Fault {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

/// Makes connections: directly, or by the proxy for an address.
#[derive(Clone)]
struct Connector {
    direct: HttpsConnector<HttpConnector<Names>>,
    tls: Arc<ClientConfig>,
    proxies: Option<Proxies>,
    timeout: Duration,
}

impl Connector {
    async fn connect(self, to: Uri) -> Result<Stream, Unconnected> {
        let url = Url::parse(&to.to_string()).ok();
        let proxy = url.as_ref().and_then(|url| self.proxies.as_ref()?.of(url));
        let by = proxy.map(super::client::shown_host);
        let connected = tokio::time::timeout(self.timeout, self.clone().reach(to, proxy)).await;
        match connected {
            Ok(connected) => connected.map_err(|source| Unconnected { proxy: by, source: Some(source) }),
            Err(_) => Err(Unconnected { proxy: by, source: None }),
        }
    }

    async fn reach(mut self, to: Uri, proxy: Option<&Url>) -> Result<Stream, BoxError> {
        let Some(proxy) = proxy else {
            return Ok(Stream { io: Box::pin(self.direct.call(to).await?), to_proxy: false });
        };
        let at = uri(proxy).ok_or("the proxy has no address")?;
        if to.scheme_str() != Some("https") {
            return Ok(Stream { io: Box::pin(self.direct.call(at).await?), to_proxy: true });
        }
        let mut tunnel = Tunnel::new(at, self.direct);
        if let Some(login) = login(proxy) {
            tunnel = tunnel.with_auth(login);
        }
        Ok(Stream { io: Box::pin(HttpsConnector::from((tunnel, self.tls)).call(to).await?), to_proxy: false })
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = Unconnected;
    type Future = Boxed<Result<Stream, Unconnected>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unconnected>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        Box::pin(self.clone().connect(to))
    }
}

/// No connection came about: in time, if there is no `source`.
#[derive(Debug)]
struct Unconnected {
    proxy: Option<String>,
    source: Option<BoxError>,
}

impl fmt::Display for Unconnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot connect")
    }
}

impl StdError for Unconnected {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

trait Io: Read + Write + Connection + Send {}

impl<T: Read + Write + Connection + Send> Io for T {}

/// A connection of any kind.
struct Stream {
    io: Pin<Box<dyn Io>>,
    /// Whether requests are for a proxy, and so have whole addresses.
    to_proxy: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.to_proxy)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.io.as_mut().poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.io.as_mut().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.io.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.io.as_mut().poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        self.io.as_mut().poll_write_vectored(context, buffers)
    }
}

/// Finds the addresses of hosts, on a thread for each: the runtime's own might never come.
#[derive(Clone, Copy, Debug)]
struct Names;

impl Service<Name> for Names {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Boxed<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = threads::blocking("cofferdam-names", move || Ok((host.as_str(), 0).to_socket_addrs())).await;
            match found {
                Ok(found) => Ok(found?),
                Err(Error::Io { source, .. }) => Err(source.into()),
                Err(error) => Err(error.into()),
            }
        })
    }
}

/// The address as a request has it: without a login, which belongs to a header.
fn uri(url: &Url) -> Option<Uri> {
    let mut url = url.clone();
    url.set_username("").and_then(|()| url.set_password(None)).ok()?;
    url.set_fragment(None);
    url.as_str().parse().ok()
}

/// The login in an address, as the value of a header.
fn login(url: &Url) -> Option<HeaderValue> {
    let password = url.password();
    if url.username().is_empty() && password.is_none() {
        return None;
    }
    let mut text: Vec<u8> = percent_decode_str(url.username()).collect();
    text.push(b':');
    text.extend(percent_decode_str(password.unwrap_or_default()));
    let mut value = HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(text))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// TLS as the machine trusts it, or with any certificate.
fn tls(lenient: bool) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let config = if lenient {
        config.dangerous().with_custom_certificate_verifier(Arc::new(any_certificate::Verifier(provider)))
    } else {
        let verifier = rustls_platform_verifier::Verifier::new(provider)?;
        config.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
    };
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Takes any certificate, for hosts of which the caller said so.
mod any_certificate {
    use rustls::DigitallySignedStruct;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

    use super::{Arc, CryptoProvider};

    #[derive(Debug)]
    pub(super) struct Verifier(pub(super) Arc<CryptoProvider>);

    impl ServerCertVerifier for Verifier {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }

        // A signature by a key that anybody may have made proves nothing, and certificates of old versions could not be read.
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}
