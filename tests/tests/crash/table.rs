//! The table of kill points: a row for each operation, in `target/crash-points/`, and all rows in `target/crash-points.md`.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};
use cofferdam_tests::paths;
use cofferdam_tests::tracer::{Class, Point};

/// What was done to one operation.
pub(crate) struct Row {
    name: &'static str,
    calls: usize,
    all: bool,
    before: BTreeMap<Class, usize>,
    behind: usize,
}

impl Row {
    /// For an operation that comes to these calls when nobody disturbs it.
    pub(crate) fn new(name: &'static str, calls: &[Point], all: bool) -> Self {
        Self { name, calls: calls.len(), all, before: BTreeMap::new(), behind: 0 }
    }

    /// Counts a kill that hit.
    pub(crate) fn add(&mut self, point: &Point, behind: bool) {
        if behind {
            self.behind += 1;
        } else {
            *self.before.entry(point.class).or_default() += 1;
        }
    }

    /// How often the operation was killed.
    pub(crate) fn kills(&self) -> usize {
        self.before.values().sum::<usize>() + self.behind
    }

    /// Prints the row, keeps it, and makes the table of all that were kept.
    pub(crate) fn write(&self) -> Result<()> {
        let before: usize = self.before.values().sum();
        let classes = Class::ALL.map(|class| self.before.get(&class).copied().unwrap_or_default().to_string());
        let chosen = if self.all { "all" } else { "sample" };
        let row = format!(
            "| {} | {} | {chosen} | {before} | {} | {} | {} |",
            self.name,
            self.calls,
            classes.join(" | "),
            self.behind,
            before + self.behind
        );
        println!("{}\n{row}", heading());
        let dir = paths::target().join("crash-points");
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(format!("{}.row", self.name.replace([' ', '/'], "-"))), row)?;
        let mut rows = Vec::new();
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "row") {
                rows.push(fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?);
            }
        }
        rows.sort();
        let text = format!("{}\n{}\n", heading(), rows.join("\n"));
        // Each test is a process of its own, and two may end at once.
        let new = dir.join(format!("table.{}", std::process::id()));
        fs::write(&new, text)?;
        Ok(fs::rename(new, paths::target().join("crash-points.md"))?)
    }
}

fn heading() -> String {
    let classes = Class::ALL.map(Class::name);
    let lines = "--:|".repeat(classes.len() + 2);
    format!(
        "| operation | calls | chosen | killed before | {} | killed behind | kills |\n|---|--:|---|--:|{lines}",
        classes.join(" | ")
    )
}
