//! References: what an image in a registry is called.
//!
//! ```text
//! reference  = name [":" tag] ["@" digest]
//! name       = [host [":" port] "/"] component *("/" component)
//! component  = alphanumeric *(("." | "_" | "__" | 1*"-") alphanumeric)      lower case; 255 bytes in all
//! tag        = word character, then at most 127 of word characters, "." and "-"
//! ```
//!
//! Source: OCI distribution spec 1.1, "Pulling manifests", and the `reference` package of distribution for hosts and for
//! what people leave out. A [`Reference`] holds nothing but text that matched this grammar, and it is the only thing
//! that the registry room makes addresses from: no text of a manifest or a user reaches a URL unparsed.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use url::Url;

use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};

const HUB: &str = "docker.io";
const HUB_REGISTRY: &str = "registry-1.docker.io";
const NAME_BYTES: usize = 255;
const TAG_BYTES: usize = 128;

/// A registry: a host in lower case and perhaps a port, in the one spelling that it has.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegistryHost(String);

impl RegistryHost {
    /// Docker Hub.
    pub fn docker_hub() -> Self {
        Self(HUB.to_owned())
    }

    /// The name, such as `docker.io` or `localhost:5000`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Host and port to connect to: Docker Hub's registry is not where its name says.
    pub fn authority(&self) -> &str {
        if self.0 == HUB { HUB_REGISTRY } else { &self.0 }
    }

    /// Returns the host and the port, if one is written.
    pub fn parts(&self) -> (&str, Option<&str>) {
        split_port(&self.0)
    }

    /// Returns the registry that a client would reach by this text, in spellings too that are refused as a name today.
    /// Names in a store may be older than this grammar, and rules must hold for them.
    pub fn reached_by(text: &str) -> Option<Self> {
        let (name, port) = split_port(text);
        let url = Url::parse(&format!("https://{name}/")).ok()?;
        let name = url.host_str()?.trim_end_matches('.');
        port.map_or(name.to_owned(), |port| format!("{name}:{port}")).parse().ok()
    }
}

impl FromStr for RegistryHost {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let lower = text.to_ascii_lowercase();
        check_host(&lower).map_err(|reason| invalid(text, reason))?;
        if !is_host(&lower) {
            // In front of a repository it would be taken for a part of that, on Docker Hub.
            return Err(invalid(text, "a host without a dot needs its port, such as `host:443`"));
        }
        let one = canonical(&lower).map_err(|reason| invalid(text, reason))?;
        Ok(match one.strip_suffix(":443").unwrap_or(&one) {
            HUB | HUB_REGISTRY | "index.docker.io" => Self::docker_hub(),
            _ => Self(one),
        })
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: RegistryHost,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// All references that a text may mean, in the order in which to try them: one if it names a registry, else one for
    /// each registry of `search`. An empty `search` means Docker Hub.
    pub fn candidates(text: &str, search: &[RegistryHost]) -> Result<Vec<Self>> {
        let parts = Parts::split(text)?;
        match (parts.host, search) {
            (Some(host), _) => Ok(vec![parts.at(host.parse()?)?]),
            (None, []) => Ok(vec![parts.at(RegistryHost::docker_hub())?]),
            (None, search) => search.iter().map(|host| parts.at(host.clone())).collect(),
        }
    }

    /// The registry.
    pub fn registry(&self) -> &RegistryHost {
        &self.registry
    }

    /// The repository, such as `library/debian`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag. Without a digest beside it, this is what decides.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest. It decides, even beside a tag.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The last part of a manifest's address: the digest if there is one, else the tag.
    pub fn manifest_key(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    /// Reads a reference in any of its forms; Docker Hub, its `library/` and the tag `latest` may be left out.
    fn from_str(text: &str) -> Result<Self> {
        let mut candidates = Self::candidates(text, &[])?;
        candidates.pop().ok_or_else(|| invalid(text, "it is empty"))
    }
}

impl fmt::Display for Reference {
    /// The whole reference, with nothing left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// The pieces of a reference's text, each in itself checked.
struct Parts<'a> {
    text: &'a str,
    host: Option<&'a str>,
    path: &'a str,
    tag: Option<&'a str>,
    digest: Option<Digest>,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Self> {
        let fail = |reason| invalid(text, reason);
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|error: Error| error.in_reference(text))?)),
            None => (text, None),
        };
        // A colon in the last component begins the tag; one before the first slash belongs to the host.
        let name_end = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest.get(name_end..).and_then(|last| last.find(':')) {
            Some(colon) => {
                let (name, tag) = rest.split_at(name_end + colon);
                (name, Some(tag.trim_start_matches(':')).filter(|_| tag.matches(':').count() == 1))
            }
            None => (rest, Some("")),
        };
        let tag = match tag {
            None => return Err(fail("there are two colons in a row or in the tag")),
            Some("") if name.len() < rest.len() => return Err(fail("the tag is empty")),
            Some("") => None,
            Some(tag) => Some(tag),
        };
        if let Some(tag) = tag {
            check_tag(tag).map_err(fail)?;
        }
        // What stands before the first slash is a host if it looks like none of a repository's components.
        let (host, path) = match name.split_once('/') {
            Some((first, path)) if is_host(first) => (Some(first), path),
            _ => (None, name),
        };
        if let Some(host) = host {
            check_host(&host.to_ascii_lowercase()).map_err(fail)?;
        }
        check_repository(path).map_err(fail)?;
        // Sixty-four hex digits are what people and programs call an image by its id.
        if host.is_none() && path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(fail("it is an image id, not a name"));
        }
        Ok(Self { text, host, path, tag, digest })
    }

    fn at(&self, registry: RegistryHost) -> Result<Reference> {
        let official = registry.as_str() == HUB && !self.path.contains('/');
        let repository = if official { format!("library/{}", self.path) } else { self.path.to_owned() };
        if repository.len() > NAME_BYTES {
            return Err(invalid(self.text, "the name has more than 255 bytes"));
        }
        let tag = match (self.tag, &self.digest) {
            (None, None) => Some("latest"),
            (tag, _) => tag,
        };
        Ok(Reference { registry, repository, tag: tag.map(str::to_owned), digest: self.digest.clone() })
    }
}

/// Returns the one spelling of a host and port that [`check_host`] accepts, so that a policy that goes by names cannot be
/// stepped around by another spelling: no zeros in front of the port, an IPv6 address in its short form (RFC 5952), an
/// IPv4 address that is mapped into IPv6 as itself, and the address of "any host", which connects to this one, as this one.
///
/// # Errors
/// The reason, if the client would connect to something else than the text says, such as `127.0.0.1` for `0x7f.1`.
fn canonical(host: &str) -> std::result::Result<String, String> {
    let (name, port) = split_port(host);
    let port = port.and_then(|port| port.parse::<u16>().ok());
    let v6 = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok());
    let v4 = v6.map_or_else(|| name.parse().ok(), |v6| v6.to_ipv4_mapped());
    let name = match (v4, v6) {
        (Some(Ipv4Addr::UNSPECIFIED), _) => Ipv4Addr::LOCALHOST.to_string(),
        (Some(v4), _) => v4.to_string(),
        (None, Some(Ipv6Addr::UNSPECIFIED)) => format!("[{}]", Ipv6Addr::LOCALHOST),
        (None, Some(v6)) => format!("[{v6}]"),
        (None, None) => {
            let url = Url::parse(&format!("https://{name}/"));
            match url.as_ref().ok().and_then(Url::host_str) {
                Some(read) if read == name => name.to_owned(),
                Some(read) => return Err(format!("`{name}` is another spelling of `{read}`; write that")),
                None => return Err(format!("`{name}` is neither a host name nor an address in its usual form")),
            }
        }
    };
    Ok(port.map_or(name.clone(), |port| format!("{name}:{port}")))
}

/// Splits a port from what is in front of it; the colons of an IPv6 address in brackets are none of its.
fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    }
}

fn is_host(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':', '[']) || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn check_host(text: &str) -> Result<(), &'static str> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']').ok_or("a bracket of the registry is not closed")?;
            address.parse::<Ipv6Addr>().map_err(|_| "the registry is not an IPv6 address")?;
            match rest.strip_prefix(':') {
                Some(port) => (None, Some(port)),
                None if rest.is_empty() => (None, None),
                None => return Err("something stands between the registry and the slash"),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        },
    };
    if let Some(port) = port {
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        if !digits || port.parse::<u16>().map_or(true, |number| number == 0) {
            return Err("the registry's port is not a number from 1 to 65535");
        }
    }
    let Some(host) = host else { return Ok(()) };
    if host.len() > 253 {
        return Err("the registry's name has more than 253 bytes");
    }
    let label_fits = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if host.split('.').all(label_fits) { Ok(()) } else { Err("the registry is not a host name") }
}

fn check_repository(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("the name is empty");
    }
    if path.len() > NAME_BYTES {
        return Err("the name has more than 255 bytes");
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("the name must be in lower case");
    }
    if path.split('/').all(component_fits) {
        Ok(())
    } else {
        Err("each part of the name must be letters and digits, joined by `.`, `_`, `__` or dashes")
    }
}

fn component_fits(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends = |byte: Option<&u8>| byte.is_some_and(|&b| alphanumeric(b));
    ends(bytes.first())
        && ends(bytes.last())
        && bytes
            .split(|&b| alphanumeric(b))
            .all(|separator| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-'))
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if tag.len() > TAG_BYTES {
        return Err("the tag has more than 128 bytes");
    }
    let first = tag.bytes().next().is_some_and(word);
    if first && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-') {
        Ok(())
    } else {
        Err("the tag must be letters, digits, `_`, `.` and `-`, and not begin with the last two")
    }
}

fn invalid(text: &str, reason: impl Into<String>) -> Error {
    Error::InvalidReference { text: text.chars().take(200).collect(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use cofferdam_core::error::ErrorKind;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn what_people_leave_out_is_filled_in() {
        for (text, whole) in [
            ("debian", "docker.io/library/debian:latest"),
            ("debian:12", "docker.io/library/debian:12"),
            ("docker.io/debian", "docker.io/library/debian:latest"),
            ("index.docker.io/a/b", "docker.io/a/b:latest"),
            ("a/b/c", "docker.io/a/b/c:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a:b", "localhost:5000/a:b"),
            ("127.0.0.1:5000/a", "127.0.0.1:5000/a:latest"),
            ("[::1]:5000/a:1", "[::1]:5000/a:1"),
            ("[2001:db8::1]/a", "[2001:db8::1]/a:latest"),
            ("[2001:0DB8:0:0::1]:05000/a", "[2001:db8::1]:5000/a:latest"),
            ("localhost:05000/a", "localhost:5000/a:latest"),
            ("Registry.Example/a", "registry.example/a:latest"),
            ("REGISTRY-1.docker.io:443/debian", "docker.io/library/debian:latest"),
            ("docker.io:0443/a/b", "docker.io/a/b:latest"),
            ("[::ffff:127.0.0.1]:5000/a", "127.0.0.1:5000/a:latest"),
            ("[::FFFF:7f00:1]/a", "127.0.0.1/a:latest"),
            ("0.0.0.0:5000/a", "127.0.0.1:5000/a:latest"),
            ("[::]:5000/a", "[::1]:5000/a:latest"),
            ("[::ffff:0:0]:5000/a", "127.0.0.1:5000/a:latest"),
            ("xn--bcher-kva.example/a", "xn--bcher-kva.example/a:latest"),
            ("test.com:5000", "docker.io/library/test.com:5000"),
            ("foo_bar.com:8080", "docker.io/library/foo_bar.com:8080"),
            ("x/a.b-c__d_e---f/x0:V_1.-", "docker.io/x/a.b-c__d_e---f/x0:V_1.-"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), whole);
        }
        let text = format!("quay.io/a/b@{DIGEST}");
        assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        let both = format!("quay.io/a/b:1@{DIGEST}").parse::<Reference>().unwrap();
        assert_eq!((both.tag(), both.manifest_key()), (Some("1"), DIGEST.to_owned()));
    }

    #[test]
    fn nothing_else_is_a_reference() {
        let long_tag = format!("a:{}", "t".repeat(129));
        let long_name = "a/".repeat(128) + "a";
        let long_host = format!("{}.com/a", "h".repeat(64));
        let short_digest = format!("a@{}", &DIGEST[..70]);
        for text in [
            "",
            ":",
            "/",
            "@",
            "a/",
            "/a",
            "a//b",
            "A",
            "a:",
            "a::b",
            "a:b:c",
            "a@b",
            "a:b@",
            "a:-b",
            "a:.b",
            "a:b/c:d",
            "a/B",
            "a b",
            "a\n",
            "é",
            ".a/b",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a._b",
            "_a",
            "a/../b",
            "..",
            "../a",
            "a/./b",
            "a?b",
            "a#b",
            "a%2f",
            "a\\b",
            "http://a/b",
            "user@host/a",
            "HOST/a",
            "localhost:0/a",
            "localhost:65536/a",
            "localhost:/a",
            "localhost:x/a",
            "localhost:+5/a",
            "host.:5/a",
            "-h.com/a",
            "h_h.com/a",
            "[::1/a",
            "[::1]x/a",
            "[1.2.3.4]/a",
            "[fe80::1%25lo]/a",
            "a:5000/",
            &long_tag,
            &long_name,
            &long_host,
            &short_digest,
            &format!("a@{DIGEST}@{DIGEST}"),
            &DIGEST[7..],
        ] {
            let Err(error) = text.parse::<Reference>() else { panic!("{text:?} was taken for a reference") };
            assert_eq!(error.kind(), ErrorKind::Usage, "{text:?}");
        }
    }

    /// An address that clients read as another one would step around the rules for that one.
    #[test]
    fn an_address_has_one_spelling() {
        for text in [
            "127.1",
            "127.1:5000",
            "0x7f.1",
            "0X7F.0.0.1",
            "127.0.0.0x1",
            "127.0.0.01",
            "127.0.0.1.",
            "0177.0.0.1",
            "2130706433:5000",
            "017700000001:5000",
            "0x7f000001:5000",
            "0:5000",
            "0.0",
            "127.0.0.256",
            "1.2.3.4.5",
            "a.1",
            "a.0x",
            "localhost.",
            "localhost.:5000",
            "docker.io.",
            "xn--a.example",
            "b\u{fc}cher.example",
            "\u{ff11}27.0.0.1",
            "127.0.0.1\u{3002}",
            "[fe80::1%lo]",
            "[fe80::1%25lo]:5000",
            "[127.0.0.1]",
        ] {
            for text in [text.to_owned(), format!("{text}/a")] {
                let error = if text.contains('/') {
                    text.parse::<Reference>().unwrap_err()
                } else {
                    text.parse::<RegistryHost>().unwrap_err()
                };
                assert_eq!(error.kind(), ErrorKind::Usage, "{text}");
            }
        }
        let error = "127.1:5000/a".parse::<Reference>().unwrap_err();
        assert!(error.to_string().contains("`127.0.0.1`"), "{error}");
        for (text, reached) in
            [("0x7f.1:5000", "127.0.0.1:5000"), ("docker.io.", "docker.io"), ("[::FFFF:127.0.0.1]:80", "127.0.0.1:80")]
        {
            assert_eq!(RegistryHost::reached_by(text).unwrap().as_str(), reached);
        }
    }

    /// Found by fuzzing: `HOST/a` was an image of the registry `host`, and its name when printed, `host/a`, one of Docker Hub.
    #[test]
    fn a_registry_is_never_printed_as_a_part_of_a_name() {
        for text in ["host", "HOST", "a-b"] {
            assert!(text.parse::<RegistryHost>().is_err(), "{text}");
        }
        for text in ["host:443", "HOST.example", "localhost", "LOCALHOST", "[::1]"] {
            let host: RegistryHost = text.parse().unwrap();
            let reference = format!("{host}/a").parse::<Reference>().unwrap();
            assert_eq!(reference.registry(), &host, "{text}");
        }
    }

    #[test]
    fn an_unqualified_name_is_looked_for_everywhere() {
        let search: Vec<RegistryHost> =
            ["docker.io", "localhost:5000"].iter().map(|host| host.parse().unwrap()).collect();
        let found = |text: &str| {
            Reference::candidates(text, &search).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(found("a:1"), ["docker.io/library/a:1", "localhost:5000/a:1"]);
        assert_eq!(found("quay.io/a:1"), ["quay.io/a:1"]);
    }
}
