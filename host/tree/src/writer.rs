//! The tree writer: takes a layer's entries in their order and makes them.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use cofferdam_core::error::{Error, ErrorKind, Result};
use cofferdam_core::inherited;
use rustix::fs::{FileType, RawDir};

use super::cache::DirCache;
use super::entry::{Content, Device, Entry, Node, Sink, TreePath};
use super::handle::Dir;
use super::ids::{IdMap, IdSet, Ids, PathId};
use super::links::Pending;
use super::metadata::Owners;
use super::options::{Mode, Resolver, WriterOptions};
use super::overlay::Opaque;
use super::record::LayerRecord;
use super::resolve::has_openat2;
use super::strict::Strict;
use super::sys::{Explain as _, is_marker_name};
use super::times::{Budget, Times};

/// Writes layers below one directory.
///
/// Give it entries through [`Sink::put`], end each layer with [`TreeWriter::finish_layer`], and end with
/// [`TreeWriter::finish`]. A tree is only what the layer says once its layer is finished: links to later entries are made
/// then, and times of directories set. After an error the tree holds parts of the layer, and the writer is of no more use.
#[derive(Debug)]
#[must_use = "a tree is not whole before `finish`"]
pub struct TreeWriter {
    pub(super) options: WriterOptions,
    pub(super) owners: Owners,
    pub(super) root: Arc<Dir>,
    pub(super) ids: Ids,
    pub(super) cache: DirCache,
    /// Whether to call `openat2`.
    pub(super) openat2: bool,
    /// Whether a directory of the tree may hand an access list or a group on to what is made inside. See `inherited.rs`.
    pub(super) may_inherit: bool,
    /// Number of the layer at work, from 1.
    pub(super) layer: u32,
    /// What the layer at work has made or listed. Without it, there is nothing else in the tree.
    pub(super) own: Option<IdSet>,
    /// Directories that hold nothing of lower layers.
    pub(super) fresh: IdSet,
    pub(super) times: Times,
    pub(super) budget: Budget,
    /// Hard links that are still to be made.
    pub(super) pending: IdMap<Pending>,
    /// Those of them that lead to themselves, by place.
    pub(super) self_links: BTreeMap<Vec<u8>, PathId>,
    pub(super) record: LayerRecord,
    /// Directories that only something inside of them implies.
    pub(super) implied: BTreeSet<Vec<u8>>,
    /// Directories that were implied first and listed, removed or replaced later.
    pub(super) late: BTreeSet<Vec<u8>>,
    /// Directories that only a marker inside of them implies.
    pub(super) marker_dirs: BTreeSet<Vec<u8>>,
    /// The same, as far as they are in an overlay.
    pub(super) marker_ids: IdSet,
    /// What markers were seen for.
    pub(super) marked: IdSet,
    /// Directories that hide what is below them.
    pub(super) opaque: IdMap<Opaque>,
    /// Steps spent on following links.
    pub(super) steps: u64,
    /// Directories that were made without being listed, whatever became of them.
    pub(super) implied_so_far: u64,
    /// Things that markers made it look at, in all layers: the tests' measure of what markers cost.
    pub(super) visited: u64,
    /// Components of paths that were walked to open directories, in all layers: the tests' measure of what finding them costs.
    pub(super) walked: u64,
    /// Present when merging.
    pub(super) strict: Option<Strict>,
    /// Whether the error that is under way is one that lower layers may have a say in.
    pub(super) unsure: Cell<bool>,
    /// Whether entries have come since the last layer ended.
    dirty: bool,
}

impl TreeWriter {
    /// A writer for the tree below `root`, which stays where and what it is. Except for [`Mode::Apply`] it must be empty.
    pub fn new(root: OwnedFd, options: WriterOptions) -> Result<Self> {
        // A handle of our own, so that its position and flags are nobody else's.
        let root = rustix::fs::openat(&root, ".", super::sys::DIRECTORY, rustix::fs::Mode::empty())
            .explain("open the root of", b"/")?;
        let empty = is_empty(&root)?;
        if !empty && options.mode != Mode::Apply {
            return Err(Error::Usage {
                reason: "the destination is not empty".into(),
                hint: Some("give an empty directory".into()),
            });
        }
        let ids = Ids::default();
        let owners = Owners::decide(options.ownership, options.lossy, &root);
        let may_inherit = !empty || inherited::is_handed_on(&root).explain("examine", b"/")?;
        let root = Dir::new(root, *b"", ids.root());
        let openat2 = match options.resolver {
            Resolver::Auto => has_openat2(&root),
            Resolver::Openat2 => true,
            Resolver::Walk => false,
        };
        Ok(Self {
            owners,
            root,
            ids,
            cache: DirCache::default(),
            openat2,
            may_inherit,
            layer: 1,
            own: (!empty).then(IdSet::default),
            fresh: IdSet::default(),
            times: Times::default(),
            budget: Budget::new(options.limits.deferred_bytes),
            pending: IdMap::default(),
            self_links: BTreeMap::new(),
            record: LayerRecord::new(),
            implied: BTreeSet::new(),
            late: BTreeSet::new(),
            marker_dirs: BTreeSet::new(),
            marker_ids: IdSet::default(),
            marked: IdSet::default(),
            opaque: IdMap::default(),
            steps: 0,
            implied_so_far: 0,
            visited: 0,
            walked: 0,
            strict: None,
            unsure: Cell::new(false),
            dirty: false,
            options,
        })
    }

    /// A writer that builds a tree from nothing out of layers whose entries come in any order: those for which the order
    /// would matter are refused.
    pub fn unordered(root: OwnedFd, options: WriterOptions) -> Result<Self> {
        // Any mode but `Apply` wants an empty directory.
        let mut writer = Self::new(root, WriterOptions { mode: Mode::Preserve, ..options })?;
        writer.options.mode = Mode::Apply;
        writer.strict = Some(Strict::default());
        Ok(writer)
    }

    /// Ends a layer: makes the links that waited, sets the times of directories, and says what the layer held.
    pub fn finish_layer(&mut self) -> Result<LayerRecord> {
        self.dirty = false;
        self.settle_links()?;
        self.settle_overlay()?;
        self.settle_times()?;
        self.cache.clear();
        self.fresh.clear();
        self.marked.clear();
        self.marker_ids.clear();
        self.opaque.clear();
        self.budget.reset();
        self.steps = 0;
        self.implied_so_far = 0;
        self.layer += 1;
        if self.options.mode == Mode::Apply {
            self.own = Some(IdSet::default());
        }
        if self.strict.is_some() {
            self.strict = Some(Strict::default());
        }
        let mut record = mem::replace(&mut self.record, LayerRecord::new());
        record.left_out = self.owners.take_left_out();
        let implied = mem::take(&mut self.implied);
        record.implied = self.paths(implied)?;
        let late = mem::take(&mut self.late);
        record.late = self.paths(late)?;
        let marker_dirs = mem::take(&mut self.marker_dirs);
        record.marker_dirs = self.paths(marker_dirs)?;
        Ok(record)
    }

    /// Ends the tree, and the last layer if that was not done.
    pub fn finish(mut self) -> Result<()> {
        if self.dirty {
            self.finish_layer()?;
        }
        Ok(())
    }

    fn paths(&self, places: BTreeSet<Vec<u8>>) -> Result<Vec<TreePath>> {
        places.into_iter().map(|path| TreePath::parse(path, &self.options.limits)).collect()
    }

    /// Counts an entry, and checks what every entry must keep to.
    pub fn admit(&mut self, path: &TreePath) -> Result<()> {
        self.options.cancel.check()?;
        self.dirty = true;
        let counts = &mut self.record.counts;
        counts.entries += 1;
        if counts.entries > self.options.limits.entries {
            let limit = self.options.limits.entries;
            return Err(Error::Limit { subject: "the layer".into(), what: "entries", limit });
        }
        if path.components().any(is_marker_name) {
            return Err(Error::refused(path.as_bytes(), "a name that only markers have"));
        }
        Ok(())
    }
}

impl Drop for TreeWriter {
    /// A layer that failed leaves no placeholders.
    fn drop(&mut self) {
        self.remove_placeholders();
    }
}

impl Sink for TreeWriter {
    fn put(&mut self, entry: Entry, content: &mut dyn Content) -> Result<()> {
        let bytes = entry.node.content_bytes();
        self.unsure.set(false);
        match self.put_entry(entry, content) {
            Err(error) if self.may_be_right_above(&error) => {
                self.record.refuse_alone(&error);
                super::create::skip(content, bytes)
            }
            outcome => outcome,
        }
    }
}

impl TreeWriter {
    /// Returns true for an error that a link of a lower layer might keep from happening, if it is to be left to applying.
    fn may_be_right_above(&self, error: &Error) -> bool {
        let noted = self.unsure.take();
        self.options.defers && noted && self.implied_so_far > 0 && error.kind() == ErrorKind::Refused
    }

    /// Handles an error of a link that was left for the layer's end in the same way.
    pub(super) fn leave_to_applying(&mut self, error: Error) -> Result<()> {
        if self.options.defers && self.implied_so_far > 0 {
            self.record.refuse_alone(&error);
            return Ok(());
        }
        Err(error)
    }

    fn put_entry(&mut self, entry: Entry, content: &mut dyn Content) -> Result<()> {
        let Entry { path, node, metadata } = entry;
        self.admit(&path)?;
        match node {
            Node::Directory => self.put_directory(&path, &metadata),
            Node::File { size } => self.put_file(&path, &metadata, |file| {
                super::create::pour(content, file, 0, size, path.as_bytes())?;
                Ok(size)
            }),
            Node::Sparse { size, extents } => self.put_file(&path, &metadata, |file| {
                super::create::pour_extents(content, file, size, &extents, path.as_bytes())
            }),
            Node::Symlink { target } => self.put_symlink(&path, &metadata, &target),
            Node::HardLink { target } => self.put_hard_link(&path, &target),
            Node::CharDevice(device) => self.put_special(&path, &metadata, FileType::CharacterDevice, device),
            Node::BlockDevice(device) => self.put_special(&path, &metadata, FileType::BlockDevice, device),
            Node::Fifo => self.put_special(&path, &metadata, FileType::Fifo, Device { major: 0, minor: 0 }),
            Node::Whiteout => self.put_whiteout(&path),
            Node::Opaque => self.put_opaque(&path),
        }
    }
}

/// Whether a directory holds nothing.
fn is_empty(dir: &OwnedFd) -> Result<bool> {
    let mut buffer = vec![mem::MaybeUninit::uninit(); 1 << 10];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.explain("list", b"/")?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}
