//! Root filesystems: an image's layers put together, whole or not at all (a mount point, which
//! cannot be replaced in one step, as nearly as can be).
//!
//! [`unpack`] makes one from an image, by merging the trees of its layers or by applying their blobs; both give the same.

mod in_place;
mod local;
mod mount_spec;
mod plan;
mod provide;
mod stage;
#[cfg(test)]
mod tests;
mod unpack;

pub use cofferdam_tree::{PreservedLayer, merge};
pub use local::LocalImage;
pub use mount_spec::{MountSpec, mount_spec};
pub use provide::LayerProvider;
pub use unpack::{Made, Strategy, UnpackOptions, unpack};
