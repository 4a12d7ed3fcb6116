//! Taking back trees that a failed pull made.

use cofferdam_core::digest::Digest;
use cofferdam_core::error::Result;

use crate::collect::Taken;
use crate::reach::{Known, Parts};
use crate::storage::ImageStorage;

impl ImageStorage {
    /// Removes the trees of these layers, unless an image in the store needs them or somebody leases them: what a pull extracted
    /// before it failed belongs to no image. Their blobs stay, since they are verified and save the next pull a download. Does
    /// nothing while somebody uses the store as a whole, who may count on any of the trees. Blocks the thread.
    pub fn withdraw_trees(&self, layers: &[Digest]) -> Result<()> {
        // Somebody counts on what no reference names, and may have been told that one of these trees is there.
        if self.keeps_unreferenced() {
            return Ok(());
        }
        let mut known = Known::default();
        let _ = self.needed(&self.refs().list()?, &mut known);
        let Some(collecting) = self.collecting(None)? else { return Ok(()) };
        if self.keeps_unreferenced() {
            return Ok(());
        }
        let Ok(needed) = self.needed(&self.refs().list()?, &mut known) else { return Ok(()) };
        let made = Parts { layers: layers.iter().cloned().collect(), ..Parts::default() };
        let mut unneeded = made.without(&needed);
        unneeded.drop_leased(&collecting.leased);
        let mut taken = Taken::default();
        for digest in &unneeded.layers {
            super::collect::take_tree(self.trees(), digest, &mut taken)?;
        }
        drop(collecting);
        self.discard(&taken, None)
    }
}
