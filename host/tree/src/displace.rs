//! Makes room: removes what an entry replaces, and forgets what was known about it.

use cofferdam_core::error::Result;
use rustix::fs::FileType;

use super::handle::{Dir, Spot};
use super::options::Mode;
use super::record::Marker;
use super::remove::{Watch, remove};
use super::sys::{self, Explain as _, kind_of, within};
use super::writer::TreeWriter;

impl TreeWriter {
    /// Removes what lies at a place, with all that is in it. Tells whether there was anything.
    pub(super) fn displace(&mut self, spot: &Spot<'_>) -> Result<bool> {
        let Some(stat) = sys::look(&spot.dir, spot.name).explain("examine", spot.path)? else { return Ok(false) };
        self.watch_creation(spot)?;
        self.take_away(spot, kind_of(&stat))?;
        Ok(true)
    }

    /// Removes what lies at a place, which is of this kind.
    pub(super) fn take_away(&mut self, spot: &Spot<'_>, kind: FileType) -> Result<()> {
        let mut watch = Watch { own: self.own.as_ref(), links: Vec::new() };
        let watching = self.strict.is_some().then_some(&mut watch);
        remove(&spot.dir, spot.name, spot.path, &self.ids, spot.id, watching, Some(&self.options.cancel))?;
        let mut links = watch.links;
        if kind == FileType::Symlink {
            links.push(spot.id);
        }
        self.watch_links(&links, spot.path)?;
        match kind {
            FileType::Directory => {
                let place = sys::join(&spot.dir.path, spot.name);
                self.cache.forget_within(&place);
                self.void_self_links(&place);
                for path in self.note_late(&place)? {
                    self.implied.remove(&path);
                }
            }
            FileType::Symlink => self.cache.forget_aliases(),
            _ => {}
        }
        Ok(())
    }

    /// A directory was made where the layer itself had put something else before: what lower layers hold there was
    /// replaced, and must not come back when the layer is put on top of them.
    pub(super) fn cut_off(&mut self, dir: &Dir) -> Result<()> {
        match self.options.mode {
            Mode::Apply => Ok(()),
            Mode::Preserve => self.record_marker(Marker::Replaced, &dir.path, self.ids.child(dir.id, b"/")),
            Mode::Overlay => self.make_opaque(dir, false),
        }
    }

    /// Remembers which directories, of this one and those inside, were implied so far, and tells which: they are being
    /// removed, or what lower layers have in their places is.
    pub(super) fn note_late(&mut self, place: &[u8]) -> Result<Vec<Vec<u8>>> {
        if self.options.mode != Mode::Preserve {
            return Ok(Vec::new());
        }
        let all: Vec<_> = if place.is_empty() {
            self.implied.iter().cloned().collect()
        } else {
            self.implied.get(place).into_iter().chain(self.implied.range(within(place))).cloned().collect()
        };
        for path in &all {
            self.budget.charge(path)?;
            self.late.insert(path.clone());
        }
        Ok(all)
    }
}
