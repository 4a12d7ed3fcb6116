//! Attempts on the network: `get URL`, and `send METHOD URL [NAME:VALUE…] [BYTES]` with headers and a body.

use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{ErrorCode, Fields, Method, OutgoingBody, OutgoingRequest, RequestOptions, Scheme};
use wasip2::io::streams::StreamError;

use crate::Outcome;
use crate::bindings::cofferdam::layer::settings;

pub(crate) fn attempt(verb: &str, rest: &str) -> Outcome {
    let mut words = rest.split(' ');
    let mut word = || words.next().ok_or("a word is missing");
    let method = match verb {
        "get" => Method::Get,
        _ => match word()? {
            "HEAD" => Method::Head,
            "GET" => Method::Get,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "CONNECT" => Method::Connect,
            other => Method::Other(other.to_owned()),
        },
    };
    let url = word()?;
    let fields = Fields::new();
    let mut size = 0;
    for word in words {
        match word.split_once(':') {
            Some((name, value)) => {
                fields.append(name, value.as_bytes()).map_err(|error| format!("header {name}: {error:?}"))?;
            }
            None => size = word.parse::<usize>().map_err(|error| error.to_string())?,
        }
    }
    let (scheme, rest) = url.split_once("://").ok_or("no URL")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let request = OutgoingRequest::new(fields);
    let set = |done: Result<(), ()>| done.map_err(|()| "what cannot be set".to_owned());
    set(request.set_method(&method))?;
    set(request.set_scheme(Some(&if scheme == "http" { Scheme::Http } else { Scheme::Https })))?;
    set(request.set_authority(Some(authority)))?;
    set(request.set_path_with_query(Some(path)))?;
    exchange(request, size)
}

fn exchange(request: OutgoingRequest, size: usize) -> Outcome {
    let options = settings::get("connect-ms").map(|ms| {
        let options = RequestOptions::new();
        let nanoseconds = ms.parse::<u64>().unwrap_or(0) * 1_000_000;
        let _ = options.set_connect_timeout(Some(nanoseconds));
        let _ = options.set_first_byte_timeout(Some(nanoseconds));
        options
    });
    let body = if size > 0 { Some(request.body().map_err(|()| "no body")?) } else { None };
    let pending = handle(request, options).map_err(|code| name(&code))?;
    let sent = body.map_or(Ok(()), |body| send(body, size));
    pending.subscribe().block();
    let response = pending.get().ok_or("no answer")?.map_err(|()| "a second answer")?.map_err(|code| name(&code))?;
    sent?;
    let status = response.status();
    let location = response.headers().get("location");
    let incoming = response.consume().map_err(|()| "no body")?;
    let stream = incoming.stream().map_err(|()| "no stream")?;
    let (mut read, mut begin) = (0, Vec::new());
    loop {
        match stream.blocking_read(64 << 10) {
            Ok(bytes) => {
                read += bytes.len();
                begin.extend(bytes.into_iter().take(80_usize.saturating_sub(begin.len())));
            }
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(format!("{status} after {read} bytes: {}", error.to_debug_string()));
            }
        }
    }
    let location = location.first().map(|to| format!(" to {}", String::from_utf8_lossy(to))).unwrap_or_default();
    Ok(format!("{status}{location}, {read} bytes: {}", String::from_utf8_lossy(&begin)))
}

fn send(body: OutgoingBody, size: usize) -> Result<(), String> {
    let stream = body.write().map_err(|()| "no stream")?;
    let chunk = [b'y'; 4096];
    let mut left = size;
    while left > 0 {
        let now = left.min(chunk.len());
        if let Err(error) = stream.blocking_write_and_flush(&chunk[..now]) {
            return Err(format!("{left} bytes were not sent: {error:?}"));
        }
        left -= now;
    }
    drop(stream);
    OutgoingBody::finish(body, None).map_err(|code| name(&code))
}

/// An error's name, without that of its type.
fn name(code: &ErrorCode) -> String {
    let text = format!("{code:?}");
    text.strip_prefix("ErrorCode::").unwrap_or(&text).to_owned()
}
