//! Commands that change a store, each with what must hold before and after: for tests that disturb them.

mod list;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

pub use list::*;

use crate::cofferdam::exit;
use crate::small::{OLD, Small};
use crate::tracer::{self, Action, Point, Traced};
use crate::{Cofferdam, Scratch, require, store};

/// A command.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// Its name in tables.
    pub name: &'static str,
    /// Whether it needs a registry.
    pub registry: bool,
    /// Makes the store as it is before.
    pub before: fn(&Small, &Cofferdam) -> Result<()>,
    /// Its words; its destination, if it has one, is [`Place::dest`].
    pub command: fn(&Small, &Place) -> Result<Vec<String>>,
    /// What must hold when it did not end well, beyond what always must.
    pub between: fn(&Small, &Place) -> Result<()>,
    /// What must hold when it was repeated.
    pub after: fn(&Small, &Place) -> Result<()>,
    /// How the repetition may end.
    pub codes: &'static [i32],
}

impl Operation {
    /// The images that it works on; nothing, and a skip, where it cannot be run under a tracer.
    pub fn world(&self) -> Result<Option<Small>> {
        let tools: &[&str] = if self.registry { &["docker-registry", "skopeo"] } else { &[] };
        if !require::all(&[&["root", "gzip", "zstd"], tools].concat()) {
            return Ok(None);
        }
        if !tracer::available() {
            require::skip("programs can be traced on x86-64 only");
            return Ok(None);
        }
        Small::new(self.registry).map(Some)
    }
}

/// Where one round happens: a store, and a directory for what is made outside of it.
#[derive(Debug)]
pub struct Place {
    /// The command.
    pub cofferdam: Cofferdam,
    /// The directory in which the destination is.
    pub out: PathBuf,
    _scratch: Scratch,
}

impl Place {
    /// A place with the store as it is before an operation.
    pub fn new(operation: &Operation, small: &Small) -> Result<Self> {
        let scratch = Scratch::new()?;
        let root = scratch.path().canonicalize()?;
        let (cofferdam, out) = (Cofferdam::new(root.join("store"))?, scratch.dir("out")?.canonicalize()?);
        (operation.before)(small, &cofferdam).context("before the operation")?;
        Ok(Self { cofferdam, out, _scratch: scratch })
    }

    /// The destination.
    pub fn dest(&self) -> PathBuf {
        self.out.join("rootfs")
    }

    /// Runs an operation under the eyes of a tracer.
    pub fn traced(
        &self,
        operation: &Operation,
        small: &Small,
        decide: impl FnMut(&Point) -> Action + Send,
    ) -> Result<Traced> {
        let roots = [self.cofferdam.store().to_path_buf(), self.out.clone()];
        self.cofferdam.traced((operation.command)(small, self)?, &roots, decide)
    }
}

/// Fails unless the world is whole after an operation that may not have ended well, and the operation succeeds when it is
/// repeated. `before` is what [`Small::ensure_intact`] said before it.
pub fn ensure_recovers(operation: &Operation, small: &Small, place: &Place, before: &[&str]) -> Result<()> {
    let cofferdam = &place.cofferdam;
    let store = cofferdam.store();
    let left = small.ensure_intact(store).context("as it was left")?;
    ensure!(!before.contains(&OLD) || left.contains(&OLD), "an image was lost");
    (operation.between)(small, place).context("as it was left")?;

    // A verb that changes things opens the store for use; this one finds nothing to do then.
    cofferdam.fails(exit::NOT_FOUND, ["rm", "none.test/none:1"]).context("opening the store again")?;
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
    cofferdam.ok(["fsck"]).context("fsck")?;
    Ok(())
}
