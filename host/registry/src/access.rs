//! How each registry is reached, and as whom. All of it is the caller's decision; nothing is guessed from names.

use std::collections::BTreeMap;
use std::fmt;

use url::Url;

use cofferdam_documents::RegistryHost;

/// How a registry is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Transport {
    /// HTTPS with a certificate that the system trusts. For `localhost` too: there is no host for which less is silently
    /// enough.
    #[default]
    Https,
    /// HTTP, without any protection. HTTPS is not tried first: what is sent depends on nobody's answer.
    PlainHttp,
    /// HTTPS with whatever certificate the registry shows.
    InsecureTls,
}

/// As whom a registry is asked.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Auth {
    /// As nobody.
    #[default]
    Anonymous,
    /// With a user name and a password, or a token in its place. They are sent only when the registry asks for them.
    Basic {
        /// The user name.
        user: String,
        /// The password.
        password: String,
    },
    /// With a bearer token that was obtained elsewhere; sent with each request to the registry itself.
    Bearer(String),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Basic { user, .. } => write!(f, "Basic({user:?}, …)"),
            Self::Bearer(_) => f.write_str("Bearer(…)"),
        }
    }
}

/// How and as whom one registry is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAccess {
    /// How.
    pub transport: Transport,
    /// As whom.
    pub auth: Auth,
    /// Hosts whose token services may have the password of [`Auth::Basic`], beside the registry's own: a registry names
    /// its token service itself, and must not choose whom a password is sent to.
    pub token_hosts: Vec<RegistryHost>,
}

impl HostAccess {
    /// Whether a token service at this host may have the password for `registry`. Each registry's own host may, and Docker
    /// Hub's service, which has a host of its own.
    pub(super) fn trusts(&self, registry: &RegistryHost, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        let is = |trusted: &str| {
            let Ok(trusted) = Url::parse(&format!("{}://{trusted}", url.scheme())) else { return false };
            // A service at a well-known port of the same host is no ordinary user's of it; one at any other may be.
            let port = url.port_or_known_default();
            trusted.host_str() == Some(host) && (port == trusted.port_or_known_default() || port == Some(443))
        };
        is(registry.as_str())
            || (*registry == RegistryHost::docker_hub() && is("auth.docker.io"))
            || self.token_hosts.iter().any(|trusted| is(trusted.as_str()))
    }
}

/// What the caller decided for each registry; the default for all others is HTTPS as nobody.
#[derive(Clone, Debug, Default)]
pub struct AccessList(BTreeMap<RegistryHost, HostAccess>);

impl AccessList {
    /// HTTPS as nobody for every registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decides for one registry. The port belongs to its name.
    #[must_use]
    pub fn with(mut self, registry: RegistryHost, access: HostAccess) -> Self {
        self.set(registry, access);
        self
    }

    /// Decides for one registry. The port belongs to its name.
    pub fn set(&mut self, registry: RegistryHost, access: HostAccess) {
        self.0.insert(registry, access);
    }

    /// What was decided for a registry.
    pub fn get(&self, registry: &RegistryHost) -> HostAccess {
        self.0.get(registry).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_assumed_of_any_host() {
        let list = AccessList::new().with(
            "localhost:5000".parse().unwrap(),
            HostAccess { transport: Transport::PlainHttp, ..HostAccess::default() },
        );
        assert_eq!(list.get(&"localhost:5000".parse().unwrap()).transport, Transport::PlainHttp);
        for other in ["localhost", "localhost:5001", "127.0.0.1:5000"] {
            assert_eq!(list.get(&other.parse().unwrap()), HostAccess::default());
        }
    }

    #[test]
    fn a_password_is_for_the_registrys_own_token_service() {
        let trusts = |registry: &str, token_hosts: &[&str], realm: &str| {
            let token_hosts = token_hosts.iter().map(|host| host.parse().unwrap()).collect();
            let access = HostAccess { token_hosts, ..HostAccess::default() };
            access.trusts(&registry.parse().unwrap(), &Url::parse(realm).unwrap())
        };
        for (registry, token_hosts, realm) in [
            ("quay.example", &[][..], "https://quay.example/v2/auth?x=1"),
            ("Quay.Example", &[], "https://quay.example:443/v2/auth"),
            ("localhost:5000", &[], "http://localhost:5000/token"),
            ("git.example:5050", &[], "https://git.example/jwt/auth"),
            ("[::1]:5000", &[], "http://[::1]:5000/token"),
            ("docker.io", &[], "https://auth.docker.io/token"),
            ("registry.git.example", &["git.example"], "https://git.example/jwt/auth"),
            ("a.example", &["b.example:8443"], "https://b.example:8443/token"),
        ] {
            assert!(trusts(registry, token_hosts, realm), "{registry} {realm}");
        }
        for (registry, token_hosts, realm) in [
            ("quay.example", &[][..], "https://evil.example/v2/auth"),
            ("quay.example", &[], "https://auth.quay.example/"),
            ("quay.example", &[], "https://auth.docker.io/token"),
            ("docker.io", &[], "https://docker.io.evil.example/token"),
            ("localhost:5000", &[], "http://localhost:5001/token"),
            ("quay.example", &[], "https://quay.example:8443/"),
            ("a.example", &["b.example"], "https://b.example:8443/token"),
            ("a.example", &["b.example"], "https://c.example/token"),
        ] {
            assert!(!trusts(registry, token_hosts, realm), "{registry} {realm}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let basic = Auth::Basic { user: "me".into(), password: "hunter2".into() };
        let text = format!("{basic:?} {:?}", Auth::Bearer("hunter2".into()));
        assert!(!text.contains("hunter2") && text.contains("me"), "{text}");
    }
}
