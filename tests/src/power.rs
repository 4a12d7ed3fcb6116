//! Power cuts: what is left of a file system when its disk loses power, cut by cut.
//!
//! ```text
//! the command ─▶ ext4 or xfs ─▶ loop device ─▶ a file of a FUSE file system of ours ─▶ the image, and a log
//!                                                                                        │
//!                            an image as a cut leaves it ◀── replayed up to the cut ◀────┘
//! ```
//!
//! The loop driver turns a flush of the disk's cache into an `fsync` of the file, and the block layer turns a write that has to
//! be on disk by itself (FUA) into a write and a flush. So the log says what a disk was told, in its order: a cut leaves all
//! that was written before the last flush, and of what came after it any part, in any order.
//!
//! All of it happens in a cell: namespaces of its own for mounts and processes. When it ends, however it ends, the kernel
//! takes away its mounts, the memory of its images, its processes, and with the mounts the loop devices.

pub mod cell;
pub mod cut;
pub mod disk;
pub mod fuse;
pub mod log;
