//! Archives: our parser beside the `tar` crate.

use crate::stats::Stats;
use crate::{archive, compare, crate_tar, ours, random};

static STATS: Stats<4> = Stats::new(["read by both", "read here only", "refused here", "not comparable"]);

/// Reads an archive in one piece and in several, and compares with the `tar` crate.
pub fn run(archive: &[u8]) {
    let whole = ours::read(archive, usize::MAX);
    let piece = random::piece(archive, 1400);
    let pieces = ours::read(archive, piece);
    assert_eq!(format!("{whole:?}"), format!("{pieces:?}"), "in pieces of {piece} bytes");
    let Ok(here) = whole else {
        STATS.count(2);
        return;
    };
    if !crate_tar::understands(archive::oddities(archive)) {
        STATS.count(3);
        return;
    }
    match crate_tar::read(archive) {
        Err(_) => STATS.count(1),
        Ok(there) => {
            if let Some(difference) = compare::difference(&here, &there) {
                panic!("the tar crate sees another archive: {difference}");
            }
            STATS.count(0);
        }
    }
}
