//! What one entry may cost. The budgets of a whole layer (bytes, entries, time) are the host's.

/// Bounds on a single entry. Crossing one is [`crate::Failure::Limit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in the extended headers and long names (`x`, `L`, `K`) of one entry together, and in one `g` header; at
    /// most 1 GiB, whatever it says.
    pub metadata_bytes: usize,
    /// Bytes in a path, after it was cleaned.
    pub path_bytes: usize,
    /// Bytes in one component of a path.
    pub component_bytes: usize,
    /// Components in a path.
    pub depth: usize,
    /// Bytes in the names and values of one entry's extended attributes together.
    pub xattr_bytes: usize,
    /// Extended attributes of one entry.
    pub xattrs: usize,
    /// Extents in the map of a sparse file, empty ones included.
    pub sparse_extents: usize,
}

impl Default for Limits {
    /// The limits of Cofferdam's host, which checks them again.
    fn default() -> Self {
        Self {
            metadata_bytes: 1 << 20,
            path_bytes: 4096,
            component_bytes: 255,
            depth: 256,
            xattr_bytes: 64 << 10,
            xattrs: 256,
            sparse_extents: 10_000,
        }
    }
}
