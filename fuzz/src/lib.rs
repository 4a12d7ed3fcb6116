//! Fuzz targets, as plain functions of bytes: each panics when what it holds about its input is not so.
//!
//! | target | what it holds |
//! |---|---|
//! | [`tar`] | `guests/layer` and the `tar` crate see the same archive, or one of them refuses; what is read passes the host's check |
//! | [`gzip`] | `guests/decode` gives what flate2's reader and `miniz_oxide` give, or refuses |
//! | [`zstd`] | `guests/decode` gives what the reference implementation gives, or refuses |
//! | [`claim`] | whatever a guest claims, what passes the host's check keeps the promises of its type |
//! | [`document`] | manifests, indexes and configurations: what is read is consistent and bounded |
//! | [`name`] | references, digests, platforms and layout names: what is read is safe in addresses, and reads back as itself |
//! | [`plugin`] | components, their manifests and rules for requests: what is read asks for no more than it may, and reads back |
//!
//! Inputs of the first three are files of their format, so that any other program can be asked about a corpus:
//! `src/bin/peers.rs` does so for archives.

pub mod archive;
pub mod claim;
mod claim_input;
pub mod compare;
pub mod crate_tar;
pub mod document;
pub mod entry;
pub mod gzip;
pub mod listing;
pub mod mutate;
pub mod name;
pub mod ours;
pub mod plugin;
pub mod random;
pub mod stats;
pub mod tar;
pub mod zstd;
