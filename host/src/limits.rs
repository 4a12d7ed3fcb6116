//! Every limit, in one place. Each has a default that real images do not reach, and a test that crosses it.

use std::time::Duration;

/// Bounds on what a layer, an image or a guest may ask for. Crossing one is [`crate::Error::Limit`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Decoded bytes of one layer, all of the stream: what follows the archive's end marker counts too.
    pub layer_bytes: u64,
    /// Decoded bytes per byte of the blob, once [`Limits::ratio_from`] bytes are decoded.
    pub ratio: u64,
    /// Decoded bytes from which [`Limits::ratio`] holds.
    pub ratio_from: u64,
    /// Entries of one layer.
    pub entries: u64,
    /// Bytes in a path, a link path or a symlink's target.
    pub path_bytes: usize,
    /// Bytes in one component of a path.
    pub component_bytes: usize,
    /// Components in a path.
    pub depth: usize,
    /// Bytes of PAX and GNU metadata of one entry (enforced in the guest, backed by its memory limit).
    pub entry_metadata_bytes: usize,
    /// Bytes of names and values of one entry's extended attributes.
    pub xattr_bytes: usize,
    /// Extended attributes of one entry.
    pub xattrs: usize,
    /// Extents of a sparse file.
    pub sparse_extents: usize,
    /// Size of one regular file, holes included, in bytes.
    pub file_bytes: u64,
    /// Bytes of names that the tree writer remembers until a layer's end: hard links whose target is still to come,
    /// directories whose times are set last.
    pub deferred_bytes: usize,
    /// Bytes of a manifest or an index.
    pub manifest_bytes: u64,
    /// Bytes of an image configuration.
    pub config_bytes: u64,
    /// Indexes inside of indexes.
    pub index_depth: usize,
    /// Layers of an image.
    pub layers: usize,
    /// Linear memory of a decoder guest, in bytes.
    pub decoder_memory: u64,
    /// Linear memory of any other guest, in bytes.
    pub guest_memory: u64,
    /// Processor time of a guest, whatever its input.
    pub guest_time: Duration,
    /// Further processor time of a guest for each MiB that passes through it.
    pub guest_time_per_mib: Duration,
    /// Host calls of a guest that move nothing: empty reads and writes.
    pub idle_calls: u64,
    /// Messages of a guest that reach the log.
    pub log_messages: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const KIB: usize = 1 << 10;
        const MIB: usize = 1 << 20;
        Self {
            layer_bytes: 32 << 30,
            ratio: 512,
            ratio_from: 1 << 30,
            entries: 4_000_000,
            path_bytes: 4096,
            component_bytes: 255,
            depth: 256,
            entry_metadata_bytes: MIB,
            xattr_bytes: 64 * KIB,
            xattrs: 256,
            sparse_extents: 10_000,
            file_bytes: 1 << 40,
            deferred_bytes: 64 * MIB,
            manifest_bytes: 4 << 20,
            config_bytes: 8 << 20,
            index_depth: 2,
            layers: 512,
            decoder_memory: 256 << 20,
            guest_memory: 64 << 20,
            guest_time: Duration::from_secs(5),
            guest_time_per_mib: Duration::from_millis(100),
            idle_calls: 1024,
            log_messages: 256,
        }
    }
}
