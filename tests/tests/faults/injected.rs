//! System calls that fail: one of them, or all from one on, at a sample of the calls (at all of them with
//! `COFFERDAM_CRASH_ALL=1`).

use std::env;

use anyhow::{Context as _, Result, bail, ensure};
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::operation::{self, Operation, Place, ensure_recovers};
use cofferdam_tests::small::{OLD, Small};
use cofferdam_tests::tracer::{Action, Class, Point};
use cofferdam_tests::{Run, store};
use rustix::io::Errno;

/// At how many calls an operation meets each fault when not all are wanted.
const SAMPLE: usize = 3;

/// What fails, and how.
#[derive(Clone, Copy, Debug)]
struct Fault {
    errno: Errno,
    /// What the system calls it.
    text: &'static str,
    classes: &'static [Class],
}

const FAULTS: &[Fault] = &[
    Fault {
        errno: Errno::NOSPC,
        text: "No space left on device",
        classes: &[Class::Make, Class::Write, Class::Rename],
    },
    Fault { errno: Errno::DQUOT, text: "Disk quota exceeded", classes: &[Class::Make, Class::Write, Class::Rename] },
    Fault { errno: Errno::IO, text: "Input/output error", classes: &[Class::Make, Class::Write, Class::Rename] },
    Fault { errno: Errno::IO, text: "Input/output error", classes: &[Class::Sync] },
    Fault { errno: Errno::IO, text: "Input/output error", classes: &[Class::Remove] },
];

/// Whether all such calls fail from the first on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    Once,
    Onwards,
}

/// What is allowed to fail without a word: the work goes on in another way, or the next opening of the store does it.
fn may_be_ignored(point: &Point) -> bool {
    let falls_back = matches!(point.call, "ficlone" | "copy_file_range");
    // Lock files of the dead, staged files that have their names, records of trees that are gone: all of them are swept.
    falls_back || point.class == Class::Remove || point.path.contains("/locks/")
}

fn meet_every_fault(operation: &Operation) -> Result<()> {
    let Some(small) = &operation.world()? else { return Ok(()) };
    let all = env::var_os("COFFERDAM_CRASH_ALL").is_some_and(|value| value == "1");
    let (mut rounds, mut errors) = (0, 0);
    for fault in FAULTS {
        let undisturbed = Place::new(operation, small)?;
        let traced = undisturbed.traced(operation, small, |_| Action::Pass)?;
        traced.run.expect(exit::OK)?;
        let calls = traced.points.iter().filter(|point| fault.classes.contains(&point.class)).count();
        let sample = if all { calls } else { SAMPLE.min(calls) };
        let mut seen = 0;
        for extent in [Extent::Once, Extent::Onwards] {
            for number in (0..sample).map(|index| index * calls / sample) {
                let failed = round(operation, small, fault, extent, number)
                    .with_context(|| format!("{}: {fault:?} {extent:?} at {number} of {calls}", operation.name))?;
                seen += usize::from(failed);
            }
        }
        println!("{}: {} in {:?}: {calls} calls, {seen} errors seen", operation.name, fault.text, fault.classes);
        rounds += 2 * sample;
        errors += seen;
    }
    ensure!(rounds > 0 && errors > 0, "{}: {errors} errors in {rounds} rounds: nothing was tried", operation.name);
    Ok(())
}

/// One run that meets a fault. Whether it failed for that.
fn round(operation: &Operation, small: &Small, fault: &Fault, extent: Extent, number: usize) -> Result<bool> {
    let place = Place::new(operation, small)?;
    let store = place.cofferdam.store();
    let before = small.ensure_intact(store).context("before the fault")?;
    let (mut count, mut hit) = (0, Vec::new());
    let traced = place.traced(operation, small, |point| {
        if !fault.classes.contains(&point.class) {
            return Action::Pass;
        }
        let fails = count == number || (extent == Extent::Onwards && count > number);
        count += 1;
        if fails {
            hit.push(point.clone());
            return Action::Fail(fault.errno);
        }
        Action::Pass
    })?;
    let run = traced.run;
    let what = format!("{hit:?}\n{}", run.err());
    let failed = match run.code() {
        Some(exit::OK) => {
            // What is said in the log may be made good: a sweep comes again, a blob that cannot be synced is written again.
            let warned = run.err().contains(" WARN ");
            ensure!(warned || hit.iter().all(may_be_ignored), "a fault was not noticed: {what}");
            false
        }
        Some(exit::FAILED) => {
            ensure!(run.err().contains(fault.text), "not the system's words: {what}");
            run.has_hint()?;
            true
        }
        _ => bail!("ended with {}: {what}", run.usage.status),
    };
    // Names go for good before content does: what lost its name without that keeps its content, until the next opening sweeps it.
    let collects = matches!(operation.name, "gc" | "rm");
    let stays = fault.classes == [Class::Sync] && (collects || extent == Extent::Onwards);
    check(operation, small, &place, fault, &before, failed, stays).with_context(|| what)?;
    Ok(failed)
}

fn check(
    operation: &Operation,
    small: &Small,
    place: &Place,
    fault: &Fault,
    before: &[&str],
    failed: bool,
    stays: bool,
) -> Result<()> {
    // It lived to clean up, unless that is what failed.
    if !fault.classes.contains(&Class::Remove) && !stays {
        store::ensure_nothing_staged(place.cofferdam.store())?;
        if failed && operation.name.starts_with("unpack") {
            store::ensure_holds(&place.out, &[])?;
        }
    }
    ensure_recovers(operation, small, place, before)
}

/// Lets the first call fail that fits, with an input/output error. How the command ended.
fn fail_first(
    operation: &Operation,
    small: &Small,
    place: &Place,
    fits: impl Fn(&Point) -> bool + Sync,
) -> Result<Run> {
    let mut met = false;
    let traced = place.traced(operation, small, |point| {
        if met || !fits(point) {
            return Action::Pass;
        }
        met = true;
        Action::Fail(Errno::IO)
    })?;
    ensure!(met, "{}: there was no such call", operation.name);
    Ok(traced.run)
}

/// The kernel says once only that something was not written. Who asks again is told that all is well, so nothing whose sync
/// failed is believed in: a blob without a name goes, a name is taken back, trees are made again.
#[test]
fn what_could_not_be_synced_is_not_believed() -> Result<()> {
    let operation = &operation::PULL_TREES_SYNCED;
    let Some(small) = &operation.world()? else { return Ok(()) };
    let blobs = |place: &Place| store::blobs(place.cofferdam.store());
    let one_by_one = Operation {
        command: |small, place| {
            let command = (operation::PULL_TREES_SYNCED.command)(small, place)?;
            Ok([command, vec!["--parallel".into(), "1".into()]].concat())
        },
        ..*operation
    };
    let staged = |point: &Point| point.path.starts_with("store/layers/") && point.path.ends_with(".downloading");
    let named = |point: &Point| point.path.trim_end_matches('/') == "store/layers";
    for fits in [&staged as &(dyn Fn(&Point) -> bool + Sync), &named] {
        let place = Place::new(&one_by_one, small)?;
        let run = fail_first(&one_by_one, small, &place, |point| point.class == Class::Sync && fits(point))?;
        run.expect(exit::FAILED)?.has_hint()?;
        ensure!(blobs(&place)?.len() == 2, "a blob stayed that may not be on disk");
        ensure_recovers(&one_by_one, small, &place, &[OLD])?;
    }

    // One that is there and cannot be synced is written again.
    let place = Place::new(operation, small)?;
    let again = |point: &Point| point.class == Class::Sync && point.path == "store/layers/sha256-#.tar.gz";
    let run = fail_first(operation, small, &place, again)?.expect(exit::OK)?;
    ensure!(run.err().contains("written again"), "{}", run.err());
    ensure_recovers(operation, small, &place, &[OLD])?;

    let place = Place::new(operation, small)?;
    fail_first(operation, small, &place, |point| point.call == "syncfs")?.expect(exit::FAILED)?;
    let believed = store::recorded_trees(place.cofferdam.store())?;
    ensure!(believed.is_empty(), "believed in after a sync that failed: {believed:?}");
    let command = [(operation.command)(small, &place)?, vec!["--json".into()]].concat();
    let pulled = place.cofferdam.ok(command)?.json()?;
    ensure!(pulled["unpacked_layers"] == 3 && pulled["downloaded_layers"] == 0, "{pulled}");
    small.ensure_intact(place.cofferdam.store())?;
    Ok(())
}

macro_rules! operations {
    ($($test:ident: $operation:ident,)*) => {$(
        #[test]
        fn $test() -> Result<()> {
            meet_every_fault(&operation::$operation)
        }
    )*};
}

operations! {
    a_pull_from_a_registry: PULL_BESIDE_ANOTHER_IMAGE,
    a_pull_into_a_new_store: PULL_INTO_A_NEW_STORE,
    a_pull_with_trees_synced: PULL_TREES_SYNCED,
    an_unpack_that_extracts: UNPACK_AND_EXTRACT,
    an_unpack_by_applying: UNPACK_BY_APPLYING,
    an_extraction: LAYER_EXTRACT,
    a_removal: REMOVE,
    a_collection: COLLECT,
    a_mount_spec: MOUNT_SPEC,
}
