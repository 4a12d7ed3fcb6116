//! From error to exit code: the one place where kinds, hints and codes meet.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use cofferdam::{Error, ErrorKind};
use serde_json::Value;

use crate::output::{compact, printable};

/// The exit code for a command line that makes no sense.
pub(crate) const USAGE: u8 = 2;

/// The exit code after a signal.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a verb failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The library's error.
    Library(Error),
    /// Standard output went away: whoever read it has seen enough.
    BrokenPipe,
}

impl Failure {
    /// The class of the library's error.
    pub(crate) fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Library(error) => Some(error.kind()),
            Self::BrokenPipe => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Library(error) => f.write_str(&sentence(error)),
            Self::BrokenPipe => f.write_str("standard output was closed"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Library(error)
    }
}

impl From<io::Error> for Failure {
    fn from(source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::BrokenPipe {
            return Self::BrokenPipe;
        }
        Self::Library(Error::Io { action: "write to standard output".into(), source })
    }
}

/// A refusal of the command line itself.
pub(crate) fn usage(reason: impl Into<String>, hint: Option<String>) -> Failure {
    Failure::Library(Error::Usage { reason: reason.into(), hint })
}

fn code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Usage => USAGE,
        ErrorKind::NotFound => 3,
        ErrorKind::Authentication => 4,
        ErrorKind::Network => 5,
        ErrorKind::Integrity => 6,
        ErrorKind::Refused => 7,
        ErrorKind::Busy => 8,
        ErrorKind::Interrupted => INTERRUPTED,
        _ => 1,
    }
}

/// Says what went wrong, on stderr: a sentence with its causes, and what helps.
pub(crate) fn report(failure: &Failure, json: bool) -> ExitCode {
    let Failure::Library(error) = failure else { return ExitCode::SUCCESS };
    let code = code(error.kind());
    let message = sentence(error);
    let mut stderr = io::stderr().lock();
    // Nobody is left to tell when stderr is gone.
    let _ = if json {
        let object = described(failure);
        writeln!(stderr, "{}", compact(&object))
    } else {
        let hint = error.hint().map(|hint| format!("\nhint: {}", printable(&hint))).unwrap_or_default();
        writeln!(stderr, "error: {}{hint}", printable(&message))
    };
    ExitCode::from(code)
}

/// A failure as JSON.
pub(crate) fn described(failure: &Failure) -> Value {
    let Failure::Library(error) = failure else { return Value::Null };
    serde_json::json!({
        "schema": "cofferdam/error/v1",
        "error": sentence(error),
        "kind": format!("{:?}", error.kind()).to_lowercase(),
        "code": code(error.kind()),
        "hint": error.hint(),
    })
}

fn sentence(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
