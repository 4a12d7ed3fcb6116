//! What went wrong, and the exit code that says so: those of Cofferdam's own command.

use std::fmt;
use std::io;

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The command line makes no sense.
    Usage(String),
    /// Something is not there, or not within what this program may see.
    NotFound(String),
    /// The system failed.
    Io(String),
    /// Bytes are not what their checksum or digest says, or end too early.
    Corrupt(String),
    /// A rule.
    Refused(String),
    /// A limit of this name.
    Limit {
        /// What crosses it, and what it is.
        text: String,
        /// Nothing for those that cannot be raised.
        name: Option<&'static str>,
    },
    /// Whoever read the output has seen enough.
    BrokenPipe,
}

impl Problem {
    pub(crate) fn io(action: &str, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            io::ErrorKind::NotFound => Self::NotFound(format!("cannot {action}: {error}")),
            // What WASI says where a path leads out of what was granted; a file's own mode is `EACCES`.
            _ if error.raw_os_error() == Some(libc::EPERM) => Self::NotFound(format!("cannot {action}: {error}")),
            _ => Self::Io(format!("cannot {action}: {error}")),
        }
    }

    pub(crate) fn refused(path: &[u8], reason: impl fmt::Display) -> Self {
        Self::Refused(format!("refused `{}`: {reason}", path.escape_ascii()))
    }

    pub(crate) fn limit(subject: impl fmt::Display, what: &str, limit: u64, name: &'static str) -> Self {
        Self::Limit { text: format!("{subject} crosses the limit of {limit} {what}"), name: Some(name) }
    }

    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::BrokenPipe => 0,
            Self::Io(_) => 1,
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::Corrupt(_) => 6,
            Self::Refused(_) | Self::Limit { .. } => 7,
        }
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound(_) => Some(
                "this program sees only what its host grants: wasmtime run --dir DIRECTORY::/in … gives it DIRECTORY as /in"
                    .into(),
            ),
            Self::Limit { name: Some(name), .. } => {
                Some(format!("if you trust the layer, raise the limit with --limit {name}=VALUE"))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text)
            | Self::NotFound(text)
            | Self::Io(text)
            | Self::Corrupt(text)
            | Self::Refused(text)
            | Self::Limit { text, .. } => f.write_str(text),
            Self::BrokenPipe => f.write_str("nobody reads the output any more"),
        }
    }
}

impl From<cofferdam_layer::Failure> for Problem {
    fn from(failure: cofferdam_layer::Failure) -> Self {
        match failure {
            cofferdam_layer::Failure::Corrupt(reason) => Self::Corrupt(reason),
            cofferdam_layer::Failure::Refused { path, reason } => Self::refused(&path, reason),
            cofferdam_layer::Failure::Limit(text) => Self::Limit { text, name: None },
        }
    }
}

impl From<cofferdam_decode::Failure> for Problem {
    fn from(failure: cofferdam_decode::Failure) -> Self {
        match failure {
            cofferdam_decode::Failure::Corrupt(reason) => Self::Corrupt(reason),
            cofferdam_decode::Failure::Refused(reason) => Self::Refused(reason),
            cofferdam_decode::Failure::Limit(text) => Self::Limit { text, name: None },
        }
    }
}
