//! Helpers that the unit tests of several crates share. They know no crate of the store, so that any of them can use them.

#![expect(clippy::missing_panics_doc, clippy::unwrap_used, reason = "a panic is how a test fails")]
#![expect(clippy::disallowed_methods, reason = "tests look at directories by path")]

pub mod inherited;
