//! `fsck`, and a store that mends itself: whatever is damaged in it is found, set aside, and made or fetched again.

mod adoption;
mod bench;
mod damage;
mod migration;
mod plugins;
mod trees;
