//! Digests: what a stream must hash to, and what it does.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256, Sha512};

use crate::problem::Problem;

/// A digest as the image specification writes it; the algorithm is one of ours, and the rest lowercase hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digest(String);

impl Digest {
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let is_digest = text.split_once(':').is_some_and(|(algorithm, hex)| {
            let length = match algorithm {
                "sha256" => 64,
                "sha512" => 128,
                _ => return false,
            };
            hex.len() == length && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        });
        if is_digest {
            Ok(Self(text.to_owned()))
        } else {
            Err(Problem::Usage(format!("`{}` is no digest of SHA-256 or SHA-512", text.escape_default())))
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Hashes with the algorithm of what is expected.
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    /// With SHA-256 where nothing is expected.
    pub(crate) fn of(expected: Option<&Digest>) -> Self {
        match expected {
            Some(digest) if digest.0.starts_with("sha512:") => Self::Sha512(Sha512::new()),
            _ => Self::Sha256(Sha256::new()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub(crate) fn finish(&mut self) -> Digest {
        let (mut text, hash) = match self {
            Self::Sha256(hasher) => ("sha256:".to_owned(), hasher.finalize_reset().to_vec()),
            Self::Sha512(hasher) => ("sha512:".to_owned(), hasher.finalize_reset().to_vec()),
        };
        for byte in hash {
            let _ = write!(text, "{byte:02x}");
        }
        Digest(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_have_one_form() {
        assert!(Digest::parse(&format!("sha256:{}", "0a".repeat(32))).is_ok());
        assert!(Digest::parse(&format!("sha512:{}", "0a".repeat(64))).is_ok());
        for text in [
            String::new(),
            "sha256".into(),
            "md5:00".into(),
            format!("sha256:{}", "0A".repeat(32)),
            format!("sha256:{}", "0a".repeat(64)),
            format!("sha512:{}", "0a".repeat(32)),
            format!("sha256:{}\n", "0a".repeat(31)),
            format!("sha256:{}", "é".repeat(32)),
        ] {
            assert!(Digest::parse(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn hashes_are_those_of_the_standard() {
        let mut hasher = Hasher::of(None);
        hasher.update(b"abc");
        let expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hasher.finish().as_str(), expected);
        let long = Digest::parse(&format!("sha512:{}", "00".repeat(64))).unwrap();
        assert!(Hasher::of(Some(&long)).finish().as_str().starts_with("sha512:cf83e1357eefb8bd"));
    }
}
