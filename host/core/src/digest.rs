//! Digests: the names of blobs, and the only text from which a blob's path is ever made.
//!
//! Source of the form: OCI image spec 1.1, `descriptor.md`, "Digests". Of the registered algorithms `sha256` and
//! `sha512` are known; their encoded part is lowercase hex of exactly the algorithm's length, so that a parsed digest
//! holds no separator, no dot and nothing of unexpected length (CVE-2014-9358, CVE-2024-3727, GHSA-f689-h8m7-3jp2).

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256, Sha512};

use crate::error::Error;

/// A hash function that digests may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, 64 hex digits.
    Sha256,
    /// SHA-512, 128 hex digits.
    Sha512,
}

impl Algorithm {
    /// The registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// A content digest that was parsed, so its text is safe to use as a file name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

impl Digest {
    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hash as lowercase hex.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The digest as a file name: `:` replaced by `-`, as the store's layout has it.
    pub fn file_stem(&self) -> String {
        format!("{}-{}", self.algorithm.name(), self.hex)
    }

    /// The digest of a file name made by [`Digest::file_stem`].
    pub fn from_file_stem(stem: &str) -> Option<Self> {
        let (algorithm, hex) = stem.split_once('-')?;
        format!("{algorithm}:{hex}").parse().ok()
    }

    /// The SHA-256 digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish()
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |reason| Error::InvalidDigest { text: text.chars().take(200).collect(), reason };
        let (name, hex) = text.split_once(':').ok_or_else(|| invalid("there is no `algorithm:` in front"))?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(invalid("the algorithm is neither sha256 nor sha512")),
        };
        if hex.len() != algorithm.hex_len() {
            return Err(invalid("the hash has the wrong length"));
        }
        if !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(invalid("the hash is not lowercase hex"));
        }
        Ok(Self { algorithm, hex: hex.to_owned() })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Computes a [`Digest`] piece by piece.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Hasher {
    /// A hasher that has seen nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Box::new(Sha512::new())),
        })
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of all bytes added.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(state) => Digest { algorithm: Algorithm::Sha256, hex: hex(&state.finalize()) },
            State::Sha512(state) => Digest { algorithm: Algorithm::Sha512, hex: hex(&state.finalize()) },
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_survives_text_and_file_name() {
        let digest = Digest::of(b"hello");
        assert_eq!(digest.to_string(), "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert_eq!(Digest::from_file_stem(&digest.file_stem()), Some(digest));
    }

    #[test]
    fn sha512_has_its_own_length() {
        let text = format!("sha512:{}", "0a".repeat(64));
        assert_eq!(text.parse::<Digest>().unwrap().algorithm(), Algorithm::Sha512);
        assert!(format!("sha512:{}", "0a".repeat(32)).parse::<Digest>().is_err());
    }

    /// CVE-2014-9358, CVE-2024-3727, CVE-2026-95839, GHSA-f689-h8m7-3jp2: digest text is never a path.
    #[test]
    fn cve_2026_95839_ghsa_f689_h8m7_3jp2_text_that_is_not_a_digest_is_refused() {
        let upper = format!("sha256:{}", "A".repeat(64));
        let newline = format!("sha256:{}\n", "a".repeat(63));
        let multibyte = format!("sha256:{}", "é".repeat(32));
        for text in ["", ":", "sha256", "sha256:", "/etc", "sha256:x/../../", "md5:00", "sha256:../../etc/passwd"]
            .into_iter()
            .chain([upper.as_str(), newline.as_str(), multibyte.as_str()])
        {
            assert!(text.parse::<Digest>().is_err(), "{text:?} was taken for a digest");
        }
    }
}
