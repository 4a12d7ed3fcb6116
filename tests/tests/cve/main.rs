//! Known mechanisms of attack that no layer alone can show, each test named after the advisories that describe it; and a
//! list of all of them, each of which must have a test, here or anywhere. Those of layers are in `tests/conformance/cve/`.

mod digests;
mod programs;
mod register;
mod store_rooms;

use std::fs;

use anyhow::Result;
use cofferdam_tests::{Cofferdam, OciLayout, Scratch, Snapshot, store};

/// A store, a destination with neighbours, and a layout.
pub(crate) struct Bench {
    pub(crate) scratch: Scratch,
    pub(crate) cofferdam: Cofferdam,
    pub(crate) layout: OciLayout,
    victim: Snapshot,
}

impl Bench {
    pub(crate) fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        let victim = scratch.dir("out/victim")?;
        fs::write(victim.join("hello"), "untouched")?;
        Ok(Self {
            cofferdam: Cofferdam::new(scratch.join("store"))?,
            layout: OciLayout::create(scratch.join("layout"))?,
            victim: Snapshot::read(&victim)?,
            scratch,
        })
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.scratch.join(name).display().to_string()
    }

    pub(crate) fn ensure_contained(&self, names: &[&str]) -> Result<()> {
        store::ensure_holds(&self.scratch.join("out"), names)?;
        let victim = Snapshot::read(&self.scratch.join("out/victim"))?;
        cofferdam_tests::tree::ensure_same(("before", &self.victim), ("after", &victim), |_, _| false)
    }
}
