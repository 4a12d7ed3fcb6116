//! Collection while others work: what is relied on stays, all else goes, and the report tells the truth.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::cofferdam::{Running, exit};
use cofferdam_tests::layers::{self, Item};
use cofferdam_tests::layout::LayerRef;
use cofferdam_tests::proxy::{Fault, Proxy};
use cofferdam_tests::registry::Kind;
use cofferdam_tests::{Cofferdam, OciLayout, Registry, Scratch, require, store};
use rustix::process::Signal;
use serde_json::Value;

/// A layer of noise.
fn layer(layout: &OciLayout, seed: u64, length: usize) -> Result<LayerRef> {
    layout.add_gzip(&layers::tar(&[Item::File("noise", layers::noise(seed, length))])?)
}

fn references(cofferdam: &Cofferdam) -> Result<Vec<String>> {
    let images = cofferdam.ok(["images", "--json"])?.json()?;
    let images = images["images"].as_array().context("no images")?.clone();
    Ok(images.iter().filter_map(|image| image["reference"].as_str().map(str::to_owned)).collect())
}

fn number(value: &Value) -> Result<u64> {
    value.as_u64().with_context(|| format!("{value} is no number"))
}

/// What `du` says, in bytes.
fn du(path: &Path) -> Result<u64> {
    let run = std::process::Command::new("du").args(["-s", "--block-size=1"]).arg(path).output()?;
    let text = String::from_utf8(run.stdout)?;
    Ok(text.split_whitespace().next().context("du says nothing")?.parse()?)
}

fn wait_for(what: &str, running: &mut Running, mut come: impl FnMut() -> Result<bool>) -> Result<()> {
    let patience = Instant::now();
    while !come()? {
        ensure!(!running.has_ended()?, "it ended before {what}");
        ensure!(patience.elapsed() < Duration::from_mins(1), "a minute, and not yet {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn leases(cofferdam: &Cofferdam) -> Result<usize> {
    let names = store::list(&cofferdam.store().join("locks"))?;
    Ok(names.iter().filter(|name| name.strip_suffix(".lease").is_some()).count())
}

/// A pull that hangs relies on a layer that it found. Everybody else's are freed meanwhile; it keeps its own until it is killed.
#[test]
fn a_pull_keeps_what_it_found_until_its_death() -> Result<()> {
    require!("skopeo", "docker-registry");
    let scratch = Scratch::new()?;
    let mut layout = OciLayout::create(scratch.join("layout"))?;
    let (base, own, large) = (layer(&layout, 1, 50_000)?, layer(&layout, 2, 50_000)?, layer(&layout, 3, 8 << 20)?);
    layout.add_image("first", &[base.clone(), own.clone()])?;
    layout.add_image("second", &[base.clone(), large])?;
    let registry = Registry::start(Kind::Plain)?;
    registry.push(&layout.source("first"), "test/first:1")?;
    registry.push(&layout.source("second"), "test/second:1")?;
    let proxy = Proxy::start(&registry.host(), Fault::StallAfter(1 << 20))?;
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    let first = registry.reference("test/first:1");
    cofferdam.ok(["pull", &first, "--plain-http", &registry.host()])?;
    let (base, own) = (base.digest.replace(':', "-"), own.digest.replace(':', "-"));

    let host = proxy.host();
    let mut pull = cofferdam.spawn(["pull", &format!("{host}/test/second:1"), "--plain-http", &host])?;
    wait_for("the large layer is on its way", &mut pull, || {
        Ok(leases(&cofferdam)? == 1 && !store::staged(cofferdam.store())?.is_empty())
    })?;

    let removed = cofferdam.ok(["rm", &first, "--json"])?.json()?;
    ensure!(removed["removed"][0]["kept"].is_string(), "{removed}");
    ensure!(store::blobs(cofferdam.store())? == [format!("{base}.tar.gz")], "{removed}");
    ensure!(store::trees(cofferdam.store())? == [base.clone()], "not {own}: {removed}");
    let collected = cofferdam.ok(["gc", "--older-than", "0s", "--keep-storage", "0", "--json"])?.json()?;
    ensure!(collected["freed"] == serde_json::json!([]), "{collected}");
    ensure!(collected["kept"].to_string().contains("leases"), "{collected}");
    ensure!(store::trees(cofferdam.store())? == [base], "{collected}");

    pull.signal(Signal::KILL)?;
    pull.wait()?;
    let rehearsed = cofferdam.ok(["gc", "--dry-run", "--json"])?.json()?;
    let collected = cofferdam.ok(["gc", "--json"])?.json()?;
    // How much had arrived is a matter of luck.
    ensure!(rehearsed["freed"].to_string().contains(".downloading"), "with what was staged: {rehearsed}");
    ensure!(rehearsed["freed"].to_string().contains(".downloading"), "{rehearsed}");
    // What the dead left is swept by the opening of the store already.
    ensure!(number(&collected["bytes"])? > 100_000, "{collected}");
    store::ensure_nothing_staged(cofferdam.store())?;
    ensure!(store::blobs(cofferdam.store())?.is_empty() && store::trees(cofferdam.store())?.is_empty());
    ensure!(leases(&cofferdam)? == 0);
    Ok(())
}

/// Pulls, unpacks, removals and collections at once. Whoever was told that a pull succeeded has the image, unless somebody removed it.
#[test]
fn a_crowd_loses_nothing() -> Result<()> {
    require!("skopeo", "docker-registry");
    let scratch = Scratch::new()?;
    let mut layout = OciLayout::create(scratch.join("layout"))?;
    let layers = (0..6).map(|seed| layer(&layout, seed, 100_000)).collect::<Result<Vec<_>>>()?;
    let pick = |which: &[usize]| which.iter().map(|&at| layers[at].clone()).collect::<Vec<_>>();
    let images = [("kept-a", vec![0, 1]), ("kept-b", vec![0, 2]), ("gone-a", vec![0, 1, 3]), ("gone-b", vec![2, 4, 5])];
    let mut registry = Registry::start(Kind::Plain)?;
    for (name, which) in &images {
        layout.add_image(name, &pick(which))?;
        registry.push(&layout.source(name), &format!("test/{name}:1"))?;
    }
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    let host = registry.host();
    let pull =
        |name: &str| cofferdam.run(["pull", &registry.reference(&format!("test/{name}:1")), "--plain-http", &host]);
    let out = scratch.dir("out")?;
    let (stop, collections, freed) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| -> Result<()> {
        let (pull, cofferdam, registry, out) = (&pull, &cofferdam, &registry, &out);
        let (stop, collections, freed) = (&stop, &collections, &freed);
        let mut work = Vec::new();
        for name in ["kept-a", "kept-b"] {
            work.push(scope.spawn(move || -> Result<()> {
                let image = registry.reference(&format!("test/{name}:1"));
                for round in 0..4 {
                    pull(name)?.expect(exit::OK)?;
                    let dest = out.join(format!("{name}-{round}")).display().to_string();
                    cofferdam.ok(["unpack", &image, &dest])?;
                }
                Ok(())
            }));
        }
        for name in ["gone-a", "gone-b"] {
            work.push(scope.spawn(move || -> Result<()> {
                let image = registry.reference(&format!("test/{name}:1"));
                for _ in 0..5 {
                    pull(name)?.expect(exit::OK)?;
                    let removed = cofferdam.ok(["rm", &image, "--json"])?.json()?;
                    let blobs = removed["removed"][0]["blobs"].as_array().map_or(0, Vec::len);
                    freed.fetch_add(blobs as u64, Ordering::SeqCst);
                }
                Ok(())
            }));
        }
        let collector = scope.spawn(move || -> Result<()> {
            while !stop.load(Ordering::SeqCst) {
                cofferdam.ok(["gc"])?;
                cofferdam.ok(["gc", "--dry-run"])?;
                cofferdam.ok(["df"])?;
                collections.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        });
        let worked: Vec<_> = work.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        stop.store(true, Ordering::SeqCst);
        let collected = collector.join();
        for outcome in worked.into_iter().chain([collected]) {
            outcome.map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        Ok(())
    })?;
    ensure!(collections.into_inner() > 0, "nobody collected");
    ensure!(freed.into_inner() > 0, "nothing was ever freed");
    // Nothing comes from the registry any more: what is here is here.
    let kept = ["kept-a", "kept-b"].map(|name| registry.reference(&format!("test/{name}:1")));
    registry.stop();
    ensure!(references(&cofferdam)? == kept, "{:?}", references(&cofferdam)?);
    for (at, image) in kept.iter().enumerate() {
        cofferdam.ok([
            "unpack",
            "--strategy",
            "apply",
            image,
            &scratch.join(format!("last-{at}")).display().to_string(),
        ])?;
    }
    cofferdam.ok(["gc"])?;
    ensure!(store::blobs(cofferdam.store())?.len() == 3, "{:?}", store::blobs(cofferdam.store())?);
    store::ensure_nothing_staged(cofferdam.store())?;
    ensure!(leases(&cofferdam)? == 0);
    Ok(())
}

#[test]
fn df_adds_up_and_a_dry_run_is_true() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut layout = OciLayout::create(scratch.join("layout"))?;
    let (base, one, two) = (layer(&layout, 1, 200_000)?, layer(&layout, 2, 300_000)?, layer(&layout, 3, 400_000)?);
    layout.add_image("one", &[base.clone(), one])?;
    layout.add_image("two", &[base, two])?;
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    cofferdam.fails(exit::NOT_FOUND, ["df"])?;
    cofferdam.fails(exit::NOT_FOUND, ["gc", "--dry-run"])?;
    ensure!(!cofferdam.store().exists(), "a look made the store");
    for tag in ["one", "two"] {
        cofferdam.ok(["pull", &layout.source(tag)])?;
    }
    // A tree of a local layout, too.
    cofferdam.ok(["unpack", &layout.source("one"), &scratch.join("rootfs").display().to_string()])?;
    let names = references(&cofferdam)?;
    cofferdam.ok(["tag", &names[0], "example.com/again:1"])?;
    let usage = cofferdam.ok(["df", "--json"])?.json()?;
    ensure!(usage["schema"] == "cofferdam/df/v1", "{usage}");
    let total = number(&usage["total"])?;
    ensure!(total == du(cofferdam.store())?, "{total} is not {}", du(cofferdam.store())?);
    let kinds = usage["by_kind"].as_object().context("no kinds")?;
    ensure!(kinds.values().filter_map(Value::as_u64).sum::<u64>() == total, "{usage}");
    ensure!(number(&usage["by_kind"]["local-tree"])? > 500_000, "{usage}");
    ensure!(usage["layers"].as_array().is_some_and(|layers| layers.len() == 3), "{usage}");
    ensure!(cofferdam.ok(["df"])?.out().contains("example.com/again:1"));

    let dry = |more: &[&str]| cofferdam.ok(["gc", "--json", "--dry-run"].iter().chain(more))?.json();
    let reclaimable = dry(&[])?;
    ensure!(reclaimable["bytes"] == usage["reclaimable"], "{reclaimable}");
    let all = dry(&["--keep-storage", "1k"])?;
    ensure!(all["images"].as_array().is_some_and(|images| images.len() == 3), "{all}");
    ensure!(references(&cofferdam)?.len() == 3, "a dry run removed something");
    let done = cofferdam.ok(["gc", "--json"])?.json()?;
    ensure!(done["freed"] == reclaimable["freed"], "{done}");
    ensure!(store::trees(cofferdam.store())?.len() == 3, "the local ones are gone");
    let done = cofferdam.ok(["gc", "--json", "--keep-storage", "1k"])?.json()?;
    ensure!(done["images"].as_array().is_some_and(|images| images.len() == 3), "{done}");
    ensure!(references(&cofferdam)?.is_empty() && store::blobs(cofferdam.store())?.is_empty());
    let left = cofferdam.ok(["df", "--json"])?.json()?;
    ensure!(left["total"] == done["remaining"], "{left} is not {done}");
    for wrong in [["--older-than", "3"], ["--older-than", "x"], ["--keep-storage", "1X"]] {
        cofferdam.fails(exit::USAGE, ["gc"].iter().chain(&wrong))?;
    }
    Ok(())
}

/// The age of an image is that of its last use, which is noted by unpacking it, and outlives the process.
#[test]
fn an_image_that_was_unpacked_is_not_old() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut layout = OciLayout::create(scratch.join("layout"))?;
    for (seed, tag) in ["old", "used"].into_iter().enumerate() {
        let layer = layer(&layout, seed as u64, 1000)?;
        layout.add_image(tag, &[layer])?;
    }
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    for tag in ["old", "used"] {
        cofferdam.ok(["pull", &layout.source(tag)])?;
    }
    // A name that does not lead to the layout, whose image is not the store's.
    let used = "example.com/used:1".to_owned();
    let source = references(&cofferdam)?.into_iter().find(|name| name.ends_with("used")).context("no image")?;
    cofferdam.ok(["tag", &source, &used])?;
    let then = std::time::SystemTime::now() - Duration::from_hours(24 * 40);
    for entry in fs::read_dir(cofferdam.store().join("refs"))? {
        fs::File::open(entry?.path())?.set_modified(then)?;
    }
    cofferdam.ok(["unpack", &used, &scratch.join("rootfs").display().to_string()])?;
    let collected = cofferdam.ok(["gc", "--older-than", "30d"])?;
    ensure!(collected.out().contains("not used for long"), "{}", collected.out());
    ensure!(references(&cofferdam)? == [used], "{:?}", references(&cofferdam)?);
    Ok(())
}

/// An image of many layers, and few descriptors: one for each tree, and not many more.
#[test]
fn an_image_of_many_layers_fits_the_limit_of_descriptors() -> Result<()> {
    require!("prlimit");
    let scratch = Scratch::new()?;
    let mut layout = OciLayout::create(scratch.join("layout"))?;
    let layers = (0..150).map(|seed| layer(&layout, seed, 10)).collect::<Result<Vec<_>>>()?;
    layout.add_image("many", &layers)?;
    let cofferdam = Cofferdam::new(scratch.join("store"))?.by(&["prlimit", "--nofile=220"]);
    cofferdam.ok(["pull", "--durability", "none", &layout.source("many")])?;
    let name = references(&cofferdam)?.pop().context("no image")?;
    cofferdam.ok(["tag", &name, "example.com/many:1"])?;
    cofferdam.ok(["unpack", "example.com/many:1", &scratch.join("rootfs").display().to_string()])?;
    cofferdam.ok(["rm", &name, "example.com/many:1"])?;
    ensure!(store::trees(cofferdam.store())?.is_empty());
    Ok(())
}

/// A store on a file system that can only be read: its images can be used, and that is not noted.
#[test]
fn a_store_that_can_only_be_read_is_used_as_it_is() -> Result<()> {
    require!("root", "unshare", "mount");
    let scratch = Scratch::new()?;
    let mut layout = OciLayout::create(scratch.join("layout"))?;
    let layer = layer(&layout, 1, 1000)?;
    layout.add_image("one", &[layer])?;
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    cofferdam.ok(["pull", &layout.source("one")])?;
    let name = "example.com/one:1";
    cofferdam.ok(["tag", &references(&cofferdam)?[0], name])?;
    let place = cofferdam.store().display().to_string();
    let script = format!("mount --bind '{place}' '{place}' && mount -o remount,ro,bind '{place}' && exec \"$@\"");
    let read_only = Cofferdam::new(cofferdam.store())?.by(&["unshare", "--mount", "sh", "-c", &script, "sh"]);
    for strategy in ["copy", "apply"] {
        let dest = scratch.join(strategy).display().to_string();
        read_only.ok(["unpack", "--strategy", strategy, name, &dest])?;
    }
    read_only.ok(["df"])?;
    read_only.ok(["gc", "--dry-run"])?;
    read_only.fails(exit::FAILED, ["gc", "--older-than", "0s"])?;
    ensure!(references(&cofferdam)?.len() == 2);
    Ok(())
}
