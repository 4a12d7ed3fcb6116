//! Guests that lie, and neighbours that interfere (SECURITY.md, "Threat model").
//!
//! A guest of the tests takes the place of a first-party one and does its worst through the library's public interface, in
//! every mode, onto a directory with a victim beside it. Each attack must end as it is written down, within its limits, and the victim must
//! be as it was to the last time of change. `claims.rs` holds lies about entries, `streams.rs` about bytes, time and
//! memory, `engine.rs` those that Rust cannot express; `race.rs` runs all of them, and honest layers, beside a process that
//! swaps directories of the destination for links to the victim; `memory.rs` watches what the host takes meanwhile.

#![allow(unreachable_pub, missing_docs, reason = "modules of one test binary")]

mod attack;
mod attacker;
mod claims;
mod component;
mod engine;
mod memory;
mod race;
mod script;
mod streams;
mod victim;
