//! Root filesystems: several layers' preserved trees merged into one.

mod copy;
mod merge;
mod source;

pub use merge::{PreservedLayer, merge};
