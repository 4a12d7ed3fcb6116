//! Kills a command before each system call that changes its store or its destination, and behind those that make names or
//! wait for the disk; each time the world must be whole and the command succeed when it is run again.
//!
//! A run of the tests takes [`SAMPLE`] of the calls, evenly; with `COFFERDAM_CRASH_ALL=1` (`cargo xtask crash --all`) all.

use std::env;

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::operation::{Operation, Place, ensure_recovers};
use cofferdam_tests::small::Small;
use cofferdam_tests::tracer::{Action, Class, Point};

use crate::table::Row;

/// At how many calls a command is killed when not all are wanted.
const SAMPLE: usize = 20;

/// Whether the disk may be different behind a call in a way that matters by itself.
fn is_turning_point(class: Class) -> bool {
    matches!(class, Class::Rename | Class::Sync)
}

/// Kills an operation at its calls.
pub(crate) fn kill_at_every_step(operation: &Operation) -> Result<()> {
    let Some(small) = &operation.world()? else { return Ok(()) };
    let undisturbed = Place::new(operation, small)?;
    let traced = undisturbed.traced(operation, small, |_| Action::Pass)?;
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
    ensure!(row.kills() > 0, "{}: nothing was killed", operation.name);
    row.write()
}

/// One death and what comes after. The call at which it came, unless the command ended first.
fn round(operation: &Operation, small: &Small, number: usize, behind: bool) -> Result<Option<Point>> {
    let place = Place::new(operation, small)?;
    let before = small.ensure_intact(place.cofferdam.store()).context("before the kill")?;
    let traced = place.traced(operation, small, |point| match point.number == number {
        true if behind => Action::KillAfter,
        true => Action::KillBefore,
        false => Action::Pass,
    })?;
    let killed = traced.was_killed();
    if !killed {
        traced.run.expect(0)?;
    }
    let point = traced.points.get(number).filter(|_| killed).cloned();
    ensure_recovers(operation, small, &place, &before).with_context(|| format!("{point:?}"))?;
    Ok(point)
}
