//! What a registry's answer means when it is not what was asked for.

use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Response, StatusCode};
use serde::Deserialize;

use super::client::{Registries, header, network};
use crate::error::{Error, Escaped};
use crate::transport::{Failure, Retry};

/// Bytes of an error's body that are read.
const WORDS: u64 = 16 << 10;

/// How long an error's body may take.
const WORDS_TIMEOUT: Duration = Duration::from_secs(5);

/// The failure that an answer stands for. `what` was asked for, of `host`.
pub(super) async fn failure(registries: &Registries, response: Response, what: &str, host: &str) -> Failure {
    let status = response.status();
    let retry_after = retry_after(&response);
    let words = words(registries, response).await;
    let said = |what: &str| match &words {
        Some(words) => format!("{what}: {words}"),
        None => what.to_owned(),
    };
    let status_line = || said(&format!("{host} answered {}", shown(status)));
    let patient = |error| Failure { error, retry: retry_after.map_or(Retry::Soon, Retry::After) };
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Authentication {
            host: host.to_owned(),
            what: what.to_owned(),
            reason: words.unwrap_or_else(|| shown(status)),
        }
        .into(),
        StatusCode::NOT_FOUND => Error::NotFound {
            what: format!("{what} at {host}"),
            hint: words.map(|words| format!("the registry says: {words}")),
        }
        .into(),
        StatusCode::TOO_MANY_REQUESTS => {
            let mut reason = said(&format!("{host} wants fewer requests"));
            if let Some(pause) = retry_after {
                reason = format!("{reason} (try again in {} s)", pause.as_secs());
            }
            patient(network(what, reason))
        }
        StatusCode::REQUEST_TIMEOUT => patient(network(what, status_line())),
        status if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED => {
            patient(network(what, status_line()))
        }
        _ => network(what, status_line()).into(),
    }
}

/// The registry's own words, if it says some: the first error of the distribution spec's form, made harmless.
pub(super) async fn words(registries: &Registries, response: Response) -> Option<String> {
    #[derive(Deserialize)]
    struct Envelope {
        errors: Vec<Said>,
    }
    #[derive(Deserialize)]
    struct Said {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let body = registries.body(response, WORDS, "an error");
    let body = tokio::time::timeout(WORDS_TIMEOUT, body).await.ok()?.ok()?;
    let said = serde_json::from_slice::<Envelope>(&body).ok()?.errors.into_iter().next()?;
    let text = if said.message.is_empty() { said.code } else { said.message };
    (!text.is_empty()).then(|| Escaped(text.as_bytes()).to_string())
}

/// `Retry-After` in seconds. Its other form, a date, is treated as absent: it says nothing without a clock that agrees.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = header(response.headers(), &RETRY_AFTER)?.trim().parse::<u32>().ok()?;
    Some(Duration::from_secs(seconds.into()))
}

fn shown(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}
