//! One HTTP request after another, for plugins that asked for `http` and were granted it.
//!
//! Only authorities and methods that were granted answer; the rest is [`Error::Denied`]. Redirects are not followed: the
//! next request is the plugin's to make, and the host's to judge.

use std::fmt;

use crate::failure::Failure;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// In capitals, such as `GET`.
    pub method: String,
    /// `http://…` or `https://…`, without a fragment.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// What is sent along, empty for nothing.
    pub body: Vec<u8>,
}

impl Request {
    /// A `GET` of this URL.
    pub fn get(url: impl Into<String>) -> Self {
        Self { method: "GET".to_owned(), url: url.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The scheme, the authority and the path with the query; nothing of what is no such URL.
    #[cfg_attr(not(target_family = "wasm"), expect(dead_code, reason = "the harness does not take URLs apart"))]
    fn parts(&self) -> Option<(&str, &str, &str)> {
        let (scheme, rest) = self.url.split_once("://")?;
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let whole = matches!(scheme, "http" | "https") && !authority.is_empty() && !rest.contains('#');
        whole.then_some((scheme, authority, if path.is_empty() { "/" } else { path }))
    }
}

/// A response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Such as 200.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of this name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The host does not let the plugin make this request.
    Denied(String),
    /// The body is longer than the caller wants.
    TooLong(usize),
    /// Anything else, for people.
    Failed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(url) => write!(f, "{url}: the request was not granted"),
            Self::TooLong(limit) => write!(f, "the response is longer than {limit} bytes"),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Error {}

/// What cannot be asked is refused.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::TooLong(_) => Self::Limit(error.to_string()),
            _ => Self::refused(error.to_string()),
        }
    }
}

/// Sends a request and takes at most `limit` bytes of the response's body.
pub fn send(request: &Request, limit: usize) -> Result<Response, Error> {
    #[cfg(not(target_family = "wasm"))]
    let response = crate::testing::host::http(request);
    #[cfg(target_family = "wasm")]
    let response = component::send(request, limit);
    match response {
        Ok(response) if response.body.len() > limit => Err(Error::TooLong(limit)),
        other => other,
    }
}

#[cfg(target_family = "wasm")]
mod component {
    use super::{Error, Request, Response};
    use wasip2::http::outgoing_handler;
    use wasip2::http::types::{
        ErrorCode, Headers, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest, Scheme,
    };
    use wasip2::io::streams::StreamError;

    pub(super) fn send(request: &Request, limit: usize) -> Result<Response, Error> {
        let outgoing = prepare(request)?;
        let body = outgoing.body().map_err(|()| Error::Failed("the request has no body".to_owned()))?;
        let failed = |code: ErrorCode| match code {
            ErrorCode::HttpRequestDenied | ErrorCode::HttpRequestUriInvalid => Error::Denied(request.url.clone()),
            other => Error::Failed(format!("{}: {other:?}", request.url)),
        };
        let future = outgoing_handler::handle(outgoing, None).map_err(failed)?;
        if !request.body.is_empty() {
            let stream = body.write().map_err(|()| Error::Failed("the request has no body".to_owned()))?;
            for chunk in request.body.chunks(4096) {
                let sent = stream.blocking_write_and_flush(chunk);
                sent.map_err(|e| Error::Failed(format!("{}: sending: {e:?}", request.url)))?;
            }
        }
        OutgoingBody::finish(body, None).map_err(failed)?;
        future.subscribe().block();
        let response = match future.get() {
            Some(Ok(response)) => response.map_err(failed)?,
            _ => return Err(Error::Failed(format!("{}: no response", request.url))),
        };
        receive(&request.url, &response, limit)
    }

    fn prepare(request: &Request) -> Result<OutgoingRequest, Error> {
        let bad = |what: &str| Error::Failed(format!("{}: cannot be the {what} of a request", request.url));
        let (scheme, authority, path) = request.parts().ok_or_else(|| bad("URL"))?;
        let headers: Vec<_> = request.headers.iter().map(|(n, v)| (n.clone(), v.clone().into_bytes())).collect();
        let outgoing = OutgoingRequest::new(Headers::from_list(&headers).map_err(|_| bad("headers"))?);
        let method = match request.method.as_str() {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            other => Method::Other(other.to_owned()),
        };
        outgoing.set_method(&method).map_err(|()| bad("method"))?;
        let scheme = if scheme == "http" { Scheme::Http } else { Scheme::Https };
        outgoing.set_scheme(Some(&scheme)).map_err(|()| bad("scheme"))?;
        outgoing.set_authority(Some(authority)).map_err(|()| bad("authority"))?;
        outgoing.set_path_with_query(Some(path)).map_err(|()| bad("path"))?;
        Ok(outgoing)
    }

    fn receive(url: &str, response: &IncomingResponse, limit: usize) -> Result<Response, Error> {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let headers =
            response.headers().entries().into_iter().map(|(n, v)| (n.to_ascii_lowercase(), text(v))).collect();
        let unreadable = || Error::Failed(format!("{url}: the response has no body"));
        let incoming: IncomingBody = response.consume().map_err(|()| unreadable())?;
        let stream = incoming.stream().map_err(|()| unreadable())?;
        let mut body = Vec::new();
        loop {
            match stream.blocking_read(64 << 10) {
                Ok(bytes) => body.extend_from_slice(&bytes),
                Err(StreamError::Closed) => break,
                Err(StreamError::LastOperationFailed(error)) => {
                    return Err(Error::Failed(format!("{url}: {}", error.to_debug_string())));
                }
            }
            if body.len() > limit {
                return Err(Error::TooLong(limit));
            }
        }
        Ok(Response { status: response.status(), headers, body })
    }
}
