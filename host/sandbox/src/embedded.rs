//! The first-party guests, as `build.rs` built them.

use std::fmt;

/// A first-party guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guest {
    /// Decoder for gzip.
    Gunzip,
    /// Extractor for tar.
    Untar,
    /// Decoder for zstd.
    Unzstd,
}

impl Guest {
    /// All of them, by name.
    pub const ALL: [Self; 3] = [Self::Gunzip, Self::Untar, Self::Unzstd];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gunzip => "gunzip",
            Self::Untar => "untar",
            Self::Unzstd => "unzstd",
        }
    }

    /// The world that it implements.
    pub fn world(self) -> &'static str {
        match self {
            Self::Gunzip | Self::Unzstd => "cofferdam:layer/decoder@0.1.0",
            Self::Untar => "cofferdam:layer/extractor@0.1.0",
        }
    }

    /// The component, as it can be run elsewhere.
    pub fn component(self) -> &'static [u8] {
        match self {
            Self::Gunzip => include_bytes!(env!("COFFERDAM_GUEST_GUNZIP")),
            Self::Untar => include_bytes!(env!("COFFERDAM_GUEST_UNTAR")),
            Self::Unzstd => include_bytes!(env!("COFFERDAM_GUEST_UNZSTD")),
        }
    }
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
