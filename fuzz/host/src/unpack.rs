//! The check of claims.

use crate::error::Result;
use crate::limits::Limits;
use crate::sandbox::claim as claimed;
use crate::tree::entry::Entry;

#[path = "../../../host/src/unpack/claim.rs"]
mod claim;
#[path = "../../../host/src/unpack/compression.rs"]
mod compression;

pub use compression::Compression;

/// The check that stands between a guest and the tree writer.
pub fn check(claimed: claimed::Entry, limits: &Limits, budget: u64) -> Result<Entry> {
    let budget = claim::Budget { bytes: budget, what: "bytes that the layer may still decode to" };
    claim::check(claimed, limits, budget)
}
