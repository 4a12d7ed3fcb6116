//! Trees for overlayfs that are not simply a layer's own: kept in `overlay/`, apart from `extracted/`.
//!
//! Of four kinds: a layer in the form of an overlay, several layers made one, a root directory without content, and a directory of links
//! to those from which to mount. The name of each is
//! a hash of its kind and of the layers that it is made of, each with its digest and its format, so that it is known from a manifest
//! what an image may have there. The record says which readers made those layers' trees, and counts for no other ones.

use std::sync::Arc;

use cofferdam_core::digest::Digest;
use cofferdam_core::error::Result;
use cofferdam_documents::Compression;
use cofferdam_documents::LayerDescriptor;

use crate::layout;
use crate::storage::ImageStorage;
use crate::trees::{Tree, Trees};

/// The directory of these trees, and the scope of their locks.
pub(super) const NAME: &str = "overlay";

impl ImageStorage {
    /// The trees that are made for overlayfs.
    pub fn overlay_trees(&self) -> Result<Trees> {
        let room = layout::private_dir(&self.rooms().root, NAME)?;
        Ok(Trees::new(
            self.images_dir().join(NAME).join("extracted"),
            Arc::new(layout::private_dir(&room, "extracted")?),
            Arc::new(layout::private_dir(&room, "records")?),
            self.locks().clone(),
            NAME.into(),
            self.boot_id(),
            self.access().clone(),
        )
        .allowing(self.unpacker().lossy()))
    }

    /// The same, if anything was ever made there.
    pub(super) fn overlay_trees_made(&self) -> Result<Option<Trees>> {
        let made = |room: &str| self.rooms().root.is_dir(format!("{NAME}/{room}"));
        if made("extracted") && made("records") { self.overlay_trees().map(Some) } else { Ok(None) }
    }
}

/// A layer as the names of trees that are made of it say it: its digest, and the format in which its media type has it read. One
/// blob in two formats is two layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source(String);

impl Source {
    pub(super) fn new(digest: &Digest, media_type: Option<&str>) -> Self {
        let media_type = media_type.unwrap_or_default();
        if let Ok(compression) = Compression::from_media_type(media_type) {
            // Both specifications have a type for each of these.
            return Self(format!("{digest} {compression}"));
        }
        let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        Self(format!("{digest} as {essence}"))
    }
}

impl From<&LayerDescriptor> for Source {
    fn from(layer: &LayerDescriptor) -> Self {
        Self::new(&layer.digest, layer.media_type.as_deref())
    }
}

/// The name of a layer in the form of an overlay.
pub fn overlay_name(layer: &LayerDescriptor) -> Digest {
    name_of("overlay form", &layer.into())
}

/// The name of layers that were made one, lowest first.
pub fn merged_name(layers: &[LayerDescriptor]) -> Digest {
    layers.iter().fold(merged_start(), |below, layer| merged_step(&below, &layer.into()))
}

/// The name of a root directory like that of a layer.
pub fn root_name(layer: &LayerDescriptor) -> Digest {
    name_of("root", &layer.into())
}

/// The name of a root directory that no layer lists.
pub fn plain_root_name() -> Digest {
    Digest::of(b"cofferdam root that no layer lists\n")
}

/// The name of the directory of links from which an image of these layers is mounted.
pub fn links_name(layers: &[LayerDescriptor]) -> Digest {
    links_step(&merged_name(layers))
}

fn links_step(merged: &Digest) -> Digest {
    Digest::of(format!("cofferdam links\n{merged}\n").as_bytes())
}

/// Identity of trees as they are now: another extraction of a layer has another one.
pub fn trees_identity(trees: &[Tree]) -> Digest {
    let lines = trees.iter().map(|tree| format!("{} {}\n", tree.record().digest, tree.record().mark));
    Digest::of(format!("cofferdam plan of a mount, version 1\n{}", lines.collect::<String>()).as_bytes())
}

impl Trees {
    /// Removes a derived tree that is not what it should be, unless somebody else reads it.
    pub fn retire_tree(&self, tree: Tree) -> Result<()> {
        let (digest, mark) = (tree.record().digest.clone(), tree.record().mark.clone());
        drop(tree);
        self.retire(&digest, Some(&mark)).map(drop)
    }
}

/// Identity of the readers of several trees, for the record of what is made of them; nothing if the first-party guests made each.
pub fn readers_of(trees: &[Tree]) -> Option<Digest> {
    let readers: Vec<_> = trees.iter().map(|tree| tree.record().reader.as_ref()).collect();
    match readers.as_slice() {
        [one] => one.cloned(),
        many if many.iter().all(Option::is_none) => None,
        many => {
            let lines: Vec<_> = many.iter().map(|reader| reader.map_or_else(String::new, Digest::to_string)).collect();
            Some(Digest::of(format!("cofferdam readers\n{}\n", lines.join("\n")).as_bytes()))
        }
    }
}

fn name_of(kind: &str, layer: &Source) -> Digest {
    Digest::of(format!("cofferdam {kind}\n{}\n", layer.0).as_bytes())
}

/// Each name follows from that of the layers below, so that all names of an image cost one hash a layer.
fn merged_start() -> Digest {
    Digest::of(b"cofferdam merged layers\n")
}

fn merged_step(below: &Digest, layer: &Source) -> Digest {
    Digest::of(format!("{below}\n{}\n", layer.0).as_bytes())
}

/// All names that trees of an image can have here. `layers` are its layers, lowest first.
pub(super) fn names(layers: impl IntoIterator<Item = Source>) -> impl Iterator<Item = Digest> {
    let (mut merged, mut names) = (merged_start(), vec![plain_root_name()]);
    for layer in layers {
        merged = merged_step(&merged, &layer);
        names.extend([name_of("overlay form", &layer), name_of("root", &layer), merged.clone()]);
    }
    names.push(links_step(&merged));
    names.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

    fn layer(content: &[u8], media_type: &str) -> LayerDescriptor {
        LayerDescriptor { media_type: Some(media_type.into()), ..LayerDescriptor::of(Digest::of(content)) }
    }

    fn all(layers: &[LayerDescriptor]) -> Vec<Digest> {
        names(layers.iter().map(Source::from)).collect()
    }

    #[test]
    fn each_thing_has_a_name_of_its_own() {
        let [a, b] = [layer(b"a", TAR), layer(b"b", TAR)];
        let mut both = [all(&[a.clone(), b.clone()]), all(&[b.clone(), a.clone()])].concat();
        both.sort();
        both.dedup();
        // Both orders share the layers, their roots and the root that no layer lists, and nothing else.
        assert_eq!(both.len(), 2 + 2 + 1 + 4 + 2);
        for layers in [vec![a.clone()], vec![a.clone(), b.clone()], vec![b.clone(), a.clone()]] {
            let names = all(&layers);
            let last = layers.last().unwrap();
            for name in
                [overlay_name(last), root_name(last), merged_name(&layers), links_name(&layers), plain_root_name()]
            {
                assert!(names.contains(&name), "it is not known that this image may have it");
            }
        }
    }

    /// One blob that two images have read in two ways is two things, in each place where it is part of a name.
    #[test]
    fn what_a_layer_is_read_as_is_part_of_the_name() {
        let (tar, plugin) = (layer(b"a", TAR), layer(b"a", "application/vnd.example.layer"));
        let top = layer(b"b", TAR);
        for (one, other) in [
            (all(std::slice::from_ref(&tar)), all(std::slice::from_ref(&plugin))),
            (all(std::slice::from_ref(&plugin)), all(&[layer(b"a", "application/vnd.other.layer")])),
        ] {
            // But for the root that no layer lists, which is nobody's.
            assert!(one.iter().all(|name| *name == plain_root_name() || !other.contains(name)));
        }
        assert_ne!(merged_name(&[tar.clone(), top.clone()]), merged_name(&[plugin.clone(), top.clone()]));
        assert_ne!(merged_name(&[top.clone(), tar.clone()]), merged_name(&[top, plugin.clone()]));
        // The types of both specifications, and their spellings, mean one format.
        for same in ["application/vnd.docker.image.rootfs.diff.tar", "Application/vnd.OCI.image.layer.v1.tar; x=y"] {
            assert_eq!(all(std::slice::from_ref(&tar)), all(&[layer(b"a", same)]));
        }
        assert_eq!(all(&[plugin]), all(&[layer(b"a", "application/VND.example.layer;v=1")]));
    }
}
