//! Bodies of a plugin's requests and their answers, counted while they pass.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use http::HeaderMap;
use http_body_util::{BodyExt, BodyStream, StreamBody};
use wasmtime_wasi_http::{Error, WasiBody};

use super::account::Account;
use super::http_client::explain;

/// The bytes of headers, as they are written.
pub(super) fn header_bytes(headers: &HeaderMap) -> usize {
    /// Colon, space and the line's end.
    const FRAME: usize = 4;
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FRAME).sum()
}

/// Why a body that is sent ends early.
#[derive(Debug, thiserror::Error)]
#[error("the plugin's body: {0}")]
pub(super) struct Spent(String, bool);

impl Spent {
    /// What the plugin is told.
    pub(super) fn error(&self) -> Error {
        if self.1 { Error::HttpRequestBodySize(None) } else { Error::HttpProtocolError }
    }
}

/// A body that is sent.
pub(super) fn counted_request(body: WasiBody, account: &Arc<Account>) -> reqwest::Body {
    if is_empty(&body) {
        // Not streamed: a GET would have a body, of no bytes.
        return reqwest::Body::default();
    }
    let account = Arc::clone(account);
    let frames = BodyStream::new(body).map(move |frame| {
        let frame = frame.map_err(|error| Spent(error.to_string(), false))?;
        if account.bytes(frame.data_ref().map_or(0, Bytes::len)) {
            Ok(frame)
        } else {
            Err(Spent("the limit on bytes is crossed".into(), true))
        }
    });
    reqwest::Body::wrap(StreamBody::new(Alone(Mutex::new(Box::pin(frames)))))
}

/// A body that arrives.
pub(super) fn counted_response(body: reqwest::Body, account: &Arc<Account>, between: Option<Duration>) -> WasiBody {
    let account = Arc::clone(account);
    let frames = stream::unfold(Some(BodyStream::new(body)), move |frames| {
        let account = Arc::clone(&account);
        async move {
            let mut frames = frames?;
            let next = match between {
                Some(limit) => match tokio::time::timeout(limit, frames.next()).await {
                    Ok(next) => next,
                    Err(_) => return Some((Err(Error::ConnectionReadTimeout), None)),
                },
                None => frames.next().await,
            };
            let frame = match next? {
                Ok(frame) => frame,
                Err(error) => return Some((Err(explain(&error)), None)),
            };
            let size = frame.data_ref().map_or(0, Bytes::len) + frame.trailers_ref().map_or(0, header_bytes);
            if account.bytes(size) {
                Some((Ok(frame), Some(frames)))
            } else {
                Some((Err(Error::HttpResponseBodySize(None)), None))
            }
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

/// Whether a body has ended before it began.
pub(super) fn is_empty(body: &impl BodyExt) -> bool {
    body.is_end_stream()
}

/// A stream that is polled by its owner alone, and so can be shared: nobody shares it.
struct Alone<S>(Mutex<Pin<Box<S>>>);

impl<S: Stream> Stream for Alone<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        match self.get_mut().0.get_mut() {
            Ok(stream) => stream.as_mut().poll_next(context),
            // Somebody panicked while polling it.
            Err(_) => Poll::Ready(None),
        }
    }
}
