//! The place where a scenario is run, once and in one way.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::expect::{Lens, Xattrs, complaints};
use super::scenario::{Expectation, Scenario};
use super::{directory, ordinary, peers, wasi};
use crate::cofferdam::exit;
use crate::layout::{self, LayerRef, OciLayout};
use crate::mounted::Mounted;
use crate::tree::{Options, Snapshot};
use crate::wasi::Wasi;
use crate::{Cofferdam, Run, Scratch, others, paths};

/// A way of extracting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `layer extract`, one layer after the other.
    Apply,
    /// `layer extract --mode preserve`, the last layer alone.
    Preserve,
    /// `layer extract --mode overlay`, each layer alone, and all of them mounted.
    Overlay,
    /// `unpack --strategy copy`: preserved trees, merged.
    Copy,
    /// `unpack --strategy apply`.
    Unpack,
    /// `mount-spec`, mounted.
    Mount,
    /// `layer extract` by an ordinary user.
    User,
    /// `unpack --strategy copy` by an ordinary user.
    UserCopy,
    /// `layer extract` by the root of a user namespace that maps nobody else.
    Namespace,
    /// `cofferdam-layer extract` under `wasmtime`, one layer after the other.
    Wasi,
    /// The same with `--mode preserve`, the last layer alone.
    WasiPreserve,
    /// Another implementation.
    Peer(peers::Peer),
}

impl Way {
    /// Ours, but for those that can express a part only.
    pub const OURS: [Self; 9] = [
        Self::Apply,
        Self::Preserve,
        Self::Overlay,
        Self::Copy,
        Self::Unpack,
        Self::Mount,
        Self::User,
        Self::UserCopy,
        Self::Namespace,
    ];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Preserve => "preserve",
            Self::Overlay => "overlay",
            Self::Copy => "copy",
            Self::Unpack => "unpack",
            Self::Mount => "mount",
            Self::User => "user",
            Self::UserCopy => "user copy",
            Self::Namespace => "userns",
            Self::Wasi => "wasi",
            Self::WasiPreserve => "wasi preserve",
            Self::Peer(peer) => peer.name(),
        }
    }

    /// Whether it is the command guest.
    fn is_wasi(self) -> bool {
        matches!(self, Self::Wasi | Self::WasiPreserve)
    }

    /// Whether it has no privileges.
    fn is_ordinary(self) -> bool {
        matches!(self, Self::User | Self::UserCopy | Self::Namespace)
    }

    /// The program that runs ours in this way.
    fn wrapper(self) -> Vec<&'static str> {
        let by: &[&str] = match self {
            Self::User | Self::UserCopy => ordinary::DROP,
            Self::Namespace => ordinary::NAMESPACE,
            _ => &[],
        };
        // A umask that would show everywhere (rule 4).
        [by, &["sh", "-c", "umask 077; exec \"$@\"", "sh"]].concat()
    }

    /// What can be seen through it.
    fn lens(self) -> Lens {
        if self.is_ordinary() {
            Lens { symlink_owners: false, xattrs: Xattrs::User, ..Lens::CLEAR }
        } else if self.is_wasi() {
            Lens { metadata: false, ..Lens::CLEAR }
        } else {
            Lens::CLEAR
        }
    }
}

/// What came of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What must.
    Passed,
    /// Something else.
    Failed(String),
    /// The way cannot express it.
    NotApplicable(String),
}

/// A scenario in a directory of its own: `out/` with the destination and its neighbours, which must not change.
#[derive(Debug)]
pub struct Lab {
    pub(super) scratch: Scratch,
    way: Way,
    /// What is run.
    pub scenario: Scenario,
    /// The layers' blobs as files, lowest first.
    pub(super) layers: Vec<PathBuf>,
}

impl Lab {
    /// Builds a scenario to be run in one way, with neighbours for the destination.
    pub fn new(name: &str, way: Way) -> Result<Self> {
        let scratch = if way.is_ordinary() { Scratch::new_in(&others::base()?)? } else { Scratch::new()? };
        let out = scratch.dir("out")?;
        for (neighbour, file) in [("victim", "hello"), ("dest-evil", "secret")] {
            fs::create_dir(out.join(neighbour))?;
            fs::write(out.join(neighbour).join(file), "untouched")?;
        }
        let file = directory().join(format!("{name}.scenario"));
        let scenario = Scenario::read(&file, name, &out.to_string_lossy())?;
        let blobs = scratch.dir("layers")?;
        let mut layers = Vec::new();
        for (index, layer) in scenario.layers.iter().enumerate() {
            let path = blobs.join(format!("{index}"));
            fs::write(&path, &layer.blob)?;
            layers.push(path);
        }
        if way.is_ordinary() {
            ordinary::give(scratch.path())?;
            ordinary::give(&out)?;
        }
        Ok(Self { scratch, way, scenario, layers })
    }

    /// Where trees come to lie.
    pub fn dest(&self) -> PathBuf {
        self.scratch.join("out/dest")
    }

    /// Runs the scenario. An error means that it could not be run.
    pub fn run(&self) -> Result<Verdict> {
        let way = self.way;
        let before = neighbours(&self.scratch.join("out"))?;
        let verdict = match way {
            Way::Wasi | Way::WasiPreserve if self.disagrees() => {
                Ok(Verdict::NotApplicable("the command guest is told no media type".into()))
            }
            Way::Apply | Way::User | Way::Namespace | Way::Wasi => self.apply(),
            Way::Preserve | Way::WasiPreserve => self.preserve(),
            Way::Overlay => self.overlay(),
            Way::Copy | Way::UserCopy => self.unpack("copy"),
            Way::Unpack => self.unpack("apply"),
            Way::Mount => self.mount(),
            Way::Peer(peer) => peers::run(self, peer),
        }
        .with_context(|| format!("{} by {}", self.scenario.name, way.name()))?;
        // Some remove even the directory that the destination lies in: then there is nothing to read.
        let after = neighbours(&self.scratch.join("out")).unwrap_or_default();
        if before == after {
            return Ok(verdict);
        }
        let changed: Vec<_> =
            before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path)).collect();
        Ok(Verdict::Failed(format!("ESCAPED: {changed:?} changed")))
    }

    fn apply(&self) -> Result<Verdict> {
        let (last, lower) = self.split()?;
        for index in lower {
            self.extract(index, "apply", &self.dest())?.expect(exit::OK)?;
        }
        let run = self.extract(last, "apply", &self.dest())?;
        self.judge(&self.scenario.root, &run, self.way.lens())
    }

    fn preserve(&self) -> Result<Verdict> {
        let (last, lower) = self.split()?;
        let run = self.extract(last, "preserve", &self.dest())?;
        match &self.scenario.preserve {
            Some(expected) => self.judge(expected, &run, self.way.lens()),
            None if lower.is_empty() && !self.scenario.layers[last].markers => {
                self.judge(&self.scenario.root, &run, self.way.lens())
            }
            None => self.judge(&open(&self.scenario.root), &run, self.way.lens()),
        }
    }

    fn overlay(&self) -> Result<Verdict> {
        let (last, lower) = self.split()?;
        let lens = Lens { xattrs: Xattrs::WithOverlay, ..Lens::CLEAR };
        let mut trees = vec![self.dest()];
        let mut refused = None;
        for index in lower.clone() {
            let tree = self.scratch.join(format!("lower-{index}"));
            let run = self.extract(index, "overlay", &tree)?.expect_one_of(&[exit::OK, exit::REFUSED])?;
            refused = refused.or_else(|| (run.code() != Some(exit::OK)).then(|| run.err()));
            trees.insert(1, tree);
        }
        let run = self.extract(last, "overlay", &self.dest())?;
        let own = match &self.scenario.overlay {
            Some(expected) => self.judge(expected, &run, lens)?,
            // What replaced something hides what an overlay's lower layers may hold there.
            None if lower.is_empty() => return self.judge(&self.scenario.root, &run, Lens::CLEAR),
            None => self.judge(&open(&self.scenario.root), &run, lens)?,
        };
        let root = self.scenario.root.tree.as_deref().filter(|_| self.scenario.root.refused.is_empty());
        let (Some(root), Verdict::Passed, Some(exit::OK)) = (root, &own, run.code()) else { return Ok(own) };
        if trees.len() < 2 || self.scenario.overlay_alone {
            return Ok(own);
        }
        if let Some(why) = refused {
            return Ok(Verdict::NotApplicable(format!("a lower layer alone is refused: {why}")));
        }
        let Some(mounted) = Mounted::new(&trees, self.scratch.dir("mounted")?)? else {
            return Ok(Verdict::NotApplicable("overlayfs cannot be mounted here".into()));
        };
        let found = Snapshot::read_with(mounted.path(), Options { extents: true })?;
        Ok(verdict(&complaints(root, &found, Lens { links: false, ..Lens::CLEAR }), "mounted: "))
    }

    fn unpack(&self, strategy: &str) -> Result<Verdict> {
        let layout = self.layout()?;
        let store = self.cofferdam()?;
        let dest = self.dest();
        let (image, to) = (layout.source("t"), dest.to_string_lossy());
        let run = store.run([&["unpack", &*image, &*to, "--strategy", strategy], self.permissions()].concat())?;
        // A root filesystem appears whole or not at all: there is no intact lower part.
        let expected = Expectation { tree: self.scenario.root.tree.clone(), ..self.scenario.root.clone() };
        let expected = if expected.refused.is_empty() { expected } else { Expectation { tree: None, ..expected } };
        let verdict = self.judge(&expected, &run, self.way.lens())?;
        if run.code() != Some(exit::OK) && dest.exists() {
            return Ok(Verdict::Failed("a destination appeared although it failed".into()));
        }
        Ok(verdict)
    }

    /// As `unpack` shows it, but for what no mount can show.
    fn mount(&self) -> Result<Verdict> {
        let source = self.layout()?.source("t");
        let store = self.cofferdam()?;
        let mut run = store.run(["pull", &*source])?;
        if run.code() == Some(exit::OK) {
            run = store.run(["mount-spec", &*source])?;
        }
        if run.code() == Some(exit::REFUSED) && run.err().contains("overlayfs") {
            return Ok(Verdict::NotApplicable(run.err()));
        }
        let expected = Expectation { tree: None, ..self.scenario.root.clone() };
        let judged = self.judge(&expected, &run, Lens::CLEAR)?;
        let (Verdict::Passed, Some(exit::OK), Some(root)) = (&judged, run.code(), &self.scenario.root.tree) else {
            return Ok(judged);
        };
        let spec = run.json()?;
        let Some(mounted) = Mounted::by(&spec, self.scratch.dir("mounted")?)? else {
            return Ok(Verdict::NotApplicable("overlayfs cannot be mounted here".into()));
        };
        let mut found = Snapshot::read_with(mounted.path(), Options { extents: true })?;
        // The store's mark on the directory that is on top.
        if let Some(entry) = found.entries.get_mut(&b""[..]) {
            entry.xattrs.remove(&b"user.cofferdam.tree"[..]);
        }
        Ok(verdict(&complaints(root, &found, Lens { links: false, ..Lens::CLEAR }), "mounted: "))
    }

    /// Whether a layer is announced as what its first bytes are not.
    fn disagrees(&self) -> bool {
        self.scenario.layers.iter().any(|layer| {
            let seen = match layer.blob[..] {
                [0x1f, 0x8b, ..] => layout::GZIP,
                [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => layout::ZSTD,
                _ => layout::TAR,
            };
            layer.media_type != seen
        })
    }

    /// The layers as an image `t` in an OCI layout.
    pub(super) fn layout(&self) -> Result<OciLayout> {
        let mut layout = OciLayout::create(self.scratch.join("layout"))?;
        let mut layers = Vec::new();
        for layer in &self.scenario.layers {
            layers.push(LayerRef {
                media_type: layer.media_type.clone(),
                digest: layout.add(&layer.blob)?,
                size: layer.blob.len() as u64,
                diff_id: layer.diff_id.clone(),
            });
        }
        layout.add_image("t", &layers)?;
        Ok(layout)
    }

    /// The last layer, and those below it.
    pub(super) fn split(&self) -> Result<(usize, std::ops::Range<usize>)> {
        let last = self.scenario.layers.len().checked_sub(1).context("no layers")?;
        Ok((last, 0..last))
    }

    fn cofferdam(&self) -> Result<Cofferdam> {
        let cofferdam = Cofferdam::new(self.scratch.join("store"))?;
        let cofferdam = if self.way.is_ordinary() { cofferdam.for_others()? } else { cofferdam };
        Ok(cofferdam.by(&self.way.wrapper()).setting("COFFERDAM_CACHE", &self.cache()?))
    }

    /// What an ordinary user has to allow: such a one cannot set capabilities.
    fn permissions(&self) -> &'static [&'static str] {
        if matches!(self.way, Way::User | Way::UserCopy) { &["--lossy", "security.capability"] } else { &[] }
    }

    /// Where compiled guests are kept: with those who run them.
    fn cache(&self) -> Result<String> {
        if !self.way.is_ordinary() {
            return Ok(paths::target().join("guest-cache-0").to_string_lossy().into_owned());
        }
        let cache = others::base()?.join("guest-cache");
        if fs::create_dir(&cache).is_ok() {
            fs::set_permissions(&cache, fs::Permissions::from_mode(0o700))?;
            ordinary::give(&cache)?;
        }
        Ok(cache.to_string_lossy().into_owned())
    }

    fn extract(&self, index: usize, mode: &str, dest: &Path) -> Result<Run> {
        let layer = &self.scenario.layers[index];
        if self.way.is_wasi() {
            // It may write where the neighbours of the destination are: that they are not touched is its own doing.
            let (layers, out) = (self.scratch.join("layers"), self.scratch.join("out"));
            let words = ["extract", "--mode", mode, "--diff-id", &layer.diff_id, &format!("/in/{index}"), "/out/dest"];
            return Wasi::new()?.context("no wasmtime")?.run(&[(&layers, "/in"), (&out, "/out")], &words);
        }
        let (blob, dest) = (self.layers[index].to_string_lossy(), dest.to_string_lossy());
        let words =
            ["layer", "extract", "--mode", mode, "--diff-id", &layer.diff_id, "--media-type", &layer.media_type];
        self.cofferdam()?.run([&words[..], self.permissions(), &[&*blob, &*dest]].concat())
    }

    /// Holds what came of an extraction against what must.
    pub(super) fn judge(&self, expected: &Expectation, run: &Run, lens: Lens) -> Result<Verdict> {
        if self.way.is_wasi() && run.code() == Some(exit::REFUSED) && run.err().contains("bytes in a path under WASI") {
            return Ok(Verdict::NotApplicable(run.err()));
        }
        let fails = |why: String| Ok(Verdict::Failed(format!("{why}; {}", run.err().trim().replace('\n', " "))));
        let codes = if expected.refused.is_empty() { vec![exit::OK] } else { expected.refused.clone() };
        if run.code().is_none_or(|code| !codes.contains(&code)) {
            return fails(format!("ended with {}, not with {codes:?}", run.usage.status));
        }
        if run.code() != Some(exit::OK) && !run.err().contains("error") {
            return fails("ended without saying why".into());
        }
        // Where it may end in either way, the tree is what success makes.
        if expected.refused.contains(&exit::OK) && run.code() != Some(exit::OK) {
            return Ok(Verdict::Passed);
        }
        match &expected.tree {
            Some(tree) => self.compare(tree, lens),
            None => Ok(Verdict::Passed),
        }
    }

    /// Holds the destination against the expected tree.
    pub(super) fn compare(&self, tree: &[super::member::Member], lens: Lens) -> Result<Verdict> {
        let mut found = Snapshot::read_with(&self.dest(), Options { extents: true })?;
        if self.way.is_ordinary() {
            found = ordinary::revealed(found);
        }
        if self.way.is_wasi() {
            return Ok(verdict(&complaints(&wasi::expressible(tree), &found, lens), ""));
        }
        Ok(verdict(&complaints(tree, &found, lens), ""))
    }
}

fn verdict(wrong: &[String], place: &str) -> Verdict {
    if wrong.is_empty() { Verdict::Passed } else { Verdict::Failed(format!("{place}{}", wrong.join("; "))) }
}

/// Where nothing is said of a way: the last layer of a good image must extract, that of a bad image must be refused.
fn open(root: &Expectation) -> Expectation {
    Expectation { refused: root.refused.clone(), tree: None }
}

/// Everything beside the destination, with what changes when somebody touches it.
fn neighbours(out: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![out.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            if path == out.join("dest") {
                continue;
            }
            let meta = fs::symlink_metadata(&path).with_context(|| path.display().to_string())?;
            if meta.is_dir() {
                todo.push(path.clone());
            }
            let content = if meta.is_file() { fs::read(&path)? } else { Vec::new() };
            let stamp = (meta.ino(), meta.mode(), meta.nlink(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
            found.insert(path, format!("{stamp:?} {content:?}"));
        }
    }
    Ok(found)
}
