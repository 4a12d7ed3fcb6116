//! `kill -9` at moments spread over the time of a run, over real images: see also `steps.rs`, which leaves nothing to luck.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::registry::Kind;
use cofferdam_tests::tree::{self, Snapshot};
use cofferdam_tests::{Cofferdam, Images, Registry, Scratch, oracle, require, store};
use rustix::process::Signal;

/// How often each command is killed; an unpack half as often by each of its two strategies.
const ROUNDS: u32 = 10;

/// Kills are spread over the time that an undisturbed run takes, so these tests run one after another, under any runner.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a command and kills it after `delay`. Whether it was still at work.
fn killed(cofferdam: &Cofferdam, arguments: &[String], delay: Duration) -> Result<bool> {
    let running = cofferdam.spawn(arguments)?;
    // Not a hope that something has happened by then: any moment is as good, and each is checked.
    std::thread::sleep(delay);
    running.signal(Signal::KILL)?;
    let run = running.wait()?;
    if run.usage.status.signal() == Some(9) {
        return Ok(true);
    }
    run.expect(0)?;
    Ok(false)
}

/// How long an undisturbed run takes: the median of three, after one that fills the caches.
fn usual(run: impl Fn() -> Result<Duration>) -> Result<Duration> {
    run()?;
    let mut times = [run()?, run()?, run()?];
    times.sort();
    Ok(times[1])
}

/// Moments spread over a run that takes `whole`.
fn moments(whole: Duration, rounds: u32) -> impl Iterator<Item = Duration> {
    (0..rounds).map(move |round| whole * (2 * round + 1) / (2 * rounds))
}

/// More than half of the rounds must have met the command at work, for the test to say anything.
fn ensure_hit(hits: u32, rounds: u32, what: &str) -> Result<()> {
    ensure!(hits > rounds / 2, "only {hits} of {rounds} kills met the {what} at work");
    Ok(())
}

/// The image that is killed for, in a registry, and what umoci makes of it.
struct Served {
    expected: Snapshot,
    registry: Registry,
    image: String,
}

impl Served {
    fn new(images: &Images) -> Result<Self> {
        let expected = Snapshot::read(&oracle::umoci(images, "store", "edit")?)?;
        let registry = Registry::start(Kind::Plain)?;
        registry.push(&images.source("store", "edit"), "test/edit:1")?;
        let image = registry.reference("test/edit:1");
        Ok(Self { expected, registry, image })
    }

    fn pull(&self) -> [String; 4] {
        ["pull", &self.image, "--plain-http", &self.registry.host()].map(str::to_owned)
    }
}

#[test]
fn a_killed_pull_harms_nothing() -> Result<()> {
    require!("root", "umoci", "skopeo", "docker-registry");
    let _alone = alone();
    let Some(images) = Images::with(&["edit.tar.gz"])? else { return Ok(()) };
    let served = Served::new(&images)?;
    let (pull, Served { expected, image, .. }) = (served.pull(), &served);

    let whole = usual(|| {
        let warm = Scratch::new()?;
        let cofferdam = Cofferdam::new(warm.join("store"))?;
        let start = Instant::now();
        cofferdam.ok(&pull)?;
        Ok(start.elapsed())
    })?;

    let mut hits = 0;
    for delay in moments(whole, ROUNDS) {
        let round = || -> Result<bool> {
            let scratch = Scratch::new()?;
            let cofferdam = Cofferdam::new(scratch.join("store"))?;
            let hit = killed(&cofferdam, &pull, delay)?;
            store::ensure_blobs_are_whole(cofferdam.store())?;
            cofferdam.ok(&pull).context("the pull after the kill")?;
            store::ensure_nothing_staged(cofferdam.store())?;
            let dest = scratch.dir("out")?.join("rootfs");
            cofferdam.ok(["unpack", image, &dest.display().to_string()])?;
            tree::ensure_same(("ours", &Snapshot::read(&dest)?), ("umoci's", expected), |_, _| false)?;
            Ok(hit)
        };
        hits += u32::from(round().with_context(|| format!("killed after {delay:?} of {whole:?}"))?);
    }
    ensure_hit(hits, ROUNDS, "pull")
}

/// The staging of a killed pull is swept by the next one, whatever image that is for.
#[test]
fn what_a_dead_pull_left_is_swept_by_any_other() -> Result<()> {
    require!("root", "skopeo", "docker-registry");
    let _alone = alone();
    let Some(images) = Images::with(&["edit.tar.gz"])? else { return Ok(()) };
    let registry = Registry::start(Kind::Plain)?;
    registry.push(&images.source("store", "edit"), "test/edit:1")?;
    registry.push(&images.source("store", "base"), "test/base:1")?;
    let scratch = Scratch::new()?;
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    let pull = |name: &str| ["pull", &registry.reference(name), "--plain-http", &registry.host()].map(str::to_owned);

    let mut running = cofferdam.spawn(pull("test/edit:1"))?;
    let patience = Instant::now();
    while store::staged(cofferdam.store())?.is_empty() {
        ensure!(!running.has_ended()?, "the pull ended before anything was staged");
        ensure!(patience.elapsed() < Duration::from_mins(1), "nothing was staged in a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
    running.signal(Signal::KILL)?;
    ensure!(running.wait()?.usage.status.signal() == Some(9), "the pull ended before it could be killed");
    let left = store::staged(cofferdam.store())?;
    ensure!(!left.is_empty(), "a killed pull left nothing: the test is void");
    cofferdam.ok(pull("test/base:1"))?;
    store::ensure_nothing_staged(cofferdam.store())
}

#[test]
fn a_killed_unpack_harms_nothing() -> Result<()> {
    require!("root", "umoci", "skopeo", "docker-registry");
    let _alone = alone();
    let Some(images) = Images::with(&["edit.tar.gz"])? else { return Ok(()) };
    let served = Served::new(&images)?;
    let Served { expected, image, .. } = &served;
    let scratch = Scratch::new()?;
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    cofferdam.ok(served.pull())?;

    for strategy in ["copy", "apply"] {
        let out = scratch.dir(strategy)?;
        let dest = out.join("rootfs");
        let unpack = ["unpack", "--strategy", strategy, image, &dest.display().to_string()].map(str::to_owned);
        let whole = usual(|| {
            let start = Instant::now();
            cofferdam.ok(&unpack)?;
            let whole = start.elapsed();
            remove(&dest)?;
            Ok(whole)
        })?;
        let mut hits = 0;
        for delay in moments(whole, ROUNDS / 2) {
            let round = || -> Result<bool> {
                let hit = killed(&cofferdam, &unpack, delay)?;
                if dest.exists() {
                    // It appears whole or not at all.
                    let found = Snapshot::read(&dest)?;
                    tree::ensure_same(("what the dead left", &found), ("umoci's", expected), |_, _| false)?;
                    remove(&dest)?;
                }
                cofferdam.ok(&unpack).context("the unpack after the kill")?;
                store::ensure_holds(&out, &["rootfs"])?;
                store::ensure_nothing_staged(cofferdam.store())?;
                let found = Snapshot::read(&dest)?;
                tree::ensure_same(("ours", &found), ("umoci's", expected), |_, _| false)?;
                remove(&dest)?;
                Ok(hit)
            };
            let hit = round().with_context(|| format!("{strategy}, killed after {delay:?} of {whole:?}"))?;
            hits += u32::from(hit);
        }
        ensure_hit(hits, ROUNDS / 2, &format!("unpack by {strategy}"))?;
    }
    Ok(())
}

fn remove(dest: &Path) -> Result<()> {
    std::fs::remove_dir_all(dest).with_context(|| format!("cannot remove {}", dest.display()))
}
