//! The bounds that the host was told to keep. It keeps them itself; who asks can refuse earlier and say more clearly why.

use crate::host;

/// What one entry may cost. In bytes, where not said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryBounds {
    /// All extended headers and long names of one member.
    pub metadata: u32,
    /// A path.
    pub path: u32,
    /// One component of a path.
    pub component: u32,
    /// Components in a path.
    pub depth: u32,
    /// Names and values of extended attributes.
    pub attribute_bytes: u32,
    /// Their number.
    pub attributes: u32,
    /// Extents of a sparse file.
    pub extents: u32,
}

impl Default for EntryBounds {
    /// The host's defaults.
    fn default() -> Self {
        Self {
            metadata: 1 << 20,
            path: 4096,
            component: 255,
            depth: 256,
            attribute_bytes: 64 << 10,
            attributes: 256,
            extents: 10_000,
        }
    }
}

/// The bounds on one entry, for extractors.
pub fn entry() -> EntryBounds {
    host::entry_bounds()
}

/// The largest window of a compressor, in bytes, for decoders.
pub fn window() -> u64 {
    host::window()
}
