//! Taking back trees that a failed pull made.

use std::time::Duration;

use crate::digest::Digest;
use crate::error::Result;
use crate::store::lock::Alone;
use crate::store::storage::ImageStorage;

/// How often the store is tried, and how long after another.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);

impl ImageStorage {
    /// Removes the trees of these layers, unless an image in the store needs them: what a pull extracted before it failed
    /// belongs to no image. Their blobs stay, since they are verified and save the next pull a download. Does nothing while
    /// somebody uses the store, who may count on any of the trees. Blocks the thread.
    pub(crate) fn withdraw_trees(&self, layers: &[Digest]) -> Result<()> {
        // Somebody counts on what no reference names, and may have been told that one of these trees is there.
        if self.keeps_unreferenced() {
            return Ok(());
        }
        let Some(_alone) = self.alone_soon()? else { return Ok(()) };
        let Some(needed) = self.needed_layers()? else { return Ok(()) };
        for digest in layers.iter().filter(|digest| !needed.contains(digest)) {
            self.trees().remove(digest)?;
        }
        Ok(())
    }

    /// The store for us alone, if others leave it soon: threads of the failed pull that were about to begin a tree when it was
    /// given up let go of the store in a moment.
    fn alone_soon(&self) -> Result<Option<Alone>> {
        for _ in 1..ATTEMPTS {
            if let Some(alone) = self.locks().try_alone()? {
                return Ok(Some(alone));
            }
            std::thread::sleep(PAUSE);
        }
        self.locks().try_alone()
    }
}
