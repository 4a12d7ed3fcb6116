//! Why a layer is given up.

use std::borrow::Cow;
use std::fmt;

/// Why a layer is given up. Reasons are one line for people, without the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The stream is not a tar archive as the formats define it: cut short, a wrong checksum, a malformed field.
    Corrupt(String),
    /// An entry, well formed, that the rules refuse.
    Refused {
        /// The entry's name as the archive spells it (at most 4096 bytes of it), empty if it is not known.
        path: Vec<u8>,
        /// The rule that it breaks.
        reason: String,
    },
    /// An entry crosses one of [`crate::Limits`].
    Limit(String),
}

impl Failure {
    /// The stream ends where it must not.
    pub(crate) fn cut_short() -> Self {
        Self::Corrupt("the archive is cut short".to_owned())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt(reason) | Self::Limit(reason) => f.write_str(reason),
            Self::Refused { path, reason } if path.is_empty() => f.write_str(reason),
            Self::Refused { path, reason } => write!(f, "`{}`: {reason}", path.escape_ascii()),
        }
    }
}

impl std::error::Error for Failure {}

/// A failure whose place is not known yet: what the pure parts of the parser return.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Corrupt(Cow<'static, str>),
    Refused(Cow<'static, str>),
    Limit(Cow<'static, str>),
}

impl Fault {
    pub(crate) fn corrupt(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Corrupt(reason.into())
    }

    pub(crate) fn refused(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Refused(reason.into())
    }

    /// More than `limit` of `what`, which reads on from a number: `bytes in a path`.
    #[cold]
    pub(crate) fn limit(limit: usize, what: &str) -> Self {
        Self::Limit(format!("more than {limit} {what}").into())
    }

    /// Adds where it happened: at which byte of the stream, in the member of which name.
    #[cold]
    pub(crate) fn at(self, position: u64, name: &[u8]) -> Failure {
        match self {
            Self::Corrupt(reason) => Failure::Corrupt(format!("{reason} (member at byte {position})")),
            Self::Refused(reason) => {
                Failure::Refused { path: name.get(..4096).unwrap_or(name).to_vec(), reason: reason.into_owned() }
            }
            Self::Limit(reason) => Failure::Limit(reason.into_owned()),
        }
    }
}
