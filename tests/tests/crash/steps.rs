//! Kills a command before each system call that changes its store or its destination, and behind those that make names or
//! wait for the disk; each time the world must be whole and the command succeed when it is run again.
//!
//! A run of the tests takes [`SAMPLE`] of the calls, evenly; with `COFFERDAM_CRASH_ALL=1` (`cargo xtask crash --all`) all.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::small::{OLD, Small};
use cofferdam_tests::tracer::{Action, Class, Point};
use cofferdam_tests::{Cofferdam, Scratch, store};

use crate::table::Row;

/// At how many calls a command is killed when not all are wanted.
const SAMPLE: usize = 30;

/// A command that is killed.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    /// Makes the store as it is before.
    pub(crate) before: fn(&Small, &Cofferdam) -> Result<()>,
    /// The command; its destination, if it has one, is to be in this directory.
    pub(crate) command: fn(&Small, &Place) -> Result<Vec<String>>,
    /// What must hold between death and repetition, beyond what always must.
    pub(crate) between: fn(&Small, &Place) -> Result<()>,
    /// What must hold when it was repeated.
    pub(crate) after: fn(&Small, &Place) -> Result<()>,
    /// How the repetition may end.
    pub(crate) codes: &'static [i32],
}

/// Where one round happens.
pub(crate) struct Place {
    pub(crate) cofferdam: Cofferdam,
    pub(crate) out: PathBuf,
    _scratch: Scratch,
}

impl Place {
    fn new(operation: &Operation, small: &Small) -> Result<Self> {
        let scratch = Scratch::new()?;
        let root = scratch.path().canonicalize()?;
        let (cofferdam, out) = (Cofferdam::new(root.join("store"))?, scratch.dir("out")?.canonicalize()?);
        (operation.before)(small, &cofferdam).context("before the operation")?;
        Ok(Self { cofferdam, out, _scratch: scratch })
    }

    pub(crate) fn dest(&self) -> PathBuf {
        self.out.join("rootfs")
    }

    fn roots(&self) -> [PathBuf; 2] {
        [self.cofferdam.store().to_path_buf(), self.out.clone()]
    }
}

/// Whether the disk may be different behind a call in a way that matters by itself.
fn is_turning_point(class: Class) -> bool {
    matches!(class, Class::Rename | Class::Sync)
}

/// Kills an operation at its calls.
pub(crate) fn kill_at_every_step(operation: &Operation, small: &Small) -> Result<()> {
    let undisturbed = Place::new(operation, small)?;
    let traced =
        undisturbed
            .cofferdam
            .traced((operation.command)(small, &undisturbed)?, &undisturbed.roots(), |_| Action::Pass)?;
    traced.run.expect(0)?;
    (operation.after)(small, &undisturbed)?;
    let calls = traced.points.len();
    ensure!(calls >= 5, "{}: only {calls} calls were seen", operation.name);
    drop(undisturbed);

    let all = env::var_os("COFFERDAM_CRASH_ALL").is_some_and(|value| value == "1");
    let mut row = Row::new(operation.name, &traced.points, all);
    // Threads take turns in different ways, so one run has some more calls than another: with all, on until one survives.
    let numbers: Box<dyn Iterator<Item = usize>> = if all {
        Box::new(0..)
    } else {
        let sample = SAMPLE.min(calls);
        Box::new((0..sample).map(move |index| index * calls / sample))
    };
    for number in numbers {
        let mut killed_at = None;
        for behind in [false, true] {
            let round = round(operation, small, number, behind);
            let point = round.with_context(|| {
                let side = if behind { "behind" } else { "before" };
                format!("{}, killed {side} call {number} of {calls}", operation.name)
            })?;
            let Some(point) = point else { break };
            row.add(&point, behind);
            let go_on = !behind && is_turning_point(point.class);
            killed_at = Some(point);
            if !go_on {
                break;
            }
        }
        if killed_at.is_none() {
            if all {
                break;
            }
            // A shorter run than the first: it ended before this call.
            ensure!(
                number + calls / 10 + 5 >= calls,
                "{}: a run ended before call {number} of {calls}",
                operation.name
            );
        }
    }
    row.write()
}

/// One death and what comes after. The call at which it came, unless the command ended first.
fn round(operation: &Operation, small: &Small, number: usize, behind: bool) -> Result<Option<Point>> {
    let place = Place::new(operation, small)?;
    let cofferdam = &place.cofferdam;
    let before = small.ensure_intact(cofferdam.store()).context("before the kill")?;
    let arguments = (operation.command)(small, &place)?;
    let traced = cofferdam.traced(&arguments, &place.roots(), |point| match point.number == number {
        true if behind => Action::KillAfter,
        true => Action::KillBefore,
        false => Action::Pass,
    })?;
    let killed = traced.was_killed();
    if !killed {
        traced.run.expect(0)?;
    }
    let point = traced.points.get(number).filter(|_| killed).cloned();
    let what = || format!("{point:?}");
    check(operation, small, &place, &before).with_context(what)?;
    Ok(point)
}

fn check(operation: &Operation, small: &Small, place: &Place, before: &[&str]) -> Result<()> {
    let cofferdam = &place.cofferdam;
    let store = cofferdam.store();
    // As the dead left it.
    let left = small.ensure_intact(store).context("left by the dead")?;
    ensure!(!before.contains(&OLD) || left.contains(&OLD), "an image was lost");
    (operation.between)(small, place).context("left by the dead")?;

    cofferdam.ok(["images"]).context("opening the store again")?;
    store::ensure_nothing_staged(store).context("behind the opening")?;
    store::ensure_no_lock_is_left(store)?;
    ensure!(small.ensure_intact(store)? == left, "the opening changed what is there");
    for name in left {
        small.ensure_unpacks(cofferdam, name).with_context(|| format!("unpacking `{name}`, which was committed"))?;
    }

    let again = cofferdam.run((operation.command)(small, place)?)?;
    again.expect_one_of(operation.codes).context("the same once more")?;
    (operation.after)(small, place).context("behind the repetition")?;
    small.ensure_intact(store).context("behind the repetition")?;
    store::ensure_nothing_staged(store).context("behind the repetition")?;
    if has_verb(cofferdam, "fsck")? {
        cofferdam.ok(["fsck"]).context("fsck")?;
    }
    Ok(())
}

/// Whether the command has this verb.
pub(crate) fn has_verb(cofferdam: &Cofferdam, verb: &str) -> Result<bool> {
    Ok(cofferdam.run([verb, "--help"])?.code() == Some(0))
}
