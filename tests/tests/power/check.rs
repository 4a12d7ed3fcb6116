//! What is left after a cut.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::tree::{self, Field, Snapshot};
use cofferdam_tests::{Cofferdam, layers, store};

use crate::script::{Dest, Effect, Recording, Step};
use crate::text;

/// The attribute that tells one extraction of a layer from another.
const MARK: &str = "user.cofferdam.tree";

/// In what way something is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The file system itself cannot be used.
    FileSystem,
    /// A file of the store is there in part, under the name of a whole one.
    Torn,
    /// What a command had promised is not there.
    Lost,
    /// Something was made that is not what it should be.
    Wrong,
    /// A command fails that should not, or leaves something behind.
    Wedged,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::FileSystem, Self::Torn, Self::Lost, Self::Wrong, Self::Wedged];
}

/// Something that is not as it should be.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) kind: Kind,
    pub(crate) what: String,
}

/// What was seen after one cut.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) findings: Vec<Finding>,
    /// Images that were unpacked, and are right.
    pub(crate) images: usize,
    /// Trees under their final names that the cut had damaged.
    pub(crate) trees_broken: usize,
    /// Trees that were believed, since they had been synced.
    pub(crate) trees_trusted: usize,
    /// Trees that were there and were extracted again.
    pub(crate) trees_again: usize,
    /// Records of trees that the cut had emptied.
    pub(crate) records_empty: usize,
    /// Root file systems under their final names.
    pub(crate) dests_whole: usize,
    /// Such that were not to be synced, and are broken.
    pub(crate) dests_broken: usize,
}

impl Seen {
    fn find(&mut self, kind: Kind, what: String) {
        self.findings.push(Finding { kind, what });
    }

    fn expect(&mut self, kind: Kind, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.find(kind, format!("{error:#}"));
        }
    }
}

/// A tree as it is on disk before anybody looks.
struct Found {
    mark: Option<Vec<u8>>,
    synced: bool,
}

/// Looks at a mounted file system after a cut at record `end`.
pub(crate) fn check(recording: &Recording, end: usize, dir: &Path) -> Result<Seen> {
    let mut seen = Seen::default();
    let cofferdam = Cofferdam::new(dir.join("store"))?;
    let trees = files(recording, cofferdam.store(), &mut seen)?;
    destinations(recording, end, dir, &mut seen)?;
    let listed = names(recording, end, &cofferdam, &mut seen)?;
    seen.expect(Kind::Wedged, store::ensure_nothing_staged(cofferdam.store()));
    let mut used = Vec::new();
    for (index, (name, manifest)) in listed.iter().enumerate() {
        let Some(image) = recording.images.get(manifest) else { continue };
        let dest = dir.join(format!("out/check-{index}"));
        // By digest: the name of an image from a layout would be looked up in the layout.
        let run = cofferdam.run(["unpack", manifest, &text(&dest)])?;
        if run.code() != Some(0) {
            seen.find(Kind::Lost, format!("{name} cannot be unpacked: {}", run.err()));
            continue;
        }
        let found = Snapshot::read(&dest)?;
        let right = tree::ensure_same(("unpacked", &found), ("as it should be", &image.rootfs), |_, _| false);
        seen.images += usize::from(right.is_ok());
        seen.expect(Kind::Wrong, right);
        used.extend(image.trees.iter().cloned());
    }
    // The layout itself, whose trees are apart from those of images.
    let dest = dir.join("out/check-layout");
    let run = cofferdam.run(["unpack", &recording.source.0, &text(&dest)])?;
    if run.code() == Some(0) {
        let expected = recording.images.get(&recording.source.1).context("nobody knows the image")?;
        let right = Snapshot::read(&dest).and_then(|found| {
            tree::ensure_same(("unpacked", &found), ("as it should be", &expected.rootfs), |_, _| false)
        });
        seen.expect(Kind::Wrong, right);
    } else {
        seen.find(Kind::Wedged, format!("a layout cannot be unpacked: {}", run.err()));
    }
    // No later step takes these away.
    for step in recording.steps.iter().filter(|step| step.end <= end) {
        let Effect::Name { manifest: Some(manifest), trees: true, .. } = &step.effect else { continue };
        let promised = recording.images.get(manifest).context("nobody knows the image")?;
        for name in promised.trees.iter().filter(|name| trees.get(*name).is_none_or(|tree| !tree.synced)) {
            seen.find(Kind::Lost, format!("the tree {name} was to be there for good"));
        }
    }
    for (name, found) in &trees {
        let now = mark(&cofferdam.store().join("extracted").join(name));
        match (found.synced, now == found.mark) {
            (true, true) => seen.trees_trusted += 1,
            (true, false) => seen.find(Kind::Wedged, format!("the synced tree {name} was extracted again")),
            (false, false) => seen.trees_again += usize::from(used.contains(name)),
            (false, true) if used.contains(name) => {
                seen.find(Kind::Wrong, format!("the tree {name} was never synced, and was believed"));
            }
            (false, true) => {}
        }
    }
    // The store is of use again, whatever happened to it.
    let pulled = cofferdam.run(["pull", &recording.source.0])?.expect(0).map(drop);
    seen.expect(Kind::Wedged, pulled.context("the pull after the cut"));
    let again = cofferdam.run(["images", "--json"])?.expect(0).map(drop);
    seen.expect(Kind::Wedged, again.context("the list after that pull"));
    seen.expect(Kind::Wedged, store::ensure_nothing_staged(cofferdam.store()));
    seen.expect(Kind::Wedged, store::ensure_blobs_are_whole(cofferdam.store()));
    let ours = |name: &String| name.starts_with("check-") || dests(recording).any(|(_, dest)| dest.name == name);
    let left = store::list(&dir.join("out"))?;
    if let Some(name) = left.iter().find(|name| !ours(name)) {
        seen.find(Kind::Wedged, format!("{name} was left beside a destination"));
    }
    Ok(seen)
}

fn dests(recording: &Recording) -> impl Iterator<Item = (&Step, &Dest)> {
    recording
        .steps
        .iter()
        .filter_map(|step| if let Effect::Dest(dest) = &step.effect { Some((step, dest)) } else { None })
}

/// The root file systems as the cut left them.
fn destinations(recording: &Recording, end: usize, dir: &Path, seen: &mut Seen) -> Result<()> {
    for (step, dest) in dests(recording) {
        let path = dir.join("out").join(dest.name);
        if !path.exists() {
            if dest.synced && step.end <= end {
                seen.find(Kind::Lost, format!("{} is not there", dest.name));
            }
            continue;
        }
        let expected = recording.images.get(&dest.manifest).context("nobody knows the image")?;
        let whole = Snapshot::read(&path).and_then(|found| {
            tree::ensure_same(("on disk", &found), ("as it should be", &expected.rootfs), |_, _| false)
        });
        match whole {
            Ok(()) => seen.dests_whole += 1,
            Err(error) if dest.synced => seen.find(Kind::Torn, format!("{}: {error:#}", dest.name)),
            Err(_) => seen.dests_broken += 1,
        }
    }
    Ok(())
}

/// The name that a step changes, and what that stands for then.
fn named(step: &Step) -> Option<(&String, &Option<String>)> {
    if let Effect::Name { name, manifest, .. } = &step.effect { Some((name, manifest)) } else { None }
}

/// The names that the store has, each with its manifest. None that was promised is missing.
fn names(recording: &Recording, end: usize, cofferdam: &Cofferdam, seen: &mut Seen) -> Result<Vec<(String, String)>> {
    // A verb that changes things opens the store for use, which sweeps what dead processes left; this one finds nothing to do then.
    let opened = cofferdam.run(["rm", "none.test/none:1"])?;
    if opened.code() != Some(exit::NOT_FOUND) {
        seen.find(Kind::Lost, format!("opening the store: {}", opened.err()));
    }
    let run = cofferdam.run(["images", "--json"])?;
    if run.code() != Some(0) {
        seen.find(Kind::Lost, format!("images: {}", run.err()));
    }
    let Ok(list) = run.json() else { return Ok(Vec::new()) };
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let images = list["images"].as_array().context("no list of images")?;
    let found: BTreeMap<_, _> =
        images.iter().map(|image| (text(&image["reference"]), text(&image["manifest"]))).collect();
    let mut names: Vec<_> = recording.steps.iter().filter_map(|step| Some(named(step)?.0)).collect();
    names.sort();
    names.dedup();
    for name in found.keys().filter(|name| !names.contains(name)) {
        seen.find(Kind::Wrong, format!("nobody ever pulled {name}"));
    }
    for name in names {
        let mut possible = vec![None];
        for step in recording.steps.iter().filter(|step| step.start < end || step.end <= end) {
            let Some((_, manifest)) = named(step).filter(|(of, _)| *of == name) else { continue };
            if step.end <= end {
                possible.clear();
            }
            possible.push(manifest.as_ref());
        }
        if !possible.contains(&found.get(name)) {
            let what = format!("{name} stands for {:?}, not for one of {possible:?}", found.get(name));
            seen.find(Kind::Lost, what);
        }
    }
    Ok(found.into_iter().collect())
}

/// The files of the store as they are, before a command sees them.
fn files(recording: &Recording, path: &Path, seen: &mut Seen) -> Result<BTreeMap<String, Found>> {
    for (dir, suffix) in [("layers", ".tar.gz"), ("configs", ".json"), ("manifests", ".json")] {
        for name in store::list(&path.join(dir))? {
            let Some(stem) = name.strip_suffix(suffix) else { continue };
            let digest = layers::digest_of_file(&path.join(dir).join(&name))?;
            if digest.replace(':', "-") != stem {
                seen.find(Kind::Torn, format!("{dir}/{name} holds {digest}"));
            }
        }
    }
    for document in documents(path)?.into_iter().chain(documents(&path.join("refs"))?) {
        if json(&document)?.is_none() {
            seen.find(Kind::Torn, format!("{} is not JSON", document.display()));
        }
    }
    let mut trees = BTreeMap::new();
    for name in store::list(&path.join("extracted"))? {
        let Some(expected) = recording.trees.get(&name) else { continue };
        let record = path.join("records").join(format!("{name}.json"));
        let record = if record.exists() { json(&record)? } else { None };
        let synced = record.is_some_and(|record| record["synced"] == true);
        let tree = path.join("extracted").join(&name);
        // Marks differ between extractions, and so does the time of a root that the layer does not list.
        let ignore = |path: &[u8], field: Field| path.is_empty() && matches!(field, Field::Xattrs | Field::Mtime);
        let whole = Snapshot::read(&tree)
            .and_then(|found| tree::ensure_same(("on disk", &found), ("as it should be", expected), ignore));
        if let Err(error) = whole {
            seen.trees_broken += 1;
            if synced {
                seen.find(Kind::Torn, format!("the tree {name} was synced, and is broken: {error:#}"));
            }
        }
        trees.insert(name, Found { mark: mark(&tree), synced });
    }
    for record in documents(&path.join("records"))? {
        seen.records_empty += usize::from(json(&record)?.is_none());
    }
    Ok(trees)
}

/// The files that are meant to be whole: staging names end otherwise.
fn documents(dir: &Path) -> Result<Vec<PathBuf>> {
    let names = store::list(dir)?;
    Ok(names.iter().filter(|name| name.strip_suffix(".json").is_some()).map(|name| dir.join(name)).collect())
}

fn json(path: &Path) -> Result<Option<serde_json::Value>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(serde_json::from_slice(&bytes).ok())
}

fn mark(tree: &Path) -> Option<Vec<u8>> {
    let mut mark = [0; 64];
    let length = rustix::fs::lgetxattr(tree, MARK, &mut mark).ok()?;
    mark.get(..length).map(<[u8]>::to_vec)
}
