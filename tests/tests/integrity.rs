//! Bytes that are not what their digest, size or `DiffID` says: exit code 6, and nothing of them stays.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::layers::{self, Item, noise};
use cofferdam_tests::layout::{GZIP, LayerRef, ZSTD};
use cofferdam_tests::proxy::{Fault, Proxy};
use cofferdam_tests::registry::Kind;
use cofferdam_tests::{Cofferdam, Images, OciLayout, Registry, Scratch, require, store};

/// A layer that is large enough to arrive in many pieces.
fn sample() -> Result<Vec<u8>> {
    layers::tar(&[
        Item::Dir("etc/"),
        Item::File("etc/motd", b"welcome\n".to_vec()),
        Item::File("etc/noise", noise(1, 3_000_000)),
        Item::Symlink("etc/link", "motd"),
        Item::File("etc/text", b"one line and another\n".repeat(50_000)),
    ])
}

/// A command with a store, a place for root file systems, and an OCI layout.
struct Bench {
    scratch: Scratch,
    cofferdam: Cofferdam,
    layout: OciLayout,
}

impl Bench {
    fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        let cofferdam = Cofferdam::new(scratch.join("store"))?;
        let layout = OciLayout::create(scratch.join("layout"))?;
        scratch.dir("out")?;
        Ok(Self { scratch, cofferdam, layout })
    }

    fn dest(&self) -> String {
        self.scratch.join("out/rootfs").display().to_string()
    }

    /// `unpack` fails with 6, and leaves no tree, no root file system and no staging.
    fn refuses_to_unpack(&self, image: &str) -> Result<()> {
        self.cofferdam.fails(exit::INTEGRITY, ["unpack", image, &self.dest()])?.has_hint()?;
        self.holds_nothing()
    }

    /// `pull` fails with 6, and leaves no tree and no staging.
    fn refuses_to_pull(&self, image: &str, registry: &Registry) -> Result<()> {
        self.cofferdam.fails(exit::INTEGRITY, ["pull", image, "--plain-http", &registry.host()])?.has_hint()?;
        self.holds_nothing()
    }

    fn holds_nothing(&self) -> Result<()> {
        let trees = store::trees(self.cofferdam.store())?;
        ensure!(trees.is_empty(), "left under extracted/: {trees:?}");
        store::ensure_nothing_staged(self.cofferdam.store())?;
        store::ensure_blobs_are_whole(self.cofferdam.store())?;
        store::ensure_holds(&self.scratch.join("out"), &[])
    }

    fn unpacks(&self, image: &str) -> Result<()> {
        self.cofferdam.ok(["unpack", image, &self.dest()])?;
        let motd = fs::read(Path::new(&self.dest()).join("etc/motd"))?;
        ensure!(motd == b"welcome\n", "the wrong tree");
        store::ensure_nothing_staged(self.cofferdam.store())?;
        cofferdam_tests::scratch::remove_tree(Path::new(&self.dest()));
        Ok(())
    }
}

fn flip(path: &Path, at: usize) -> Result<()> {
    let mut bytes = fs::read(path)?;
    let byte = bytes.get_mut(at).with_context(|| format!("no byte {at} in {}", path.display()))?;
    *byte ^= 0x10;
    Ok(fs::write(path, bytes)?)
}

/// The places where a flipped byte breaks something else each time: magic, header, data, last block, CRC, length.
fn places(length: u64) -> Result<Vec<usize>> {
    let length = usize::try_from(length)?;
    Ok(vec![0, 4, 9, 30, length / 3, length / 2, length - 9, length - 8, length - 1])
}

#[test]
fn a_flipped_byte_of_a_layer_in_a_layout() -> Result<()> {
    require!("gzip", "zstd");
    for form in [GZIP, ZSTD] {
        let mut bench = Bench::new()?;
        let tar = sample()?;
        let layer = if form == GZIP {
            bench.layout.add_gzip(&tar)?
        } else {
            let blob = layers::compress("zstd", &["-q", "-c", "--check"], &tar)?;
            let (digest, diff_id) = (bench.layout.add(&blob)?, layers::digest(&tar));
            LayerRef { media_type: ZSTD.into(), digest, size: blob.len() as u64, diff_id }
        };
        bench.layout.add_image("v1", std::slice::from_ref(&layer))?;
        let image = bench.layout.source("v1");
        let blob = bench.layout.blob(&layer.digest);
        for place in places(layer.size)? {
            flip(&blob, place)?;
            bench.refuses_to_unpack(&image).with_context(|| format!("{form}, byte {place} of {}", layer.size))?;
            flip(&blob, place)?;
        }
        // What was refused all the time was the flipped byte.
        bench.unpacks(&image)?;
    }
    Ok(())
}

#[test]
fn a_flipped_byte_of_a_layer_in_a_registry() -> Result<()> {
    require!("gzip", "skopeo", "docker-registry");
    let mut bench = Bench::new()?;
    let layer = bench.layout.add_gzip(&sample()?)?;
    bench.layout.add_image("v1", std::slice::from_ref(&layer))?;
    let registry = Registry::start(Kind::Plain)?;
    registry.push(&bench.layout.source("v1"), "test/flip:1")?;
    let image = registry.reference("test/flip:1");
    let blob = registry.blob(&layer.digest)?;
    for place in places(layer.size)? {
        flip(&blob, place)?;
        bench.refuses_to_pull(&image, &registry).with_context(|| format!("byte {place} of {}", layer.size))?;
        flip(&blob, place)?;
    }
    bench.cofferdam.ok(["pull", &image, "--plain-http", &registry.host()])?;
    bench.unpacks(&image)
}

/// The same on a real layer, in the middle of three: the good layers' blobs stay, but no tree of the image does.
#[test]
fn a_flipped_byte_in_a_real_image() -> Result<()> {
    require!("root", "skopeo", "docker-registry");
    let Some(images) = Images::with(&["edit.tar.gz", "python.tar.gz"])? else { return Ok(()) };
    let scratch = Scratch::new()?;
    let registry = Registry::start(Kind::Plain)?;
    registry.push(&images.source("store", "edit"), "test/edit:1")?;
    let image = registry.reference("test/edit:1");
    let layer = images.layer("python.tar.gz")?;
    flip(&registry.blob(&layer.digest)?, usize::try_from(layer.bytes / 2)?)?;
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    let run = cofferdam.fails(exit::INTEGRITY, ["pull", &image, "--plain-http", &registry.host()])?.has_hint()?;
    ensure!(run.err().contains(&layer.digest), "the error does not name the layer:\n{}", run.err());
    store::ensure_nothing_staged(cofferdam.store())?;
    store::ensure_blobs_are_whole(cofferdam.store())?;
    let trees = store::trees(cofferdam.store())?;
    ensure!(trees.is_empty(), "left under extracted/: {trees:?}");
    cofferdam.fails(exit::NOT_FOUND, ["inspect", &image])?;
    Ok(())
}

#[test]
fn a_flipped_byte_of_manifest_or_configuration() -> Result<()> {
    require!("gzip");
    let mut bench = Bench::new()?;
    let layer = bench.layout.add_gzip(&sample()?)?;
    let manifest = bench.layout.add_image("v1", std::slice::from_ref(&layer))?;
    let image = bench.layout.source("v1");
    let text: serde_json::Value = serde_json::from_slice(&fs::read(bench.layout.blob(&manifest))?)?;
    let config = text["config"]["digest"].as_str().context("no configuration")?;
    for (what, digest, needle) in [("manifest", manifest.as_str(), "application/"), ("configuration", config, "PATH=")]
    {
        let blob = bench.layout.blob(digest);
        let content = fs::read_to_string(&blob)?;
        // Within a string, so that it stays valid JSON, and only the digest can tell.
        let place = content.find(needle).context("not found")? + needle.len();
        flip(&blob, place)?;
        serde_json::from_slice::<serde_json::Value>(&fs::read(&blob)?).context("the flip made it invalid JSON")?;
        bench.refuses_to_unpack(&image).with_context(|| what)?;
        flip(&blob, place)?;
    }
    bench.unpacks(&image)
}

#[test]
fn a_wrong_diff_id() -> Result<()> {
    require!("gzip", "skopeo", "docker-registry");
    let mut bench = Bench::new()?;
    let mut layer = bench.layout.add_gzip(&sample()?)?;
    layer.diff_id = layers::digest(b"something else");
    bench.layout.add_image("wrong", std::slice::from_ref(&layer))?;
    bench.refuses_to_unpack(&bench.layout.source("wrong"))?;

    let registry = Registry::start(Kind::Plain)?;
    registry.push(&bench.layout.source("wrong"), "test/wrong:1")?;
    bench.refuses_to_pull(&registry.reference("test/wrong:1"), &registry)
}

/// A tree that is there already under the blob's name does not make a wrong `DiffID` right.
#[test]
fn a_wrong_diff_id_of_a_layer_that_is_there_already() -> Result<()> {
    require!("gzip");
    let mut bench = Bench::new()?;
    let right = bench.layout.add_gzip(&sample()?)?;
    let wrong = LayerRef { diff_id: layers::digest(b"something else"), ..right.clone() };
    bench.layout.add_image("right", std::slice::from_ref(&right))?;
    bench.layout.add_image("wrong", std::slice::from_ref(&wrong))?;
    bench.unpacks(&bench.layout.source("right"))?;
    bench.cofferdam.fails(exit::INTEGRITY, ["unpack", &bench.layout.source("wrong"), &bench.dest()])?;
    store::ensure_holds(&bench.scratch.join("out"), &[])?;
    bench.unpacks(&bench.layout.source("right"))
}

#[test]
fn a_blob_that_is_shorter_or_longer_than_declared() -> Result<()> {
    require!("gzip", "skopeo", "docker-registry");
    let mut bench = Bench::new()?;
    let layer = bench.layout.add_gzip(&sample()?)?;
    bench.layout.add_image("v1", std::slice::from_ref(&layer))?;
    let registry = Registry::start(Kind::Plain)?;
    registry.push(&bench.layout.source("v1"), "test/cut:1")?;
    let image = registry.reference("test/cut:1");
    let local = bench.layout.source("v1");
    let whole = fs::read(bench.layout.blob(&layer.digest))?;
    let blobs: [PathBuf; 2] = [bench.layout.blob(&layer.digest), registry.blob(&layer.digest)?];
    let damage = |bytes: &[u8]| blobs.iter().try_for_each(|blob| fs::write(blob, bytes));

    for length in [0, 1, 20, whole.len() / 2, whole.len() - 8, whole.len() - 1] {
        damage(&whole[..length])?;
        bench.refuses_to_unpack(&local).with_context(|| format!("layout, {length} of {} bytes", whole.len()))?;
        bench.refuses_to_pull(&image, &registry).with_context(|| format!("registry, {length} bytes"))?;
    }
    for garbage in [&b"\0"[..], b"garbage", &whole[..]] {
        damage(&[&whole[..], garbage].concat())?;
        bench.refuses_to_unpack(&local).with_context(|| format!("layout, {} bytes more", garbage.len()))?;
        bench.refuses_to_pull(&image, &registry).with_context(|| format!("registry, {} bytes more", garbage.len()))?;
    }

    damage(&whole)?;
    bench.cofferdam.ok(["pull", &image, "--plain-http", &registry.host()])?;
    bench.unpacks(&image)
}

/// The manifest declares another size than the blob has, while the digest is right.
#[test]
fn a_wrong_declared_size() -> Result<()> {
    require!("gzip");
    for change in [-1, 1] {
        let mut bench = Bench::new()?;
        let mut layer = bench.layout.add_gzip(&sample()?)?;
        layer.size = layer.size.saturating_add_signed(change);
        bench.layout.add_image("v1", std::slice::from_ref(&layer))?;
        bench.refuses_to_unpack(&bench.layout.source("v1")).with_context(|| format!("{change:+} byte"))?;
    }
    Ok(())
}

/// The connection is cut in the middle of a blob: the network's fault, of whose blob nothing is known.
#[test]
fn a_download_that_is_cut() -> Result<()> {
    require!("gzip", "skopeo", "docker-registry");
    let mut bench = Bench::new()?;
    let layer = bench.layout.add_gzip(&sample()?)?;
    bench.layout.add_image("v1", std::slice::from_ref(&layer))?;
    let registry = Registry::start(Kind::Plain)?;
    registry.push(&bench.layout.source("v1"), "test/net:1")?;
    // So soon that all attempts together, each of which goes on where the last one ended, do not get far.
    let proxy = Proxy::start(&registry.host(), Fault::CutAfter(100_000))?;
    let image = format!("{}/test/net:1", proxy.host());
    let pull = ["pull", &image, "--plain-http", &proxy.host()].map(str::to_owned);

    let run = bench.cofferdam.run(&pull)?.expect(exit::NETWORK)?.has_hint()?;
    ensure!(proxy.faults() > 0, "nothing was cut:\n{}", run.err());
    bench.holds_nothing()?;
    proxy.heal();
    bench.cofferdam.ok(&pull)?;
    bench.unpacks(&image)
}

/// `layer extract` alone, without a manifest.
#[test]
fn a_lone_layer_that_is_broken() -> Result<()> {
    require!("gzip");
    let bench = Bench::new()?;
    let tar = sample()?;
    let whole = layers::gzip(&tar)?;
    let diff_id = layers::digest(&tar);
    let other = layers::digest(b"something else");
    let mut bad_crc = whole.clone();
    let at = bad_crc.len() - 8;
    bad_crc[at] ^= 1;
    let cases: [(&str, Vec<u8>, &str); 4] = [
        ("wrong DiffID", whole.clone(), &other),
        ("bad CRC", bad_crc, &diff_id),
        ("cut", whole[..whole.len() / 2].to_vec(), &diff_id),
        ("garbage behind", [&whole[..], b"garbage"].concat(), &diff_id),
    ];
    for (what, blob, diff_id) in &cases {
        let layer = bench.scratch.join("layer.tar.gz");
        fs::write(&layer, blob)?;
        let dest = bench.scratch.dir("dest")?;
        let [layer, dest] = [&layer, &dest].map(|path| path.display().to_string());
        let run = bench.cofferdam.run(["layer", "extract", "--diff-id", diff_id, &layer, &dest])?;
        run.expect(exit::INTEGRITY).with_context(|| *what)?;
        cofferdam_tests::scratch::remove_tree(Path::new(&dest));
    }
    Ok(())
}
