//! Every variable of the environment that the command reads, and the directories that follow from them.
//!
//! | variable | meaning |
//! |---|---|
//! | `COFFERDAM_STORE` | the image store (read by the argument parser) |
//! | `COFFERDAM_CACHE` | where compiled guests are kept; empty: nowhere |
//! | `COFFERDAM_CONFIG` | the configuration file (read by the argument parser) |
//! | `COFFERDAM_LIMITS` | limits, as `NAME=VALUE`, separated by commas |
//! | `COFFERDAM_AUTH` | a login, as `HOST=NAME:PASSWORD` |
//! | `COFFERDAM_LOG` | which messages are shown, in the syntax of `tracing` filters |
//! | `XDG_DATA_HOME`, `XDG_CACHE_HOME`, `XDG_CONFIG_HOME`, `HOME` | where the defaults lie |
//! | `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` | proxies for registries; in small letters too, which go first |
//! | `NO_PROXY` | hosts, `.suffix`es, `host:port`s and networks that are reached without them, or `*`; in small letters too |
//! | `SSL_CERT_FILE`, `SSL_CERT_DIR` | certificates, which the TLS library reads: the confinement lets it |
//! | `NO_COLOR` | no colours |

use std::ffi::OsString;
use std::path::PathBuf;

use cofferdam::registry::{NetworkOptions, check_proxy};

use crate::failure::{Failure, usage};

#[expect(clippy::disallowed_methods, reason = "the one place where the command reads the environment")]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The default store.
pub(crate) fn store() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some("/var/lib/cofferdam".into());
    }
    base("XDG_DATA_HOME", ".local/share")
}

/// Where compiled guests are kept.
pub(crate) fn cache() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "an empty value differs from none here")]
    match std::env::var_os("COFFERDAM_CACHE") {
        Some(value) if value.is_empty() => None,
        Some(value) => Some(value.into()),
        None => base("XDG_CACHE_HOME", ".cache"),
    }
}

/// A directory of ours under one of the XDG base directories; relative ones are ignored, as that specification says.
fn base(name: &str, under_home: &str) -> Option<PathBuf> {
    let base = variable(name)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(PathBuf::from(variable("HOME")?).join(under_home)))?;
    base.is_absolute().then(|| base.join("cofferdam"))
}

/// The configuration file that is read if it is there.
pub(crate) fn config() -> Option<PathBuf> {
    Some(base("XDG_CONFIG_HOME", ".config")?.join("config.toml"))
}

/// Settings of limits.
pub(crate) fn limits() -> Option<String> {
    // What is not text is no setting either: shown as it is, it is refused as one.
    Some(variable("COFFERDAM_LIMITS")?.to_string_lossy().into_owned())
}

/// Where the user says that certificates lie.
pub(crate) fn certificates() -> Vec<PathBuf> {
    let directories = variable("SSL_CERT_DIR").unwrap_or_default();
    let file = variable("SSL_CERT_FILE").map(PathBuf::from);
    std::env::split_paths(&directories).filter(|path| path.is_absolute()).chain(file).collect()
}

/// A login for a registry.
pub(crate) fn auth() -> Result<Option<String>, Failure> {
    text("COFFERDAM_AUTH")
}

/// The filter for messages.
pub(crate) fn log_filter() -> Result<Option<String>, Failure> {
    text("COFFERDAM_LOG")
}

/// Adds the proxies. Of the two spellings of a variable the small one goes first, as in other programs. A proxy that cannot be
/// used is an error that names its variable.
pub(crate) fn proxies(network: &mut NetworkOptions) -> Result<(), Failure> {
    let either = |name: &str| {
        let small = name.to_ascii_lowercase();
        let value = text(&small)?.map(|value| (small, value));
        Ok::<_, Failure>(value.or(text(name)?.map(|value| (name.to_owned(), value))))
    };
    let proxy = |found: Option<(String, String)>| {
        let Some((variable, value)) = found else { return Ok(None) };
        check_proxy(&value).map_err(|error| usage(format!("{variable}: {error}"), error.hint()))?;
        Ok::<_, Failure>(Some(value))
    };
    let all = either("ALL_PROXY")?;
    network.https_proxy = proxy(either("HTTPS_PROXY")?.or_else(|| all.clone()))?;
    network.http_proxy = proxy(either("HTTP_PROXY")?.or(all))?;
    network.no_proxy = either("NO_PROXY")?.map(|(_, value)| value);
    Ok(())
}

/// A variable that must be text. One that is not is never taken for one that is not set; its value may be a secret.
fn text(name: &str) -> Result<Option<String>, Failure> {
    let value = variable(name).map(OsString::into_string).transpose();
    value.map_err(|_| usage(format!("{name} is not UTF-8"), None))
}

/// Whether colours are unwanted.
pub(crate) fn no_color() -> bool {
    variable("NO_COLOR").is_some()
}
