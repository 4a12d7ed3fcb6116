//! What the engine's generator makes of `wit/layer.wit`.

pub mod claim;

/// Which guest decodes a compression; none runs here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// For gzip.
    Gunzip,
    /// For zstd.
    Unzstd,
}
