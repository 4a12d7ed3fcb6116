//! `scratch/`: where plugins that may write have a directory of their own while they run.
//!
//! Each is locked by the run that made it; one that is not is a dead one's, and is swept.

use std::fs::File;
use std::path::PathBuf;

use cap_std::fs::Dir;
use cofferdam_core::error::{Error, Result};
use cofferdam_tree::remove_tree_unless;

use crate::sweep::Sweep;
use crate::{ImageStorage, layout, lock};

/// The directory.
pub(super) const ROOM: &str = "scratch";

impl ImageStorage {
    /// Where plugins get their scratch directories (the `scratch` of a sandbox's context). Made by the first that needs one.
    pub fn scratch_dir(&self) -> PathBuf {
        self.images_dir().join(ROOM)
    }

    /// Removes what plugins left whose run has ended without its end.
    pub(super) fn sweep_scratch(&self, sweep: &mut Sweep) {
        let Ok(room) = layout::open_dir(&self.rooms().root, ROOM) else { return };
        for name in sweep.list(layout::names(&room, ROOM)) {
            let swept = match is_dead(&room, &name) {
                Ok(Some(_locked)) => remove_tree_unless(&room, name.as_bytes(), sweep.cancel()),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            sweep.note(swept);
        }
    }
}

/// The lock of a directory whose owner is gone; nothing for one that is in use, or is none of these.
pub(super) fn is_dead(room: &Dir, name: &str) -> Result<Option<File>> {
    let ours = name.strip_prefix("plugin-").is_some_and(|uuid| uuid.len() == 32);
    let Some(dir) = layout::open_dir(room, name).ok().filter(|_| ours) else { return Ok(None) };
    let dir = dir.into_std_file();
    let free = lock::try_lock_exclusively(&dir).map_err(|e| Error::io("lock", name.as_bytes(), e))?;
    Ok(free.then_some(dir))
}
