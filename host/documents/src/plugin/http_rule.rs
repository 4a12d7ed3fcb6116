//! Which requests a plugin may make: methods and one authority.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use cofferdam_core::error::Error;

/// Methods that may be granted. `CONNECT` and `TRACE` may not: they are a tunnel and an echo.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Whom a request goes to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Authority {
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// A name in lower case, or an address without brackets.
    pub host: String,
    /// The port; that of the scheme where none is written.
    pub port: u16,
}

impl Authority {
    /// Whether the host is written as an address, or is this machine by its name. A grant of such a one is a grant of
    /// what lies there, private or not; a public name is not a grant of the private address that it may resolve to.
    pub fn names_address(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok()
    }
}

impl FromStr for Authority {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |reason: &str| Error::Usage {
            reason: format!("{text:?} names no server: {reason}"),
            hint: Some("write https://host or https://host:port".into()),
        };
        let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(wrong("it begins with neither https:// nor http://")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(|| wrong("a bracket is not closed"))?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| wrong("what stands in brackets is no address"))?;
                (host, port.strip_prefix(':').or_else(|| port.is_empty().then_some("")))
            }
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, Some("")),
            },
        };
        let port = match port {
            Some("") if !rest.ends_with(':') => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(|| wrong("the port is no number"))?,
            None => return Err(wrong("there is something behind the bracket")),
        };
        let is_address = host.parse::<IpAddr>().is_ok();
        let of_a_name = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
        if host.is_empty() || host.len() > 253 || !(is_address || host.bytes().all(of_a_name)) {
            return Err(wrong("the host is neither a name nor an address; patterns, paths and users are not allowed"));
        }
        // The last label of a name is no number (WHATWG URL, 3.5): what looks like an address and is not in its one
        // form, such as 0x7f.1 or 2130706433, would be an address all the same to some resolvers.
        let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
        if !is_address && (last.is_empty() || last.starts_with(|c: char| c.is_ascii_digit())) {
            return Err(wrong("the host is an address in an unusual form"));
        }
        Ok(Self { tls, host: host.trim_end_matches('.').to_ascii_lowercase(), port })
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "https://" } else { "http://" })?;
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        if self.port == if self.tls { 443 } else { 80 } { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// Methods, and whom they may be used on: `https://host:port`, `GET,POST https://host`, or `registry`, which is the
/// registry of the image that is being verified.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HttpRule {
    /// In the order of the table of methods.
    methods: Vec<&'static str>,
    /// Nothing for the image's registry.
    authority: Option<Authority>,
}

impl HttpRule {
    /// Whom it is about; nothing for the registry of the image that is being verified.
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// The methods, in capitals.
    pub fn methods(&self) -> &[&'static str] {
        &self.methods
    }

    /// What is in both rules, if that is anything.
    #[must_use]
    pub fn and(&self, other: &Self) -> Option<Self> {
        let both = |method: &&'static str| other.methods.contains(method);
        let methods: Vec<_> = self.methods.iter().copied().filter(both).collect();
        let same = self.authority == other.authority && !methods.is_empty();
        same.then(|| Self { methods, authority: self.authority.clone() })
    }

    /// Whether everything of this rule is in the other.
    pub fn is_within(&self, other: &Self) -> bool {
        self.and(other).is_some_and(|both| both == *self)
    }
}

impl FromStr for HttpRule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (methods, authority) = match text.split_once(' ') {
            Some((methods, authority)) => {
                let asked: Vec<_> = methods.split(',').collect();
                if let Some(unknown) = asked.iter().find(|method| !METHODS.contains(method)) {
                    return Err(Error::Usage {
                        reason: format!("{unknown:?} is no method that can be granted"),
                        hint: Some(format!("the methods are {}", METHODS.join(", "))),
                    });
                }
                (METHODS.into_iter().filter(|method| asked.contains(method)).collect(), authority)
            }
            None => (vec!["GET", "HEAD"], text),
        };
        let authority = if authority == "registry" { None } else { Some(authority.parse()?) };
        Ok(Self { methods, authority })
    }
}

impl TryFrom<String> for HttpRule {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<HttpRule> for String {
    fn from(rule: HttpRule) -> Self {
        rule.to_string()
    }
}

impl fmt::Display for HttpRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.methods != ["GET", "HEAD"] {
            write!(f, "{} ", self.methods.join(","))?;
        }
        match &self.authority {
            Some(authority) => authority.fmt(f),
            None => f.write_str("registry"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_written_as_they_are_read() {
        for text in [
            "https://example.com",
            "http://127.0.0.1:5000",
            "https://[::1]:8443",
            "GET,POST https://example.com:8443",
            "registry",
            "POST registry",
        ] {
            assert_eq!(text.parse::<HttpRule>().unwrap().to_string(), text);
        }
        assert_eq!("https://Example.COM:443/".parse::<HttpRule>().unwrap().to_string(), "https://example.com");
        assert_eq!("POST,GET https://a.b".parse::<HttpRule>().unwrap().to_string(), "GET,POST https://a.b");
    }

    #[test]
    fn what_is_no_server_is_no_rule() {
        for text in [
            "",
            "example.com",
            "ftp://example.com",
            "https://",
            "https://*",
            "https://*.example.com",
            "https://user@example.com",
            "https://example.com/path",
            "https://example.com:",
            "https://example.com:0",
            "https://example.com:99999",
            "https://[::1",
            "https://[::1]x",
            "https://0x7f.1",
            "https://2130706433",
            "https://127.1",
            "https://1.2.3.4.5",
            "CONNECT https://example.com",
            "get https://example.com",
            "GET  https://example.com",
        ] {
            assert!(text.parse::<HttpRule>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn both_rules_must_allow() {
        let rule = |text: &str| text.parse::<HttpRule>().unwrap();
        let both = rule("GET,POST https://a.b").and(&rule("POST,PUT https://a.b"));
        assert_eq!(both, Some(rule("POST https://a.b")));
        assert_eq!(rule("https://a.b").and(&rule("http://a.b")), None);
        assert_eq!(rule("https://a.b").and(&rule("https://a.b:8443")), None);
        assert_eq!(rule("https://a.b").and(&rule("registry")), None);
        assert_eq!(rule("GET https://a.b").and(&rule("POST https://a.b")), None);
        assert!(rule("GET https://a.b").is_within(&rule("https://a.b")));
        assert!(!rule("https://a.b").is_within(&rule("GET https://a.b")));
    }
}
