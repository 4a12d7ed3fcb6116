//! What `mount-spec` names, mounted, is what `unpack` makes; and the program that shows how to embed the library.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
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
    let options = spec["options"].as_str().context("no options")?;
    ensure!(options.starts_with("lowerdir=/"), "{options}");
    Ok(())
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
