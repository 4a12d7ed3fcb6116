//! What a plugin is, before anything runs: its manifest, what it asks for, what it was granted.
//!
//! A plugin is a component that implements one of the worlds of `wit/`. Its manifest, `plugin.toml`, says which, and lists
//! the [`Capabilities`] that it asks for; a person grants some of them. What a plugin has is what it asked for *and* was
//! granted, and an import beyond that is never linked (`sandbox/`).
//!
//! This room reads text and bytes that it is given. It touches no file and runs nothing.

mod capability;
mod http_rule;
mod manifest;
mod package;
mod report;
mod world;

pub use capability::{Capabilities, Capability};
pub use http_rule::{Authority, HttpRule};
pub use manifest::check_name;
pub use manifest::{DecoderTraits, ExtractorTraits, PluginLimits, PluginManifest};
pub use package::{SECTION, manifest_in, pack};
pub use report::InspectorReport;
pub use world::World;
