//! Why a plugin gives up.

use std::fmt;

/// Why a plugin gives up. The texts are one line for people, without the path of the layer: the host knows what was read.
///
/// A string becomes [`Failure::Refused`], an [`std::io::Error`] becomes [`Failure::Corrupt`], so `?` does the right thing
/// in most places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The stream is broken: cut short, a wrong checksum, garbage behind the end.
    Corrupt(String),
    /// What was read is well formed, but a rule refuses it.
    Refused {
        /// The path of the entry, empty if it is not about one.
        path: Vec<u8>,
        /// The rule that it breaks.
        reason: String,
    },
    /// A limit was crossed: one of the host's, or one of the plugin's own.
    Limit(String),
}

impl Failure {
    /// The stream is broken.
    pub fn corrupt(reason: impl Into<String>) -> Self {
        Self::Corrupt(reason.into())
    }

    /// A rule refuses the layer or image as a whole.
    pub fn refused(reason: impl Into<String>) -> Self {
        Self::Refused { path: Vec::new(), reason: reason.into() }
    }

    /// A rule refuses the entry at this path.
    pub fn refused_at(path: impl Into<Vec<u8>>, reason: impl Into<String>) -> Self {
        Self::Refused { path: path.into(), reason: reason.into() }
    }

    /// A limit was crossed.
    pub fn limit(reason: impl Into<String>) -> Self {
        Self::Limit(reason.into())
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

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::refused(reason)
    }
}

impl From<&str> for Failure {
    fn from(reason: &str) -> Self {
        Self::refused(reason)
    }
}

/// Reading a layer fails only over what it holds. A failure that was wrapped by [`std::io::Error::other`] comes out again.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(failure) => failure,
            Err(error) => Self::Corrupt(error.to_string()),
        }
    }
}

impl From<Failure> for std::io::Error {
    fn from(failure: Failure) -> Self {
        Self::other(failure)
    }
}

#[cfg(not(target_family = "wasm"))]
impl From<cofferdam_layer::Failure> for Failure {
    fn from(failure: cofferdam_layer::Failure) -> Self {
        match failure {
            cofferdam_layer::Failure::Corrupt(reason) => Self::Corrupt(reason),
            cofferdam_layer::Failure::Refused { path, reason } => Self::Refused { path, reason },
            cofferdam_layer::Failure::Limit(reason) => Self::Limit(reason),
        }
    }
}

#[cfg(target_family = "wasm")]
mod wire {
    use super::Failure;
    use crate::bindings::imports::types;

    impl From<Failure> for types::Failure {
        fn from(failure: Failure) -> Self {
            match failure {
                Failure::Corrupt(reason) => Self::Corrupt(reason),
                Failure::Refused { path, reason } => Self::Refused(types::Refusal { path, reason }),
                Failure::Limit(reason) => Self::Limit(reason),
            }
        }
    }
}
