//! A run of steps, each with its result and time, and the summary at the end.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::table;

/// How a step ended well.
pub(crate) enum Done {
    /// It was done.
    Ok,
    /// It could not be done here, and why.
    Skipped(String),
}

/// All steps so far.
pub(crate) struct Steps {
    require_all: bool,
    rows: Vec<(String, Outcome, Duration)>,
}

enum Outcome {
    Ok,
    Skipped(String),
    Failed(String),
}

impl Steps {
    /// No steps yet. With `require_all` a skip is a failure.
    pub(crate) fn new(require_all: bool) -> Self {
        Self { require_all, rows: Vec::new() }
    }

    /// Runs a step. One that fails does not keep the next ones from running. Returns whether it was done.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce() -> Result<Done>) -> bool {
        eprintln!("\n== {name}");
        let start = Instant::now();
        let outcome = match work() {
            Ok(Done::Ok) => Outcome::Ok,
            Ok(Done::Skipped(why)) if self.require_all => Outcome::Failed(format!("skipped, which CI forbids: {why}")),
            Ok(Done::Skipped(why)) => Outcome::Skipped(why),
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        match &outcome {
            Outcome::Ok => {}
            Outcome::Skipped(why) => eprintln!("SKIPPED {name}: {why}"),
            Outcome::Failed(why) => eprintln!("FAILED {name}: {why}"),
        }
        let done = matches!(outcome, Outcome::Ok);
        self.rows.push((name.to_owned(), outcome, start.elapsed()));
        done
    }

    /// Prints the summary; fails if a step has.
    pub(crate) fn finish(self) -> Result<()> {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|(name, outcome, time)| {
                let word = match outcome {
                    Outcome::Ok => "ok",
                    Outcome::Skipped(_) => "SKIPPED",
                    Outcome::Failed(_) => "FAILED",
                };
                vec![name.clone(), word.to_owned(), format!("{:.1}", time.as_secs_f64())]
            })
            .collect();
        eprintln!("\n{}", table::render(&["step", "result", "seconds"], &rows));
        let mut failed = 0;
        for (name, outcome, _) in &self.rows {
            match outcome {
                Outcome::Ok => {}
                Outcome::Skipped(why) => eprintln!("skipped {name}: {why}"),
                Outcome::Failed(why) => {
                    failed += 1;
                    eprintln!("failed {name}: {why}");
                }
            }
        }
        if failed > 0 {
            bail!("{failed} of {} steps failed", self.rows.len());
        }
        Ok(())
    }
}
