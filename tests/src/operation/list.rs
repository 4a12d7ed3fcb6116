//! The operations.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::{Operation, Place};
use crate::mounted::Mounted;
use crate::small::{NEW, OLD, Small};
use crate::{Cofferdam, Snapshot, layout, store, tree};

const NO_STORE: fn(&Small, &Cofferdam) -> Result<()> = |_, _| Ok(());

const NOTHING: fn(&Small, &Place) -> Result<()> = |_, _| Ok(());

const PULL_NEW: fn(&Small, &Place) -> Result<Vec<String>> = |small, _| Ok(small.pull(NEW));

fn old(small: &Small, cofferdam: &Cofferdam) -> Result<()> {
    cofferdam.ok(small.pull(OLD)).map(drop)
}

fn both(small: &Small, cofferdam: &Cofferdam) -> Result<()> {
    old(small, cofferdam)?;
    cofferdam.ok(small.pull(NEW)).map(drop)
}

/// As a removal of an image and a power cut leave it: blobs without trees.
fn both_without_trees(small: &Small, cofferdam: &Cofferdam) -> Result<()> {
    both(small, cofferdam)?;
    for name in store::trees(cofferdam.store())? {
        fs::remove_dir_all(cofferdam.store().join("extracted").join(name))?;
    }
    Ok(())
}

fn new_is_there(small: &Small, place: &Place) -> Result<()> {
    let images = small.ensure_intact(place.cofferdam.store())?;
    ensure!(images.contains(&NEW), "only {images:?} are there");
    small.ensure_unpacks(&place.cofferdam, NEW)
}

fn unpack(strategy: &str, small: &Small, place: &Place) -> Vec<String> {
    let dest = place.dest().display().to_string();
    ["unpack", "--strategy", strategy, small.manifest(NEW), &dest].map(str::to_owned).to_vec()
}

/// The destination appears whole or not at all. It goes then, so that the repetition has its place.
fn whole_or_absent(small: &Small, place: &Place) -> Result<()> {
    if place.dest().exists() {
        small.ensure_root(NEW, &place.dest()).context("what the dead left at the destination")?;
        fs::remove_dir_all(place.dest())?;
    }
    Ok(())
}

fn root_is_there(small: &Small, place: &Place) -> Result<()> {
    small.ensure_root(NEW, &place.dest())?;
    store::ensure_holds(&place.out, &["rootfs"])
}

/// A pull from a registry into a store that is not there yet.
pub const PULL_INTO_A_NEW_STORE: Operation = Operation {
    name: "pull, registry, new store",
    registry: true,
    before: NO_STORE,
    command: PULL_NEW,
    between: NOTHING,
    after: new_is_there,
    codes: &[0],
};

/// A pull from a registry, beside an image that shares a layer.
pub const PULL_BESIDE_ANOTHER_IMAGE: Operation = Operation {
    name: "pull, registry",
    registry: true,
    before: old,
    command: PULL_NEW,
    between: NOTHING,
    after: new_is_there,
    codes: &[0],
};

/// A pull from a layout.
pub const PULL_FROM_A_LAYOUT: Operation = Operation {
    name: "pull, layout",
    registry: false,
    before: old,
    command: PULL_NEW,
    between: NOTHING,
    after: new_is_there,
    codes: &[0],
};

/// A pull from a layout that waits until trees are on disk.
pub const PULL_TREES_SYNCED: Operation = Operation {
    name: "pull, layout, trees synced",
    command: |small, _| Ok([small.pull(NEW), vec!["--durability".into(), "layer".into()]].concat()),
    ..PULL_FROM_A_LAYOUT
};

/// A pull of what is there.
pub const PULL_AGAIN: Operation = Operation {
    name: "pull, all there",
    registry: false,
    before: both,
    command: PULL_NEW,
    between: new_is_there,
    after: new_is_there,
    codes: &[0],
};

/// An unpack by merging trees.
pub const UNPACK_BY_COPYING: Operation = Operation {
    name: "unpack, copy",
    registry: false,
    before: both,
    command: |small, place| Ok(unpack("copy", small, place)),
    between: whole_or_absent,
    after: root_is_there,
    codes: &[0],
};

/// An unpack that makes the trees first.
pub const UNPACK_AND_EXTRACT: Operation = Operation {
    name: "unpack, copy, trees gone",
    registry: false,
    before: both_without_trees,
    command: |small, place| Ok(unpack("copy", small, place)),
    between: whole_or_absent,
    after: root_is_there,
    codes: &[0],
};

/// An unpack by applying blobs.
pub const UNPACK_BY_APPLYING: Operation = Operation {
    name: "unpack, apply",
    registry: false,
    before: both,
    command: |small, place| Ok(unpack("apply", small, place)),
    between: whole_or_absent,
    after: root_is_there,
    codes: &[0],
};

/// An unpack of a layout's image.
pub const UNPACK_A_LAYOUT: Operation = Operation {
    name: "unpack, layout",
    registry: false,
    before: old,
    command: |small, place| {
        Ok(["unpack", &small.local(NEW), &place.dest().display().to_string()].map(str::to_owned).to_vec())
    },
    between: whole_or_absent,
    after: root_is_there,
    codes: &[0],
};

/// An extraction onto a directory.
pub const LAYER_EXTRACT: Operation = Operation {
    name: "layer extract",
    registry: false,
    before: old,
    command: |small, place| {
        let layer = small.layer(0)?.display().to_string();
        let dest = place.dest().display().to_string();
        Ok(["layer", "extract", &layer, &dest].map(str::to_owned).to_vec())
    },
    // It is made in place: what the dead left is part of it, and the repetition completes it.
    between: NOTHING,
    after: |small, place| {
        let found = Snapshot::read(&place.dest())?;
        let layers = layout::layers_of(small.layout(), NEW)?;
        let expected = &small.trees[&layers[0].digest.replace(':', "-")];
        tree::ensure_same(("extracted", &found), ("expected", expected), |_, _| false)
    },
    codes: &[0],
};

/// Another name for an image.
pub const TAG: Operation = Operation {
    name: "tag",
    registry: false,
    before: both,
    command: |small, _| Ok(["tag", small.manifest(NEW), "other:1"].map(str::to_owned).to_vec()),
    between: NOTHING,
    after: |small, place| {
        let images = small.ensure_intact(place.cofferdam.store())?;
        ensure!(images == [NEW, NEW, OLD], "{images:?}");
        small.ensure_unpacks(&place.cofferdam, NEW)
    },
    codes: &[0],
};

/// A collection of an image that lost its reference.
pub const COLLECT: Operation = Operation {
    name: "gc",
    registry: false,
    before: |small, cofferdam| {
        both(small, cofferdam)?;
        let refs = cofferdam.store().join("refs");
        let lost = store::list(&refs)?.into_iter().find(|name| name.contains("new"));
        Ok(fs::remove_file(refs.join(lost.context("no reference to remove")?))?)
    },
    command: |_, _| Ok(vec!["gc".into()]),
    between: NOTHING,
    after: |small, place| {
        let store = place.cofferdam.store();
        ensure!(small.ensure_intact(store)? == [OLD], "not just the old image is left");
        let left = (store::blobs(store)?.len(), store::trees(store)?.len());
        ensure!(left == (2, 2), "{left:?} blobs and trees are left of an image with two layers");
        small.ensure_unpacks(&place.cofferdam, OLD)
    },
    codes: &[0],
};

/// A repair of trees that nothing vouches for any more.
pub const REPAIR: Operation = Operation {
    name: "fsck --repair",
    registry: false,
    before: |small, cofferdam| {
        both(small, cofferdam)?;
        for tree in store::recorded_trees(cofferdam.store())? {
            let name = tree.file_name().context("a tree without a name")?.to_string_lossy().into_owned();
            fs::remove_file(cofferdam.store().join(format!("records/{name}.json")))?;
        }
        Ok(())
    },
    command: |_, _| Ok(["fsck", "--repair"].map(str::to_owned).to_vec()),
    between: NOTHING,
    after: |small, place| {
        let store = place.cofferdam.store();
        ensure!(store::recorded_trees(store)?.len() == 4, "not all trees were made again");
        small.ensure_unpacks(&place.cofferdam, NEW)
    },
    codes: &[0],
};

/// The directories for a mount.
pub const MOUNT_SPEC: Operation = Operation {
    name: "mount-spec",
    registry: false,
    before: both,
    command: |small, _| Ok(["mount-spec", small.manifest(NEW)].map(str::to_owned).to_vec()),
    between: NOTHING,
    after: |small, place| {
        let spec = place.cofferdam.ok(["mount-spec", small.manifest(NEW)])?.json()?;
        let at = place.out.join("mounted");
        fs::create_dir_all(&at)?;
        let Some(mounted) = Mounted::by(&spec, at)? else { return Ok(()) };
        small.ensure_shows(NEW, mounted.path())
    },
    codes: &[0],
};

/// A removal of an image that shares a layer.
pub const REMOVE: Operation = Operation {
    name: "rm",
    registry: false,
    before: both,
    command: |small, _| Ok(vec!["rm".into(), small.manifest(NEW).into()]),
    between: NOTHING,
    // What was left unneeded goes with the next removal.
    after: |small, place| {
        let cofferdam = &place.cofferdam;
        ensure!(small.ensure_intact(cofferdam.store())? == [OLD], "not just the old image is left");
        cofferdam.ok(small.pull(NEW))?;
        small.ensure_unpacks(cofferdam, NEW)?;
        cofferdam.ok(["rm", small.manifest(NEW)])?;
        let left = (store::blobs(cofferdam.store())?.len(), store::trees(cofferdam.store())?.len());
        ensure!(left == (2, 2), "{left:?} blobs and trees are left of an image with two layers");
        small.ensure_unpacks(cofferdam, OLD)
    },
    // The reference goes first: then there is nothing to remove.
    codes: &[0, 3],
};
