//! Whether the store holds content that no reference names and that somebody counts on all the same.
//!
//! Who embeds the store by the calls of the reference implementation keeps a list of images of their own, and so does the program
//! whose directory was adopted. What only they know of looks unneeded from here. The file `keep-unreferenced` says that there is
//! such a one: then removing an image frees that image's parts only, and nothing that any other manifest in the store names.

use std::sync::Arc;

use cap_std::fs::Dir;
use cofferdam_core::error::Result;

use crate::file;
use crate::storage::ImageStorage;

pub(super) const NAME: &str = "keep-unreferenced";

const TEXT: &[u8] =
    b"Somebody keeps images in this store that refs/ does not list. While this file is here, removing an image\n\
frees only what that image consists of.\n";

/// Says so, once and for all.
pub(super) fn mark(root: &Arc<Dir>) -> Result<()> {
    if root.exists(NAME) { Ok(()) } else { file::create(root, NAME, TEXT).map(drop) }
}

impl ImageStorage {
    /// Says that the caller keeps content without publishing it.
    pub(super) fn keep_unreferenced(&self) -> Result<()> {
        if self.keeps_unreferenced() {
            return Ok(());
        }
        // Behind the gate: who collects sees it, or has listed what goes before it was set.
        let _gate = self.locks().gate(None)?;
        mark(&self.rooms().root)
    }

    pub(super) fn keeps_unreferenced(&self) -> bool {
        self.rooms().root.exists(NAME)
    }
}
