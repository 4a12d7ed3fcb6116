//! Checked entries.

#[path = "../../../host/src/tree/entry.rs"]
pub mod entry;
