//! Taking back trees that a failed pull made.

use crate::digest::Digest;
use crate::error::Result;
use crate::store::storage::ImageStorage;

impl ImageStorage {
    /// Removes the trees of these layers, unless an image in the store needs them: what a pull extracted before it failed
    /// belongs to no image. Their blobs stay, since they are verified and save the next pull a download. Does nothing while
    /// somebody uses the store, who may count on any of the trees. Blocks the thread.
    pub(crate) fn withdraw_trees(&self, layers: &[Digest]) -> Result<()> {
        let Some(_alone) = self.locks().try_alone()? else { return Ok(()) };
        let Some(needed) = self.needed_layers()? else { return Ok(()) };
        for digest in layers.iter().filter(|digest| !needed.contains(digest)) {
            self.trees().remove(digest)?;
        }
        Ok(())
    }
}
