//! A migration that is killed at any moment: the next one goes on, and what says that it is done comes last.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::{Cofferdam, Scratch, require, store};

/// A directory of the reference, with one blob.
fn directory(at: &Path) -> Result<()> {
    for room in ["layers", "configs", "manifests", "extracted"] {
        fs::create_dir_all(at.join(room))?;
    }
    let name = crate::bench::stem(&cofferdam_tests::layers::digest(b"{}"));
    fs::write(at.join("configs").join(format!("{name}.json")), "{}")?;
    Ok(())
}

/// What changes the disk, or orders such changes.
const CALLS: [&str; 10] =
    ["mkdir", "mkdirat", "renameat", "renameat2", "fsync", "fchmod", "unlinkat", "flock", "write", "linkat"];

#[test]
fn an_adoption_that_is_killed_at_any_step_is_finished_by_the_next() -> Result<()> {
    require!("strace");
    let scratch = Scratch::new()?;
    let mut kills = 0;
    for call in CALLS {
        for number in 1.. {
            let at = scratch.join(format!("{call}-{number}"));
            if !killed(&at, call, number).with_context(|| format!("{call} number {number}"))? {
                break;
            }
            kills += 1;
            ensure!(number < 500, "it never ends");
        }
    }
    ensure!(kills > 20, "only {kills} kills: what was traced?");
    Ok(())
}

/// Kills an adoption at this call, if there are so many, and has the next one go on.
fn killed(at: &Path, call: &str, number: u32) -> Result<bool> {
    directory(at)?;
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:signal=SIGKILL:when={number}")])
        .arg(cofferdam_tests::cofferdam::binary()?)
        .args(["--confine", "off", "--store"])
        .arg(at)
        .arg("gc")
        .env("COFFERDAM_CACHE", "")
        .output()
        .context("cannot start strace")?;
    if at.join("meta.json").is_file() {
        ensure!(at.join("keep-unreferenced").is_file() && at.join("refs").is_dir(), "it was said too soon");
    }
    let cofferdam = Cofferdam::new(at)?;
    cofferdam.ok(["gc"])?;
    ensure!(at.join("keep-unreferenced").is_file() && at.join("meta.json").is_file(), "not adopted");
    store::ensure_nothing_staged(at)?;
    ensure!(store::list(&at.join("configs"))?.len() == 1, "a blob is lost");
    cofferdam.ok(["fsck"])?;
    Ok(!output.status.success())
}
