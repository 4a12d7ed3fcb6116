//! What went wrong, and the exit code that says so: those of Cofferdam's own command.

use std::fmt;
use std::io;

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The command line makes no sense.
    Usage(String),
    /// Something is not there.
    NotFound(String),
    /// The system failed.
    Io(String),
    /// Bytes are not what their checksum or digest says, or end too early.
    Corrupt(String),
    /// A rule or a limit.
    Refused(String),
}

impl Problem {
    pub(crate) fn io(action: &str, error: io::Error) -> Self {
        let text = format!("cannot {action}: {error}");
        if error.kind() == io::ErrorKind::NotFound { Self::NotFound(text) } else { Self::Io(text) }
    }

    pub(crate) fn refused(path: &[u8], reason: impl fmt::Display) -> Self {
        Self::Refused(format!("refused `{}`: {reason}", path.escape_ascii()))
    }

    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Io(_) => 1,
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::Corrupt(_) => 6,
            Self::Refused(_) => 7,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Usage(text) | Self::NotFound(text) | Self::Io(text) | Self::Corrupt(text) | Self::Refused(text)) =
            self;
        f.write_str(text)
    }
}

impl From<cofferdam_layer::Failure> for Problem {
    fn from(failure: cofferdam_layer::Failure) -> Self {
        match failure {
            cofferdam_layer::Failure::Corrupt(reason) => Self::Corrupt(reason),
            cofferdam_layer::Failure::Refused { path, reason } => Self::refused(&path, reason),
            cofferdam_layer::Failure::Limit(reason) => Self::Refused(reason),
        }
    }
}

impl From<cofferdam_decode::Failure> for Problem {
    fn from(failure: cofferdam_decode::Failure) -> Self {
        match failure {
            cofferdam_decode::Failure::Corrupt(reason) => Self::Corrupt(reason),
            cofferdam_decode::Failure::Refused(reason) | cofferdam_decode::Failure::Limit(reason) => {
                Self::Refused(reason)
            }
        }
    }
}
