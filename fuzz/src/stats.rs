//! Counts of what inputs led to, so that a run that proves nothing shows.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters with names. They are printed each time that the number of runs reaches a power of two.
pub struct Stats<const N: usize> {
    names: [&'static str; N],
    runs: AtomicU64,
    counts: [AtomicU64; N],
}

impl<const N: usize> Stats<N> {
    /// All counts are 0.
    pub const fn new(names: [&'static str; N]) -> Self {
        Self { names, runs: AtomicU64::new(0), counts: [const { AtomicU64::new(0) }; N] }
    }

    /// Counts a run that ended in this way; the last line printed is what `cargo xtask fuzz` reports.
    pub fn count(&self, outcome: usize) {
        self.counts[outcome].fetch_add(1, Ordering::Relaxed);
        let runs = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
        if runs >= 1024 && runs.is_power_of_two() {
            let counts = self.names.iter().zip(&self.counts);
            let counts: Vec<_> =
                counts.map(|(name, count)| format!("{name} {}", count.load(Ordering::Relaxed))).collect();
            eprintln!("outcomes of {runs} runs: {}", counts.join(", "));
        }
    }
}
