//! What outlives a power cut.
//!
//! | | when a pull returns, on disk are | what a power cut right after it costs |
//! |---|---|---|
//! | `none` | nothing for certain | perhaps the image |
//! | `image` | blobs, documents, the reference | extracting the layers again, without the network |
//! | `layer` | those, and the layers' trees | nothing |
//!
//! In none of them is anything believed that a power cut damaged: documents and blobs are verified when they are used, and a
//! tree counts after a restart of the machine only if it was synced. A crash of the program alone costs nothing in any of them:
//! the kernel keeps what was written.

use std::fmt;
use std::str::FromStr;

use cofferdam_core::error::{Error, Result};

use crate::file::Flush;
use crate::storage::ImageStorage;

/// How much of an image is on disk when its pull returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Nothing is waited for: for stores that need not outlive the machine, such as those of test runners.
    None,
    /// All that the image consists of: it never has to be fetched again. Trees follow about a minute later.
    #[default]
    Image,
    /// The trees of its layers too.
    Layer,
}

impl Durability {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Image, Self::Layer];

    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Image => "image",
            Self::Layer => "layer",
        }
    }

    pub(super) fn flush(self) -> Flush {
        if self == Self::None { Flush::Later } else { Flush::Now }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Durability {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|durability| durability.name() == text).ok_or_else(|| Error::Usage {
            reason: format!("{text:?} is no durability"),
            hint: Some("there are `none`, `image` and `layer`".into()),
        })
    }
}

impl ImageStorage {
    /// The same store, with so much of what is written from now on durable at once.
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How much of what is written is durable at once.
    pub fn durability(&self) -> Durability {
        self.durability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name_by_which_it_is_found() {
        for durability in Durability::ALL {
            assert_eq!(durability.to_string().parse::<Durability>().unwrap(), durability);
        }
        assert!("tree".parse::<Durability>().unwrap_err().hint().is_some());
        assert!(Durability::None < Durability::default() && Durability::default() < Durability::Layer);
    }
}
