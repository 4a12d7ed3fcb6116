//! Trees for overlayfs that are not simply a layer's own: kept in `overlay/`, apart from `extracted/`.
//!
//! Of three kinds, each under a name that follows from layers alone, so that it is known what an image may have there:
//! a layer in the form of an overlay, under the layer's digest; several layers made one, and a root directory without content,
//! under a hash of what they are made of.

use std::sync::Arc;

use crate::digest::Digest;
use crate::error::Result;
use crate::store::layout;
use crate::store::storage::ImageStorage;
use crate::store::trees::Trees;

const NAME: &str = "overlay";

impl ImageStorage {
    /// The trees that are made for overlayfs.
    pub(crate) fn overlay_trees(&self) -> Result<Trees> {
        let room = layout::private_dir(&self.rooms().root, NAME)?;
        Ok(Trees::new(
            self.images_dir().join(NAME).join("extracted"),
            Arc::new(layout::private_dir(&room, "extracted")?),
            Arc::new(layout::private_dir(&room, "records")?),
            self.locks().clone(),
            NAME.into(),
            self.boot_id(),
            self.access().clone(),
        ))
    }

    /// The same, if anything was ever made there.
    pub(super) fn overlay_trees_made(&self) -> Result<Option<Trees>> {
        let made = |room: &str| self.rooms().root.is_dir(format!("{NAME}/{room}"));
        if made("extracted") && made("records") { self.overlay_trees().map(Some) } else { Ok(None) }
    }
}

/// The name of layers that were made one, lowest first.
pub(crate) fn merged_name(layers: &[&Digest]) -> Digest {
    let layers: Vec<_> = layers.iter().map(ToString::to_string).collect();
    Digest::of(format!("cofferdam merged layers\n{}\n", layers.join("\n")).as_bytes())
}

/// The name of a root directory like that of a layer.
pub(crate) fn root_name(layer: &Digest) -> Digest {
    Digest::of(format!("cofferdam root\n{layer}\n").as_bytes())
}

/// All names that trees of an image can have here. `layers` are its layers, lowest first.
pub(super) fn names(layers: &[&Digest]) -> impl Iterator<Item = Digest> {
    (0..layers.len())
        .filter_map(move |top| {
            let digest = *layers.get(top)?;
            Some([digest.clone(), root_name(digest), merged_name(layers.get(..=top)?)])
        })
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_has_a_name_of_its_own() {
        let digests = [Digest::of(b"a"), Digest::of(b"b")];
        let [a, b] = &digests;
        let mut all: Vec<_> = names(&[a, b]).chain(names(&[b, a])).collect();
        all.sort();
        all.dedup();
        // Both orders share the layers and their roots, and nothing else.
        assert_eq!(all.len(), 2 + 2 + 4);
    }
}
