//! What a registry's answer means when it is not what was asked for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cofferdam_core::ambient;
use cofferdam_core::error::{Error, Escaped};
use http::StatusCode;
use http::header::{DATE, HeaderMap, RETRY_AFTER};
use serde::Deserialize;

use super::client::{Registries, network};
use super::http::Response;
use crate::image_source::{Failure, Retry};

/// Bytes of an error's body that are read.
const WORDS: u64 = 16 << 10;

/// How long an error's body may take.
const WORDS_TIMEOUT: Duration = Duration::from_secs(5);

/// The failure that an answer stands for. `what` was asked for, of `host`.
pub(super) async fn failure(registries: &Registries, response: Response, what: &str, host: &str) -> Failure {
    let status = response.status();
    let pause = pause(response.headers(), status, ambient::now());
    let words = words(registries, response).await;
    let said = |what: &str| match &words {
        Some(words) => format!("{what}: {words}"),
        None => what.to_owned(),
    };
    let status_line = || said(&format!("{host} answered {}", shown(status)));
    let patient = |reason: String| {
        let reason = match pause {
            Some(pause) => format!("{reason} (try again in {})", shown_pause(pause)),
            None => reason,
        };
        Failure { error: network(what, reason), retry: pause.map_or(Retry::Soon, Retry::After) }
    };
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
        StatusCode::TOO_MANY_REQUESTS => patient(said(&format!("{host} wants fewer requests"))),
        StatusCode::REQUEST_TIMEOUT => patient(status_line()),
        status if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED => patient(status_line()),
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

/// Returns the pause that a server asks for: in `Retry-After`, as seconds or as a date (RFC 9110, 10.2.3), or else, where it
/// wants fewer requests, in the fields for rate limits that registries send.
///
/// A date is held against the server's own clock if the answer says what that shows; `now` is ours.
fn pause(headers: &HeaderMap, status: StatusCode, now: SystemTime) -> Option<Duration> {
    let texts =
        |name: &'static str| headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::trim);
    let now = texts(DATE.as_str()).find_map(|text| httpdate::parse_http_date(text).ok()).unwrap_or(now);
    let until = |then: SystemTime| then.duration_since(now).unwrap_or_default();
    let asked = texts(RETRY_AFTER.as_str())
        .filter_map(|text| seconds(text).or_else(|| httpdate::parse_http_date(text).ok().map(until)))
        .max();
    // Other answers carry the fields for rate limits too, whatever is left of the quota.
    if asked.is_some() || status != StatusCode::TOO_MANY_REQUESTS {
        return asked;
    }
    // So many seconds are not a pause but a moment, which is what some services give.
    let moment = Duration::from_secs(1_000_000_000);
    let pause_or_moment = |text: &str| {
        let seconds = seconds(text)?;
        Some(if seconds < moment { seconds } else { until(UNIX_EPOCH.checked_add(seconds)?) })
    };
    let resets = ["ratelimit-reset", "x-ratelimit-reset", "x-rate-limit-reset", "x-retry-after"];
    let in_fields = resets.into_iter().flat_map(texts).filter_map(pause_or_moment);
    // `limit=100, remaining=0, reset=50`, and `"default";r=0;t=50`.
    let value_of = |text: &str, keys: [&str; 2]| {
        let mut parts = text.split([',', ';']).filter_map(|part| part.trim().split_once('='));
        parts.find_map(|(key, value)| keys.contains(&key).then(|| seconds(value))?)
    };
    // A list of quotas, of which those count that are used up, or one quota whose parts are separated in the same way.
    let in_lists = texts("ratelimit").flat_map(|text| {
        let quotas: Vec<_> = if text.contains(';') { text.split(',').collect() } else { vec![text] };
        quotas.into_iter().filter_map(|quota| {
            let left = value_of(quota, ["r", "remaining"]).is_some_and(|left| !left.is_zero());
            value_of(quota, ["t", "reset"]).filter(|_| !left)
        })
    });
    in_fields.chain(in_lists).max()
}

/// Reads a number of seconds, rounded up. One that is too large to count is as long as can be.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) {
        return None;
    }
    let more = u64::from(part.bytes().any(|digit| digit != b'0'));
    Some(Duration::from_secs(whole.parse().map_or(u64::MAX, |whole: u64| whole.saturating_add(more))))
}

fn shown_pause(pause: Duration) -> String {
    match pause.as_secs() {
        seconds @ ..600 => format!("{seconds} s"),
        seconds @ ..36_000 => format!("{} min", seconds.div_ceil(60)),
        seconds if seconds < 1 << 32 => format!("{} h", seconds.div_ceil(3600)),
        _ => "more than a hundred years".to_owned(),
    }
}

fn shown(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, HeaderValue};

    use super::*;

    /// The moment of the examples in RFC 9110, 5.6.7.
    const NOW: u64 = 784_111_777;

    fn asked(status: u16, fields: &[(&'static str, &str)]) -> Option<u64> {
        let fields =
            fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        let mut headers = HeaderMap::new();
        fields.for_each(|(name, value)| _ = headers.append(name, value));
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        pause(&headers, StatusCode::from_u16(status).unwrap(), now).map(|pause| pause.as_secs())
    }

    #[test]
    fn a_pause_is_read_in_every_form() {
        for (value, pause) in [
            ("7", Some(7)),
            (" 007 ", Some(7)),
            ("0", Some(0)),
            ("1.5", Some(2)),
            ("1.0", Some(1)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sunday, 06-Nov-94 08:49:47 GMT", Some(10)),
            ("Sun Nov  6 08:49:47 1994", Some(10)),
            ("Sun, 06 Nov 1994 08:49:27 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("soon", None),
            ("1e9", None),
        ] {
            for status in [408, 429, 503] {
                assert_eq!(asked(status, &[("retry-after", value)]), pause, "{status} {value:?}");
            }
        }
        // By the clock of the server.
        let date = ("date", "Sun, 06 Nov 1994 08:00:00 GMT");
        assert_eq!(asked(503, &[date, ("retry-after", "Sun, 06 Nov 1994 08:00:05 GMT")]), Some(5));
        assert_eq!(asked(503, &[("retry-after", "3"), ("retry-after", "x"), ("retry-after", "5")]), Some(5));
    }

    #[test]
    fn a_limit_says_when_it_ends() {
        let moment = (NOW + 1_000_000_000).to_string();
        let later = [("date", "Wed, 15 Jul 2026 10:36:07 GMT"), ("x-ratelimit-reset", moment.as_str())];
        assert_eq!(asked(429, &later), Some(10));
        for (fields, pause) in [
            (&[("ratelimit-reset", "50")][..], Some(50)),
            (&[("x-ratelimit-reset", "50")], Some(50)),
            (&[("x-rate-limit-reset", "50"), ("ratelimit-limit", "100;w=21600")], Some(50)),
            (&[("ratelimit", "limit=100, remaining=0, reset=50")], Some(50)),
            (&[("ratelimit", "\"default\";r=0;t=50")], Some(50)),
            (&[("ratelimit", "\"burst\";r=0;t=5, \"daily\";r=900;t=80000")], Some(5)),
            (&[("ratelimit-reset", "50"), ("retry-after", "3")], Some(3)),
            (&[("ratelimit-remaining", "0;w=21600")], None),
        ] {
            assert_eq!(asked(429, fields), pause, "{fields:?}");
        }
        for status in [500, 503] {
            assert_eq!(asked(status, &[("ratelimit-reset", "50")]), None);
        }
    }
}
