//! What a layer may cost: the limits of Cofferdam's host under their names there, with its defaults.

use cofferdam_layer::{Entry, Extent, Node};

use crate::problem::Problem;

/// Bytes of blob that pay for one entry beyond those that are free.
const PER_PIECE: u64 = 64;

/// Bounds that `--limit NAME=VALUE` sets.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Those of one entry, which the parser keeps.
    pub(crate) entry: cofferdam_layer::Limits,
    /// Decoded bytes.
    pub(crate) layer_bytes: u64,
    /// Decoded bytes for each byte of the blob, once `ratio_from` are decoded.
    pub(crate) ratio: u64,
    pub(crate) ratio_from: u64,
    pub(crate) entries: u64,
    /// Entries and stretches of sparse files, however small the blob is.
    pub(crate) free_entries: u64,
    /// Directories that are made without being listed; each entry adds 2.
    pub(crate) implied_directories: u64,
    /// Bytes of one file, holes included.
    pub(crate) file_bytes: u64,
    /// Links followed in one path.
    pub(crate) link_hops: u64,
    /// Steps in following links; each entry adds 16.
    pub(crate) link_steps: u64,
    /// Bytes of names that are remembered until the end.
    pub(crate) deferred_bytes: u64,
    pub(crate) zstd_window: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entry: cofferdam_layer::Limits::default(),
            layer_bytes: 32 << 30,
            ratio: 512,
            ratio_from: 1 << 30,
            entries: 4_000_000,
            free_entries: 1_000_000,
            implied_directories: 200_000,
            file_bytes: 1 << 40,
            link_hops: 40,
            link_steps: 2_000_000,
            deferred_bytes: 80 << 20,
            zstd_window: cofferdam_decode::zstd::MAX_WINDOW,
        }
    }
}

impl Limits {
    /// Takes `NAME=VALUE`.
    pub(crate) fn set(&mut self, setting: &str) -> Result<(), Problem> {
        let usage = |text: &str| Problem::Usage(format!("`--limit {}`: {text}", setting.escape_default()));
        let (name, value) = setting.split_once('=').ok_or_else(|| usage("not NAME=VALUE"))?;
        let in_bytes = name.contains("bytes") || matches!(name, "ratio-from" | "zstd-window");
        let value = number(value, in_bytes).ok_or_else(|| usage("no number, such as 4096, 64KiB or 4M"))?;
        let entry = &mut self.entry;
        let small = match name {
            "path-bytes" => &mut entry.path_bytes,
            "component-bytes" => &mut entry.component_bytes,
            "depth" => &mut entry.depth,
            "entry-metadata-bytes" => &mut entry.metadata_bytes,
            "xattr-bytes" => &mut entry.xattr_bytes,
            "xattrs" => &mut entry.xattrs,
            "sparse-extents" => &mut entry.sparse_extents,
            _ => return self.set_large(name, value).ok_or_else(|| usage("there is no such limit")),
        };
        *small = usize::try_from(value).unwrap_or(usize::MAX);
        Ok(())
    }

    fn set_large(&mut self, name: &str, value: u64) -> Option<()> {
        let limit = match name {
            "layer-bytes" => &mut self.layer_bytes,
            "ratio" => &mut self.ratio,
            "ratio-from" => &mut self.ratio_from,
            "entries" => &mut self.entries,
            "free-entries" => &mut self.free_entries,
            "implied-directories" => &mut self.implied_directories,
            "file-bytes" => &mut self.file_bytes,
            "link-hops" => &mut self.link_hops,
            "link-steps" => &mut self.link_steps,
            "deferred-bytes" => &mut self.deferred_bytes,
            "zstd-window" => &mut self.zstd_window,
            _ => return None,
        };
        *limit = value;
        Some(())
    }

    /// What a layer may decode to, as far as it is known before it is read: the size of its blob, and whether that is
    /// compressed.
    pub(crate) fn total(&self, size: Option<u64>, compressed: bool) -> u64 {
        let by_size = match size {
            None => u64::MAX,
            Some(size) if !compressed => size,
            Some(size) => size.saturating_mul(self.ratio).max(self.ratio_from),
        };
        by_size.min(self.layer_bytes)
    }
}

/// A number with a suffix, as the host reads it: powers of 1024 for bytes, of 1000 for what is counted, in either case.
fn number(text: &str, in_bytes: bool) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let factor: u64 = match (suffix.to_ascii_lowercase().as_str(), in_bytes) {
        ("", _) | ("b", true) => 1,
        ("k" | "kb" | "kib", true) => 1 << 10,
        ("m" | "mb" | "mib", true) => 1 << 20,
        ("g" | "gb" | "gib", true) => 1 << 30,
        ("t" | "tb" | "tib", true) => 1 << 40,
        ("k", false) => 1000,
        ("m", false) => 1_000_000,
        ("g", false) => 1_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Counts a layer's entries.
#[derive(Default)]
pub(crate) struct Meter {
    pub(crate) entries: u64,
    /// Entries and stretches of sparse files: what makes work.
    pieces: u64,
    /// What sparse files take on disk beyond their data.
    sparse: u64,
}

/// What is known of the layer when an entry comes.
pub(crate) struct Known {
    /// The size of the blob, or what was read of it.
    pub(crate) blob: u64,
    /// What the layer may still decode to.
    pub(crate) left: u64,
}

impl Meter {
    /// Refuses what is too much before anything is made of it.
    pub(crate) fn admit(&mut self, entry: &Entry<'_>, known: &Known, limits: &Limits) -> Result<(), Problem> {
        let over = |what, limit, name| Err(Problem::limit("the layer", what, limit, name));
        if self.entries == limits.entries {
            return over("entries", limits.entries, "entries");
        }
        self.entries += 1;
        self.pieces += match entry.node {
            Node::Sparse { extents, .. } => extents.len().max(1) as u64,
            _ => 1,
        };
        let admitted = limits.free_entries.saturating_add(known.blob / PER_PIECE);
        if self.pieces > admitted {
            return over("entries for a blob of this size", admitted, "free-entries");
        }
        let shown = || format!("`{}`", entry.path.escape_ascii());
        let (Node::File { size } | Node::Sparse { size, .. }) = entry.node else { return Ok(()) };
        if size > limits.file_bytes {
            return Err(Problem::limit(shown(), "bytes in a file", limits.file_bytes, "file-bytes"));
        }
        if entry.content_bytes() > known.left {
            let what = "bytes that the layer may still decode to";
            return Err(Problem::limit(shown(), what, known.left, "layer-bytes"));
        }
        if let Node::Sparse { extents, .. } = entry.node {
            self.sparse = self.sparse.saturating_add(beyond_data(extents));
            let room = known.blob.saturating_mul(limits.ratio).max(limits.ratio_from).min(limits.layer_bytes);
            if self.sparse > room {
                let what = "bytes that sparse files of a blob of this size may take";
                return Err(Problem::limit(shown(), what, room, "ratio"));
            }
        }
        Ok(())
    }
}

/// What a sparse file takes on disk beyond its data: whole blocks of 4 KiB, of which one may hold several extents.
fn beyond_data(extents: &[Extent]) -> u64 {
    const BLOCK: u64 = 4096;
    let (mut free, mut blocks, mut data) = (0, 0_u64, 0_u64);
    for extent in extents {
        let first = (extent.offset / BLOCK).max(free);
        let end = extent.offset.saturating_add(extent.length).div_ceil(BLOCK);
        blocks = blocks.saturating_add(end.saturating_sub(first));
        data = data.saturating_add(extent.length);
        free = free.max(end);
    }
    blocks.saturating_mul(BLOCK).saturating_sub(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_set_by_name() {
        let mut limits = Limits::default();
        for setting in ["layer-bytes=64KiB", "entries=3K", "depth=7", "ratio=2", "path-bytes=1K"] {
            limits.set(setting).unwrap();
        }
        assert_eq!((limits.layer_bytes, limits.entries, limits.ratio), (65536, 3000, 2));
        assert_eq!((limits.entry.depth, limits.entry.path_bytes), (7, 1024));
        for setting in
            ["", "entries", "entries=", "entries=x", "entries=1KiB", "entries=-1", "none=1", "depth=99999999999T"]
        {
            assert!(matches!(limits.set(setting), Err(Problem::Usage(_))), "{setting}");
        }
    }

    #[test]
    fn small_blobs_pay_for_what_they_decode_to() {
        let limits = Limits { layer_bytes: 1000, ratio: 10, ratio_from: 100, ..Limits::default() };
        assert_eq!(limits.total(None, true), 1000);
        assert_eq!(limits.total(Some(1), true), 100);
        assert_eq!(limits.total(Some(20), true), 200);
        assert_eq!(limits.total(Some(500), true), 1000);
        assert_eq!(limits.total(Some(20), false), 20);
    }

    #[test]
    fn blocks_that_extents_share_count_once() {
        let extents = |all: &[(u64, u64)]| {
            beyond_data(&all.iter().map(|&(offset, length)| Extent { offset, length }).collect::<Vec<_>>())
        };
        assert_eq!(extents(&[]), 0);
        assert_eq!(extents(&[(0, 1), (10, 1), (4095, 1)]), 4096 - 3);
        assert_eq!(extents(&[(0, 1), (4095, 2), (8191, 1)]), 8192 - 4);
        assert_eq!(extents(&[(0, 1), (8192, 1), (1 << 30, 4097)]), 4 * 4096 - 4099);
    }
}
