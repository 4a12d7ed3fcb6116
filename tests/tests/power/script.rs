//! What is done before the power goes: commands one after the other, and what each has promised when it returned.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cofferdam_tests::layers::{Item, noise, tar};
use cofferdam_tests::layout::LayerRef;
use cofferdam_tests::power::cell::Cell;
use cofferdam_tests::power::disk::{Disk, FileSystem, Mount};
use cofferdam_tests::power::log::Log;
use cofferdam_tests::registry::{Kind, Registry, run};
use cofferdam_tests::{Cofferdam, OciLayout, Run, Snapshot};

use crate::{POWER_DISK, text};

/// Does the work of a recording.
pub(crate) type Script = fn(&mut Stage<'_>) -> Result<()>;

/// One command, from the moment before it was started to the moment after it had returned success.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) effect: Effect,
}

/// What a command changes.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    /// Nothing that can be seen.
    None,
    /// A name stands for this manifest from now on, or for none.
    Name {
        name: String,
        manifest: Option<String>,
        /// Whether the trees of its layers were to be there for good.
        trees: bool,
    },
    /// A root file system appears.
    Dest(Dest),
}

/// A root file system.
#[derive(Clone, Debug)]
pub(crate) struct Dest {
    /// Beside others in `out/`.
    pub(crate) name: &'static str,
    pub(crate) manifest: String,
    /// Whether it was to be there for good, and whole.
    pub(crate) synced: bool,
}

/// An image that the script pulls.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) rootfs: Snapshot,
    /// The names of its layers' trees.
    pub(crate) trees: Vec<String>,
}

/// What was done to a disk, and what it would be without power cuts.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) system: FileSystem,
    pub(crate) dir: PathBuf,
    pub(crate) base: PathBuf,
    pub(crate) log: Log,
    /// How much of the log belongs to the steps, and to what followed on them.
    pub(crate) whole: usize,
    pub(crate) steps: Vec<Step>,
    /// By the manifest's digest.
    pub(crate) images: BTreeMap<String, Image>,
    /// Trees by name.
    pub(crate) trees: BTreeMap<String, Snapshot>,
    /// An image in a layout, and its manifest: it can be pulled and unpacked without a registry.
    pub(crate) source: (String, String),
}

/// Where a script plays.
pub(crate) struct Stage<'a> {
    disk: Disk,
    mount: Mount,
    cofferdam: Cofferdam,
    registry: &'a Registry,
    sources: &'a Sources,
    /// Each with the moments of its start and its end.
    steps: Vec<(&'static str, Range<u64>, Effect)>,
}

/// Images that share a layer.
struct Sources {
    layout: OciLayout,
    /// Tag and digest.
    images: Vec<(&'static str, String, Vec<LayerRef>)>,
}

impl Sources {
    fn make(dir: PathBuf) -> Result<Self> {
        let mut layout = OciLayout::create(dir)?;
        let base = layout.add_gzip(&many("base", 120)?)?;
        let patch = Item::File("base/f3", b"another\n".to_vec());
        let gone = Item::File("base/.wh.f5", Vec::new());
        let top = layout.add_gzip(&tar(&[Item::Dir("base"), patch, gone, Item::Symlink("link", "base/f7")])?)?;
        let big = layout.add_tar(&tar(&[Item::File("big", noise(9, 900_000)), Item::Hardlink("again", "big")])?)?;
        let more = layout.add_gzip(&many("more", 40)?)?;
        let mut images = Vec::new();
        for (tag, layers) in [
            ("a", vec![base.clone(), top.clone()]),
            ("b", vec![base.clone(), big]),
            ("c", vec![base.clone(), more.clone()]),
            ("next", vec![base, top, more]),
        ] {
            images.push((tag, layout.add_image(tag, &layers)?, layers));
        }
        Ok(Self { layout, images })
    }

    fn manifest(&self, tag: &str) -> Result<String> {
        let found = self.images.iter().find(|image| image.0 == tag);
        found.map(|image| image.1.clone()).with_context(|| format!("there is no image {tag}"))
    }
}

/// A layer of small files of all sizes.
fn many(dir: &'static str, count: u64) -> Result<Vec<u8>> {
    let mut items = vec![Item::Dir(dir)];
    for index in 0..count {
        // Leaked: entries of fixtures have static names, and these live as long as the test.
        let name: &'static str = Box::leak(format!("{dir}/f{index}").into_boxed_str());
        items.push(Item::File(name, noise(index, usize::try_from(index * index * 7 % 24_000)?)));
    }
    tar(&items)
}

/// Plays a script on a new file system.
pub(crate) fn record(cell: &Cell, system: FileSystem, script: Script) -> Result<Recording> {
    let dir = tempfile::tempdir_in(cell.path())?.keep();
    let sources = Sources::make(dir.join("layout"))?;
    let (images, trees) = healthy(&dir, system, &sources)?;

    let registry = Registry::start(Kind::Plain)?;
    let base = dir.join("base");
    system.make(&base)?;
    let disk = Disk::start(Path::new(POWER_DISK), &base, &dir)?;
    fs::create_dir(dir.join("mnt"))?;
    let mount = system.mount(disk.file(), &dir.join("mnt"))?;
    fs::create_dir(mount.dir().join("out"))?;
    run(std::process::Command::new("sync").arg("--file-system").arg(mount.dir()))?;

    let cofferdam = Cofferdam::new(mount.dir().join("store"))?;
    let mut stage = Stage { disk, mount, cofferdam, registry: &registry, sources: &sources, steps: Vec::new() };
    script(&mut stage)?;
    let Stage { disk, mount, steps, .. } = stage;
    let whole = disk.moment()?;
    mount.end()?;
    let log = disk.end()?;
    let steps = steps
        .into_iter()
        .map(|(name, time, effect)| Step { name, start: log.position(time.start), end: log.position(time.end), effect })
        .collect();
    let whole = log.position(whole);
    Ok(Recording {
        system,
        base,
        whole,
        log,
        steps,
        images,
        trees,
        source: (sources.layout.source("b"), sources.manifest("b")?),
        dir,
    })
}

/// The root file systems and the trees as they are where no power goes, on the same kind of file system.
fn healthy(
    dir: &Path,
    system: FileSystem,
    sources: &Sources,
) -> Result<(BTreeMap<String, Image>, BTreeMap<String, Snapshot>)> {
    let (image, mountpoint) = (dir.join("healthy.image"), dir.join("healthy"));
    system.make(&image)?;
    fs::create_dir(&mountpoint)?;
    let mount = system.mount(&image, &mountpoint)?;
    let cofferdam = Cofferdam::new(mountpoint.join("store"))?;
    let mut images = BTreeMap::new();
    let mut trees = BTreeMap::new();
    for (tag, manifest, layers) in &sources.images {
        let source = sources.layout.source(tag);
        cofferdam.ok(["pull", &source])?;
        let dest = mountpoint.join(tag);
        // By the way that reads no trees.
        cofferdam.ok(["unpack", "--strategy", "apply", &source, &text(&dest)])?;
        let names: Vec<_> = layers.iter().map(|layer| layer.digest.replace(':', "-")).collect();
        for name in &names {
            trees.insert(name.clone(), Snapshot::read(&mountpoint.join("store/extracted").join(name))?);
        }
        images.insert(manifest.clone(), Image { rootfs: Snapshot::read(&dest)?, trees: names });
    }
    mount.end()?;
    fs::remove_file(&image)?;
    Ok((images, trees))
}

impl Stage<'_> {
    /// Runs a command, and notes when it began and had succeeded.
    fn step(&mut self, name: &'static str, arguments: &[&str]) -> Result<Run> {
        let start = self.disk.moment()?;
        let run = self.cofferdam.ok(arguments).with_context(|| name.to_owned())?;
        let end = self.disk.moment()?;
        self.steps.push((name, start..end, Effect::None));
        Ok(run)
    }

    /// Notes what the last step changed.
    fn changed(&mut self, effect: Effect) {
        if let Some((_, _, last)) = self.steps.last_mut() {
            *last = effect;
        }
    }

    /// Pulls an image, and returns the name that it got.
    fn pull(&mut self, name: &'static str, tag: &str, source: &str, more: &[&str]) -> Result<String> {
        let run = self.step(name, &[&["pull", "--json", source], more].concat())?;
        let published = run.json()?["image"]["reference"].as_str().context("a pull without a name")?.to_owned();
        let manifest = self.sources.manifest(tag)?;
        let trees = more.contains(&"layer");
        self.changed(Effect::Name { name: published.clone(), manifest: Some(manifest), trees });
        Ok(published)
    }

    fn pull_from_layout(&mut self, name: &'static str, tag: &str, more: &[&str]) -> Result<String> {
        let source = self.sources.layout.source(tag);
        self.pull(name, tag, &source, more)
    }

    /// Pulls the image of this tag from the registry, where all of them have one name after the other.
    fn pull_from_registry(&mut self, name: &'static str, tag: &str) -> Result<String> {
        self.registry.push(&self.sources.layout.source(tag), "test/a:1")?;
        let (source, host) = (self.registry.reference("test/a:1"), self.registry.host());
        self.pull(name, tag, &source, &["--plain-http", &host])
    }

    /// Lets the kernel write what it has not written yet.
    fn settle(&mut self) -> Result<()> {
        let start = self.disk.moment()?;
        run(std::process::Command::new("sync").arg("--file-system").arg(self.mount.dir()))?;
        let end = self.disk.moment()?;
        self.steps.push(("(the kernel syncs)", start..end, Effect::None));
        Ok(())
    }

    /// Another program syncs a file of its own: the journal goes to disk, and with it all names, but not what is in the files.
    fn another_syncs(&mut self) -> Result<()> {
        let file = self.mount.dir().join("another");
        fs::write(&file, "text")?;
        let start = self.disk.moment()?;
        run(std::process::Command::new("sync").arg(&file))?;
        let end = self.disk.moment()?;
        self.steps.push(("(another program syncs)", start..end, Effect::None));
        Ok(())
    }

    fn unpack(&mut self, step: &'static str, tag: &str, name: &'static str, more: &[&str]) -> Result<()> {
        let manifest = self.sources.manifest(tag)?;
        self.unpack_from(step, &manifest.clone(), manifest, name, more)
    }

    fn unpack_layout(&mut self, step: &'static str, tag: &str, name: &'static str) -> Result<()> {
        let source = self.sources.layout.source(tag);
        self.unpack_from(step, &source, self.sources.manifest(tag)?, name, &[])
    }

    fn unpack_from(
        &mut self,
        step: &'static str,
        image: &str,
        manifest: String,
        name: &'static str,
        more: &[&str],
    ) -> Result<()> {
        let path = text(&self.mount.dir().join("out").join(name));
        self.step(step, &[&["unpack", image, &path], more].concat())?;
        self.changed(Effect::Dest(Dest { name, manifest, synced: more.contains(&"--sync") }));
        Ok(())
    }
}

/// All that changes a store, and what is made of it.
pub(crate) fn everything(stage: &mut Stage<'_>) -> Result<()> {
    stage.pull_from_registry("pull from a registry", "a")?;
    let b = stage.pull_from_layout("pull from a layout", "b", &[])?;
    stage.unpack("unpack", "a", "unsynced", &[])?;
    stage.pull_from_layout("pull another", "c", &[])?;
    stage.unpack_layout("unpack a layout", "b", "local")?;
    stage.unpack("unpack --sync", "b", "synced", &["--sync"])?;
    stage.pull_from_layout("pull, layers too", "next", &["--durability", "layer"])?;
    stage.step("rm", &["rm", &b])?;
    stage.changed(Effect::Name { name: b, manifest: None, trees: false });
    stage.pull_from_layout("pull again", "b", &[])?;
    stage.pull_from_registry("pull a moved tag", "next")?;
    stage.settle()
}

/// A pull that syncs nothing because it was asked to.
pub(crate) fn unsynced(stage: &mut Stage<'_>) -> Result<()> {
    stage.pull_from_layout("pull, nothing synced", "b", &["--durability", "none"])?;
    stage.another_syncs()?;
    stage.settle()
}

/// A pull whose syncs do nothing: `strace` lets the calls succeed without making them.
pub(crate) fn pretended(stage: &mut Stage<'_>) -> Result<()> {
    let calls = "fsync,fdatasync,syncfs,sync_file_range";
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:retval=0"));
    let wrapper = ["strace", "--follow-forks", "--seccomp-bpf", "-qqq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    stage.cofferdam = Cofferdam::new(stage.cofferdam.store())?.by(&wrapper);
    stage.pull_from_layout("pull, syncs do nothing", "b", &[])?;
    stage.another_syncs()?;
    stage.settle()
}
