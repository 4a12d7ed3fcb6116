//! The vocabulary of the Cofferdam image store, shared by all of its crates.
//!
//! | module | holds |
//! |---|---|
//! | [`digest`] | [`Digest`], and hashing of streams |
//! | [`error`] | [`Error`], its classes, and escaping of untrusted text |
//! | [`limits`] | [`Limits`]: every bound on input, with its default and its name |
//! | [`cancel`], [`progress`], [`watch`] | giving up, and telling how far work has come |
//! | [`budget`] | the bytes that the layers of one image may decode to |
//! | [`threads`] | starting threads, where the machine may have none left |
//! | [`ambient`] | the only module that turns a path into a handle, or asks for the time and the boot |
//! | [`inherited`] | removing what a new file inherits from the directory around it |
//!
//! # Invariants
//!
//! * This crate parses nothing but digests and the values of limits.
//! * No other crate below `host/` opens a path, reads the environment or starts a process; clippy's disallowed methods enforce it.

pub mod ambient;
pub mod budget;
pub mod cancel;
pub mod digest;
pub mod error;
pub mod inherited;
pub mod limits;
pub mod progress;
pub mod threads;
pub mod watch;

pub use budget::ImageBudget;
pub use cancel::Cancel;
pub use digest::{Algorithm, Digest};
pub use error::{Error, ErrorKind, GuestFailure, Result};
pub use limits::Limits;
pub use progress::{Event, Progress};
pub use watch::Watch;
