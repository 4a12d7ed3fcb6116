//! Proxies: by which one an address is reached, and which addresses are reached without.
//!
//! `NO_PROXY` is read as curl and Go read it, where those agree in what they accept: a list, separated by commas or blanks,
//! of `*` (everything), hosts with their subdomains, `.suffix` and `*.suffix`, addresses, and networks such as
//! `10.0.0.0/8`; each but the first and the last with a port if it is to count for that port only.

use std::net::IpAddr;

use cofferdam_core::error::{Error, Escaped, Result};
use ipnet::IpNet;
use url::Url;

use super::client::NetworkOptions;

/// The proxies of a client.
#[derive(Clone, Debug)]
pub(super) struct Proxies {
    https: Option<Url>,
    http: Option<Url>,
    except: NoProxy,
}

impl Proxies {
    /// Reads the options; nothing where they name no proxy.
    ///
    /// # Errors
    /// [`Error::Usage`] for a proxy that cannot be used.
    pub(super) fn new(network: &NetworkOptions) -> Result<Option<Self>> {
        let parse = |text: &Option<String>| text.as_deref().map(proxy).transpose();
        let (https, http) = (parse(&network.https_proxy)?, parse(&network.http_proxy)?);
        let except = NoProxy::parse(network.no_proxy.as_deref().unwrap_or_default());
        Ok((https.is_some() || http.is_some()).then_some(Self { https, http, except }))
    }

    /// Returns the proxy by which an address is reached.
    pub(super) fn of(&self, url: &Url) -> Option<&Url> {
        let proxy = if url.scheme() == "https" { self.https.as_ref() } else { self.http.as_ref() };
        proxy.filter(|_| !self.except.has(url))
    }
}

/// Checks the address of a proxy, as [`NetworkOptions`] holds it, so that a caller can say where it was written.
///
/// # Errors
/// [`Error::Usage`] for what is no address, and for a scheme that cannot be used. The address is left out of the message:
/// it may hold a password.
pub fn check_proxy(text: &str) -> Result<()> {
    proxy(text).map(drop)
}

/// Reads the address of a proxy; one without a scheme is spoken to over HTTP.
fn proxy(text: &str) -> Result<Url> {
    let wrong = |reason: String| Error::Usage { reason, hint: Some("write a proxy as http://HOST:PORT".into()) };
    let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        None | Some("http" | "https") => {}
        Some(scheme) => {
            let scheme = Escaped(scheme.as_bytes()).to_string();
            return Err(wrong(format!("a proxy by `{scheme}` is not supported, only by `http` and `https`")));
        }
    }
    let url = if scheme.is_some() { Url::parse(text) } else { Url::parse(&format!("http://{text}")) };
    let url = url.map_err(|error| wrong(format!("the proxy has no address: {error}")))?;
    if url.has_host() { Ok(url) } else { Err(wrong("the proxy has no host".to_owned())) }
}

/// What is reached without a proxy.
#[derive(Clone, Debug, Default)]
struct NoProxy {
    everything: bool,
    networks: Vec<IpNet>,
    hosts: Vec<Exception>,
}

#[derive(Clone, Debug)]
struct Exception {
    /// In lower case, without a dot at either end; an IPv6 address without brackets.
    host: String,
    /// Whether the host itself is meant too, and not only what is below it.
    itself: bool,
    port: Option<u16>,
}

impl NoProxy {
    fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for item in text.split(|c: char| c == ',' || c.is_whitespace()).filter(|item| !item.is_empty()) {
            if item == "*" {
                found.everything = true;
            } else if let Ok(network) = item.replace(['[', ']'], "").parse::<IpNet>() {
                found.networks.push(network);
            } else {
                found.hosts.extend(Exception::parse(item));
            }
        }
        found
    }

    fn has(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        let host = normal(host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host));
        let (address, port) = (host.parse::<IpAddr>().ok(), url.port_or_known_default());
        self.everything
            || address.is_some_and(|address| self.networks.iter().any(|network| network.contains(&address)))
            || self.hosts.iter().any(|exception| exception.has(&host, address.is_some(), port))
    }
}

impl Exception {
    fn parse(item: &str) -> Option<Self> {
        let (host, port) = match item.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':')?)),
            // More than one colon: an IPv6 address without brackets.
            None => match item.split_once(':') {
                Some((host, port)) if !port.contains(':') => (host, Some(port)),
                _ => (item, None),
            },
        };
        let port = port.map(str::parse).transpose().ok()?;
        let below = host.strip_prefix("*.");
        let host = normal(below.unwrap_or(host));
        (!host.is_empty()).then_some(Self { host, itself: below.is_none(), port })
    }

    fn has(&self, host: &str, is_address: bool, port: Option<u16>) -> bool {
        let below = || !is_address && host.strip_suffix(&*self.host).is_some_and(|rest| rest.ends_with('.'));
        (self.port.is_none() || self.port == port) && ((self.itself && host == self.host) || below())
    }
}

/// The one spelling of a host for comparisons.
fn normal(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().to_string(),
        Err(_) => host.trim_matches('.').to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_read_as_other_programs_read_them() {
        for (exceptions, without, with) in [
            ("", &[][..], &["http://a.example/", "http://127.0.0.1/"][..]),
            ("*", &["http://a.example/", "https://[::1]:5000/", "http://10.0.0.1/"], &[]),
            ("b.test, * ", &["http://a.example/"], &[]),
            (
                "a.Example",
                &["http://a.example/", "https://A.EXAMPLE:5000/", "http://x.y.a.example/", "http://a.example./"],
                &["http://ba.example/", "http://example/", "http://a.example.evil/"],
            ),
            (".a.example", &["http://a.example/", "http://x.a.example/"], &["http://xa.example/"]),
            ("*.a.example", &["http://x.a.example/"], &["http://a.example/", "http://xa.example/"]),
            ("a.example.", &["http://a.example/"], &["http://b.example/"]),
            (
                "a.example:5000",
                &["http://a.example:5000/", "https://x.a.example:5000/"],
                &["http://a.example/", "http://a.example:5001/"],
            ),
            ("a.example:443,b.example:80", &["https://a.example/", "http://b.example/"], &["http://a.example/"]),
            (
                "localhost, 127.0.0.1 ,\t.x",
                &["http://localhost:1/", "http://127.0.0.1:5000/", "http://127.0.0.1/", "http://a.x/"],
                &["http://127.0.0.2/", "http://1.127.0.0.1.example/"],
            ),
            ("a.example b.example", &["http://a.example/", "http://b.example/"], &["http://c.example/"]),
            ("127.0.0.1:5000", &["http://127.0.0.1:5000/"], &["http://127.0.0.1:5001/"]),
            ("10.0.0.0/8", &["http://10.255.0.1/"], &["http://11.0.0.1/", "http://10.example/"]),
            ("fd00::/8,[2001:db8::]/32", &["http://[fd12::1]/", "http://[2001:db8::7]:1/"], &["http://[fe80::1]/"]),
            ("::1", &["http://[::1]/", "https://[::1]:5000/"], &["http://[::2]/"]),
            ("[::1]", &["http://[0:0::1]:5000/"], &["http://[::2]/"]),
            ("[::1]:5000", &["http://[::1]:5000/"], &["http://[::1]/"]),
            ("a.example:x,,:5,b.example", &["http://b.example/"], &["http://a.example/"]),
        ] {
            let except = NoProxy::parse(exceptions);
            for url in without {
                assert!(except.has(&Url::parse(url).unwrap()), "{exceptions:?} {url}");
            }
            for url in with {
                assert!(!except.has(&Url::parse(url).unwrap()), "{exceptions:?} {url}");
            }
        }
    }

    #[test]
    fn a_proxy_is_for_its_scheme() {
        let options = |https: Option<&str>, http: Option<&str>| NetworkOptions {
            https_proxy: https.map(str::to_owned),
            http_proxy: http.map(str::to_owned),
            no_proxy: Some("c.example".into()),
            ..NetworkOptions::default()
        };
        let both = Proxies::new(&options(Some("https://u:p@a:1"), Some("b:2"))).unwrap().unwrap();
        let of = |url: &str| both.of(&Url::parse(url).unwrap()).map(Url::as_str);
        assert_eq!(of("https://x/"), Some("https://u:p@a:1/"));
        assert_eq!(of("http://x/"), Some("http://b:2/"));
        assert_eq!((of("https://c.example/"), of("http://c.example/")), (None, None));
        let one = Proxies::new(&options(None, Some("HTTP://b:2/"))).unwrap().unwrap();
        assert_eq!(one.of(&Url::parse("https://x/").unwrap()), None);
        assert!(Proxies::new(&options(None, None)).unwrap().is_none());
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_an_error_and_keeps_its_secret() {
        for (text, reason) in [
            ("socks5://me:hunter2@a:1", "`socks5`"),
            ("SOCKS5H://me:hunter2@a:1", "`socks5h`"),
            ("socks4://a", "`socks4`"),
            ("ftp://a", "`ftp`"),
            ("://a", "``"),
            ("http://", "address"),
            ("http://me:hunter2@a:99999", "address"),
            ("me hunter2", "address"),
        ] {
            let error = proxy(text).unwrap_err();
            assert!(error.to_string().contains(reason) && !error.to_string().contains("hunter2"), "{text}: {error}");
        }
        for text in ["a", "a:3128", "me:pw@a:3128", "[::1]:3128", "http://a/", "https://a:1"] {
            proxy(text).unwrap();
        }
    }
}
