//! The rules of extraction, as far as they concern the tree, with both resolvers and in all modes.
#![expect(clippy::disallowed_methods, reason = "tests look at their trees from outside")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

mod hostile;
mod markers;
mod metadata;
pub(crate) mod notation;
mod scenarios;
pub(crate) mod snapshot;
mod unprivileged;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use cofferdam_core::Limits;
use cofferdam_core::error::{Error, Result};

use super::entry::{Content, Entry, Sink as _};
use super::{LayerRecord, Mode, Resolver, TreeWriter, WriterOptions};

pub(crate) const RESOLVERS: [Resolver; 2] = [Resolver::Openat2, Resolver::Walk];

/// A destination with a victim beside it, which nothing may touch.
pub(crate) struct Lab {
    root: tempfile::TempDir,
    victim: snapshot::Snapshot,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for (dir, secret) in [("victim", "hello"), ("dest-evil", "secret")] {
            std::fs::create_dir(root.path().join(dir)).unwrap();
            std::fs::write(root.path().join(dir).join(secret), "untouched").unwrap();
        }
        std::fs::create_dir(root.path().join("dest")).unwrap();
        let victim = snapshot::full(&root.path().join("victim"));
        Self { root, victim }
    }

    pub(crate) fn dest(&self) -> PathBuf {
        self.root.path().join("dest")
    }

    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        let path = self.root.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// What lies in the destination, after making sure that nothing lies or changed outside.
    pub(crate) fn listing(&self) -> String {
        self.assert_contained();
        snapshot::listing(&self.dest())
    }

    pub(crate) fn assert_contained(&self) {
        assert_eq!(snapshot::full(&self.root.path().join("victim")), self.victim, "the victim was touched");
        assert_eq!(snapshot::listing(&self.root.path().join("dest-evil")), "secret=untouched");
    }
}

/// Whether tests may give files away.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

pub(crate) fn open(path: &Path) -> OwnedFd {
    std::fs::File::open(path).unwrap().into()
}

pub(crate) fn options(mode: Mode, resolver: Resolver) -> WriterOptions {
    WriterOptions { resolver, ..WriterOptions::new(mode) }
}

/// Content that comes a few bytes at a time.
pub(crate) struct Bytes<'a>(pub &'a [u8]);

impl Content for Bytes<'_> {
    fn chunk(&mut self) -> Result<&[u8]> {
        match self.0 {
            [] => Err(Error::Corrupt { subject: "the test's content".into(), reason: "it ended".into() }),
            rest => Ok(&rest[..rest.len().min(7)]),
        }
    }

    fn advance(&mut self, count: usize) {
        self.0 = &self.0[count..];
    }
}

pub(crate) fn put(writer: &mut TreeWriter, (entry, content): &(Entry, Vec<u8>)) -> Result<()> {
    let mut content = Bytes(content);
    writer.put(entry.clone(), &mut content)?;
    assert!(content.0.is_empty(), "content was left over");
    Ok(())
}

/// Writes layers, each in notation, into a directory.
pub(crate) fn write(dest: &Path, options: WriterOptions, layers: &[&str]) -> Result<Vec<LayerRecord>> {
    let mut writer = TreeWriter::new(open(dest), options)?;
    let mut records = Vec::new();
    for layer in layers {
        for entry in &notation::layer(layer) {
            put(&mut writer, entry)?;
        }
        records.push(writer.finish_layer()?);
    }
    writer.finish()?;
    Ok(records)
}

/// Preserves each layer alone, then merges them.
pub(crate) fn merge(lab: &Lab, dest: &Path, options: &WriterOptions, layers: &[&str]) -> Result<()> {
    let mut kept = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let tree = lab.beside(&format!("layer{index}"));
        let preserve = WriterOptions { mode: Mode::Preserve, defers: true, ..options.clone() };
        let record = write(&tree, preserve, &[layer])?.remove(0);
        kept.push((open(&tree), LayerRecord::from_json(&record.to_json()?)?));
    }
    let layers: Vec<_> = kept
        .iter()
        .map(|(tree, record)| crate::PreservedLayer { tree: std::os::fd::AsFd::as_fd(tree), record })
        .collect();
    crate::merge(&layers, open(dest), options.clone(), &cofferdam_core::Progress::none())
}

#[test]
fn a_writer_can_move_to_another_thread() {
    fn assert_send<T: Send>() {}
    assert_send::<TreeWriter>();
}

#[test]
fn preserve_and_overlay_want_an_empty_directory() {
    for mode in [Mode::Preserve, Mode::Overlay] {
        let lab = Lab::new();
        std::fs::write(lab.dest().join("x"), "").unwrap();
        let error = TreeWriter::new(open(&lab.dest()), WriterOptions::new(mode)).unwrap_err();
        assert_eq!(error.kind(), cofferdam_core::ErrorKind::Usage);
    }
}

#[test]
fn names_that_only_markers_have_are_refused() {
    for entry in ["F .wh.x", "D a/.wh.x/b", "H x->.wh.y", "S .wh.x->y", "F .wh..wh.plnk/x"] {
        let literal = notation::literal(entry);
        let lab = Lab::new();
        let mut writer = TreeWriter::new(open(&lab.dest()), WriterOptions::new(Mode::Preserve)).unwrap();
        let error = put(&mut writer, &literal).unwrap_err();
        assert_eq!(error.kind(), cofferdam_core::ErrorKind::Refused, "{entry}");
    }
}

#[test]
fn limits_are_kept() {
    for (layer, limits) in [
        ("D a, D b, D c", Limits::default().with(|limits| limits.entries = 2)),
        ("H a->x, H b->x, H c->x, H d->x", Limits::default().with(|limits| limits.deferred_bytes = 300)),
        ("S l->a/b/c/d/e/f, F l/g/h/i", Limits::default().with(|limits| limits.depth = 6)),
        ("S l->aaaaaaaaaaaaaaaaaaaa/b, F l/bbbbbbbbbb/c", Limits::default().with(|limits| limits.path_bytes = 30)),
    ] {
        let lab = Lab::new();
        let options = WriterOptions { limits, ..WriterOptions::new(Mode::Preserve) };
        let error = write(&lab.dest(), options, &[layer]).unwrap_err();
        assert!(matches!(error, Error::Limit { .. }), "{layer}: {error}");
    }
}
