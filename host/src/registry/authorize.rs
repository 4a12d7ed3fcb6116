//! Credentials: given only when asked for, only to whom they belong, and never silently left out.
//!
//! Source: RFC 9110 section 11, and the token authentication of distribution (`spec/auth/token`). A registry that wants
//! credentials answers 401 and says how; then, and not before, Basic credentials are sent, or a token is fetched. If that
//! fails, so does the request: there is no second try as nobody. The registry says where its token service is, but not
//! whether it may have the password: see [`HostAccess::token_hosts`].

use http_auth::parse_challenges;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::access::{Auth, HostAccess};
use super::answer;
use super::client::{Origin, Registries, network};
use super::reference::Reference;
use crate::error::{Error, Escaped, Result};
use crate::transport::Failure;

/// Bytes of a token endpoint's answer.
const TOKEN_BYTES: u64 = 1 << 20;

/// The authorization for one repository, shared by all requests for it.
#[derive(Debug)]
pub(super) struct Authorizer {
    registries: Registries,
    reference: Reference,
    origin: Origin,
    access: HostAccess,
    state: Mutex<State>,
}

/// What is sent at present. The number tells whether somebody has obtained something newer since a request was sent.
#[derive(Debug, Default)]
struct State {
    header: Option<HeaderValue>,
    generation: u64,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Bearer { realm: String, service: Option<String> },
    Basic,
}

impl Authorizer {
    pub(super) fn new(registries: Registries, reference: Reference) -> Result<Self> {
        let access = registries.access().get(reference.registry());
        let origin = Origin::new(&reference, access.transport)?;
        let header = match &access.auth {
            Auth::Bearer(token) => Some(bearer(token).ok_or_else(|| Error::Usage {
                reason: format!("the token for {} cannot be sent in a header", reference.registry()),
                hint: None,
            })?),
            Auth::Anonymous | Auth::Basic { .. } => None,
        };
        let state = Mutex::new(State { header, generation: 0 });
        Ok(Self { registries, reference, origin, access, state })
    }

    pub(super) fn is_anonymous(&self) -> bool {
        self.access.auth == Auth::Anonymous
    }

    /// A request to the repository; `path` is below `/v2/NAME/`. Answers challenges.
    pub(super) async fn get(&self, path: &str, headers: HeaderMap, what: &str) -> Result<Response, Failure> {
        let url = self.origin.url(&format!("{}/{path}", self.reference.repository()))?;
        for last in [false, true] {
            let (header, generation) = {
                let state = self.state.lock().await;
                (state.header.clone(), state.generation)
            };
            let mut headers = headers.clone();
            if let Some(header) = header {
                headers.insert(AUTHORIZATION, header);
            }
            let response = self.registries.get(&self.origin, url.clone(), headers, what).await?;
            // A 401 of a place that we were sent to is not about these credentials.
            if response.status() != StatusCode::UNAUTHORIZED || !self.origin.is_of(response.url()) {
                return Ok(response);
            }
            if last {
                return Err(self.refused(response, what).await);
            }
            self.answer(response, generation, what).await?;
        }
        Err(self.denied(what, "it asks again and again").into())
    }

    /// Obtains what a challenge asks for, unless somebody else has meanwhile.
    async fn answer(&self, response: Response, generation: u64, what: &str) -> Result<(), Failure> {
        let mut state = self.state.lock().await;
        if state.generation != generation {
            return Ok(());
        }
        let header = match (challenge(response.headers()), &self.access.auth) {
            (_, Auth::Bearer(_)) | (None, _) => return Err(self.refused(response, what).await),
            (Some(Challenge::Basic), Auth::Anonymous) => {
                return Err(self.denied(what, "it wants a user name and a password").into());
            }
            (Some(Challenge::Basic), Auth::Basic { .. }) if state.header.is_some() => {
                return Err(self.refused(response, what).await);
            }
            (Some(Challenge::Basic), Auth::Basic { user, password }) => self.basic(user, password)?,
            (Some(Challenge::Bearer { realm, service }), _) => {
                let token = self.token(&realm, service.as_deref(), what);
                self.registries.in_time(what, token).await?
            }
        };
        state.header = Some(header);
        state.generation += 1;
        Ok(())
    }

    /// Fetches a token for pulling from this repository, whatever scope the challenge names.
    async fn token(&self, realm: &str, service: Option<&str>, what: &str) -> Result<HeaderValue, Failure> {
        let endpoint = format!("the token service of {}", self.reference.registry());
        let mut url = token_service(realm, self.origin.is_plain()).map_err(|reason| self.denied(what, &reason))?;
        if matches!(self.access.auth, Auth::Basic { .. }) && !self.access.trusts(self.reference.registry(), &url) {
            let host = Escaped(url.host_str().unwrap_or_default().as_bytes()).to_string();
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            let reason = format!(
                "its token service is at {host}{port}, which the password was not given for; if it may be sent there, say so \
                 (--token-host {}={host}{port})",
                self.reference.registry()
            );
            return Err(self.denied(what, &reason).into());
        }
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            query.append_pair("scope", &format!("repository:{}:pull", self.reference.repository()));
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Auth::Basic { user, password } = &self.access.auth {
            headers.insert(AUTHORIZATION, self.basic(user, password)?);
        }
        let origin = self.origin.token_service(&url);
        let response = self.registries.get(&origin, url, headers, &endpoint).await?;
        match response.status() {
            StatusCode::OK => {}
            // 400 is what some services say of a password that is wrong.
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                return Err(self.refused(response, what).await);
            }
            _ => return Err(answer::failure(&self.registries, response, &endpoint, self.host()).await),
        }
        let body = self.registries.body(response, TOKEN_BYTES, &endpoint).await?;
        let token: Token = serde_json::from_slice(&body)
            // Where, and not what: that may be the token.
            .map_err(|error| {
                let (line, column) = (error.line(), error.column());
                network(&endpoint, format!("its answer is no token (line {line}, column {column})"))
            })?;
        let token = token.token.or(token.access_token).filter(|token| !token.is_empty());
        let header = token.as_deref().and_then(bearer);
        header.ok_or_else(|| network(&endpoint, "there is no token in its answer").into())
    }

    fn basic(&self, user: &str, password: &str) -> Result<HeaderValue> {
        basic(user, password).ok_or_else(|| self.denied("anything", "the credentials cannot be sent in a header"))
    }

    /// The refusal in a registry's own words.
    async fn refused(&self, response: Response, what: &str) -> Failure {
        let words = answer::words(&self.registries, response).await;
        let reason = match (words, self.is_anonymous()) {
            (Some(words), false) => words,
            (Some(words), true) => format!("{words} (no credentials were given)"),
            (None, false) => "the credentials were not accepted".to_owned(),
            (None, true) => "it wants credentials".to_owned(),
        };
        self.denied(what, &reason).into()
    }

    fn denied(&self, what: &str, reason: &str) -> Error {
        Error::Authentication { host: self.host().to_owned(), what: what.to_owned(), reason: reason.to_owned() }
    }

    fn host(&self) -> &str {
        self.reference.registry().as_str()
    }
}

/// The challenge that can be answered: a token before a password.
fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let challenges: Vec<_> = texts.filter_map(|text| parse_challenges(text).ok()).flatten().collect();
    let parameter = |challenge: &http_auth::ChallengeRef<'_>, name: &str| {
        let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_unescaped())
    };
    let bearer =
        challenges.iter().filter(|challenge| challenge.scheme.eq_ignore_ascii_case("bearer")).find_map(|found| {
            Some(Challenge::Bearer { realm: parameter(found, "realm")?, service: parameter(found, "service") })
        });
    let basic =
        || challenges.iter().any(|found| found.scheme.eq_ignore_ascii_case("basic")).then_some(Challenge::Basic);
    bearer.or_else(basic)
}

/// The address of a token service. Credentials, and what they are exchanged for, travel no less protected than to the
/// registry itself; `plain` says that this is not at all.
fn token_service(realm: &str, plain: bool) -> Result<Url, String> {
    let shown = || Escaped(realm.as_bytes()).to_string();
    let url = Url::parse(realm).map_err(|_| format!("its token service `{}` has no address", shown()))?;
    let protected = url.scheme() == "https" || (url.scheme() == "http" && plain);
    if protected && url.username().is_empty() && url.password().is_none() {
        Ok(url)
    } else {
        Err(format!("its token service `{}` cannot be trusted with credentials", shown()))
    }
}

fn bearer(token: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

fn basic(user: &str, password: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(&http_auth::basic::encode_credentials(user, password)).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge_of(values: &[&'static str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(value));
        }
        challenge(&headers)
    }

    #[test]
    fn a_token_is_preferred_to_a_password() {
        let token = Challenge::Bearer { realm: "https://a/t?x=1,2".into(), service: Some("s \"q\"".into()) };
        let text = r#"bearer Realm="https://a/t?x=1,2",service="s \"q\"",scope="repository:other:push""#;
        assert_eq!(challenge_of(&[text]), Some(token));
        assert!(matches!(challenge_of(&["Basic realm=\"x\"", text]), Some(Challenge::Bearer { .. })));
        assert_eq!(challenge_of(&["Basic realm=\"x\""]), Some(Challenge::Basic));
    }

    #[test]
    fn tokens_are_fetched_no_less_protected_than_images() {
        token_service("https://auth.example/token?x=1", false).unwrap();
        token_service("http://127.0.0.1:1/token", true).unwrap();
        for realm in
            ["http://auth.example/token", "https://user@auth.example/", "ftp://auth.example/", "auth.example", ""]
        {
            token_service(realm, false).unwrap_err();
        }
        token_service("file:///etc/passwd", true).unwrap_err();
    }

    #[test]
    fn a_challenge_that_cannot_be_answered_is_none() {
        for values in [&[][..], &["Negotiate"], &["Bearer service=\"x\""], &["Digest realm=\"x\""], &["\"\""]] {
            assert_eq!(challenge_of(values), None, "{values:?}");
        }
    }
}
