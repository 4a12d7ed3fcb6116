//! Markers: removals of what lower layers hold, whatever their order among a layer's own entries.
//!
//! Applied, a marker removes what the layer at work has not made or listed. Preserved, it is kept as an empty file beside
//! the content, and in the record. In an overlay it becomes a whiteout device or makes its directory opaque
//! (`overlay.rs`). Parents are resolved like those of content, but nothing is made for a marker that is applied.

use std::sync::Arc;

use cofferdam_core::error::{Error, Result};
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::create::not_root;
use super::entry::TreePath;
use super::handle::{Dir, Spot};
use super::ids::PathId;
use super::options::Mode;
use super::record::Marker;
use super::resolve::{Absent, Found};
use super::sys::{self, Explain as _, kind_of, open_directory, split};
use super::writer::TreeWriter;

/// The name of the file that makes its directory opaque.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// The permissions of a marker that is kept as a file.
const MARKER: u16 = 0o600;

impl TreeWriter {
    /// Removes what lower layers hold at a path.
    pub fn put_whiteout(&mut self, path: &TreePath) -> Result<()> {
        let path = not_root(path)?;
        let (parent, name) = split(path);
        let Some(dir) = self.marker_parent(parent)? else { return Ok(()) };
        self.watch_marker_place(path, &sys::join(&dir.path, name));
        let spot = Spot { id: self.ids.child(dir.id, name), dir, name, path };
        match self.options.mode {
            Mode::Apply => self.remove_lower(&spot),
            Mode::Preserve => self.keep_whiteout(&spot),
            Mode::Overlay => self.make_whiteout(&spot),
        }
    }

    /// Removes what lower layers hold inside of a directory.
    pub fn put_opaque(&mut self, path: &TreePath) -> Result<()> {
        let Some(dir) = self.marker_parent(path.as_bytes())? else { return Ok(()) };
        self.watch_marker_place(path.as_bytes(), &dir.path);
        match self.options.mode {
            Mode::Apply => self.prune(&dir),
            Mode::Preserve => self.keep_opaque(&dir, path.as_bytes()),
            Mode::Overlay => self.make_opaque(&dir, false),
        }
    }

    /// The directory that a marker lies in. None if the marker has nothing to remove.
    fn marker_parent(&mut self, path: &[u8]) -> Result<Option<Arc<Dir>>> {
        self.watch_marker(path);
        let absent = if self.options.mode == Mode::Apply { Absent::Stop } else { Absent::Mark };
        Ok(match self.resolve(path, absent)? {
            // Below the first layer is nothing.
            Found::Dir(_) if self.options.mode == Mode::Apply && self.own.is_none() => None,
            Found::Dir(dir) => Some(dir),
            Found::Nothing | Found::Blocked(_) => None,
            Found::Loop => return Err(self.endless(path)),
        })
    }

    /// Removes what lies at a place, but for what the layer at work has made.
    fn remove_lower(&mut self, spot: &Spot<'_>) -> Result<()> {
        let Some(stat) = sys::look(&spot.dir, spot.name).explain("examine", spot.path)? else { return Ok(()) };
        let own = self.is_own(spot.id);
        if kind_of(&stat) != FileType::Directory {
            if !own {
                self.note(&spot.dir)?;
                self.take_away(spot, kind_of(&stat))?;
            }
            return Ok(());
        }
        if own && self.fresh.contains(&spot.id) {
            return Ok(());
        }
        self.note(&spot.dir)?;
        let fd = open_directory(&spot.dir, spot.name).explain("open", spot.path)?;
        let dir = Dir::new(fd, self.place(&spot.dir, spot.name, spot.path)?, spot.id);
        self.prune(&dir)?;
        if own {
            return Ok(());
        }
        match rustix::fs::unlinkat(&spot.dir, spot.name, AtFlags::REMOVEDIR) {
            Ok(()) => {
                self.cache.forget_within(&dir.path);
                Ok(())
            }
            // The layer's own content keeps it there, as if only that had made it.
            Err(Errno::NOTEMPTY | Errno::EXIST) => self.disown(&dir),
            Err(errno) => Err(sys::failed("remove", spot.path, errno)),
        }
    }

    pub(super) fn is_own(&self, id: PathId) -> bool {
        self.own.as_ref().is_none_or(|own| own.contains(&id))
    }

    fn keep_whiteout(&mut self, spot: &Spot<'_>) -> Result<()> {
        let place = self.place(&spot.dir, spot.name, spot.path)?;
        self.record_marker(Marker::Whiteout, &place, spot.id)?;
        let mut name = b".wh.".to_vec();
        name.extend_from_slice(spot.name);
        self.keep_marker(&spot.dir, &name, spot.path)
    }

    fn keep_opaque(&mut self, dir: &Arc<Dir>, path: &[u8]) -> Result<()> {
        self.record_marker(Marker::Opaque, &dir.path, self.ids.child(dir.id, OPAQUE))?;
        self.keep_marker(dir, OPAQUE, path)
    }

    /// Notes a removal in the record, unless one with this id was noted before.
    pub(super) fn record_marker(&mut self, kind: fn(TreePath) -> Marker, place: &[u8], id: PathId) -> Result<()> {
        if self.marked.insert(id) {
            // What came before went elsewhere, if a lower layer has a link there, and would not if it came now.
            self.note_late(place)?;
            self.budget.charge(place)?;
            self.record.markers.push(kind(TreePath::parse(place.to_vec(), &self.options.limits)?));
        }
        Ok(())
    }

    /// Keeps a marker as an empty file.
    fn keep_marker(&mut self, dir: &Arc<Dir>, name: &[u8], path: &[u8]) -> Result<()> {
        let spot = Spot { id: self.ids.child(dir.id, name), dir: Arc::clone(dir), name, path };
        match sys::look(dir, name) {
            // Of too long a name: no archive can hold it, but the contract can. It stays in the record alone.
            Ok(Some(_)) | Err(Errno::NAMETOOLONG) => Ok(()),
            Ok(None) => self.put_empty(&spot, MARKER).map(|_| ()),
            Err(errno) => Err(Error::io("examine", path, errno)),
        }
    }
}
