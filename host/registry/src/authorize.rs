//! Credentials: given only when asked for, only to whom they belong, and never silently left out.
//!
//! Source: RFC 9110 section 11, and the token authentication of distribution (`spec/auth/token`). A registry that wants
//! credentials answers 401 and says how; then, and not before, Basic credentials are sent, or a token is fetched. If that
//! fails, so does the request: there is no second try as nobody. The registry says where its token service is, but not
//! whether it may have the password: see [`HostAccess::token_hosts`].
//!
//! A registry may redirect to a server that asks for a login of its own. That server is a [`Site`] like the registry, with
//! its own credentials or none; those of the registry stay with the registry.

use std::collections::HashMap;
use std::sync::Arc;

use cofferdam_core::error::{Error, Escaped, Result};
use cofferdam_documents::{Reference, RegistryHost};
use http::StatusCode;
use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::Value;
use tokio::sync::Mutex;
use url::Url;

use super::access::{Auth, HostAccess, Transport};
use super::answer;
use super::challenge::{Bearer, Challenges};
use super::client::{
    HOPS, Origin, Registries, is_redirect, network, redirected, registries_at, shown_host, too_many_redirects,
};
use super::http::Response;
use crate::image_source::Failure;

/// Bytes of a token endpoint's answer.
const TOKEN_BYTES: u64 = 1 << 20;

/// Requests that one request may lead to, with its redirects and the logins on its way.
const ROUNDS: usize = 4 * HOPS;

/// The authorization for one repository, shared by all requests for it.
#[derive(Debug)]
pub(super) struct Authorizer {
    registries: Registries,
    reference: Reference,
    home: Arc<Site>,
    /// Servers that the registry redirected to, by their origins.
    others: Mutex<HashMap<String, Arc<Site>>>,
}

/// A server that may ask for a login.
#[derive(Debug)]
struct Site {
    /// The name for people.
    name: String,
    /// The name as a registry, if it can be one.
    registry: Option<RegistryHost>,
    origin: Origin,
    access: HostAccess,
    state: Mutex<State>,
}

/// The credentials that are sent to a site at present.
#[derive(Debug, Default)]
struct State {
    header: Option<HeaderValue>,
    /// How often the header was replaced: tells a request whether another one has obtained something newer meanwhile.
    generation: u64,
    /// All scopes that were asked for.
    scopes: Vec<String>,
    /// Whether the site was asked how to log in.
    probed: bool,
}

impl Authorizer {
    pub(super) fn new(registries: Registries, reference: Reference) -> Result<Self> {
        let registry = reference.registry();
        let access = registries.access().get(registry);
        let origin = Origin::new(&reference, access.transport)?;
        let mut home = Site::new(registry.to_string(), Some(registry.clone()), origin, access)?;
        home.state.get_mut().scopes.push(scope_of(&reference));
        Ok(Self { registries, reference, home: Arc::new(home), others: Mutex::default() })
    }

    /// Sends a request to the repository; `path` is below `/v2/NAME/`. Follows redirects and answers challenges.
    pub(super) async fn get(&self, path: &str, headers: HeaderMap, what: &str) -> Result<Response, Failure> {
        let mut url = self.home.origin.url(&format!("{}/{path}", self.reference.repository()))?;
        let mut hops = 0;
        // Sites whose challenge this request has answered.
        let mut answered: Vec<Arc<Site>> = Vec::new();
        for _ in 0..ROUNDS {
            let site = self.site(&url).await?;
            let (header, generation) = site.credentials().await;
            let sent = header.is_some();
            let mut headers = headers.clone();
            headers.extend(header.map(|header| (AUTHORIZATION, header)));
            let response = self.registries.send(&site.origin, &url, headers, what).await?;
            if is_redirect(response.status()) {
                hops += 1;
                if hops > HOPS {
                    return Err(too_many_redirects(what).into());
                }
                url = redirected(&url, response.headers()).map_err(|reason| network(what, reason))?;
                continue;
            }
            let again = answered.iter().any(|other| Arc::ptr_eq(other, &site));
            let obtained = match response.status() {
                StatusCode::UNAUTHORIZED if again => return Err(self.refused(&site, response, what, sent).await),
                StatusCode::UNAUTHORIZED => self.log_in(&site, response, (sent, generation), what).await?,
                // How some registries hide from strangers what they have.
                StatusCode::FORBIDDEN | StatusCode::NOT_FOUND
                    if !sent && !site.is_anonymous() && Arc::ptr_eq(&site, &self.home) =>
                {
                    match self.probe(&site, what).await? {
                        Obtained::Nothing => return Ok(response),
                        obtained => obtained,
                    }
                }
                _ => return Ok(response),
            };
            if matches!(obtained, Obtained::Now) {
                answered.push(site);
            }
        }
        Err(self.home.denied(what, "it asks again and again").into())
    }

    /// Returns the name of the server at an address, for people.
    pub(super) fn name_of(&self, url: &Url) -> String {
        if self.home.origin.is_of(url) { self.home.name.clone() } else { shown_host(url) }
    }

    /// Returns the site at an address. Its credentials are those that were given for it.
    async fn site(&self, url: &Url) -> Result<Arc<Site>> {
        if self.home.origin.is_of(url) {
            return Ok(Arc::clone(&self.home));
        }
        let mut others = self.others.lock().await;
        let key = url.origin().ascii_serialization();
        if let Some(site) = others.get(&key) {
            return Ok(Arc::clone(site));
        }
        let list = self.registries.access();
        let known = registries_at(url).find(|host| list.get(host) != HostAccess::default());
        let registry = known.or_else(|| registries_at(url).next());
        let mut access = registry.as_ref().map(|host| list.get(host)).unwrap_or_default();
        if url.scheme() == "http" && access.transport != Transport::PlainHttp {
            // They were not given to be sent in the clear.
            access = HostAccess::default();
        }
        let origin = Origin::of(url, access.transport == Transport::InsecureTls);
        let site = Arc::new(Site::new(shown_host(url), registry, origin, access)?);
        others.insert(key, Arc::clone(&site));
        Ok(site)
    }

    /// Obtains what a 401 asks for, unless another request has meanwhile.
    async fn log_in(
        &self,
        site: &Arc<Site>,
        response: Response,
        (sent, generation): (bool, u64),
        what: &str,
    ) -> Result<Obtained, Failure> {
        let challenges = Challenges::of(response.headers());
        if challenges.can_be_answered() {
            let mut state = site.state.lock().await;
            if state.generation != generation {
                return Ok(Obtained::Before);
            }
            let Some(header) = self.answer(site, &mut state, &challenges, what).await? else {
                drop(state);
                return Err(self.refused(site, response, what, sent).await);
            };
            state.replace(header);
            return Ok(Obtained::Now);
        }
        if !sent
            && Arc::ptr_eq(site, &self.home)
            && let obtained @ (Obtained::Now | Obtained::Before) = self.probe(site, what).await?
        {
            return Ok(obtained);
        }
        if sent || site.is_anonymous() {
            return Err(self.refused(site, response, what, sent).await);
        }
        Err(site.denied(what, &format!("{}; no credentials were sent", challenges.obstacle())).into())
    }

    /// Asks the registry itself, once, how to log in, and does so: some say it only there, and answer for what they hide
    /// that there is no such thing.
    async fn probe(&self, site: &Site, what: &str) -> Result<Obtained, Failure> {
        let mut state = site.state.lock().await;
        if state.header.is_some() {
            return Ok(Obtained::Before);
        }
        if std::mem::replace(&mut state.probed, true) {
            return Ok(Obtained::Nothing);
        }
        let root = site.origin.url("")?;
        let asked = self.registries.send(&site.origin, &root, HeaderMap::new(), what);
        let Ok(response) = self.registries.in_time(what, asked).await else { return Ok(Obtained::Nothing) };
        let challenges = Challenges::of(response.headers());
        if response.status() != StatusCode::UNAUTHORIZED || !challenges.can_be_answered() {
            return Ok(Obtained::Nothing);
        }
        match self.answer(site, &mut state, &challenges, what).await {
            Ok(Some(header)) => {
                state.replace(header);
                Ok(Obtained::Now)
            }
            Ok(None) => Ok(Obtained::Nothing),
            // A stranger has nothing to log in with: the first answer stands.
            Err(_) if site.is_anonymous() => Ok(Obtained::Nothing),
            Err(failure) => Err(failure),
        }
    }

    /// Makes the credentials that a challenge asks for; nothing if those were sent already.
    async fn answer(
        &self,
        site: &Site,
        state: &mut State,
        challenges: &Challenges,
        what: &str,
    ) -> Result<Option<HeaderValue>, Failure> {
        let auth = &site.access.auth;
        if matches!(auth, Auth::Bearer(_)) {
            return Ok(None);
        }
        let impossible = match challenges.bearer.as_ref().map(|bearer| (bearer, site.token_service(bearer, what))) {
            Some((bearer, Ok(url))) => {
                for scope in &bearer.scopes {
                    if !state.scopes.contains(scope) {
                        state.scopes.push(scope.clone());
                    }
                }
                let ours = [scope_of(&self.reference)];
                let scopes = if state.scopes.is_empty() { &ours[..] } else { &state.scopes };
                let token = self.token(site, url, bearer.service.as_deref(), scopes, what);
                return self.registries.in_time(what, token).await.map(Some);
            }
            Some((_, Err(error))) => Some(error),
            None => None,
        };
        match (auth, impossible) {
            (Auth::Basic { user, password }, _) if challenges.basic => {
                let header = basic(user, password);
                let header = header.ok_or_else(|| site.denied(what, "the credentials cannot be sent in a header"))?;
                Ok(Some(header).filter(|header| state.header.as_ref() != Some(header)))
            }
            (_, Some(error)) => Err(error.into()),
            (_, None) => Err(site.denied(what, "it wants a user name and a password").into()),
        }
    }

    /// Fetches a token.
    async fn token(
        &self,
        site: &Site,
        mut url: Url,
        service: Option<&str>,
        scopes: &[String],
        what: &str,
    ) -> Result<HeaderValue, Failure> {
        let endpoint = format!("the token service of {}", site.name);
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            for scope in scopes {
                query.append_pair("scope", scope);
            }
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Auth::Basic { user, password } = &site.access.auth {
            let header = basic(user, password);
            let header = header.ok_or_else(|| site.denied(what, "the credentials cannot be sent in a header"))?;
            headers.insert(AUTHORIZATION, header);
        }
        let origin = site.origin.token_service(&url);
        let response = self.registries.get(&origin, url, headers, &endpoint).await?;
        match response.status() {
            status if status.is_success() => {}
            // 400 is what some services say of a password that is wrong.
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                return Err(self.refused(site, response, what, true).await);
            }
            _ => {
                let host = shown_host(response.url());
                return Err(answer::failure(&self.registries, response, &endpoint, &host).await);
            }
        }
        let body = self.registries.body(response, TOKEN_BYTES, &endpoint).await?;
        let answer: Value = serde_json::from_slice(&body)
            // Where, and not what: that may be the token.
            .map_err(|error| {
                let (line, column) = (error.line(), error.column());
                network(&endpoint, format!("its answer is no token (line {line}, column {column})"))
            })?;
        let tokens = ["token", "access_token"].iter().filter_map(|name| answer.get(name)?.as_str());
        let header = tokens.map(str::trim).filter(|token| !token.is_empty()).find_map(bearer);
        header.ok_or_else(|| network(&endpoint, "there is no token in its answer").into())
    }

    /// The refusal in a server's own words. `sent` says whether there were credentials in the request.
    async fn refused(&self, site: &Site, response: Response, what: &str, sent: bool) -> Failure {
        let words = answer::words(&self.registries, response).await;
        let nothing = match (site.is_anonymous(), sent) {
            (true, _) => Some("no credentials were given"),
            (false, false) => Some("no credentials were sent"),
            (false, true) => None,
        };
        let reason = match (words, nothing) {
            (Some(words), None) => words,
            (Some(words), Some(nothing)) => format!("{words} ({nothing})"),
            (None, None) => "the credentials were not accepted".to_owned(),
            (None, Some(nothing)) => format!("it wants credentials, and {nothing}"),
        };
        site.denied(what, &reason).into()
    }
}

/// Where the credentials of a request come from that is to be sent again.
enum Obtained {
    /// There are none.
    Nothing,
    /// Another request obtained them.
    Before,
    /// They were obtained just now.
    Now,
}

impl State {
    fn replace(&mut self, header: HeaderValue) {
        self.header = Some(header);
        self.generation += 1;
    }
}

impl Site {
    fn new(name: String, registry: Option<RegistryHost>, origin: Origin, access: HostAccess) -> Result<Self> {
        let header = match &access.auth {
            Auth::Bearer(token) => Some(bearer(token).ok_or_else(|| Error::Usage {
                reason: format!("the token for {name} cannot be sent in a header"),
                hint: None,
            })?),
            Auth::Anonymous | Auth::Basic { .. } => None,
        };
        let state = Mutex::new(State { header, ..State::default() });
        Ok(Self { name, registry, origin, access, state })
    }

    fn is_anonymous(&self) -> bool {
        self.access.auth == Auth::Anonymous
    }

    async fn credentials(&self) -> (Option<HeaderValue>, u64) {
        let state = self.state.lock().await;
        (state.header.clone(), state.generation)
    }

    /// Returns the address of the token service, if credentials may be sent there.
    fn token_service(&self, challenge: &Bearer, what: &str) -> Result<Url> {
        let url =
            token_service(&challenge.realm, self.origin.is_plain()).map_err(|reason| self.denied(what, &reason))?;
        let trusted = self.registry.as_ref().is_some_and(|registry| self.access.trusts(registry, &url));
        if matches!(self.access.auth, Auth::Basic { .. }) && !trusted {
            let host = shown_host(&url);
            let reason = format!(
                "its token service is at {host}, which the password was not given for; if it may be sent there, say so \
                 (--token-host {}={host})",
                self.name
            );
            return Err(self.denied(what, &reason));
        }
        Ok(url)
    }

    fn denied(&self, what: &str, reason: &str) -> Error {
        Error::Authentication { host: self.name.clone(), what: what.to_owned(), reason: reason.to_owned() }
    }
}

/// The scope of pulling from a reference's repository.
fn scope_of(reference: &Reference) -> String {
    format!("repository:{}:pull", reference.repository())
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
}
