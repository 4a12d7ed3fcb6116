//! The copy merge: puts preserved trees on top of each other, with the tree writer and under its rules, so that the result
//! is what applying the layers one by one gives.
//!
//! Of each layer, all removals come first, then its content, then its links into lower layers. Only one thing is lost in
//! a preserved tree: the order of entries that reach one place by two paths, one of them through a link of a lower
//! layer. Layers for which that matters are refused with [`cofferdam_core::Error::Unsupported`]; applying them still works.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, RawDir, Stat};

mod copy;
pub mod source;

use cofferdam_core::error::{Error, Result};
use cofferdam_core::progress::{Event, Progress};

use self::copy::Copier;
use self::source::{Source, Thing};
use crate::entry::TreePath;
use crate::{
    Explain as _, LayerRecord, LeftOut, Marker, SafeRoot, TreeWriter, WriterOptions, ambiguous, check_tree,
    is_marker_name, join, kind_of,
};

/// A layer as the store keeps it.
#[derive(Clone, Copy, Debug)]
pub struct PreservedLayer<'a> {
    /// Its tree, written with [`crate::Mode::Preserve`].
    pub tree: BorrowedFd<'a>,
    /// What the tree cannot show.
    pub record: &'a LayerRecord,
}

/// Merges layers, lowest first, into the empty directory `root`. The mode of `options` is of no account.
///
/// Content is shared with the trees where the file system can (reflinks), and never by hard links: changing the result
/// changes no tree. Fails with [`Error::Unsupported`] on the rare layers that only applying gets right; see above.
pub fn merge(layers: &[PreservedLayer<'_>], root: OwnedFd, options: WriterOptions, progress: &Progress) -> Result<()> {
    let mut merge = Merge::new(root, options)?;
    for (index, layer) in layers.iter().enumerate() {
        progress.emit(Event::Merging { layer: index + 1, of: layers.len() });
        merge.add(*layer)?;
    }
    merge.finish()
}

/// A merge under way, for whoever wants to hold one layer's record at a time.
pub struct Merge {
    writer: TreeWriter,
    copier: Copier,
    options: WriterOptions,
    layers: usize,
}

impl Merge {
    /// Into the empty directory `root`.
    pub fn new(root: OwnedFd, options: WriterOptions) -> Result<Self> {
        let writer = TreeWriter::unordered(root, options.clone())?;
        let copier = Copier::new(options.cancel.clone());
        Ok(Self { writer, copier, options, layers: 0 })
    }

    /// Puts the next layer on top. Tells which of its attributes the result cannot hold: those that its tree could not hold
    /// either are among them.
    pub fn add(&mut self, layer: PreservedLayer<'_>) -> Result<LeftOut> {
        self.layers += 1;
        still_there(layer.tree)?;
        check_tree(layer.tree, b".", Some(&self.options.cancel)).map_err(|error| match error {
            Error::Mounted { mount, .. } => {
                Error::Mounted { what: format!("the tree of layer {}", self.layers), mount }
            }
            error => error,
        })?;
        if let Some(reason) = &layer.record.alone_refused {
            let what =
                format!("merging layer {}, which makes sense on top of its lower layers only ({reason}),", self.layers);
            return Err(Error::Unsupported { what });
        }
        let tree = layer.tree.try_clone_to_owned().map_err(|source| Error::io("hold", b"/", source))?;
        let merging = Merging {
            writer: &mut self.writer,
            copier: &mut self.copier,
            options: &self.options,
            tree: SafeRoot::new(tree, self.options.resolver),
            unlisted: layer.record.implied.iter().map(|path| (path.as_bytes(), true)).collect(),
            groups: HashMap::new(),
            remembered: 0,
        };
        let merged = merging.run(layer.record);
        // First of all: what went wrong in a directory that is gone, or did not, means nothing.
        let merged = still_there(layer.tree).and(merged);
        merged.map_err(|error| error.context(format!("merging layer {}", self.layers)))
    }

    /// Ends it: sets what comes last.
    pub fn finish(self) -> Result<()> {
        self.writer.finish()
    }
}

/// A directory that was removed lists nothing and says nothing: its layer would be missing without a word.
fn still_there(tree: BorrowedFd<'_>) -> Result<()> {
    if rustix::fs::fstat(tree).explain("examine", b"/")?.st_nlink > 0 {
        return Ok(());
    }
    Err(Error::Busy { what: "the tree of a layer, which was removed meanwhile,".into() })
}

/// The merge of one layer.
struct Merging<'a> {
    writer: &'a mut TreeWriter,
    copier: &'a mut Copier,
    options: &'a WriterOptions,
    tree: SafeRoot,
    /// Directories that the layer does not list, and whether they are to be made nevertheless.
    unlisted: HashMap<&'a [u8], bool>,
    /// The first path of each inode that has several.
    groups: HashMap<(u64, u64), TreePath>,
    /// Bytes of names in `groups`.
    remembered: usize,
}

impl<'a> Merging<'a> {
    fn run(mut self, record: &'a LayerRecord) -> Result<LeftOut> {
        self.unlisted.extend(record.marker_dirs.iter().map(|path| (path.as_bytes(), false)));
        for path in &record.late {
            self.options.cancel.check()?;
            if self.writer.is_link(path.as_bytes())? {
                return Err(ambiguous(path.as_bytes()));
            }
        }
        for marker in &record.markers {
            self.options.cancel.check()?;
            match marker {
                Marker::Whiteout(path) => self.writer.put_whiteout(path)?,
                Marker::Opaque(path) => self.writer.put_opaque(path)?,
                Marker::Replaced(path) => self.writer.put_replaced(path)?,
            }
        }
        self.writer.check_markers(&record.implied)?;
        self.content(record.root)?;
        for link in &record.links {
            self.writer.admit(&link.path)?;
            self.writer.put_lower_link(&link.path, &link.target)?;
        }
        let mut left_out = self.writer.finish_layer()?.left_out;
        left_out.add(&record.left_out);
        Ok(left_out)
    }

    /// Copies the tree, each directory before what is in it.
    fn content(&mut self, root_listed: bool) -> Result<()> {
        let mut todo = vec![Vec::new()];
        let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
        while let Some(path) = todo.pop() {
            let dir = self.tree.open_dir(&path)?;
            let listed = if path.is_empty() { root_listed } else { !self.unlisted.contains_key(path.as_slice()) };
            if listed {
                let tree_path = TreePath::parse(path.clone(), &self.options.limits)?;
                self.writer.admit(&tree_path)?;
                self.writer.put_directory(&tree_path, &source::directory(&dir, &path)?)?;
            } else if self.unlisted.get(path.as_slice()) == Some(&true) {
                self.writer.imply_path(&path)?;
            }
            let mut entries = RawDir::new(&dir, &mut buffer);
            while let Some(entry) = entries.next() {
                let entry = entry.explain("list", &path)?;
                let name = entry.file_name().to_bytes();
                if matches!(name, b"." | b"..") || is_marker_name(name) {
                    continue;
                }
                let child = join(&path, name);
                let kind = match entry.file_type() {
                    FileType::Unknown => kind_of(&stat(&dir, name, &child)?),
                    kind => kind,
                };
                if kind == FileType::Directory {
                    todo.push(child);
                } else {
                    self.leaf(&dir, name, child, kind)?;
                }
            }
        }
        Ok(())
    }

    /// Copies something that is no directory, or links it to a copy that was made before.
    fn leaf(&mut self, dir: &OwnedFd, name: &[u8], path: Vec<u8>, kind: FileType) -> Result<()> {
        let path = TreePath::parse(path, &self.options.limits)?;
        self.writer.admit(&path)?;
        let source = Source::open(dir, name, kind, path.as_bytes())?;
        let stat = source.stat;
        if stat.st_nlink > 1 {
            if let Some(first) = self.groups.get(&(stat.st_dev, stat.st_ino)) {
                return self.writer.put_hard_link(&path, first);
            }
            self.remember(&path)?;
            self.groups.insert((stat.st_dev, stat.st_ino), path.clone());
        }
        let (thing, metadata) = source.read(path.as_bytes())?;
        match thing {
            Thing::File(file) => {
                let copier = &mut *self.copier;
                self.writer.put_file(&path, &metadata, |copy| copier.copy(&file, copy, &stat, path.as_bytes()))
            }
            Thing::Symlink(target) => self.writer.put_symlink(&path, &metadata, &target),
            Thing::Special(kind, device) => self.writer.put_special(&path, &metadata, kind, device),
        }
    }

    /// Counts the name of a hard link group, against the same limit as what the writer remembers.
    fn remember(&mut self, path: &TreePath) -> Result<()> {
        self.remembered += path.as_bytes().len() + 64;
        let limit = self.options.limits.deferred_bytes;
        if self.remembered <= limit {
            return Ok(());
        }
        let what = "bytes of names of hard links";
        Err(Error::Limit { subject: "the layer".into(), what, limit: limit as u64 })
    }
}

fn stat(dir: &OwnedFd, name: &[u8], path: &[u8]) -> Result<Stat> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).explain("examine", path)
}
