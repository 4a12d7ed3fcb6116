//! Where the limits and the policy of a run come from. Limits: the defaults, then the machine's configuration, then the user's (or
//! that of `--config`), then `COFFERDAM_LIMITS`, then `--limit`; the last word counts. The policy: the machine's rules, then those of
//! the user; the first that fits counts.
//!
//! ```toml
//! [limits]
//! entries = 8_000_000
//! layer-bytes = "64GiB"
//! ```

use std::path::Path;

use cofferdam::error::Escaped;
use cofferdam::{Error, Limits, ambient};
use serde::Deserialize;

use crate::args::Global;
use crate::environment;
use crate::failure::{Failure, usage};
use crate::policy::RawRule;

/// The machine's configuration.
const SYSTEM: &str = "/etc/cofferdam/config.toml";

/// More than any sensible file has.
const FILE_BYTES: u64 = 1 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    limits: toml::Table,
    #[serde(default)]
    policy: Vec<RawRule>,
}

/// What is configured for this run.
pub(crate) struct Configuration {
    pub(crate) limits: Limits,
    /// The rules of the policy, as they are written; nothing if nobody knows, since the file may not be read.
    pub(crate) policy: Option<Vec<RawRule>>,
}

/// The limits and the policy of this run.
pub(crate) fn read_all(global: &Global) -> Result<Configuration, Failure> {
    let mut limits = Limits::default();
    let machine = optional(Path::new(SYSTEM), &mut limits)?;
    let more = match (&global.config, environment::config()) {
        (Some(path), _) => Some(read(path, &mut limits)?),
        (None, Some(path)) => optional(&path, &mut limits)?,
        (None, None) => {
            tracing::warn!("neither HOME nor XDG_CONFIG_HOME says where the configuration lies: only {SYSTEM} counts");
            Some(Vec::new())
        }
    };
    // The first rule counts, so nobody opens by a file of their own what the machine's closes.
    let policy = machine.zip(more).map(|(first, then)| first.into_iter().chain(then).collect());
    if let Some(list) = environment::limits() {
        for setting in list.split(',').filter(|setting| !setting.trim().is_empty()) {
            set(&mut limits, setting.trim(), "COFFERDAM_LIMITS")?;
        }
    }
    // Options are the verb's or the command's, and those of the verb would hide the others.
    if given() > global.limit.len() {
        return Err(usage("--limit is given before and after the verb", Some("give all of them in one place".into())));
    }
    for setting in &global.limit {
        set(&mut limits, setting, "--limit")?;
    }
    Ok(Configuration { limits, policy })
}

/// Reads a file that need not be there: sets its limits, and gives its rules; nothing if it may not be read.
fn optional(path: &Path, limits: &mut Limits) -> Result<Option<Vec<RawRule>>, Failure> {
    match read(path, limits) {
        Err(Failure::Library(error)) if matches!(error.root(), Error::NotFound { .. }) => Ok(Some(Vec::new())),
        // The home directory of somebody else, where privileges were given up: nobody asked for this file.
        Err(Failure::Library(error)) if is_denied(&error) => {
            tracing::warn!("the configuration is left out: {error}");
            Ok(None)
        }
        other => other.map(Some),
    }
}

fn is_denied(error: &Error) -> bool {
    matches!(error.root(), Error::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied)
}

/// How often the command line says `--limit`.
fn given() -> usize {
    use std::os::unix::ffi::OsStrExt as _;
    let is_limit = |arg: &std::ffi::OsString| arg == "--limit" || arg.as_bytes().starts_with(b"--limit=");
    std::env::args_os().skip(1).take_while(|arg| arg != "--").filter(is_limit).count()
}

/// Takes `NAME=VALUE`.
fn set(limits: &mut Limits, setting: &str, from: &str) -> Result<(), Failure> {
    let (name, value) = setting.split_once('=').ok_or_else(|| {
        let hint = format!("{from} takes NAME=VALUE; `cofferdam limits` lists the names");
        usage(format!("{from}: {setting:?} is not of the form NAME=VALUE"), Some(hint))
    })?;
    limits.set(name, value).map_err(|error| error.context(from.to_owned()).into())
}

/// Sets the limits of a file, and gives the rules in it.
fn read(path: &Path, limits: &mut Limits) -> Result<Vec<RawRule>, Failure> {
    use std::io::Read as _;
    use std::os::unix::ffi::OsStrExt as _;
    let shown = Escaped(path.as_os_str().as_bytes());
    let wrong = |reason: String| usage(format!("{shown}: {reason}"), None);
    let mut text = String::new();
    ambient::open_file(path)?
        .take(FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| Error::io("read", path.as_os_str().as_bytes(), error))?;
    if text.len() as u64 > FILE_BYTES {
        return Err(wrong(format!("it has more than {FILE_BYTES} bytes")));
    }
    let file: File = toml::from_str(&text).map_err(|error| {
        let (place, line) = error.span().map(|span| place(&text, span.start)).unwrap_or_default();
        usage(format!("{shown}{place}: {}{line}", words(error.message())), None)
    })?;
    for (name, value) in &file.limits {
        let value = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            _ => return Err(wrong(format!("the limit {name} is neither a number nor text"))),
        };
        limits.set(name, &value).map_err(|error| error.context(shown.to_string()))?;
    }
    Ok(file.policy)
}

/// Returns the line and the column of a byte, as editors count them, and the text of its line, as the ends of a message.
fn place(text: &str, at: usize) -> (String, String) {
    /// Characters of a line that are shown.
    const SHOWN: usize = 60;
    let (before, after) = text.split_at_checked(at).unwrap_or((text, ""));
    let number = before.matches('\n').count() + 1;
    let begin = before.rsplit('\n').next().unwrap_or_default();
    let line: String = begin.chars().chain(after.chars().take_while(|char| *char != '\n')).take(SHOWN).collect();
    (format!(":{number}:{}", begin.chars().count() + 1), format!(", in `{}`", line.trim()))
}

/// A message of several lines as one.
fn words(message: &str) -> String {
    message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn places_are_counted_as_editors_do() {
        let place = |text, at| {
            let (place, line) = super::place(text, at);
            format!("{place}{line}")
        };
        assert_eq!(place("a\né b = 1\nc", 5), ":2:3, in `é b = 1`");
        assert_eq!(place("", 0), ":1:1, in ``");
        assert_eq!(place(&"x".repeat(100), 100), format!(":1:101, in `{}`", "x".repeat(60)));
        assert_eq!(super::words("one\n  two\n"), "one; two");
    }
}
