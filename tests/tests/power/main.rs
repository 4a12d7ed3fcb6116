//! Power cuts: after each of them the file system mounts, what had returned success is there, and nothing is believed that a
//! cut may have damaged. How a cut is made is told in `cofferdam_tests::power`.
//!
//! The commands run once, on a disk that logs what it is told. Then, for each cut, the disk is made again as the cut left it,
//! mounted, and looked at: first at the files as they are, then by the command, after a restart of the machine.

mod check;
mod script;
mod sweep;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cofferdam_tests::Scratch;
use cofferdam_tests::power::cell::{self, Cell};
use cofferdam_tests::power::cut::Density;
use cofferdam_tests::power::disk::FileSystem;
use cofferdam_tests::require;

use crate::check::Kind;
use crate::sweep::{Plan, Report};

/// What serves the disks.
const POWER_DISK: &str = env!("CARGO_BIN_EXE_power-disk");

/// How many cuts are tried where not all are: per file system, on a slow machine within a minute.
const SHORT: usize = 96;

/// Cuts of the whole form; the short one takes some of them.
const DENSITY: Density = Density { whole: 2, blocks: 3, sectors: 1 };

/// How much to do: `COFFERDAM_POWER=all`, or a number of cuts.
fn plan() -> Result<Plan> {
    let limit = match std::env::var("COFFERDAM_POWER") {
        Ok(all) if all == "all" => usize::MAX,
        Ok(count) => count.parse()?,
        Err(_) => SHORT,
    };
    Ok(Plan { density: DENSITY, limit })
}

/// Whether power can be cut here; says why not.
fn possible(system: FileSystem) -> bool {
    let tools =
        ["root", "docker-registry", "skopeo", "gzip", "mount", "umount", "setpriv", "unshare", "sync", "strace"];
    if !require::all(&tools) || !require::all(&["mkfs.ext4", "mkfs.xfs"]) {
        return false;
    }
    cell::obstacle(system).map(|why| require::skip(&why)).is_none()
}

/// All the work that is looked at, cut by cut.
fn survives(test: &str, system: FileSystem) -> Result<()> {
    if !possible(system) {
        return Ok(());
    }
    cell::within(test, |cell| {
        let recording = script::record(cell, system, script::everything)?;
        cell.reboot()?;
        let report = sweep::run(&recording, plan()?)?;
        eprintln!("{report}");
        ensure!(report.found().is_empty(), "{} findings", report.found().len());
        // The cuts were such that something could have been found.
        ensure!(report.trees_broken() > 0, "no cut broke a tree: nothing was tried");
        ensure!(report.images_checked() > 0 && report.trees_again() > 0, "no image was there after a cut");
        Ok(())
    })
}

#[test]
fn on_ext4_power_cuts_lose_nothing() -> Result<()> {
    survives("on_ext4_power_cuts_lose_nothing", FileSystem::Ext4)
}

#[test]
fn on_xfs_power_cuts_lose_nothing() -> Result<()> {
    survives("on_xfs_power_cuts_lose_nothing", FileSystem::Xfs)
}

/// The control: the same cuts find what is lost when nothing is synced, by choice or because the calls do nothing. Even then
/// nothing wrong is ever made of what is left; and where it was by choice, the image can be pulled again.
fn notices(test: &str, system: FileSystem) -> Result<()> {
    if !possible(system) {
        return Ok(());
    }
    cell::within(test, |cell| {
        for (script, wedged) in [(script::unsynced as script::Script, false), (script::pretended, true)] {
            let report = control(cell, system, script)?;
            eprintln!("{report}");
            let of = |kind: Kind| report.found().iter().filter(|found| found.kind == kind).count();
            ensure!(of(Kind::Lost) > 0, "nothing was synced, and no cut lost anything");
            ensure!(of(Kind::Torn) > 0, "nothing was synced, and no cut left part of a file");
            ensure!(of(Kind::Wrong) == 0, "what was left was believed");
            // Of a new store not even `meta.json` may be there, if the system says that it is on disk and it is not.
            ensure!(wedged || of(Kind::Wedged) == 0, "the store is of no use after a cut");
        }
        Ok(())
    })
}

fn control(cell: &Cell, system: FileSystem, script: script::Script) -> Result<Report> {
    let recording = script::record(cell, system, script)?;
    cell.reboot()?;
    sweep::run(&recording, Plan { limit: 24, ..plan()? })
}

#[test]
fn on_ext4_cuts_show_that_nothing_was_synced() -> Result<()> {
    notices("on_ext4_cuts_show_that_nothing_was_synced", FileSystem::Ext4)
}

#[test]
fn on_xfs_cuts_show_that_nothing_was_synced() -> Result<()> {
    notices("on_xfs_cuts_show_that_nothing_was_synced", FileSystem::Xfs)
}

/// Who kills the tests kills their disks, mounts and loop devices.
#[test]
fn a_run_that_is_killed_leaves_nothing() -> Result<()> {
    if !possible(FileSystem::Ext4) {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let mut run = Command::new(std::env::current_exe()?)
        .args(["on_ext4_power_cuts_lose_nothing", "--exact", "--nocapture"])
        // All that it makes has a path by which it is known.
        .env("CARGO_TARGET_DIR", scratch.path())
        .env("COFFERDAM_SCRATCH", scratch.path())
        .env("COFFERDAM_BIN", cofferdam_tests::cofferdam::binary()?)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // In the middle of the work: the disk that logs is in use.
    let at_work = || -> Result<bool> {
        Ok(left(scratch.path())?.iter().any(|(_, content)| content.trim_end().ends_with("/disk")))
    };
    let begun = until(|| Ok(run.try_wait()?.is_some() || at_work()?));
    let met = at_work();
    run.kill()?;
    run.wait()?;
    begun?;
    ensure!(met?, "it ended before it could be killed");
    until(|| Ok(left(scratch.path())?.is_empty()))
}

/// The loop devices whose files are in a directory, and the processes that were told of it; each with what it says.
fn left(dir: &Path) -> Result<Vec<(PathBuf, String)>> {
    let text = text(dir);
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block")?.chain(fs::read_dir("/proc")?) {
        let path = entry?.path();
        for file in ["loop/backing_file", "cmdline"] {
            // Gone meanwhile, or not of this kind.
            let content = fs::read(path.join(file)).unwrap_or_default();
            let content = String::from_utf8_lossy(&content).into_owned();
            if content.contains(&text) {
                found.push((path.join(file), content));
            }
        }
    }
    Ok(found)
}

fn until(mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !condition()? {
        ensure!(start.elapsed() < Duration::from_mins(1), "it has not come about in a minute");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A path as the command takes it.
fn text(path: &Path) -> String {
    path.display().to_string()
}
