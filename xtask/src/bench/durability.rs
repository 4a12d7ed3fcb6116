//! What durability costs: pulls of one image that wait for more or less of it to be on disk.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::{Images, usage};

use super::disk::Disk;
use super::{Row, tools};

/// What a pull waits for: `--durability`.
const LEVELS: [&str; 3] = ["none", "image", "layer"];

/// The image that is pulled, of several layers if it is there.
const TAGS: [&str; 2] = ["edit", "base"];

/// Pulls from a layout into a new store each time, one level after the other.
pub(super) fn measure(images: &Images, binary: &Path, work: &Path, rounds: usize) -> Result<Vec<Row>> {
    let tag = TAGS.into_iter().find(|tag| images.manifest("store", tag).is_ok()).context("no image to pull")?;
    let source = images.source("store", tag);
    let disk = Disk::new(work)?;
    let mut rows: Vec<Row> =
        LEVELS.iter().map(|level| Row { name: format!("pull --durability {level}"), runs: Vec::new() }).collect();
    for round in 0..rounds {
        for (level, row) in LEVELS.iter().zip(&mut rows) {
            eprintln!("durability, round {} of {rounds}: {level}", round + 1);
            let store = disk.path().join(format!("{level}-{round}"));
            fs::create_dir(&store)?;
            rustix::fs::sync();
            let mut command = tools::ours(binary, &store);
            command.args(["--progress", "none", "pull", "--durability", level, &source]);
            command.stdout(std::process::Stdio::null());
            let run = usage::measure(&mut command)?;
            ensure!(run.status.success(), "the pull ended with {}", run.status);
            row.runs.push(run);
        }
    }
    Ok(rows)
}
