//! Makes room: removes what an entry replaces, and forgets what was known about it.

use rustix::fs::FileType;

use super::handle::{Dir, Spot};
use super::options::Mode;
use super::remove::{ambiguous, remove};
use super::sys::{self, Explain as _, kind_of};
use super::writer::TreeWriter;
use crate::error::Result;

impl TreeWriter {
    /// Removes what lies at a place, with all that is in it. Tells whether there was anything.
    pub(super) fn displace(&mut self, spot: &Spot<'_>) -> Result<bool> {
        let Some(stat) = sys::look(&spot.dir, spot.name).explain("examine", spot.path)? else { return Ok(false) };
        let kind = kind_of(&stat);
        self.watch(spot, kind)?;
        let spare = if self.strict.is_some() { self.own.as_ref() } else { None };
        remove(&spot.dir, spot.name, spot.path, &self.ids, spot.id, spare)?;
        match kind {
            FileType::Directory => {
                self.cache.clear();
                if self.implied.remove(&spot.id).is_some() && self.options.mode == Mode::Preserve {
                    let place = sys::join(&spot.dir.path, spot.name);
                    self.note_late(&place)?;
                }
            }
            FileType::Symlink => self.cache.forget_aliases(),
            _ => {}
        }
        Ok(true)
    }

    /// A directory was made where the layer itself had put something else before: what lower layers hold there was
    /// replaced, and must not come back when the layer is put on top of them.
    pub(super) fn cut_off(&mut self, dir: &Dir) -> Result<()> {
        match self.options.mode {
            Mode::Apply => Ok(()),
            Mode::Preserve => self.record_whiteout(&dir.path, dir.id),
            Mode::Overlay => self.make_opaque(dir, false),
        }
    }

    /// Remembers a directory that was implied, and is now listed or replaced.
    pub(super) fn note_late(&mut self, place: &[u8]) -> Result<()> {
        self.budget.charge(place)?;
        self.record.late.push(super::entry::TreePath::parse(place.to_vec(), &self.options.limits)?);
        Ok(())
    }

    /// When merging, nothing of the layer's own is ever replaced, and no link through which it went: unless two of its paths
    /// lead to one place, and then the order matters.
    fn watch(&mut self, spot: &Spot<'_>, kind: FileType) -> Result<()> {
        let own = self.own.as_ref().is_some_and(|own| own.contains(&spot.id));
        let Some(strict) = &mut self.strict else { return Ok(()) };
        if kind == FileType::Symlink {
            strict.replaced.insert(spot.id);
        }
        if own || strict.traversed.contains(&spot.id) { Err(ambiguous(spot.path)) } else { Ok(()) }
    }
}
