//! Root filesystems: several layers' preserved trees merged into one.

mod copy;
mod merge;
mod source;
#[cfg(test)]
mod tests;

pub use merge::{PreservedLayer, merge};
