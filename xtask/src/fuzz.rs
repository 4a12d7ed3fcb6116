//! `cargo xtask fuzz`: the fuzz targets, on the pinned toolchain.
//!
//! What `cargo fuzz` does on nightly is done here with stable flags: coverage counters in all of the fuzz workspace. Sanitizers
//! would need nightly, and find little in code without `unsafe`.

use std::fs::{self, File};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use cofferdam_tests::paths;
use cofferdam_tests::require::find;

use crate::steps::Done;
use crate::{setup, sh, table};

/// A target, the most bytes of an input, and its dictionary.
const TARGETS: [(&str, u32, Option<&str>); 7] = [
    ("tar", 16 << 10, None),
    ("gzip", 4 << 10, None),
    ("zstd", 4 << 10, None),
    ("claim", 4 << 10, None),
    ("document", 8 << 10, Some("json")),
    ("name", 1 << 10, Some("name")),
    ("plugin", 2 << 10, Some("plugin")),
];

/// Seconds for each target, unless it is said how many.
const SECONDS: u32 = 60;

/// Seconds for each target in `cargo xtask test`.
const SHORT: u32 = 8;

const TOOLS: &[setup::Tool] =
    &[("g++", "g++"), ("bsdtar", "libarchive-tools"), ("python3", "python3"), ("zstd", "zstd")];

/// The verb.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let mut chosen = Vec::new();
    let mut seconds = SECONDS;
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        if word == "--seconds" {
            seconds = words.next().and_then(|word| word.parse().ok()).context("--seconds wants a number")?;
        } else if let Some(target) = TARGETS.iter().find(|(name, ..)| *name == word) {
            chosen.push(*target);
        } else {
            bail!("there is no target {word}; there are {}", TARGETS.map(|(name, ..)| name).join(", "));
        }
    }
    if chosen.is_empty() {
        chosen = TARGETS.to_vec();
    }
    let missing = setup::tools(TOOLS)?;
    ensure!(!missing.contains(&"g++"), "libFuzzer is built with g++, which is missing");
    all(&chosen, seconds, None)
}

/// A short run of everything from the same seed, for `cargo xtask test`.
pub(crate) fn short() -> Result<Done> {
    let missing = setup::tools(TOOLS)?;
    if !missing.is_empty() {
        return Ok(Done::Skipped(format!("missing: {}", missing.join(", "))));
    }
    all(&TARGETS, SHORT, Some(1)).map(|()| Done::Ok)
}

/// `cargo` with arguments, in the fuzz workspace.
pub(crate) fn cargo(arguments: &str) -> Command {
    let mut command = sh::cargo(arguments.split(' '));
    command.current_dir(paths::workspace().join("fuzz")).env("CARGO_TARGET_DIR", dir());
    command
}

fn dir() -> PathBuf {
    paths::target().join("fuzz")
}

fn all(targets: &[(&str, u32, Option<&str>)], seconds: u32, seed: Option<u32>) -> Result<()> {
    let programs = build()?;
    // The same seed finds the same only from the same corpus: a short run begins anew, a long one goes on where others ended.
    let corpus = dir().join(if seed.is_some() { "corpus-short" } else { "corpus" });
    if seed.is_some() && corpus.exists() {
        fs::remove_dir_all(&corpus).with_context(|| format!("cannot remove {}", corpus.display()))?;
    }
    let peers = find("python3").is_some();
    if peers {
        let seeds = paths::workspace().join("fuzz/peers/seeds.py");
        sh::run(sh::words("python3").arg(seeds).arg(&corpus))?;
    } else {
        eprintln!("without python3 there are no seeds, and no peers to compare with");
    }
    let mut rows = Vec::new();
    let mut failures = Vec::new();
    // A target keeps one processor busy.
    let lanes = thread::available_parallelism().map_or(1, NonZero::get);
    for side_by_side in targets.chunks(lanes) {
        let run = |target| one(&programs, &corpus, target, seconds, seed);
        let done: Vec<_> = thread::scope(|scope| {
            let running: Vec<_> = side_by_side.iter().map(|&target| scope.spawn(move || run(target))).collect();
            running.into_iter().map(thread::ScopedJoinHandle::join).collect()
        });
        for outcome in done {
            match outcome {
                Ok(Ok(row)) => rows.push(row),
                Ok(Err(error)) => failures.push(error),
                Err(_) => failures.push(anyhow!("a thread of the fuzzer panicked")),
            }
        }
    }
    println!("{}", table::render(&["target", "executions", "edges", "corpus", "outcomes"], &rows));
    if peers && targets.iter().any(|(name, ..)| *name == "tar") {
        let mut command = Command::new(programs.join("peers"));
        command.arg(paths::workspace().join("fuzz/peers/list.py")).arg(corpus.join("tar"));
        failures.extend(sh::run(&mut command).err());
    }
    for failure in &failures {
        eprintln!("{failure:#}");
    }
    ensure!(failures.is_empty(), "{} findings", failures.len());
    Ok(())
}

/// Builds all targets. Returns where they are.
fn build() -> Result<PathBuf> {
    let version = sh::output(&mut sh::words("rustc --version --verbose"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let flags = [
        "--cfg=fuzzing",
        "-Cpasses=sancov-module",
        "-Cllvm-args=-sanitizer-coverage-level=4",
        "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
        "-Cllvm-args=-sanitizer-coverage-pc-table",
        "-Cllvm-args=-sanitizer-coverage-trace-compares",
    ];
    // With `--target`, so that build scripts and macros are built without.
    let mut command = cargo("build --quiet --locked --release --bins --target");
    sh::run(command.arg(host).env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f")))?;
    Ok(dir().join(host).join("release"))
}

/// Runs one target. Returns a row of the report.
fn one(
    programs: &Path,
    corpus: &Path,
    (name, most, dictionary): (&str, u32, Option<&str>),
    seconds: u32,
    seed: Option<u32>,
) -> Result<Vec<String>> {
    let (corpus, artifacts) = (corpus.join(name), dir().join("artifacts"));
    let logs = dir().join("logs");
    for dir in [&corpus, &artifacts, &logs] {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let log = logs.join(format!("{name}.log"));
    let mut command = Command::new(programs.join(name));
    command.arg(&corpus).arg(format!("-artifact_prefix={}/{name}-", artifacts.display()));
    command.args([format!("-max_total_time={seconds}"), format!("-max_len={most}")]);
    // A busy machine must not make an input slow; one that is takes minutes.
    command.args(["-timeout=60", "-rss_limit_mb=2048", "-print_final_stats=1"]);
    if let Some(dictionary) = dictionary {
        command.arg(format!("-dict={}", paths::workspace().join(format!("fuzz/dict/{dictionary}.dict")).display()));
    }
    if let Some(seed) = seed {
        command.arg(format!("-seed={seed}"));
    }
    eprintln!("$ {}", sh::line(&command));
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output).env("RUST_BACKTRACE", "0");
    for variable in ["CARGO_TARGET_DIR", "RUSTFLAGS"] {
        command.env_remove(variable);
    }
    let status = command.status().with_context(|| format!("cannot start the target {name}"))?;
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if !status.success() {
        let lines: Vec<_> = text.lines().collect();
        let from =
            lines.iter().rposition(|line| line.contains("panicked at")).unwrap_or(lines.len().saturating_sub(12));
        let tail: Vec<_> = lines.iter().skip(from).take(12).copied().collect();
        let tail = tail.join("\n");
        bail!("finding of {name}, input in {}, all in {}:\n{tail}", artifacts.display(), log.display());
    }
    let last = |sign: &str| text.lines().rev().find_map(|line| Some(line.split_once(sign)?.1.trim().to_owned()));
    let word =
        |text: Option<String>| text.and_then(|text| Some(text.split(' ').next()?.to_owned())).unwrap_or_default();
    let executions = last("stat::number_of_executed_units:").context("the fuzzer did not say how often it ran")?;
    let outcomes = last(" runs: ").unwrap_or_default();
    Ok(vec![name.to_owned(), executions, word(last("cov: ")), word(last("corp: ")), outcomes])
}
