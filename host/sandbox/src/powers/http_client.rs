//! Connections for a plugin's requests. With the registry room, the only place that opens any.
//!
//! The name is resolved once, when the connection is made, and each address is looked at before it is handed to the
//! connector: there is no second resolution that could answer something else (DNS rebinding). TLS and `Host` keep the name.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cofferdam_documents::plugin::Authority;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use wasmtime_wasi_http::Error;

use super::Context;
use super::account::Account;
use super::address::is_private;
use super::http::private_of;

type Lookup = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// Turns names into addresses, in place of the system: for embedders with a resolver of their own.
#[derive(Clone)]
pub struct Resolver(Arc<Lookup>);

impl Resolver {
    /// Asks this function. It is called on a thread that waits for the plugin: it must not take long.
    pub fn new(lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(lookup))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// Whom a client speaks to.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Reach {
    pub(super) authority: Authority,
    /// Whether it may lie at a private address.
    pub(super) private: bool,
    /// Whether its certificate need not be valid.
    pub(super) any_certificate: bool,
}

/// A client for one authority.
pub(super) fn client(
    reach: &Reach,
    connect: Duration,
    context: &Context,
    account: &Arc<Account>,
) -> reqwest::Result<reqwest::Client> {
    let resolver = Checked { reach: reach.clone(), resolver: context.resolver.clone(), account: Arc::clone(account) };
    let roots: Result<Vec<_>, _> = context.certificates.iter().map(|pem| reqwest::Certificate::from_pem(pem)).collect();
    let builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .http1_only()
        .connect_timeout(connect)
        .tls_danger_accept_invalid_certs(reach.any_certificate)
        .dns_resolver(Arc::new(resolver));
    let roots = roots?;
    let builder = if roots.is_empty() { builder } else { builder.tls_certs_merge(roots) };
    builder.build()
}

/// Resolves a name and lets no address pass that is not for this plugin.
struct Checked {
    reach: Reach,
    resolver: Option<Resolver>,
    account: Arc<Account>,
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let (reach, resolver, account) = (self.reach.clone(), self.resolver.clone(), Arc::clone(&self.account));
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found: Vec<IpAddr> = match resolver {
                Some(Resolver(lookup)) => lookup(&host)?,
                None => tokio::net::lookup_host((host.as_str(), 0)).await?.map(|address| address.ip()).collect(),
            };
            // One private address among public ones is enough: who answers like that has something in mind.
            if let Some(address) = found.iter().find(|address| !reach.private && is_private(**address)) {
                let (what, flag) = private_of(&reach, *address);
                account.deny(&what, Some(&flag));
                return Err(Prohibited(*address).into());
            }
            let addresses: Addrs = Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

/// An address that is not for this plugin.
#[derive(Debug, thiserror::Error)]
#[error("{0} is a private address")]
struct Prohibited(IpAddr);

/// What the plugin is told of a request that failed.
pub(super) fn explain(error: &reqwest::Error) -> Error {
    tracing::debug!(error = error as &dyn std::error::Error, "a plugin's request failed");
    if has::<Prohibited>(error) {
        return Error::DestinationIpProhibited;
    }
    if let Some(ours) = cause::<super::http_body::Spent>(error) {
        return ours.error();
    }
    match error {
        error if error.is_timeout() && error.is_connect() => Error::ConnectionTimeout,
        error if error.is_timeout() => Error::ConnectionReadTimeout,
        error if is_tls(error) => Error::TlsCertificateError,
        error if error.is_connect() => match cause::<io::Error>(error).map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => Error::ConnectionRefused,
            _ => Error::DestinationUnavailable,
        },
        _ => Error::HttpProtocolError,
    }
}

fn has<E: std::error::Error + 'static>(error: &reqwest::Error) -> bool {
    cause::<E>(error).is_some()
}

/// The innermost cause of this type.
fn cause<E: std::error::Error + 'static>(error: &reqwest::Error) -> Option<&E> {
    let mut found = None;
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        next = error.source();
        found = error.downcast_ref::<E>().or(found);
    }
    found
}

/// What rustls does not like comes as invalid data, wrapped in other errors of the same type.
fn is_tls(error: &reqwest::Error) -> bool {
    let mut io = cause::<io::Error>(error);
    while let Some(error) = io {
        if error.kind() == io::ErrorKind::InvalidData {
            return true;
        }
        io = error.get_ref().and_then(|inner| inner.downcast_ref());
    }
    false
}
