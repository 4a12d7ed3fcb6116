//! What `mount-spec` names, mounted, is what `unpack` makes; what is mounted in a tree stays as it is; and the program that shows
//! how to embed the library.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::layers::{self, Item};
use cofferdam_tests::mounted::Mounted;
use cofferdam_tests::tree::{self, Field, Snapshot};
use cofferdam_tests::{Cofferdam, Images, OciLayout, Scratch, paths, require, store};

/// The store marks its trees, and a mount shows the mark of the topmost one.
fn is_mark(path: &[u8], field: Field) -> bool {
    path.is_empty() && field == Field::Xattrs
}

/// Names of one file are different files in a mount of several layers, as far as overlayfs tells.
fn is_hard_link(field: Field) -> bool {
    field == Field::Links
}

#[test]
fn a_mount_of_a_real_image_is_its_root_filesystem() -> Result<()> {
    require!("root");
    let Some(images) = Images::with(&["edit.tar.gz"])? else { return Ok(()) };
    let scratch = Scratch::new()?;
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    let image = images.source("store", "edit");
    cofferdam.ok(["pull", &image])?;
    cofferdam.ok(["unpack", &image, &scratch.join("rootfs").display().to_string()])?;
    let spec = cofferdam.ok(["mount-spec", &image])?.json()?;
    // Made once.
    ensure!(spec == cofferdam.ok(["mount-spec", &image])?.json()?, "another answer the second time");
    store::ensure_nothing_staged(cofferdam.store())?;
    let mounted = Mounted::by(&spec, scratch.dir("mounted")?)?.context("not mounted")?;
    let ignored = |path: &[u8], field| is_mark(path, field) || is_hard_link(field);
    tree::ensure_same(
        ("unpacked", &Snapshot::read(&scratch.join("rootfs"))?),
        ("mounted", &Snapshot::read(mounted.path())?),
        ignored,
    )
}

/// An image that nobody pulled has no directories that would stay.
#[test]
fn only_images_in_the_store_can_be_mounted() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut layout = OciLayout::create(scratch.join("layout"))?;
    let layer = layout.add_gzip(&layers::tar(&[Item::Dir("d/")])?)?;
    layout.add_image("v1", &[layer])?;
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    cofferdam.fails(3, ["mount-spec", &layout.source("v1")])?.has_hint()?;
    cofferdam.ok(["pull", &layout.source("v1")])?;
    let spec = cofferdam.ok(["mount-spec", &layout.source("v1")])?.json()?;
    ensure!(spec["lower"].as_array().is_some_and(|lower| lower.len() == 2), "a mount wants two: {spec}");
    ensure!(spec["names"] == serde_json::json!(["0", "1"]), "{spec}");
    let chdir = Path::new(spec["chdir"].as_str().context("no directory to mount from")?);
    for (name, lower) in ["0", "1"].iter().zip(spec["lower"].as_array().context("no directories")?) {
        ensure!(std::fs::canonicalize(chdir.join(name))? == Path::new(lower.as_str().context("no path")?), "{spec}");
    }
    Ok(())
}

/// Point 21 of the faults: options longer than a page, or than a value of `fsconfig(2)`, cannot be mounted.
#[test]
fn what_is_printed_can_be_mounted_for_any_number_of_layers() -> Result<()> {
    require!("root", "mount");
    cofferdam_tests::mounted::own_namespace()?;
    // Hundreds of layers, each of them synced: in memory where there is some.
    let memory = Path::new("/dev/shm");
    let scratch = if memory.is_dir() { Scratch::new_in(memory)? } else { Scratch::new()? };
    let mut layout = OciLayout::create(scratch.join("layout"))?;
    let names: Vec<&'static str> = (0..505).map(|layer| &*format!("d/{layer}").leak()).collect();
    let mut all = Vec::new();
    for name in &names {
        all.push(layout.add_tar(&layers::tar(&[Item::Dir("d/"), Item::File(name, name.as_bytes().to_vec())])?)?);
    }
    let cofferdam = Cofferdam::new(scratch.join("a store with: a long, strange name"))?;
    // A mount takes 500 of them: of more, the lowest are merged.
    for count in [2, 60, 130, 500, 505] {
        let tag = format!("of-{count}");
        layout.add_image(&tag, &all[..count])?;
        cofferdam.ok(["pull", "--quiet", &layout.source(&tag)])?;
        let spec = cofferdam.ok(["mount-spec", &layout.source(&tag)])?.json()?;
        ensure!(spec["lower"].as_array().is_some_and(|lower| lower.len() == count.min(500)), "{count}: {spec}");
        let check = |mounted: &Mounted| -> Result<()> {
            ensure!(std::fs::read_dir(mounted.path().join("d"))?.count() == count, "{count} layers: some do not show");
            for name in [names[0], names[count - 1]] {
                ensure!(std::fs::read(mounted.path().join(name))? == name.as_bytes(), "{count} layers: {name}");
            }
            Ok(())
        };
        let at = scratch.dir(&format!("mounted-{count}"))?;
        check(&Mounted::by_mount(&spec, at.clone()).with_context(|| format!("{count} layers by mount(2)"))?)?;
        match Mounted::by_fsconfig(&spec, at).with_context(|| format!("{count} layers by fsconfig(2)"))? {
            Some(mounted) => check(&mounted)?,
            None => require::skip("this kernel has no `lowerdir+`"),
        }
        // Known by now, and the same.
        ensure!(spec == cofferdam.ok(["mount-spec", &layout.source(&tag)])?.json()?, "{count}: another answer");
    }
    store::ensure_nothing_staged(cofferdam.store())
}

/// A command that sees `outside` mounted at `place`, in a mount name space of its own.
fn with_mount(cofferdam: Cofferdam, outside: &Path, place: &Path) -> Cofferdam {
    let bind = format!("mount --bind '{}' '{}' && exec \"$@\"", outside.display(), place.display());
    cofferdam.by(&["unshare", "--mount", "sh", "-c", &bind, "sh"])
}

/// Point 47 of the faults: a whiteout of a directory emptied what was mounted in it. A bind mount of the same file system has the
/// same device number, and a file may be a mount point too.
#[test]
fn a_layer_changes_nothing_that_is_mounted_in_its_destination() -> Result<()> {
    require!("root", "unshare", "mount");
    let scratch = Scratch::new()?;
    let outside = scratch.dir("outside")?;
    std::fs::write(outside.join("precious"), "precious")?;
    std::fs::create_dir(outside.join("sub"))?;
    let outside_before = Snapshot::read(&outside)?;
    // Small enough to be looked at one by one, and large enough for the table of mounts.
    for entries in [1, 600] {
        let dest = scratch.dir(&format!("dest-{entries}"))?;
        for dir in ["d/sub/m", "d/other"] {
            std::fs::create_dir_all(dest.join(dir))?;
        }
        std::fs::write(dest.join("d/sub/f"), "lower")?;
        std::os::unix::fs::symlink("d/sub/m", dest.join("l"))?;
        for entry in 0..entries {
            std::fs::write(dest.join(format!("d/other/{entry}")), "lower")?;
        }
        let dest_before = Snapshot::read(&dest)?;
        let (on_dir, on_file) = ((outside.clone(), "d/sub/m"), (outside.join("precious"), "d/sub/f"));
        let empty = Vec::new;
        for (mount, what, item) in [
            (&on_dir, "a whiteout above it", Item::File(".wh.d", empty())),
            (&on_dir, "a whiteout of it", Item::File("d/sub/.wh.m", empty())),
            (&on_dir, "an opaque marker above it", Item::File("d/.wh..wh..opq", empty())),
            (&on_dir, "an opaque marker in it", Item::File("d/sub/m/.wh..wh..opq", empty())),
            (&on_dir, "a file in place of the directory above it", Item::File("d", b"new".to_vec())),
            (&on_dir, "a link in its place", Item::Symlink("d/sub/m", "x")),
            (&on_dir, "the directory itself, listed", Item::Dir("d/sub/m")),
            (&on_dir, "a file in it", Item::File("d/sub/m/new", b"new".to_vec())),
            (&on_dir, "a file in place of one in it", Item::File("d/sub/m/precious", b"new".to_vec())),
            (&on_dir, "a file in it, through a link", Item::File("l/new", b"new".to_vec())),
            (&on_dir, "a whiteout in it, through a link", Item::File("l/.wh.precious", empty())),
            (&on_file, "a whiteout above it", Item::File(".wh.d", empty())),
            (&on_file, "a whiteout of it", Item::File("d/sub/.wh.f", empty())),
            (&on_file, "an opaque marker above it", Item::File("d/.wh..wh..opq", empty())),
            (&on_file, "a file in its place", Item::File("d/sub/f", b"new".to_vec())),
            (&on_file, "a directory in its place", Item::Dir("d/sub/f")),
            (&on_file, "a hard link to it", Item::Hardlink("d/other/h", "d/sub/f")),
        ] {
            if entries > 1 && !what.contains("above it") {
                continue;
            }
            let layer = scratch.join("layer");
            std::fs::write(&layer, layers::tar(&[item])?)?;
            let [layer, at] = [&layer, &dest].map(|path| path.display().to_string());
            let cofferdam = with_mount(Cofferdam::new(scratch.join("store"))?, &mount.0, &dest.join(mount.1));
            let run = cofferdam.fails(exit::REFUSED, ["layer", "extract", &layer, &at]);
            let run = run.with_context(|| what.to_owned())?.has_hint()?;
            ensure!(run.err().contains("is a mount point"), "{what}: {}", run.err());
            // Where the refused hard link was to be.
            let ignored = |path: &[u8], field| path == b"d/other/h" || (path == b"d/other" && field == Field::Mtime);
            tree::ensure_same(("outside", &outside_before), ("then", &Snapshot::read(&outside)?), ignored)
                .context(what)?;
            tree::ensure_same(("before", &dest_before), ("after", &Snapshot::read(&dest)?), ignored).context(what)?;
            let _ = std::fs::remove_file(dest.join("d/other/h"));
        }
    }
    Ok(())
}

/// The same of the store's own trees: they keep their names, records and content until nothing is mounted in them.
#[test]
fn no_removal_from_the_store_crosses_a_mount() -> Result<()> {
    require!("root", "unshare", "mount");
    let scratch = Scratch::new()?;
    let outside = scratch.dir("outside")?;
    std::fs::write(outside.join("precious"), "precious")?;
    let mut layout = OciLayout::create(scratch.join("layout"))?;
    let layer = layout.add_tar(&layers::tar(&[Item::Dir("d/"), Item::File("d/f", b"text".to_vec())])?)?;
    layout.add_image("v1", &[layer])?;
    let (source, store, name) = (layout.source("v1"), scratch.join("store"), "example.com/mounted:1");
    let cofferdam = Cofferdam::new(&store)?;
    cofferdam.ok(["pull", &source])?;
    // A layout has trees of its own; by this name it is those of the store.
    cofferdam.ok(["tag", &source, name])?;
    cofferdam.ok(["rm", &source])?;
    let tree = store::trees(&store)?.pop().context("no tree")?;
    let tree = store.join("extracted").join(tree);
    let mounted = || Ok::<_, anyhow::Error>(with_mount(Cofferdam::new(&store)?, &outside, &tree.join("d")));
    let intact = |what: &str| -> Result<()> {
        ensure!(std::fs::read(outside.join("precious"))? == b"precious", "{what}: emptied what was mounted");
        ensure!(std::fs::read(tree.join("d/f"))? == b"text", "{what}: took part of the tree");
        Ok(())
    };
    let rootfs = scratch.join("rootfs").display().to_string();
    mounted()?.fails(exit::REFUSED, ["unpack", name, &rootfs])?.has_hint()?;
    intact("unpack")?;
    mounted()?.run(["fsck", "--repair"])?;
    intact("fsck --repair")?;
    let removed = mounted()?.ok(["rm", name])?;
    ensure!(removed.err().contains("something is mounted in it"), "{}", removed.err());
    intact("rm")?;
    let collected = mounted()?.ok(["gc", "--json"])?.json()?;
    ensure!(collected["kept"].to_string().contains("something is mounted in it"), "{collected}");
    intact("gc")?;
    // What a dead process left beside a destination.
    let left = scratch.dir(&format!(".rootfs.{}.staging/d", "0".repeat(32)))?;
    std::fs::write(left.join("f"), "text")?;
    cofferdam.ok(["pull", &source])?;
    with_mount(Cofferdam::new(&store)?, &outside, &left).ok(["unpack", &source, &rootfs])?;
    ensure!(left.join("f").exists());
    intact("a sweep of staging")?;
    cofferdam.ok(["rm", &source])?;
    ensure!(!tree.exists(), "without the mount it goes");
    Ok(())
}

/// What chance makes of a few names, so that everything collides.
struct Chance(u64);

impl Chance {
    fn pick(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % count as u64).unwrap_or_default()
    }

    fn of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.pick(choice.len())]
    }

    fn layer(&mut self) -> Vec<Item> {
        const NAMES: [&str; 9] = ["a", "b", "a/b", "b/a", "a/b/c", "c", "c/a", "c/a/b", "b/c"];
        const REMOVALS: [&str; 9] = [
            ".wh.a",
            ".wh.b",
            "a/.wh.b",
            "b/.wh.a",
            "a/b/.wh.c",
            "c/.wh.a",
            "a/.wh..wh..opq",
            "b/.wh..wh..opq",
            "c/a/.wh.b",
        ];
        let mut items = Vec::new();
        for number in 0..=self.pick(6) {
            let name = self.of(&NAMES);
            items.push(match self.pick(12) {
                0..=2 => Item::ModeDir(name, self.of(&[0o755, 0o700, 0o1777, 0o2750])),
                3..=5 => Item::Mode(name, self.of(&[0o644, 0o600, 0o4755]), vec![b'x'; number]),
                6 | 7 => Item::Symlink(name, self.of(&["a", "/b", "../c", "a/b", ".."])),
                8 => Item::Hardlink(name, self.of(&NAMES)),
                9 if number % 2 == 0 => Item::ModeDir("./", self.of(&[0o755, 0o750])),
                _ => Item::File(self.of(&REMOVALS), Vec::new()),
            });
        }
        items
    }
}

/// P6: whatever the layers are, applying them, merging their trees and mounting them gives the same, or none of it does. The number of
/// images and the first seed can be set, to look for more.
#[test]
fn random_layers_give_the_same_by_every_path() -> Result<()> {
    require!("root", "mount");
    cofferdam_tests::mounted::own_namespace()?;
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (first, count) = (number("COFFERDAM_FIRST_SEED", 1), number("COFFERDAM_SEEDS", 12));
    let memory = Path::new("/dev/shm");
    let mut made = 0;
    for seed in first..first + count {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let layers: Vec<_> = (0..2 + chance.pick(5)).map(|_| chance.layer()).collect();
        let scratch = if memory.is_dir() { Scratch::new_in(memory)? } else { Scratch::new()? };
        made +=
            usize::from(same_by_every_path(&scratch, &layers).with_context(|| format!("seed {seed}: {layers:#?}"))?);
    }
    // Most make sense.
    ensure!(count < 12 || made as u64 > count / 4, "{made} of {count} could be made");
    Ok(())
}

/// Says whether the image can be made.
fn same_by_every_path(scratch: &Scratch, items: &[Vec<Item>]) -> Result<bool> {
    let mut layout = OciLayout::create(scratch.join("layout"))?;
    let mut all = Vec::new();
    for items in items {
        all.push(layout.add_tar(&layers::tar(items)?)?);
    }
    layout.add_image("v1", &all)?;
    let (source, cofferdam) = (layout.source("v1"), Cofferdam::new(scratch.join("store"))?);
    let either = &[exit::OK, exit::REFUSED];
    let unpack = |strategy: &str| -> Result<Option<Snapshot>> {
        let dest = scratch.join(strategy);
        let args = ["unpack", "--strategy", strategy, &source, &dest.display().to_string()];
        let run = cofferdam.run(args)?.expect_one_of(either)?;
        (run.code() == Some(exit::OK)).then(|| Snapshot::read(&dest)).transpose()
    };
    let (applied, merged) = (unpack("apply")?, unpack("copy")?);
    let pulled = cofferdam.run(["pull", &source])?.expect_one_of(either)?;
    let spec = match pulled.code() {
        Some(exit::OK) => cofferdam.run(["mount-spec", &source])?.expect_one_of(either)?,
        _ => pulled,
    };
    let spec = (spec.code() == Some(exit::OK)).then(|| spec.json()).transpose()?;
    let Some(applied) = applied else {
        ensure!(merged.is_none(), "only merging made it");
        ensure!(spec.is_none(), "only a mount shows it");
        return Ok(false);
    };
    let merged = merged.context("merging refused what applying makes")?;
    tree::ensure_same(("applied", &applied), ("merged", &merged), |_, _| false)?;
    let spec = spec.context("a mount refused what applying makes")?;
    let mounted = Mounted::by_mount(&spec, scratch.dir("mounted")?)?;
    let ignored = |path: &[u8], field| is_mark(path, field) || is_hard_link(field);
    tree::ensure_same(("applied", &applied), ("mounted", &Snapshot::read(mounted.path())?), ignored)?;
    Ok(true)
}

/// The example, with what is typed to it.
fn embed(scratch: &Scratch, image: &str, typed: &str) -> Result<Output> {
    let program = paths::target().join("debug/examples/embed");
    let mut running = Command::new(&program)
        .args([scratch.join("store").as_os_str(), image.as_ref(), scratch.join("rootfs").as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    running.stdin.take().context("no input")?.write_all(typed.as_bytes())?;
    Ok(running.wait_with_output()?)
}

#[test]
fn the_example_makes_a_root_filesystem() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut layout = OciLayout::create(scratch.join("layout"))?;
    let layer = layout.add_gzip(&layers::tar(&[Item::Dir("d/"), Item::File("d/f", b"text".to_vec())])?)?;
    layout.add_image("v1", &[layer])?;
    let output = embed(&scratch, &layout.source("v1"), "")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure!(std::fs::read(scratch.join("rootfs/d/f"))? == b"text");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lower: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("  /")).collect();
    ensure!(!lower.is_empty() && lower.iter().all(|path| Path::new("/").join(path).is_dir()), "{text}");
    store::ensure_nothing_staged(&scratch.join("store"))
}

#[test]
fn the_example_can_be_given_up() -> Result<()> {
    require!("root");
    let Some(images) = Images::with(&["edit.tar.gz"])? else { return Ok(()) };
    let scratch = Scratch::new()?;
    // Typed before it starts, to a pull that takes a second.
    let output = embed(&scratch, &images.source("store", "edit"), "enough\n")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1) && said.contains("interrupted"), "{said}");
    ensure!(!scratch.join("rootfs").exists());
    store::ensure_nothing_staged(&scratch.join("store"))
}
