//! All cuts of a recording, by several workers, and a table of what was seen.

use std::fmt;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, bail};
use cofferdam_tests::power::cut::{Cut, Density, Replay, at, cuts, sample};
use cofferdam_tests::power::log::Record;

use crate::check::{Finding, Kind, Seen, check};
use crate::script::Recording;

/// How many findings of each kind are shown.
const SHOWN: usize = 3;

/// Which cuts to try.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) density: Density,
    pub(crate) limit: usize,
}

/// What was seen after all cuts.
#[derive(Debug)]
pub(crate) struct Report {
    system: &'static str,
    rows: Vec<Row>,
    findings: Vec<Finding>,
}

/// The cuts of one step: within it, and until the next.
#[derive(Debug)]
struct Row {
    name: &'static str,
    flushes: usize,
    writes: usize,
    bytes: u64,
    cuts: usize,
    images: usize,
    trees_broken: usize,
    trees_again: usize,
    trees_trusted: usize,
    records_empty: usize,
    dests: [usize; 2],
    findings: usize,
}

/// Tries the cuts.
pub(crate) fn run(recording: &Recording, plan: Plan) -> Result<Report> {
    let start = recording.steps.first().context("no steps")?.start;
    // Never left out: the moments at which success was promised.
    let mut chosen: Vec<_> = recording.steps.iter().flat_map(|step| at(step.end)).collect();
    let others = cuts(&recording.log, start..recording.whole, plan.density);
    chosen.extend(sample(others, plan.limit.saturating_sub(chosen.len())));
    chosen.sort_by_key(|cut| cut.end);
    let seen = Mutex::new(Vec::new());
    let workers = thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 8));
    thread::scope(|scope| {
        let work = |worker: usize| -> Result<()> {
            let dir = recording.dir.join(format!("worker-{worker}"));
            let (image, mountpoint) = (dir.join("image"), dir.join("mnt"));
            fs::create_dir_all(&mountpoint)?;
            let mut replay = Replay::new(&recording.log, &recording.base, dir.join("replay"))?;
            for cut in chosen.iter().skip(worker).step_by(workers) {
                replay.cut(*cut, &image)?;
                let after = match recording.system.mount(&image, &mountpoint) {
                    Ok(mount) => {
                        let after = check(recording, cut.end, mount.dir()).with_context(|| format!("{cut:?}"));
                        let after = after.unwrap_or_else(|error| unusable(&error));
                        mount.end()?;
                        after
                    }
                    Err(error) => unusable(&error),
                };
                seen.lock().unwrap_or_else(PoisonError::into_inner).push((*cut, after));
            }
            Ok(())
        };
        let workers: Vec<_> = (0..workers).map(|worker| scope.spawn(move || work(worker))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?)
    })?;
    let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    if seen.len() != chosen.len() {
        bail!("{} of {} cuts were tried", seen.len(), chosen.len());
    }
    Ok(report(recording, seen))
}

fn unusable(error: &anyhow::Error) -> Seen {
    let finding = Finding { kind: Kind::FileSystem, what: format!("{error:#}") };
    Seen { findings: vec![finding], ..Seen::default() }
}

fn report(recording: &Recording, mut seen: Vec<(Cut, Seen)>) -> Report {
    seen.sort_by_key(|(cut, _)| cut.end);
    let mut findings = Vec::new();
    let mut rows = Vec::new();
    for (index, step) in recording.steps.iter().enumerate() {
        let until = recording.steps.get(index + 1).map_or(recording.whole, |next| next.start);
        let records = recording.log.records().get(step.start..until).unwrap_or_default();
        let count = |wanted: fn(&Record) -> bool| records.iter().filter(|record| wanted(record)).count();
        let mut row = Row {
            name: step.name,
            flushes: count(|record| matches!(record, Record::Flush)),
            writes: count(|record| !matches!(record, Record::Flush)),
            bytes: recording.log.written(step.start..until),
            cuts: 0,
            images: 0,
            trees_broken: 0,
            trees_again: 0,
            trees_trusted: 0,
            records_empty: 0,
            dests: [0, 0],
            findings: 0,
        };
        // Of its own: within it or behind it.
        let last = |end| recording.steps.iter().rposition(|step| step.start < end || step.end == end).unwrap_or(0);
        for (cut, after) in seen.iter().filter(|(cut, _)| last(cut.end) == index) {
            row.cuts += 1;
            row.images += after.images;
            row.trees_broken += after.trees_broken;
            row.trees_again += after.trees_again;
            row.trees_trusted += after.trees_trusted;
            row.records_empty += after.records_empty;
            row.dests[0] += after.dests_whole;
            row.dests[1] += after.dests_broken;
            row.findings += after.findings.len();
            findings.extend(after.findings.iter().map(|finding| Finding {
                kind: finding.kind,
                what: format!("{}, {cut:?} of {}..{}: {}", step.name, step.start, step.end, finding.what),
            }));
        }
        rows.push(row);
    }
    Report { system: recording.system.name(), rows, findings }
}

impl Report {
    /// All that is not as it should be.
    pub(crate) fn found(&self) -> &[Finding] {
        &self.findings
    }

    fn sum(&self, of: impl Fn(&Row) -> usize) -> usize {
        self.rows.iter().map(of).sum()
    }

    pub(crate) fn images_checked(&self) -> usize {
        self.sum(|row| row.images)
    }

    pub(crate) fn trees_broken(&self) -> usize {
        self.sum(|row| row.trees_broken)
    }

    pub(crate) fn trees_again(&self) -> usize {
        self.sum(|row| row.trees_again)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| file system | operation | flushes | writes | MiB | cuts | images right | trees broken | extracted again | \
             believed | records empty | DEST whole | DEST broken | failures |"
        )?;
        writeln!(f, "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")?;
        for row in &self.rows {
            let Row { name, flushes, writes, bytes, cuts, images, .. } = row;
            let Row { trees_broken, trees_again, trees_trusted, records_empty, dests, findings, .. } = row;
            let tenths = bytes * 10 / (1 << 20);
            writeln!(
                f,
                "| {} | {name} | {flushes} | {writes} | {}.{} | {cuts} | {images} | {trees_broken} | {trees_again} | \
                 {trees_trusted} | {records_empty} | {} | {} | {findings} |",
                self.system,
                tenths / 10,
                tenths % 10,
                dests[0],
                dests[1],
            )?;
        }
        for kind in Kind::ALL {
            let of = || self.findings.iter().filter(|found| found.kind == kind);
            if let count @ 1.. = of().count() {
                writeln!(f, "{kind:?}: {count}, such as")?;
            }
            of().take(SHOWN).try_for_each(|found| writeln!(f, "  {}", found.what.trim_end()))?;
        }
        Ok(())
    }
}
