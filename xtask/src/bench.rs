//! `cargo xtask bench`: our extraction of a layer beside that of other tools, on the same files and the same disk.
//!
//! The rounds are interleaved (A B C A B C …), so that a slow moment of the machine meets all; what counts is the median.
//! Each run gets a directory of its own on a file system that lasts for one layer's rounds, and the disk is synced before it.

mod disk;
mod durability;
mod inspectors;
mod report;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use cofferdam_tests::usage::Usage;
use cofferdam_tests::{Images, OciLayout, paths, require, scratch, usage};

use crate::{setup, sh};
use disk::Disk;
use tools::{Contender, Input};

/// Layers that are measured if they are there.
const LAYERS: [&str; 4] = ["base", "python", "node", "big"];

struct Options {
    rounds: usize,
    layers: Option<Vec<String>>,
    binary: Option<PathBuf>,
    write: bool,
}

fn parse(words: &[&str]) -> Result<Options> {
    let mut options = Options { rounds: 5, layers: None, binary: None, write: false };
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} wants a value"));
        match word {
            "--rounds" => options.rounds = value()?.parse()?,
            "--layers" => options.layers = Some(value()?.split(',').map(str::to_owned).collect()),
            "--bin" => options.binary = Some(fs::canonicalize(value()?)?),
            "--write" => options.write = true,
            other => bail!("unknown option {other}; see `cargo xtask help`"),
        }
    }
    ensure!(options.rounds > 0, "at least one round");
    Ok(options)
}

/// All runs of one contender on one layer.
struct Row {
    name: String,
    runs: Vec<Usage>,
}

/// One layer, and who extracted it.
struct Section {
    layer: String,
    bytes: u64,
    entries: usize,
    rows: Vec<Row>,
}

impl Row {
    fn median(&self, of: impl Fn(&Usage) -> Duration) -> f64 {
        let mut values: Vec<_> = self.runs.iter().map(of).collect();
        values.sort_unstable();
        values.get(values.len() / 2).map_or(f64::NAN, Duration::as_secs_f64)
    }

    fn peak_mib(&self) -> u64 {
        self.runs.iter().map(|run| run.peak_rss >> 20).max().unwrap_or_default()
    }
}

/// The verb.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let options = parse(words)?;
    let missing = setup::tools(setup::FOR_BENCH)?;
    if !missing.is_empty() {
        eprintln!("not compared, since missing: {}", missing.join(", "));
    }
    ensure!(require::is_root(), "run this as root: owners and devices are part of the work");
    let binary = options.binary.map_or_else(build, Ok)?;
    let images = Images::read(&paths::images()).context("make the layers first: cargo xtask images")?;
    let work = paths::target().join("bench");
    scratch::remove_tree(&work);
    fs::create_dir_all(&work)?;

    let there = |layer: &String| images.layer(&format!("{layer}.tar.gz")).is_ok();
    let wanted = options.layers.unwrap_or_else(|| LAYERS.map(str::to_owned).into_iter().filter(there).collect());
    let mut sections = Vec::new();
    for layer in wanted {
        sections.push(section(&images, &layer, &binary, &work, options.rounds)?);
    }
    let start = guest_start(&binary, &work, options.rounds)?;
    let durability = durability::measure(&images, &binary, &work, options.rounds)?;
    let inspectors = inspectors::measure(&images, &binary, &work, options.rounds)?;
    let report = report::render(&sections, &start, &durability, &inspectors, &binary, options.rounds)?;
    println!("{report}");
    if options.write {
        report::write(&report)?;
    }
    scratch::remove_tree(&work);
    Ok(())
}

fn build() -> Result<PathBuf> {
    setup::targets()?;
    sh::run(&mut sh::cargo(["build", "--release", "--package", "cofferdam-cli", "--bin", "cofferdam"]))?;
    Ok(paths::target().join("release/cofferdam"))
}

fn section(images: &Images, layer: &str, binary: &Path, work: &Path, rounds: usize) -> Result<Section> {
    let gzip = images.layer(&format!("{layer}.tar.gz"))?;
    let zstd = images.layer(&format!("{layer}.tar.zst")).ok();
    let mut layout = OciLayout::create(work.join(format!("layout-{layer}")))?;
    let reference = layout.add_file_as(&gzip.path, cofferdam_tests::layout::GZIP, &gzip.diff_id)?;
    layout.add_image("one", &[reference])?;
    let input = Input { gzip, zstd, layout: format!("{}:one", layout.dir().display()), binary, work };
    let contenders = tools::contenders(&input);

    let disk = Disk::new(work)?;
    let mut rows: Vec<Row> = contenders.iter().map(|c| Row { name: c.name.clone(), runs: Vec::new() }).collect();
    let mut entries = 0;
    for round in 0..rounds {
        for (index, (contender, row)) in contenders.iter().zip(&mut rows).enumerate() {
            let dest = disk.path().join(format!("{round}-{index}"));
            eprintln!("{layer}, round {} of {rounds}: {}", round + 1, contender.name);
            let (run, count) = once(contender, &dest).with_context(|| contender.name.clone())?;
            entries = entries.max(count);
            row.runs.push(run);
        }
    }
    let bytes = fs::metadata(&gzip.path)?.len();
    Ok(Section { layer: layer.to_owned(), bytes, entries, rows })
}

/// One run, into a directory that is fresh, and counted after the clock has stopped.
fn once(contender: &Contender, dest: &Path) -> Result<(Usage, usize)> {
    if contender.makes_dest {
        ensure!(!dest.exists(), "{} is in the way", dest.display());
    } else {
        fs::create_dir(dest)?;
    }
    rustix::fs::sync();
    let run = usage::measure(&mut contender.command(dest))?;
    ensure!(run.status.success(), "it ended with {}", run.status);
    let entries = count(dest)?;
    ensure!(entries > 0, "it extracted nothing");
    Ok((run, entries))
}

fn count(dir: &Path) -> Result<usize> {
    let mut entries = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        entries += 1;
        if entry.file_type()?.is_dir() {
            entries += count(&entry.path())?;
        }
    }
    Ok(entries)
}

/// Times of a start that loads every guest from the cache of compiled code.
struct GuestStart {
    process: Row,
    /// What the command itself says about loading, in milliseconds, per guest where it tells them apart.
    reported: Vec<(String, f64)>,
}

fn guest_start(binary: &Path, work: &Path, rounds: usize) -> Result<GuestStart> {
    let mut reported = Vec::new();
    let mut process = Row { name: "guest list".into(), runs: Vec::new() };
    // The first start may compile; it fills the cache and is not counted.
    for round in 0..=rounds {
        let path = work.join("guests.json");
        let mut command = tools::ours(binary, work);
        command.args(["guest", "list", "--json"]).stdout(fs::File::create(&path)?);
        let run = usage::measure(&mut command)?;
        ensure!(run.status.success(), "guest list ended with {}", run.status);
        if round > 0 {
            process.runs.push(run);
            reported = report::load_times(&fs::read(&path)?);
        }
    }
    Ok(GuestStart { process, reported })
}
