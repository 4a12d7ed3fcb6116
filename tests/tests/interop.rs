//! Real images, through a real registry and from OCI layouts, give the trees that other implementations make of them.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::layout::{LayerRef, layers_of};
use cofferdam_tests::registry::Kind;
use cofferdam_tests::tree::{self, Field, Name, Snapshot};
use cofferdam_tests::{Cofferdam, Images, OciLayout, Registry, Scratch, oracle, require, store};

/// Fewer entries than the edit image has, and more than a vacuous comparison would.
const MANY: usize = 9_000;

fn nothing(_: &[u8], _: Field) -> bool {
    false
}

/// Unpacks `image` by `strategy` into a new root file system and reads it.
fn unpack(cofferdam: &Cofferdam, image: &str, strategy: &str, dest: &Path) -> Result<Snapshot> {
    let parent = dest.parent().context("a destination without a parent")?;
    std::fs::create_dir_all(parent)?;
    let arguments = ["unpack", image, &dest.display().to_string(), "--strategy", strategy];
    cofferdam.ok(arguments)?;
    store::ensure_holds(parent, &["rootfs"])?;
    store::ensure_nothing_staged(cofferdam.store())?;
    Snapshot::read(dest)
}

fn ensure_equals_umoci(images: &Images, tag: &str, ours: &Snapshot) -> Result<()> {
    let theirs = Snapshot::read(&oracle::umoci(images, "store", tag)?)?;
    ensure!(theirs.entries.len() >= 8_000, "umoci made only {} entries", theirs.entries.len());
    tree::ensure_same(("ours", ours), ("umoci's", &theirs), nothing)
}

/// The oracles and the comparison itself, on a layer without whiteouts.
#[test]
fn umoci_and_tar_agree_on_the_base_layer() -> Result<()> {
    require!("root", "umoci", "tar");
    let Some(images) = Images::with(&["base.tar.gz"])? else { return Ok(()) };
    let scratch = Scratch::new()?;
    let layer = images.layer("base.tar.gz")?;
    oracle::gnu_tar(&layer.path, &scratch.join("tar"))?;
    let tar = Snapshot::read(&scratch.join("tar"))?;
    ensure_equals_umoci(&images, "base", &tar)
}

/// The main road: three layers with 425 whiteouts, pulled from a registry; both strategies; then again from the cache.
#[test]
fn an_image_from_a_registry_equals_umoci() -> Result<()> {
    require!("root", "umoci", "skopeo", "docker-registry");
    let Some(images) = Images::with(&["edit.tar.gz"])? else { return Ok(()) };
    let scratch = Scratch::new()?;
    let mut registry = Registry::start(Kind::Plain)?;
    registry.push(&images.source("store", "edit"), "test/edit:1")?;
    let image = registry.reference("test/edit:1");
    let cofferdam = Cofferdam::new(scratch.join("store"))?;

    cofferdam.ok(["pull", &image, "--plain-http", &registry.host()])?;
    store::ensure_nothing_staged(cofferdam.store())?;
    let layers = layers_of(&images.layout("store"), "edit")?;
    for (name, whole) in [("blob", store::blobs(cofferdam.store())?), ("tree", store::trees(cofferdam.store())?)] {
        ensure!(whole.len() == layers.len(), "{} layers, but each {name} of {whole:?}", layers.len());
    }
    let gets = registry.blob_gets()?.len();
    ensure!(gets >= layers.len(), "{gets} blobs fetched for {} layers", layers.len());

    let copied = unpack(&cofferdam, &image, "copy", &scratch.join("copy/rootfs"))?;
    ensure!(copied.entries.len() > MANY, "only {} entries", copied.entries.len());
    ensure_equals_umoci(&images, "edit", &copied)?;
    let applied = unpack(&cofferdam, &image, "apply", &scratch.join("apply/rootfs"))?;
    tree::ensure_same(("by copy", &copied), ("by apply", &applied), nothing)?;

    // A second pull asks for the manifest at most, and none of the layers.
    cofferdam.ok(["pull", &image, "--plain-http", &registry.host()])?;
    let now = registry.blob_gets()?.len();
    ensure!(now == gets, "the second pull fetched {} blobs", now - gets);
    // What is in the store needs no registry.
    registry.stop();
    let again = unpack(&cofferdam, &image, "copy", &scratch.join("again/rootfs"))?;
    tree::ensure_same(("before", &copied), ("without a registry", &again), nothing)
}

#[test]
fn a_zstd_image_from_a_registry_equals_umoci() -> Result<()> {
    require!("root", "umoci", "skopeo", "docker-registry");
    let Some(images) = Images::with(&["edit.tar.gz", "edit.tar.zst"])? else { return Ok(()) };
    let layers = layers_of(&images.layout("zstd"), "edit")?;
    ensure!(layers.iter().all(|layer| layer.media_type.ends_with("+zstd")), "not zstd: {layers:?}");
    let scratch = Scratch::new()?;
    let registry = Registry::start(Kind::Plain)?;
    registry.push(&images.source("zstd", "edit"), "test/zstd:1")?;
    let image = registry.reference("test/zstd:1");
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    cofferdam.ok(["pull", &image, "--plain-http", &registry.host()])?;
    ensure_equals_umoci(&images, "edit", &unpack(&cofferdam, &image, "copy", &scratch.join("copy/rootfs"))?)
}

/// `oci:DIR:TAG` of each encoding, by both strategies.
#[test]
fn oci_layouts_equal_umoci() -> Result<()> {
    require!("root", "umoci");
    let Some(images) = Images::with(&["edit.tar.gz", "edit.tar", "edit.tar.zst"])? else { return Ok(()) };
    for (layout, strategy) in [("store", "copy"), ("store", "apply"), ("plain", "copy"), ("zstd", "apply")] {
        let scratch = Scratch::new()?;
        let cofferdam = Cofferdam::new(scratch.join("store"))?;
        let tree = unpack(&cofferdam, &images.source(layout, "edit"), strategy, &scratch.join("out/rootfs"))?;
        ensure_equals_umoci(&images, "edit", &tree).with_context(|| format!("{layout} by {strategy}"))?;
    }
    Ok(())
}

/// Many gzip members (bgzip), many zstd frames with skippable ones between (pzstd), and three more encoders, as the
/// middle layer of an image.
#[test]
fn images_with_other_framings_equal_umoci() -> Result<()> {
    require!("root", "umoci");
    let framings = ["python.bgzf.tar.gz", "python.pzstd.tar.zst"];
    let Some(images) = Images::with(&["edit.tar.gz", framings[0], framings[1]])? else { return Ok(()) };
    for framing in framings {
        let scratch = Scratch::new()?;
        let mut layout = OciLayout::create(scratch.join("layout"))?;
        let layers = ["base.tar.gz", framing, "edit.tar.gz"]
            .map(|name| images.layer(name).and_then(|layer| layout.add_file(&named(layer, name), &layer.diff_id)));
        let layers = layers.into_iter().collect::<Result<Vec<LayerRef>>>()?;
        layout.add_image("framed", &layers)?;
        let cofferdam = Cofferdam::new(scratch.join("store"))?;
        let tree = unpack(&cofferdam, &layout.source("framed"), "copy", &scratch.join("out/rootfs"))?;
        ensure_equals_umoci(&images, "edit", &tree).with_context(|| framing)?;
    }
    Ok(())
}

/// Every encoding of the python layer, extracted alone, gives what GNU tar makes of its plain form.
#[test]
fn every_encoding_of_a_layer_equals_tar() -> Result<()> {
    require!("root", "tar");
    let all = ["tar", "tar.gz", "tar.zst", "gnu.tar.gz", "pigz.tar.gz", "igzip.tar.gz", "bgzf.tar.gz", "pzstd.tar.zst"];
    let names: Vec<_> = all.iter().map(|form| format!("python.{form}")).collect();
    let Some(images) = Images::with(&names.iter().map(String::as_str).collect::<Vec<_>>())? else { return Ok(()) };
    let plain = &images.layer("python.tar")?.path;
    let scratch = Scratch::new()?;
    oracle::gnu_tar(plain, &scratch.join("tar"))?;
    let theirs = Snapshot::read(&scratch.join("tar"))?;
    let listed = oracle::listed(plain)?;
    ensure!(theirs.entries.len() > 5_000 && listed.len() > 5_000, "a small layer: {}", theirs.entries.len());

    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    for name in &names {
        let layer = images.layer(name)?;
        let dest = scratch.join(name);
        std::fs::create_dir(&dest)?;
        let [blob, dest] = [&named(layer, name), &dest].map(|path| path.display().to_string());
        cofferdam.ok(["layer", "extract", "--diff-id", &layer.diff_id, &blob, &dest])?;
        let ours = Snapshot::read(Path::new(&dest))?;
        let invented = |path: &[u8], field| field == Field::Mtime && is_invented(&listed, path);
        tree::ensure_same(("ours", &ours), ("tar's", &theirs), invented).with_context(|| name.clone())?;
        cofferdam_tests::scratch::remove_tree(Path::new(&dest));
    }
    Ok(())
}

/// A window of 128 MiB is at the limit, and within it.
#[test]
fn a_long_window_is_admitted() -> Result<()> {
    require!("root");
    let Some(images) = Images::with(&["python.long27.tar.zst"])? else { return Ok(()) };
    let scratch = Scratch::new()?;
    let layer = images.layer("python.long27.tar.zst")?;
    let dest = scratch.dir("dest")?.display().to_string();
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    let blob = layer.path.display().to_string();
    cofferdam.ok(["layer", "extract", "--diff-id", &layer.diff_id, &blob, &dest])?;
    let entries = Snapshot::read(Path::new(&dest))?.entries.len();
    ensure!(entries > 5_000, "admitted, but only {entries} entries came out");
    Ok(())
}

/// The listing names what the archive lists, in its order.
#[test]
fn a_listing_names_every_entry() -> Result<()> {
    require!("tar");
    let Some(images) = Images::with(&["edit.tar.gz"])? else { return Ok(()) };
    let layer = images.layer("edit.tar.gz")?;
    let listed = oracle::listed(&layer.path)?;
    ensure!(listed.len() > 600, "tar lists only {}", listed.len());
    let scratch = Scratch::new()?;
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    let run = cofferdam.ok(["layer", "list", &layer.path.display().to_string()])?;
    let lines = run.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count();
    let json = cofferdam.ok(["layer", "list", "--json", &layer.path.display().to_string()])?.json()?;
    let entries = json["entries"].as_array().context("no entries")?;
    ensure!(lines == entries.len(), "{lines} lines, but {} entries", entries.len());
    let names = entries.iter().map(marked).collect::<Result<BTreeSet<_>>>()?;
    let expected: BTreeSet<_> = listed.iter().map(|name| escaped(name)).collect();
    let missing: Vec<_> = expected.difference(&names).take(5).collect();
    let invented: Vec<_> = names.difference(&expected).take(5).collect();
    ensure!(missing.is_empty() && invented.is_empty(), "not listed: {missing:?}; invented: {invented:?}");
    ensure!(json["diff_id"] == *layer.diff_id, "{}", json["diff_id"]);
    Ok(())
}

/// An entry's name in the archive: whiteouts are listed by what they remove.
fn marked(entry: &serde_json::Value) -> Result<String> {
    let path = entry["path"].as_str().context("an entry without a path")?;
    let (dir, name) = path.rsplit_once('/').map_or(("", path), |(dir, name)| (dir, name));
    let slash = if dir.is_empty() { "" } else { "/" };
    Ok(match entry["type"].as_str() {
        Some("whiteout") => format!("{dir}{slash}.wh.{name}"),
        Some("opaque") if path.is_empty() => ".wh..wh..opq".into(),
        Some("opaque") => format!("{path}/.wh..wh..opq"),
        _ => path.to_owned(),
    })
}

/// A name as the listing shows it.
fn escaped(name: &[u8]) -> String {
    let shown = |&byte: &u8| match byte {
        b'\\' => "\\\\".to_owned(),
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    name.iter().map(shown).collect()
}

/// Blobs have no extension; links to them beside the tables do. Ours needs neither, other code here goes by the name.
fn named(layer: &cofferdam_tests::images::Layer, name: &str) -> std::path::PathBuf {
    let link = cofferdam_tests::paths::images().join("layers").join(name);
    if link.exists() { link } else { layer.path.clone() }
}

/// Whether an extractor had to make up this path's time: a parent (or the root) that the layer does not list.
fn is_invented(listed: &BTreeSet<Name>, path: &[u8]) -> bool {
    !listed.contains(path)
}
