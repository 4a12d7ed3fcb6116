//! A store with an image from a real registry, and ways to damage it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::layers::{self, Item, noise};
use cofferdam_tests::layout::LayerRef;
use cofferdam_tests::registry::{Kind, Registry};
use cofferdam_tests::tree::ensure_same;
use cofferdam_tests::{Cofferdam, OciLayout, Run, Scratch, Snapshot, store};
use serde_json::Value;

/// A store, the registry that it pulls from, and what its image must look like.
pub(crate) struct Bench {
    pub(crate) scratch: Scratch,
    pub(crate) cofferdam: Cofferdam,
    pub(crate) registry: Registry,
    pub(crate) layout: OciLayout,
    /// The image's layers, lowest first.
    pub(crate) layers: Vec<LayerRef>,
    pub(crate) manifest: String,
    pub(crate) config: String,
    /// The reference in the registry.
    pub(crate) image: String,
    right: Snapshot,
}

/// What becomes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    Flip,
    Cut,
    Empty,
    Directory,
    Link,
}

impl Damage {
    pub(crate) const ALL: [Self; 5] = [Self::Flip, Self::Cut, Self::Empty, Self::Directory, Self::Link];

    /// Damages the file, and checks that there was one.
    pub(crate) fn of(self, path: &Path) -> Result<()> {
        let mut bytes = fs::read(path).with_context(|| format!("nothing to damage at {}", path.display()))?;
        match self {
            Self::Flip => {
                // At the beginning of JSON, so that it is none any more; in the middle of a layer, in its data.
                let at = if bytes.starts_with(b"{") { 0 } else { bytes.len() / 2 };
                bytes[at] ^= 0x10;
                fs::write(path, bytes)?;
            }
            Self::Cut => fs::write(path, &bytes[..bytes.len() / 2])?,
            Self::Empty => fs::write(path, b"")?,
            Self::Directory => {
                fs::remove_file(path)?;
                fs::create_dir(path)?;
                fs::write(path.join("mine"), "x")?;
            }
            Self::Link => {
                let kept = path.with_extension("kept-for-the-link");
                fs::rename(path, &kept)?;
                // Its content is what it was, but it is not the store's file.
                let outside = path.parent().and_then(Path::parent).and_then(Path::parent).context("too high")?;
                let target = outside.join(format!("link-target-{}", bytes.len()));
                fs::rename(kept, &target)?;
                std::os::unix::fs::symlink(target, path)?;
            }
        }
        Ok(())
    }
}

fn lower() -> Result<Vec<u8>> {
    layers::tar(&[
        Item::Dir("etc/"),
        Item::File("etc/motd", b"welcome\n".to_vec()),
        Item::File("etc/noise", noise(7, 200_000)),
        Item::Symlink("etc/link", "motd"),
        Item::Hardlink("etc/again", "etc/motd"),
    ])
}

fn upper() -> Result<Vec<u8>> {
    layers::tar(&[Item::Dir("usr/"), Item::File("usr/tool", noise(8, 100_000)), Item::File("etc/.wh.link", Vec::new())])
}

impl Bench {
    /// Needs `gzip`, `skopeo` and `docker-registry`.
    pub(crate) fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        let cofferdam = Cofferdam::new(scratch.join("store"))?;
        let mut layout = OciLayout::create(scratch.join("layout"))?;
        let layers = vec![layout.add_gzip(&lower()?)?, layout.add_gzip(&upper()?)?];
        let manifest = layout.add_image("v1", &layers)?;
        let text: Value = serde_json::from_slice(&fs::read(layout.blob(&manifest))?)?;
        let config = text["config"]["digest"].as_str().context("no configuration")?.to_owned();
        let registry = Registry::start(Kind::Plain)?;
        registry.push(&layout.source("v1"), "test/fsck:1")?;
        let image = registry.reference("test/fsck:1");
        scratch.dir("out")?;
        cofferdam.ok(["pull", &image, "--plain-http", &registry.host()])?;
        let dest = scratch.join("out/right");
        cofferdam.ok(["unpack", &image, &dest.display().to_string()])?;
        let right = Snapshot::read(&dest)?;
        Ok(Self { scratch, cofferdam, registry, layout, layers, manifest, config, image, right })
    }

    /// A file of the store.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.cofferdam.store().join(relative)
    }

    pub(crate) fn layer(&self) -> &str {
        &self.layers[0].digest
    }

    pub(crate) fn blob(&self, room: &str, digest: &str) -> PathBuf {
        let suffix = if room == "layers" { "tar.gz" } else { "json" };
        self.path(&format!("{room}/{}.{suffix}", stem(digest)))
    }

    pub(crate) fn record(&self, suffix: &str) -> PathBuf {
        self.path(&format!("records/{}{suffix}", stem(self.layer())))
    }

    pub(crate) fn tree(&self) -> PathBuf {
        self.path(&format!("extracted/{}", stem(self.layer())))
    }

    pub(crate) fn reference(&self) -> Result<PathBuf> {
        let names = store::list(&self.path("refs"))?;
        let mut found = names.iter().filter(|name| name.strip_suffix(".json").is_some());
        let name = found.next().context("no reference")?;
        ensure!(found.next().is_none(), "several references: {names:?}");
        Ok(self.path("refs").join(name))
    }

    /// Pulls, and says which blobs were fetched.
    pub(crate) fn pull(&self) -> Result<Vec<String>> {
        let before = self.registry.blob_gets()?.len();
        self.cofferdam.ok(["pull", &self.image, "--plain-http", &self.registry.host()])?;
        let gets = self.registry.blob_gets()?;
        Ok(gets[before..].iter().filter_map(|get| Some(get.path.rsplit_once("/blobs/")?.1.to_owned())).collect())
    }

    pub(crate) fn unpack(&self) -> Result<Run> {
        let dest = self.scratch.join("out/rootfs");
        cofferdam_tests::scratch::remove_tree(&dest);
        self.cofferdam.run(["unpack", &self.image, &dest.display().to_string()])
    }

    /// Unpacks, and fails unless the result is what it was at first.
    pub(crate) fn unpacks_right(&self) -> Result<()> {
        self.unpack()?.expect(exit::OK)?;
        let snapshot = Snapshot::read(&self.scratch.join("out/rootfs"))?;
        ensure_same(("at first", &self.right), ("now", &snapshot), |_, _| false)
    }

    /// A check that finds damage: its findings.
    pub(crate) fn finds(&self, args: &[&str]) -> Result<Vec<Value>> {
        findings(&self.cofferdam.fails(exit::INTEGRITY, [&["fsck", "--json"], args].concat())?)
    }

    /// A check that finds no damage, or has repaired all of it: its findings.
    pub(crate) fn passes(&self, args: &[&str]) -> Result<Vec<Value>> {
        findings(&self.cofferdam.ok([&["fsck", "--json"], args].concat())?)
    }
}

/// A digest as a file name.
pub(crate) fn stem(digest: &str) -> String {
    digest.replace(':', "-")
}

pub(crate) fn findings(run: &Run) -> Result<Vec<Value>> {
    let report = run.json()?;
    ensure!(report["schema"] == "cofferdam/fsck/v1", "another schema: {report}");
    Ok(report["findings"].as_array().context("no findings")?.clone())
}

/// Fails unless there is a finding of this part and problem, and returns the first one.
pub(crate) fn expect<'a>(findings: &'a [Value], part: &str, problem: &str) -> Result<&'a Value> {
    match findings.iter().find(|finding| finding["part"] == part && finding["problem"] == problem) {
        Some(finding) => Ok(finding),
        None => bail!("no {problem} {part} among {findings:#?}"),
    }
}

/// The findings that are damage.
pub(crate) fn damage(findings: &[Value]) -> Vec<&Value> {
    findings.iter().filter(|finding| finding["damage"] == true).collect()
}
