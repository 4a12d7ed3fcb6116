//! Sixteen at once: each layer is downloaded and extracted once, no image is lost, nobody waits for ever or for the dead,
//! and who gives up leaves nothing.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use cofferdam_tests::cofferdam::{Running, exit};
use cofferdam_tests::layout::layers_of;
use cofferdam_tests::proxy::{Fault, Proxy};
use cofferdam_tests::small::{NEW, OLD, Small};
use cofferdam_tests::{Cofferdam, Registry, Run, Scratch, require, store};
use rustix::process::Signal;

/// Processes at once.
const CROWD: usize = 16;

/// How often each crowd comes.
const ROUNDS: usize = 8;

/// How many there are: more where `COFFERDAM_CROWD_ROUNDS` asks for minutes of them.
fn rounds() -> usize {
    std::env::var("COFFERDAM_CROWD_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS)
}

/// After this time, somebody waits for ever. Long, since it is no measure of anything.
const EVER: Duration = Duration::from_mins(3);

/// Waits until something holds.
fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !holds()? {
        ensure!(start.elapsed() < EVER, "it never came that {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Waits for all of a crowd.
fn all(mut crowd: Vec<Running>) -> Result<Vec<Run>> {
    let start = Instant::now();
    let mut stuck = 0;
    for running in &mut crowd {
        while !running.has_ended()? {
            if start.elapsed() > EVER {
                stuck += 1;
                running.signal(Signal::KILL)?;
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let runs: Vec<_> = crowd.into_iter().map(Running::wait).collect::<Result<_>>()?;
    ensure!(stuck == 0, "{stuck} of {} still waited after {EVER:?}", runs.len());
    Ok(runs)
}

/// Fails unless nothing is left over in a store that nobody uses any more; opens it.
fn ensure_clean(cofferdam: &Cofferdam) -> Result<()> {
    // A verb that changes things opens the store for use; this one finds nothing to do then.
    cofferdam.fails(exit::NOT_FOUND, ["rm", "none.test/none:1"])?;
    store::ensure_nothing_staged(cofferdam.store())?;
    store::ensure_no_lock_is_left(cofferdam.store())
}

/// How often each layer of both images was fetched, in the order of their digests.
fn fetched(small: &Small, registry: &Registry) -> Result<Vec<usize>> {
    let mut layers: Vec<_> = [layers_of(small.layout(), OLD)?, layers_of(small.layout(), NEW)?].concat();
    layers.sort_by(|one, other| one.digest.cmp(&other.digest));
    layers.dedup_by(|one, other| one.digest == other.digest);
    let gets = registry.blob_gets()?;
    Ok(layers.iter().map(|layer| gets.iter().filter(|get| get.path.contains(&layer.digest)).count()).collect())
}

macro_rules! world {
    () => {{
        require!("root", "gzip", "zstd", "docker-registry", "skopeo");
        Small::new(true)?
    }};
}

#[test]
fn each_layer_is_downloaded_and_extracted_once() -> Result<()> {
    let small = world!();
    for round in 1..=rounds() {
        let scratch = Scratch::new()?;
        let cofferdam = Cofferdam::new(scratch.join("store"))?;
        let crowd = (0..CROWD).map(|index| {
            let name = if index % 2 == 0 { OLD } else { NEW };
            cofferdam.spawn([small.pull(name), vec!["--json".into()]].concat())
        });
        let runs = all(crowd.collect::<Result<_>>()?)?;
        let mut counts = [0, 0];
        for run in runs {
            let pulled = run.expect(exit::OK)?.json()?;
            for (count, word) in counts.iter_mut().zip(["downloaded_layers", "unpacked_layers"]) {
                *count += pulled[word].as_u64().with_context(|| format!("no {word}"))?;
            }
        }
        ensure!(counts == [4, 0], "of four layers, {counts:?} were downloaded, and unpacked without a download");
        let gets = fetched(&small, small.registry()?)?;
        ensure!(gets == [round; 4], "in {round} rounds, the registry was asked for the layers {gets:?} times");
        ensure_clean(&cofferdam)?;
        ensure!(small.ensure_intact(cofferdam.store())? == [NEW, OLD], "an image was lost");
    }
    Ok(())
}

#[test]
fn trees_are_made_once_and_every_root_is_right() -> Result<()> {
    let small = world!();
    let scratch = Scratch::new()?;
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    for name in [OLD, NEW] {
        cofferdam.ok(small.pull(name))?;
    }
    let layer = small.layer(0)?.display().to_string();
    for round in 0..rounds() {
        // Blobs without trees: who unpacks makes them, once.
        for tree in store::trees(cofferdam.store())? {
            fs::remove_dir_all(cofferdam.store().join("extracted").join(tree))?;
        }
        let out = scratch.dir(&format!("out{round}"))?;
        let dests: Vec<PathBuf> = (0..CROWD).map(|index| out.join(index.to_string())).collect();
        let crowd = dests.iter().enumerate().map(|(index, dest)| {
            let dest = dest.display().to_string();
            let strategy = if index % 4 < 3 { "copy" } else { "apply" };
            match index % 8 {
                7 => cofferdam.spawn(["layer", "extract", &layer, &dest]),
                other => {
                    cofferdam.spawn(["unpack", "--strategy", strategy, small.manifest([OLD, NEW][other % 2]), &dest])
                }
            }
        });
        let runs = all(crowd.collect::<Result<_>>()?)?;
        for (index, (run, dest)) in runs.into_iter().zip(&dests).enumerate() {
            run.expect(exit::OK)?;
            if index % 8 != 7 {
                small.ensure_root([OLD, NEW][index % 8 % 2], dest)?;
            }
        }
        let names: Vec<_> = store::list(&out)?;
        ensure!(names.len() == CROWD, "beside the destinations: {names:?}");
        ensure_clean(&cofferdam)?;
        ensure!(store::trees(cofferdam.store())?.len() == 4, "not one tree a layer");
        ensure!(small.ensure_intact(cofferdam.store())? == [NEW, OLD], "an image was lost");
        fs::remove_dir_all(out)?;
    }
    Ok(())
}

/// One image comes and goes all the time, under everybody's hands; the other one, which shares a layer with it, never does.
#[test]
fn no_image_is_lost_while_others_are_removed() -> Result<()> {
    let small = world!();
    let scratch = Scratch::new()?;
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    cofferdam.ok(small.pull(OLD))?;
    let mut pulled = 0;
    for round in 0..rounds() {
        let out = scratch.dir(&format!("out{round}"))?;
        let mut crowd = Vec::new();
        for index in 0..CROWD {
            let dest = out.join(index.to_string()).display().to_string();
            let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
            crowd.push(match index % 8 {
                0 | 3 | 6 => (words(&["rm", small.manifest(NEW)]), &[exit::OK, exit::NOT_FOUND][..]),
                1 => (words(&["gc"]), &[exit::OK][..]),
                4 => (small.pull(NEW), &[exit::OK][..]),
                // It may be gone, or go while its layers are taken.
                2 => (words(&["unpack", small.manifest(NEW), &dest]), &[exit::OK, exit::NOT_FOUND, exit::BUSY][..]),
                5 => (words(&["unpack", small.manifest(OLD), &dest]), &[exit::OK][..]),
                _ => (small.pull(OLD), &[exit::OK][..]),
            });
        }
        let running = crowd.iter().map(|(words, _)| cofferdam.spawn(words)).collect::<Result<_>>()?;
        for (run, (words, codes)) in all(running)?.into_iter().zip(&crowd) {
            pulled += usize::from(words[0] == "pull");
            run.expect_one_of(codes)?;
        }
        for dest in store::list(&out)? {
            let index: usize = dest.parse().with_context(|| format!("left beside the destinations: {dest}"))?;
            small.ensure_root(if index % 8 == 2 { NEW } else { OLD }, &out.join(dest))?;
        }
        ensure_clean(&cofferdam)?;
        let left = small.ensure_intact(cofferdam.store())?;
        ensure!(left.contains(&OLD), "an image was lost: {left:?}");
        for name in left {
            small.ensure_unpacks(&cofferdam, name)?;
        }
        fs::remove_dir_all(out)?;
    }
    ensure!(pulled >= 4 * rounds(), "only {pulled} pulls");
    Ok(())
}

/// How a pull through a proxy is asked for, so that the registry can be held up.
fn pull_through(proxy: &Proxy, name: &str) -> Vec<String> {
    ["pull", &format!("{}/small/{name}:1", proxy.host()), "--plain-http", &proxy.host()].map(str::to_owned).to_vec()
}

/// Whether a process waits for a lock that somebody else holds.
fn waits_for_a_lock(running: &Running) -> Result<bool> {
    let id = running.id().to_string();
    let locks = fs::read_to_string("/proc/locks")?;
    Ok(locks.lines().any(|line| line.contains("-> FLOCK") && line.split_whitespace().any(|word| word == id)))
}

/// A holder that downloads and downloads; fifteen who wait; the holder dies.
#[test]
fn the_death_of_a_lock_holder_frees_the_lock() -> Result<()> {
    let small = world!();
    let scratch = Scratch::new()?;
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    // Manifest and configuration come through; of the layer with 90 KiB only a part.
    let proxy = Proxy::start(&small.registry()?.host(), Fault::StallAfter(30_000))?;
    let mut holder = cofferdam.spawn(pull_through(&proxy, NEW))?;
    until("a layer was being downloaded", || {
        ensure!(!holder.has_ended()?, "the holder ended");
        Ok(proxy.faults() > 0
            && store::staged(cofferdam.store())?.iter().any(|path| path.to_string_lossy().contains("layers/")))
    })?;
    let mut waiting = (1..CROWD).map(|_| cofferdam.spawn(small.pull(NEW))).collect::<Result<Vec<_>>>()?;
    for running in &mut waiting {
        until("somebody waited for the lock", || {
            ensure!(!running.has_ended()?, "one ended without the layer that another one downloads");
            waits_for_a_lock(running)
        })?;
    }
    holder.signal(Signal::KILL)?;
    let death = holder.wait()?;
    ensure!(death.code().is_none(), "the holder ended by itself: {}", death.err());
    for run in all(waiting)? {
        run.expect(exit::OK)?;
    }
    ensure_clean(&cofferdam)?;
    ensure!(small.ensure_intact(cofferdam.store())? == [NEW], "the image is not there");
    small.ensure_unpacks(&cofferdam, NEW)
}

/// Sixteen who are in the middle of it are told to stop. What they leave is seen without opening the store again, which
/// would sweep.
#[test]
fn who_is_interrupted_leaves_nothing() -> Result<()> {
    let small = world!();
    for signal in [Signal::INT, Signal::TERM] {
        let scratch = Scratch::new()?;
        let cofferdam = Cofferdam::new(scratch.join("store"))?;
        cofferdam.ok(small.pull(OLD))?;
        let proxy = Proxy::start(&small.registry()?.host(), Fault::StallAfter(30_000))?;
        let mut crowd = (0..CROWD).map(|_| cofferdam.spawn(pull_through(&proxy, NEW))).collect::<Result<Vec<_>>>()?;
        until("one downloaded and all others waited", || {
            let mut waiting = 0;
            for running in &mut crowd {
                ensure!(!running.has_ended()?, "one ended without the layer");
                waiting += usize::from(waits_for_a_lock(running)?);
            }
            Ok(waiting == CROWD - 1 && proxy.faults() > 0)
        })?;
        for running in &crowd {
            running.signal(signal)?;
        }
        for run in all(crowd)? {
            run.expect(exit::INTERRUPTED)?;
        }
        store::ensure_nothing_staged(cofferdam.store())?;
        ensure!(small.ensure_intact(cofferdam.store())? == [OLD], "an image was lost, or appeared");
        // A whole tree stays if others were about to use it when its maker left: that is for a collection.
        cofferdam.ok(["gc"])?;
        let trees = store::trees(cofferdam.store())?;
        ensure!(trees.len() == 2, "trees of no image are left: {trees:?}");
        // A thread that got a lock when its process ended leaves the lock's file, which means nothing.
        ensure_clean(&cofferdam)?;
        proxy.heal();
        cofferdam.ok(pull_through(&proxy, NEW))?;
        small.ensure_unpacks(&cofferdam, NEW)?;
    }
    Ok(())
}

/// The same for those who merge and those who apply: their destinations do not appear.
#[test]
fn who_is_interrupted_leaves_no_destination() -> Result<()> {
    let small = world!();
    let scratch = Scratch::new()?;
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    let proxy = Proxy::start(&small.registry()?.host(), Fault::StallAfter(30_000))?;
    let out = scratch.dir("out")?;
    let name = format!("docker://{}/small/{NEW}:1", proxy.host());
    let mut crowd = Vec::new();
    for index in 0..CROWD {
        let dest = out.join(index.to_string()).display().to_string();
        let strategy = ["copy", "apply"][index % 2];
        crowd.push(cofferdam.spawn(["unpack", "--strategy", strategy, &name, &dest, "--plain-http", &proxy.host()])?);
    }
    until("one downloaded", || {
        for running in &mut crowd {
            if running.has_ended()? {
                bail!("one ended without the layer");
            }
        }
        Ok(proxy.faults() > 0)
    })?;
    for running in &crowd {
        running.signal(Signal::INT)?;
    }
    for run in all(crowd)? {
        // One that had not set up its watch yet is ended by the signal itself.
        ensure!(matches!(run.code(), None | Some(exit::INTERRUPTED)), "ended with {}: {}", run.usage.status, run.err());
    }
    store::ensure_holds(&out, &[])?;
    ensure_clean(&cofferdam)
}
