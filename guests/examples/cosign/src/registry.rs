//! What is asked of the registry: one manifest, and the blobs that it names, with an anonymous token where one is wanted.

use std::collections::BTreeMap;

use cofferdam_sdk::http::{self, Error, Request, Response};
use cofferdam_sdk::{Failure, Image, log};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// What a manifest, a statement and a token may be long.
const MANIFEST: usize = 1 << 20;
const BLOB: usize = 64 << 10;
const TOKEN: usize = 64 << 10;

/// How often a blob may lie elsewhere.
const REDIRECTS: usize = 3;

/// A manifest, as far as it matters here.
#[derive(Deserialize)]
pub(crate) struct Manifest {
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
}

/// What a manifest says of a blob.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// The registry of an image.
pub(crate) struct Registry<'a> {
    image: &'a Image,
    token: Option<String>,
}

impl<'a> Registry<'a> {
    pub(crate) fn new(image: &'a Image) -> Self {
        Self { image, token: None }
    }

    /// The manifest of this tag, if there is one.
    pub(crate) fn manifest(&mut self, tag: &str) -> Result<Option<Manifest>, Failure> {
        let url = self.url("manifests", tag);
        let types = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
        let response = self.get(&url, Some(types), MANIFEST)?;
        match response.status {
            200 => serde_json::from_slice(&response.body)
                .map(Some)
                .map_err(|e| format!("the signature's manifest cannot be read: {e}").into()),
            404 => Ok(None),
            status => Err(format!("{url}: status {status}").into()),
        }
    }

    /// The bytes of a blob, which hash to its digest.
    pub(crate) fn blob(&mut self, blob: &Descriptor) -> Result<Vec<u8>, String> {
        let Some(hash) = blob.digest.strip_prefix("sha256:").filter(|hash| hash.bytes().all(|b| b.is_ascii_hexdigit()))
        else {
            return Err(format!("its statement has the digest `{}`", blob.digest.escape_debug()));
        };
        let mut url = self.url("blobs", &blob.digest);
        let mut response = self.get(&url, None, BLOB).map_err(|e| format!("its statement: {e}"))?;
        for _ in 0..REDIRECTS {
            if !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
                break;
            }
            url = self.target(&url, response.header("location").unwrap_or_default())?;
            // Without the token: it is meant for the registry.
            response = http::send(&Request::get(&url), BLOB).map_err(|e| format!("its statement: {e}"))?;
        }
        if response.status != 200 {
            return Err(format!("its statement: {url}: status {}", response.status));
        }
        if hex(&Sha256::digest(&response.body)) != hash {
            return Err(format!("its statement does not hash to {}", blob.digest));
        }
        Ok(response.body)
    }

    fn scheme(&self) -> &'static str {
        if self.image.insecure { "http" } else { "https" }
    }

    fn url(&self, what: &str, which: &str) -> String {
        format!("{}://{}/v2/{}/{what}/{which}", self.scheme(), self.image.registry, self.image.repository)
    }

    /// Where a redirect leads; never from `https` to clear text.
    fn target(&self, from: &str, to: &str) -> Result<String, String> {
        if to.starts_with("https://") || self.image.insecure && to.starts_with("http://") {
            Ok(to.to_owned())
        } else if to.starts_with('/') && !to.starts_with("//") {
            let (scheme, rest) = from.split_once("://").unwrap_or((self.scheme(), from));
            Ok(format!("{scheme}://{}{to}", rest.split('/').next().unwrap_or_default()))
        } else {
            Err(format!("its statement: {from} leads to `{}`", to.escape_debug()))
        }
    }

    /// Asks the registry, once more with a token if it wants one.
    fn get(&mut self, url: &str, accept: Option<&str>, limit: usize) -> Result<Response, Error> {
        let request = |token: Option<&str>| {
            let mut request = Request::get(url);
            if let Some(types) = accept {
                request = request.header("accept", types);
            }
            if let Some(token) = token {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            request
        };
        let response = http::send(&request(self.token.as_deref()), limit)?;
        if response.status != 401 || self.token.is_some() {
            return Ok(response);
        }
        let Some(challenge) = response.header("www-authenticate").and_then(Challenge::new) else { return Ok(response) };
        self.token = Some(self.fetch_token(&challenge)?);
        http::send(&request(self.token.as_deref()), limit)
    }

    fn fetch_token(&self, challenge: &Challenge) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        if !challenge.realm.starts_with("https://") && !self.image.insecure {
            return Err(Error::Failed(format!("tokens come from `{}`, in clear text", challenge.realm.escape_debug())));
        }
        let mark = if challenge.realm.contains('?') { '&' } else { '?' };
        let scope = format!("repository:{}:pull", self.image.repository);
        let mut url = format!("{}{mark}scope={}", challenge.realm, encode(&scope));
        if let Some(service) = &challenge.service {
            url = format!("{url}&service={}", encode(service));
        }
        log::debug(format!("a token from {}", challenge.realm));
        let response = http::send(&Request::get(&url), TOKEN)?;
        if response.status != 200 {
            return Err(Error::Failed(format!("{}: no token, but status {}", challenge.realm, response.status)));
        }
        let answer: Option<Answer> = serde_json::from_slice(&response.body).ok();
        let token = answer.and_then(|answer| answer.token.or(answer.access_token));
        // It becomes a header.
        token
            .filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()))
            .ok_or_else(|| Error::Failed(format!("{}: no token in the answer", challenge.realm)))
    }
}

/// `Bearer realm="…",service="…"`.
struct Challenge {
    realm: String,
    service: Option<String>,
}

impl Challenge {
    fn new(header: &str) -> Option<Self> {
        let (scheme, mut rest) = header.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service) = (None, None);
        while let Some((name, after)) = rest.split_once('=') {
            let after = after.trim_start();
            let (value, later) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_at(after.find(',').unwrap_or(after.len())),
            };
            match name.trim_matches([' ', ',']).to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value.to_owned()),
                "service" => service = Some(value.to_owned()),
                _ => {}
            }
            rest = later;
        }
        Some(Self { realm: realm?, service })
    }
}

/// Percent-encodes what has a meaning in a query.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded.push('%');
            encoded += &hex(&[byte]).to_ascii_uppercase();
        }
    }
    encoded
}

/// In lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
