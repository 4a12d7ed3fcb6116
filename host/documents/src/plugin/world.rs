//! The worlds that a plugin may implement (`wit/`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use cofferdam_core::error::Error;

/// A world of the package `cofferdam:layer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum World {
    /// Decompresses: found by a layer's media type, or by the first bytes of its blob.
    Decoder,
    /// Reads a layer format and builds the tree: found by the media type.
    Extractor,
    /// Sees every entry of a layer while it is extracted; may refuse it; leaves a report.
    Inspector,
    /// Accepts or refuses an image when its manifest is known and none of its layers is fetched.
    Verifier,
}

impl World {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Decoder, Self::Extractor, Self::Inspector, Self::Verifier];

    /// The version of the package in which a plugin of this program's age is written.
    pub const VERSION: &'static str = "0.1.0";

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Decoder => "decoder",
            Self::Extractor => "extractor",
            Self::Inspector => "inspector",
            Self::Verifier => "verifier",
        }
    }

    /// What a component of this world exports, as it is named in the component.
    pub fn export(self) -> &'static str {
        match self {
            Self::Decoder => "decode",
            Self::Extractor => "extract",
            Self::Inspector => "cofferdam:layer/inspection@0.1.0",
            Self::Verifier => "cofferdam:layer/verification@0.1.0",
        }
    }

    /// The interfaces of ours that it may import, without the package's name and version.
    pub fn imports(self) -> &'static [&'static str] {
        match self {
            Self::Decoder => &["types", "input", "output", "log", "bounds"],
            Self::Extractor => &["types", "input", "tree", "log", "bounds"],
            // `tree` for its types: whoever calls `put` is ended.
            Self::Inspector => &["types", "tree", "log", "settings"],
            Self::Verifier => &["types", "log", "settings"],
        }
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for World {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|world| world.name() == text).ok_or_else(|| Error::Usage {
            reason: format!("there is no world {text:?}"),
            hint: Some("the worlds are decoder, extractor, inspector and verifier".into()),
        })
    }
}
