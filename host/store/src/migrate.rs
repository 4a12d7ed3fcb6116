//! From older formats to this one, a step at a time.
//!
//! | format | what it is |
//! |---|---|
//! | 0 | a directory that the reference wrote: blobs and trees, and no `meta.json` |
//! | 1 | this one |
//!
//! Each step may be cut short at any moment and done again: it leaves alone what it has done before, and `meta.json` tells of the
//! new format only when all of it is on disk. Who opens the store next goes on where the last one stopped; of several at once, one
//! does the work. A step is for what an older version would break or misread. What it may ignore (such as a new file beside a
//! record) needs none, and the number stays, so that old versions go on working.

use std::sync::Arc;

use cap_std::fs::Dir;
use cofferdam_core::error::Result;

use crate::keep;
use crate::layout::Rooms;
use crate::lock::Locks;
use crate::meta::{self, Access};

/// The format that this version reads and writes.
pub(super) const CURRENT: u32 = 1;

/// A step to a format from the one before.
pub(super) struct Step {
    pub(super) to: u32,
    pub(super) run: fn(&Rooms) -> Result<()>,
}

const STEPS: [Step; CURRENT as usize] = [Step { to: 1, run: |rooms| adopt(&rooms.root) }];

/// Who wrote a directory of the reference knows of no references, and keeps a list of images of their own. To be noted before anything
/// of ours is made there: from then on, the directory cannot be told from a store that is half made.
pub(super) fn adopt(root: &Arc<Dir>) -> Result<()> {
    keep::mark(root)
}

/// Brings a store with an older `meta.json` to this format.
pub(super) fn bring_up(rooms: &Rooms, shown: &[u8]) -> Result<Access> {
    bring_up_by(&STEPS, rooms, shown)
}

pub(super) fn bring_up_by(steps: &[Step], rooms: &Rooms, shown: &[u8]) -> Result<Access> {
    let newest = steps.last().map_or(0, |step| step.to);
    let _lock = Locks::new(Arc::clone(&rooms.locks)).acquire("migrate.lock")?;
    // Read again: whoever held the lock may have done it.
    let found = meta::format(&rooms.root, shown, newest)?;
    for step in steps.iter().filter(|step| found.is_none_or(|found| step.to > found)) {
        tracing::info!(to = step.to, "bringing the store to a newer format");
        (step.run)(rooms)?;
        meta::advance(&rooms.root, shown, step.to)?;
    }
    meta::read_for(&rooms.root, shown, newest)?.ok_or_else(|| meta::not_there(shown))
}

#[cfg(test)]
mod tests {
    use cofferdam_core::error::Error;

    use super::*;

    fn rooms() -> (tempfile::TempDir, Rooms) {
        let temp = tempfile::tempdir().unwrap();
        let rooms = Rooms::open(Arc::new(cofferdam_core::ambient::open_dir(temp.path()).unwrap())).unwrap();
        (temp, rooms)
    }

    fn note(rooms: &Rooms, name: &str) {
        use std::io::Write as _;
        let mut file = rooms.root.open_with(name, cap_std::fs::OpenOptions::new().create(true).append(true)).unwrap();
        file.write_all(b"x").unwrap();
    }

    #[expect(clippy::unnecessary_wraps, reason = "a step")]
    fn one(rooms: &Rooms) -> Result<()> {
        note(rooms, "one");
        Ok(())
    }

    /// A step that is cut short the first time.
    fn two(rooms: &Rooms) -> Result<()> {
        note(rooms, "two");
        if rooms.root.read("two").unwrap().len() > 1 { Ok(()) } else { Err(Error::Interrupted) }
    }

    const TWO: [Step; 2] = [Step { to: 1, run: one }, Step { to: 2, run: two }];

    #[test]
    fn steps_are_done_in_order_and_one_that_was_cut_short_is_done_again() {
        let (temp, rooms) = rooms();
        let count = |name: &str| rooms.root.read(name).map_or(0, |bytes| bytes.len());
        let format = || meta::format(&rooms.root, b"/store", 2).unwrap();
        assert_eq!(format(), None);
        assert!(bring_up_by(&TWO, &rooms, b"/store").is_err());
        assert_eq!((count("one"), count("two"), format()), (1, 1, Some(1)), "the second is not done");
        assert!(bring_up_by(&TWO, &rooms, b"/store").unwrap().writable().is_ok());
        assert_eq!((count("one"), count("two"), format()), (1, 2, Some(2)), "the first is not done again");
        bring_up_by(&TWO, &rooms, b"/store").unwrap();
        assert_eq!((count("one"), count("two")), (1, 2), "nothing is left to do");
        // A version that knows only the first format stays out.
        assert!(matches!(bring_up_by(&TWO[..1], &rooms, b"/store"), Err(Error::StoreFeature { .. })));
        assert_eq!(temp.path().join("locks").read_dir().unwrap().count(), 0);
    }

    #[test]
    fn features_stay_when_the_format_changes() {
        let (_temp, rooms) = rooms();
        let text = r#"{"format":1,"compatible":["nice"]}"#;
        rooms.root.write("meta.json", text).unwrap();
        rooms.root.write("two", "x").unwrap();
        bring_up_by(&TWO, &rooms, b"/store").unwrap();
        let text = rooms.root.read_to_string("meta.json").unwrap();
        assert!(text.contains("\"nice\"") && text.contains("\"format\": 2"), "{text}");
    }

    #[test]
    fn many_at_once_do_it_once() {
        let (_temp, rooms) = rooms();
        rooms.root.write("two", "x").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| bring_up_by(&TWO, &rooms, b"/store").unwrap());
            }
        });
        assert_eq!(rooms.root.read("one").unwrap().len(), 1);
    }

    /// An old store stays as it is when its `meta.json` cannot be understood.
    #[test]
    fn what_cannot_be_understood_is_not_migrated() {
        let (_temp, rooms) = rooms();
        rooms.root.write("meta.json", "{").unwrap();
        assert!(matches!(bring_up_by(&TWO, &rooms, b"/store"), Err(Error::Damaged { .. })));
        assert!(!rooms.root.exists("one"));
    }
}
