//! What the parser accepts and what it refuses, rule by rule (CONFORMANCE.md, section 1), on archives made byte by byte.
#![allow(clippy::unwrap_used)] // in helpers too

mod archive;
mod extensions;
mod framing;
mod headers;
mod honest;
mod markers;
mod metadata;
mod mutation;
mod names;
mod sparse;
