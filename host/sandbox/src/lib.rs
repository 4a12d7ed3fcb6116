//! Runs guests: WebAssembly components that see one stream in and one thing out, and nothing else.
//!
//! A guest gets a fresh store and instance for each layer, a memory limit, a budget of processor time that host calls are
//! not charged to, and a budget of calls that move nothing. What it asks for goes to a *host* that the caller passes in
//! ([`DecoderHost`], [`ExtractorHost`], both with an [`InputHost`]); what goes wrong comes back as one typed [`cofferdam_core::Error`]. Nothing of a guest
//! survives its run.
//!
//! A plugin, which is somebody else's guest, may hold capabilities beyond that. They were asked for and granted, and are
//! served by parts of WASI ([`Context`], [`RunReport`]).
//!
//! This room knows neither layers nor trees: it moves claims and bytes.

mod bindings;
mod bounds;
mod compiled;
mod confine;
mod decoder;
mod embedded;
mod engine;
mod entry;
mod extractor;
mod failure;
mod input;
mod inspector;
mod log;
mod powers;
mod program;
mod run;
mod settings;
#[cfg(test)]
mod tests;
mod ticker;
mod verifier;

pub use bindings::verification;
pub use decoder::DecoderHost;
pub use embedded::Guest;
pub use engine::{GuestInfo, Sandbox, SandboxOptions};
pub use extractor::ExtractorHost;
pub use input::InputHost;
pub use inspector::Inspection;
pub use powers::{Context, Denial, Resolver, RunReport, RunReports};
pub use program::{Interfaces, Program};
