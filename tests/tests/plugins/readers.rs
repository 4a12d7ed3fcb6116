//! Decoders as plugins: which layers they are given.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::layers::{self, Item};
use cofferdam_tests::layout::LayerRef;
use cofferdam_tests::{Images, Snapshot, require};

use crate::bench::Bench;

const XZ: &str = "application/vnd.oci.image.layer.v1.tar+xz";

fn xz(bench: &Bench, tar: &[u8], blob: &[u8]) -> Result<LayerRef> {
    let (digest, diff_id) = (bench.layout.add(blob)?, layers::digest(tar));
    Ok(LayerRef { media_type: XZ.into(), digest, size: blob.len() as u64, diff_id })
}

/// Without the plugin such an image is refused before a layer is fetched; with it, it is an image like any other.
#[test]
fn an_image_of_xz_layers_needs_the_plugin() -> Result<()> {
    require!("xz");
    let mut bench = Bench::new()?;
    let tar = layers::tar(&[Item::Dir("a/"), Item::File("a/b", layers::noise(1, 300_000)), Item::Symlink("c", "a/b")])?;
    let layer = xz(&bench, &tar, &layers::compress("xz", &["-c", "--check=sha256"], &tar)?)?;
    let plain = bench.layout.add_tar(&tar)?;
    bench.layout.add_image("xz", &[layer])?;
    bench.layout.add_image("plain", &[plain])?;
    let image = bench.layout.source("xz");
    let refused = bench.cofferdam.fails(exit::REFUSED, ["pull", &image])?;
    ensure!(refused.err().contains("tar+xz"), "{}", refused.err());
    bench.add("xz")?;
    bench.cofferdam.ok(["pull", &image])?;
    let mut trees = Vec::new();
    for (name, image) in [("one", image), ("two", bench.layout.source("plain"))] {
        let dest = bench.scratch.join(name);
        bench.cofferdam.ok(["unpack", &image, &dest.display().to_string()])?;
        trees.push(Snapshot::read(&dest)?);
    }
    ensure!(trees[0] == trees[1], "xz and plain differ");
    // Its magic number alone is enough where nobody says what the blob is.
    let file = bench.scratch.join("layer.tar.xz");
    fs::write(&file, layers::compress("xz", &["-c"], &tar)?)?;
    let listed = bench.cofferdam.ok(["layer", "list", &file.display().to_string()])?;
    ensure!(listed.out().lines().count() == 3, "{}", listed.out());
    bench.cofferdam.ok(["plugin", "rm", "xz"])?;
    bench.cofferdam.fails(exit::INTEGRITY, ["layer", "list", &file.display().to_string()])?;
    Ok(())
}

/// What a plugin decodes is held to the `DiffID`, and to its own checksums, as what the guests decode is.
#[test]
fn a_broken_xz_layer_is_refused() -> Result<()> {
    require!("xz");
    let mut bench = Bench::new()?;
    bench.add("xz")?;
    let tar = layers::tar(&[Item::File("a", layers::noise(1, 100_000))])?;
    let whole = layers::compress("xz", &["-c"], &tar)?;
    let mut flipped = whole.clone();
    flipped[5_000] ^= 1;
    let cut = whole[..whole.len() - 20].to_vec();
    let gzip = layers::gzip(&tar)?;
    let other = layers::compress("xz", &["-c"], &layers::tar(&[Item::File("b", vec![1])])?)?;
    let garbage = [&whole[..], b"garbage."].concat();
    for (tag, blob) in [("flipped", flipped), ("cut", cut), ("gzip", gzip), ("other", other), ("garbage", garbage)] {
        let layer = xz(&bench, &tar, &blob)?;
        bench.layout.add_image(tag, &[layer])?;
        bench.cofferdam.fails(exit::INTEGRITY, ["pull", &bench.layout.source(tag)]).context(tag)?;
    }
    Ok(())
}

/// The media types and magic numbers of the guests are never a plugin's.
#[test]
fn a_plugin_does_not_take_the_place_of_a_guest() -> Result<()> {
    let mut bench = Bench::new()?;
    let dir = cofferdam_tests::plugins::example("xz")?;
    let greedy = bench.scratch.dir("greedy")?;
    fs::copy(dir.join("xz.wasm"), greedy.join("xz.wasm"))?;
    let manifest = fs::read_to_string(dir.join("plugin.toml"))?
        .replace(XZ, "application/vnd.oci.image.layer.v1.tar+gzip")
        .replace("fd377a585a00", "1f8b");
    fs::write(greedy.join("plugin.toml"), manifest)?;
    bench.cofferdam.ok(["plugin", "add", &greedy.display().to_string(), "--all-asked"])?;
    let image = bench.image("v1", &[Item::File("a", b"a".to_vec())])?;
    bench.cofferdam.ok(["pull", &image])?;
    Ok(())
}

/// A real layer, by the plugin and by the first-party guest: the same entries.
#[test]
fn a_real_layer_is_the_same_in_xz() -> Result<()> {
    require!("xz");
    let Some(images) = Images::with(&["python.bgzf.tar.gz"])? else { return Ok(()) };
    let bench = Bench::new()?;
    bench.add("xz")?;
    let layer = &images.layer("python.bgzf.tar.gz")?.path;
    let tar = layers::compress("gzip", &["-d", "-c"], &fs::read(layer)?)?;
    let file = bench.scratch.join("layer.tar.xz");
    fs::write(&file, layers::compress("xz", &["-c", "-0", "-T2"], &tar)?)?;
    let of_xz = bench.cofferdam.ok(["layer", "list", &file.display().to_string()])?;
    let of_tar = bench.cofferdam.ok(["layer", "list", &layer.display().to_string()])?;
    ensure!(of_xz.out() == of_tar.out(), "the lists differ");
    Ok(())
}

/// One blob can be one thing to a plugin and another to the guests: the tree that one reading gave is not taken for the other's.
#[test]
fn a_tree_is_of_one_reading() -> Result<()> {
    require!("xz");
    let mut bench = Bench::new()?;
    bench.add("xz")?;
    let tar = layers::tar(&[Item::File("a", b"a".to_vec())])?;
    let blob = layers::compress("xz", &["-c"], &tar)?;
    let layer = xz(&bench, &tar, &blob)?;
    // The same blob once more, as if it were a plain archive.
    let plain = LayerRef { media_type: cofferdam_tests::layout::TAR.into(), ..layer.clone() };
    bench.layout.add_image("xz", &[layer])?;
    bench.layout.add_image("plain", &[plain])?;
    bench.cofferdam.ok(["pull", &bench.layout.source("xz")])?;
    bench.cofferdam.fails(exit::INTEGRITY, ["pull", &bench.layout.source("plain")])?;
    // The image that was there is none the worse.
    bench.cofferdam.ok(["pull", &bench.layout.source("xz")])?;
    bench.cofferdam.ok(["unpack", &bench.layout.source("xz"), &bench.scratch.join("out").display().to_string()])?;
    Ok(())
}

/// A plugin that is replaced makes trees of its own: those that the old component made are not used any more.
#[test]
fn trees_of_a_plugin_that_was_replaced_are_made_again() -> Result<()> {
    require!("xz");
    let mut bench = Bench::new()?;
    bench.add("xz")?;
    let tar = layers::tar(&[Item::File("a", b"a".to_vec())])?;
    let layer = xz(&bench, &tar, &layers::compress("xz", &["-c"], &tar)?)?;
    bench.layout.add_image("v1", &[layer])?;
    let image = bench.layout.source("v1");
    let unpacked = || -> Result<Option<u64>> {
        Ok(bench.cofferdam.ok(["pull", "--json", &image])?.json()?["unpacked_layers"].as_u64())
    };
    bench.cofferdam.ok(["pull", &image])?;
    ensure!(unpacked()? == Some(0), "the tree is not used");
    let dir = cofferdam_tests::plugins::example("xz")?;
    let newer = bench.scratch.dir("newer")?;
    fs::copy(dir.join("xz.wasm"), newer.join("xz.wasm"))?;
    let manifest = fs::read_to_string(dir.join("plugin.toml"))?;
    fs::write(newer.join("plugin.toml"), manifest.replacen("description = \"", "description = \"Newer. ", 1))?;
    bench.cofferdam.ok(["plugin", "add", &newer.display().to_string(), "--all-asked", "--replace"])?;
    ensure!(unpacked()? == Some(1), "the tree of the old component is used");
    ensure!(unpacked()? == Some(0), "the tree of the new one is not");
    Ok(())
}
