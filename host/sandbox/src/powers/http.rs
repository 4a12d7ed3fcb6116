//! Requests of a plugin: each is held against the rules before anything is resolved, connected or sent.
//!
//! A rule is methods and one authority, compared exactly. What the plugin cannot do: write a `Host` header or one that
//! belongs to the connection, follow a redirect without asking again, reach a private address through a public name
//! ([`super::http_client`]), or send and receive more than its budget ([`super::http_body`]). What we do not do for it: use a
//! proxy, send a credential or a cookie, follow a redirect.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_documents::plugin::{Authority, Capabilities, Capability, HttpRule};
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, Request, Response};
use reqwest::Url;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::Context;
use super::account::Account;
use super::http_body::{counted_request, counted_response, header_bytes, is_empty};
use super::http_client::{Reach, client, explain};
use crate::failure::one_line;

/// How long connecting may take: name, connection and TLS.
const CONNECT: Duration = Duration::from_secs(15);

/// Headers that belong to a connection and not to a request (RFC 9110, 7.6.1), with what would speak for a proxy.
const OF_THE_CONNECTION: [HeaderName; 12] = [
    header::HOST,
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// Decides about requests, and makes those that may be made.
pub(super) struct Gate {
    rules: BTreeSet<HttpRule>,
    private: BTreeSet<HttpRule>,
    /// What the plugin asks for, granted or not.
    asked: BTreeSet<HttpRule>,
    context: Context,
    account: Arc<Account>,
    clients: HashMap<(Reach, Duration), reqwest::Client>,
}

type Answer = (Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

impl Gate {
    pub(super) fn new(held: &Capabilities, asked: &Capabilities, context: &Context, account: &Arc<Account>) -> Self {
        Self {
            rules: held.http.clone(),
            private: held.http_private.clone(),
            asked: asked.http.clone(),
            context: context.clone(),
            account: Arc::clone(account),
            clients: HashMap::new(),
        }
    }

    /// Whom a rule is about here.
    fn authority<'a>(&'a self, rule: &'a HttpRule) -> Option<&'a Authority> {
        rule.authority().or(self.context.registry.as_ref())
    }

    /// Whether a rule allows a request.
    fn allows(&self, rule: &HttpRule, method: &Method, authority: &Authority) -> bool {
        rule.methods().contains(&method.as_str()) && self.authority(rule) == Some(authority)
    }

    /// Holds a request against the rules.
    fn admit(&self, method: &Method, uri: &http::Uri) -> Option<(Reach, Url)> {
        let place = format!(
            "{}://{}",
            uri.scheme_str().unwrap_or("https"),
            uri.authority().map(http::uri::Authority::as_str).unwrap_or_default()
        );
        let deny = |flag: Option<String>| {
            self.account.deny(&format!("{method} {place}"), flag.as_deref());
            None
        };
        let Ok(authority) = place.parse::<Authority>() else { return deny(None) };
        let allowing: Vec<_> = self.rules.iter().filter(|rule| self.allows(rule, method, &authority)).collect();
        if allowing.is_empty() {
            let asked = self.asked.iter().find(|rule| self.allows(rule, method, &authority));
            return deny(asked.map(|rule| Capability::Http(rule.clone()).flag()));
        }
        let Some(url) = url(&authority, uri) else { return deny(None) };
        let of_the_registry = allowing.iter().any(|rule| rule.authority().is_none());
        let reach = Reach {
            private: authority.names_address()
                || of_the_registry
                || self.private.iter().any(|rule| self.authority(rule) == Some(&authority)),
            any_certificate: of_the_registry && self.context.registry_any_certificate,
            authority,
        };
        Some((reach, url))
    }

    /// The client for whom it reaches. Connections are kept for the run, and shared by requests that may go the same way.
    fn client(&mut self, reach: &Reach, connect: Duration) -> Result<reqwest::Client, Error> {
        let key = (reach.clone(), connect);
        if let Some(client) = self.clients.get(&key) {
            return Ok(client.clone());
        }
        let made = client(reach, connect, &self.context, &self.account).map_err(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "no HTTP client for the plugin");
            Error::ConfigurationError
        })?;
        self.clients.insert(key, made.clone());
        Ok(made)
    }

    fn begin(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
    ) -> Result<impl Future<Output = Result<Answer, Error>> + Send + use<>, Error> {
        let (parts, body) = request.into_parts();
        let (reach, url) = self.admit(&parts.method, &parts.uri).ok_or(Error::HttpRequestDenied)?;
        let mut headers = without_connection(parts.headers);
        if is_empty(&body) {
            // A length that no body follows would be taken from whatever is sent next.
            headers.remove(header::CONTENT_LENGTH);
        }
        if !self.account.request() || !self.account.bytes(url.as_str().len() + header_bytes(&headers)) {
            return Err(Error::HttpRequestDenied);
        }
        let options = options.unwrap_or_default();
        let connect = options.connect_timeout.unwrap_or(CONNECT).min(CONNECT);
        let request = self
            .client(&reach, connect)?
            .request(parts.method, url)
            .headers(headers)
            .body(counted_request(body, &self.account));
        let account = Arc::clone(&self.account);
        Ok(async move {
            let sent = request.send();
            let answer = match options.first_byte_timeout {
                Some(first) => tokio::time::timeout(connect.saturating_add(first), sent)
                    .await
                    .map_err(|_| Error::ConnectionReadTimeout)?,
                None => sent.await,
            };
            let answer = Response::from(answer.map_err(|error| explain(&error))?);
            if !account.bytes(header_bytes(answer.headers())) {
                return Err(Error::HttpResponseHeaderSectionSize(None));
            }
            let answer = answer.map(|body| counted_response(body, &account, options.between_bytes_timeout));
            let done: Box<dyn Future<Output = Result<(), Error>> + Send> = Box::new(async { Ok(()) });
            Ok((answer, done))
        })
    }
}

impl WasiHttpHooks for Gate {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _sent: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Answer, Error>> + Send> {
        match self.begin(request, options) {
            Ok(answer) => Box::new(answer),
            Err(error) => Box::new(async move { Err(error) }),
        }
    }

    /// Of a request's body, what is held at once.
    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        64 << 10
    }
}

/// The URL of a request: nothing but the path comes from the plugin. Nothing if URLs and we read the host differently.
fn url(authority: &Authority, uri: &http::Uri) -> Option<Url> {
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let slash = if path.starts_with('/') { "" } else { "/" };
    let url = Url::parse(&format!("{authority}{slash}{path}")).ok()?;
    let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']');
    let same_host = match (host.parse::<std::net::IpAddr>(), authority.host.parse::<std::net::IpAddr>()) {
        (Ok(one), Ok(other)) => one == other,
        (Err(_), Err(_)) => host == authority.host,
        _ => false,
    };
    let same = same_host
        && url.port_or_known_default() == Some(authority.port)
        && url.scheme() == if authority.tls { "https" } else { "http" }
        && url.username().is_empty()
        && url.password().is_none();
    same.then_some(url)
}

/// Without what belongs to the connection, and what `Connection` says belongs to it.
fn without_connection(mut headers: HeaderMap) -> HeaderMap {
    let named: Vec<HeaderName> = (headers.get_all(header::CONNECTION).iter())
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&OF_THE_CONNECTION) {
        headers.remove(name);
    }
    headers
}

/// How an authority is written for people, where a resolver told us of it.
pub(super) fn private_of(reach: &Reach, address: std::net::IpAddr) -> (String, String) {
    let authority = one_line(&reach.authority.to_string());
    (format!("{authority} at the private address {address}"), format!("--http-private {authority}"))
}

#[cfg(test)]
mod tests {
    use cofferdam_core::limits::Limits;

    use super::*;

    fn gate(held: &str, asked: &str, registry: Option<&str>) -> Gate {
        let set = |text: &str| toml::from_str::<Capabilities>(text).unwrap();
        let context = Context { registry: registry.map(|text| text.parse().unwrap()), ..Context::default() };
        Gate::new(&set(held), &set(asked), &context, &Account::new("p", &Limits::default()))
    }

    fn admitted(gate: &Gate, method: &str, uri: &str) -> Option<(bool, String)> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        gate.admit(&method, &uri.parse().unwrap()).map(|(reach, url)| (reach.private, url.to_string()))
    }

    #[test]
    fn a_rule_is_about_scheme_host_port_and_method() {
        let gate = gate("http = ['https://a.example', 'POST http://b.example:8080']", "", None);
        for (method, uri) in [
            ("GET", "https://a.example/x?y"),
            ("HEAD", "https://A.example:443"),
            ("GET", "https://a.example./"),
            ("POST", "http://b.example:8080/"),
        ] {
            assert!(admitted(&gate, method, uri).is_some(), "{method} {uri}");
        }
        for (method, uri) in [
            ("POST", "https://a.example/"),
            ("get", "https://a.example/"),
            ("CONNECT", "https://a.example/"),
            ("GET", "http://a.example/"),
            ("GET", "http://a.example:443/"),
            ("GET", "https://a.example:8443/"),
            ("GET", "https://b.a.example/"),
            ("GET", "https://a.example.evil/"),
            ("GET", "https://aXexample/"),
            ("GET", "https://a.example@evil.example/"),
            ("GET", "https://evil@a.example/"),
            ("GET", "http://b.example:8080/"),
            ("POST", "http://b.example/"),
            ("GET", "https://[::1]/"),
        ] {
            assert!(admitted(&gate, method, uri).is_none(), "{method} {uri}");
        }
    }

    #[test]
    fn only_the_path_comes_from_the_plugin() {
        let gate = gate("http = ['https://a.example']", "", None);
        for (uri, url) in [
            ("https://a.example//evil.example/x", "https://a.example//evil.example/x"),
            ("https://a.example/@evil.example", "https://a.example/@evil.example"),
            ("https://a.example?q", "https://a.example/?q"),
            ("https://a.example/../../x", "https://a.example/x"),
        ] {
            assert_eq!(admitted(&gate, "GET", uri), Some((false, url.to_owned())));
        }
    }

    #[test]
    fn the_registry_is_that_of_the_image() {
        let rule = "http = ['registry']";
        let with = gate(rule, "", Some("http://10.0.0.5:5000"));
        assert_eq!(admitted(&with, "GET", "http://10.0.0.5:5000/v2/").map(|(private, _)| private), Some(true));
        assert_eq!(admitted(&with, "GET", "https://10.0.0.5:5000/v2/"), None);
        assert_eq!(admitted(&gate(rule, "", None), "GET", "http://10.0.0.5:5000/v2/"), None);
        // By another rule it is no registry, and has no private addresses.
        let named = gate("http = ['https://r.example']", "", Some("https://r.example"));
        assert_eq!(admitted(&named, "GET", "https://r.example/").map(|(private, _)| private), Some(false));
    }

    #[test]
    fn private_addresses_are_granted_by_name() {
        let gate = gate(
            "http = ['https://a.b', 'https://c.d', 'http://127.0.0.1:81', 'http://localhost']\nhttp-private = ['https://c.d']",
            "",
            None,
        );
        let private = |uri: &str| admitted(&gate, "GET", uri).map(|(private, _)| private);
        assert_eq!(private("https://a.b/"), Some(false));
        for uri in ["https://c.d/", "http://127.0.0.1:81/", "http://localhost/"] {
            assert_eq!(private(uri), Some(true), "{uri}");
        }
    }

    #[test]
    fn what_is_denied_is_told_with_its_grant() {
        let gate = gate("http = ['https://a.b']", "http = ['GET,POST https://a.b', 'https://c.d']", None);
        for (method, uri) in [("POST", "https://a.b/x"), ("GET", "https://c.d/"), ("GET", "https://e.f/")] {
            assert!(admitted(&gate, method, uri).is_none());
        }
        let mut report = super::super::RunReport::default();
        gate.account.report(&mut report);
        let told: Vec<_> = report.denials.iter().map(|d| (d.what.as_str(), d.grant.as_deref())).collect();
        assert_eq!(
            told,
            [
                ("POST https://a.b", Some("cofferdam plugin grant p --http 'GET,POST https://a.b'")),
                ("GET https://c.d", Some("cofferdam plugin grant p --http https://c.d")),
                ("GET https://e.f", None),
            ]
        );
    }

    #[test]
    fn headers_of_the_connection_stay_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "evil.example"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "x"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
            ("accept", "application/json"),
        ] {
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        let left: Vec<_> = without_connection(headers).keys().map(ToString::to_string).collect();
        assert_eq!(left, ["accept"]);
    }
}
