//! What is in the store, all of it, and what it takes on disk. Changes nothing, and takes no lock for longer than a look.

use std::path::Path;
use std::sync::Arc;

use cap_std::fs::Dir;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use cofferdam_tree::disk_usage;
use rustix::fs::{AtFlags, FileType};
use serde::Serialize;

use crate::layout::{self, BlobKind};
use crate::names;
use crate::storage::ImageStorage;
use crate::sweep::{self, Sweep};
use crate::trees::Trees;
use crate::{bundle, file, lease, plugins, scratch};

/// What something in the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// A manifest or an index.
    Manifest,
    /// An image configuration.
    Config,
    /// A layer's blob.
    Layer,
    /// A layer's tree.
    Tree,
    /// A tree of a local layout.
    LocalTree,
    /// A tree that was made for overlayfs.
    OverlayTree,
    /// What the store notes about a tree or a manifest.
    Note,
    /// What a name stands for.
    Reference,
    /// What is being written, or was when its writer died.
    Staging,
    /// A compiled guest.
    Guest,
    /// A plugin that was added.
    Plugin,
    /// Directories and locks, and what the store knows of itself.
    Bookkeeping,
    /// Something that the store did not make.
    Other,
}

impl Kind {
    /// The word for it.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Config => "config",
            Self::Layer => "layer",
            Self::Tree => "tree",
            Self::LocalTree => "local tree",
            Self::OverlayTree => "overlay tree",
            Self::Note => "note",
            Self::Reference => "reference",
            Self::Staging => "staging",
            Self::Guest => "guest",
            Self::Plugin => "plugin",
            Self::Bookkeeping => "bookkeeping",
            Self::Other => "other",
        }
    }
}

impl From<BlobKind> for Kind {
    fn from(kind: BlobKind) -> Self {
        match kind {
            BlobKind::Manifest => Self::Manifest,
            BlobKind::Config => Self::Config,
            BlobKind::Layer => Self::Layer,
        }
    }
}

/// Something in the store.
#[derive(Clone, Debug)]
pub(super) struct Thing {
    pub(super) kind: Kind,
    /// Where it is, from the store's directory.
    pub(super) path: String,
    pub(super) digest: Option<Digest>,
    pub(super) bytes: u64,
    /// Of a note: the path of what it is about.
    pub(super) about: Option<String>,
    /// Of staging: whether nobody is at work on it; of a plugin's component: whether no note names it.
    pub(super) dead: bool,
    /// Of a guest: when it was last used, in seconds since 1970.
    pub(super) used_at: u64,
}

impl Thing {
    fn new(kind: Kind, path: String, digest: Option<Digest>, bytes: u64) -> Self {
        Self { kind, path, digest, bytes, about: None, dead: false, used_at: 0 }
    }
}

/// A census under way.
struct Census<'a> {
    storage: &'a ImageStorage,
    sweep: Sweep,
    things: Vec<Thing>,
}

impl ImageStorage {
    /// All that is in the store. What comes or goes meanwhile is in it or not.
    pub(super) fn census(&self, now: u64) -> Result<Vec<Thing>> {
        let mut census = Census { storage: self, sweep: Sweep::new(now), things: Vec::new() };
        census.root()?;
        for kind in BlobKind::ALL {
            census.blobs(kind)?;
        }
        census.trees(self.trees(), "", Kind::Tree)?;
        if let Some(trees) = self.overlay_trees_made()? {
            if let Ok(room) = layout::open_dir(&self.rooms().root, "overlay") {
                census.directory(&room, "overlay");
            }
            census.trees(&trees, "overlay/", Kind::OverlayTree)?;
        }
        census.references()?;
        census.locks()?;
        census.local()?;
        if let Ok(guests) = layout::open_dir(&self.rooms().root, "guests") {
            census.guests(&guests, "guests", 0)?;
        }
        if let Ok(plugins) = layout::open_dir(&self.rooms().root, plugins::ROOM) {
            census.plugins(&Arc::new(plugins))?;
        }
        if let Ok(scratch) = layout::open_dir(&self.rooms().root, scratch::ROOM) {
            census.scratch(&scratch)?;
        }
        Ok(census.things)
    }
}

impl Census<'_> {
    fn add(&mut self, thing: Thing) {
        self.things.push(thing);
    }

    /// The store's directory itself, and what the store did not make.
    fn root(&mut self) -> Result<()> {
        let root = Arc::clone(&self.storage.rooms().root);
        self.directory(&root, "");
        for name in layout::names(&root, "the store")? {
            if !layout::ROOMS.contains(&name.as_str()) {
                let known = ["meta.json", "keep-unreferenced"].contains(&name.as_str());
                let thing = self.file(&root, "", &name, if known { Kind::Bookkeeping } else { Kind::Other });
                self.add(thing);
            }
        }
        Ok(())
    }

    /// The blocks of a directory itself.
    fn directory(&mut self, dir: &Dir, path: &str) {
        let blocks = rustix::fs::fstat(dir).map_or(0, |stat| u64::try_from(stat.st_blocks).unwrap_or(0));
        self.add(Thing::new(Kind::Bookkeeping, path.to_owned(), None, blocks * 512));
    }

    /// One name in a room that is no tree of a layer: staged, or of this kind.
    fn file(&self, dir: &Dir, room: &str, name: &str, kind: Kind) -> Thing {
        let path = if room.is_empty() { name.to_owned() } else { format!("{room}/{name}") };
        let bytes = disk_usage(dir, name.as_bytes());
        let Some(staged) = names::parse(name).filter(|staged| !staged.staging.is_tree()) else {
            return Thing::new(kind, path, None, bytes);
        };
        let dead = sweep::is_dead(dir, name, staged.ours, &self.sweep);
        Thing { dead, ..Thing::new(Kind::Staging, path, staged.digest, bytes) }
    }

    fn references(&mut self) -> Result<()> {
        let dir = Arc::clone(&self.storage.rooms().refs);
        self.directory(&dir, "refs");
        for name in layout::names(&dir, "refs")? {
            let kind = if name.strip_suffix(".json").is_some() { Kind::Reference } else { Kind::Other };
            let thing = self.file(&dir, "refs", &name, kind);
            self.add(thing);
        }
        Ok(())
    }

    fn plugins(&mut self, dir: &Arc<Dir>) -> Result<()> {
        self.directory(dir, plugins::ROOM);
        let plugins = self.storage.plugins()?;
        let unnamed = if plugins.is_busy() { None } else { plugins.unnamed()?.ok() };
        for name in layout::names(dir, plugins::ROOM)? {
            let kind = if plugins::is_known(&name) { Kind::Plugin } else { Kind::Other };
            let mut thing = self.file(dir, plugins::ROOM, &name, kind);
            if kind == Kind::Plugin {
                let digest = plugins::component_digest(&name);
                thing.dead = digest.is_some_and(|digest| unnamed.as_ref().is_some_and(|all| all.contains(&digest)));
            }
            self.add(thing);
        }
        Ok(())
    }

    fn scratch(&mut self, dir: &Dir) -> Result<()> {
        self.directory(dir, scratch::ROOM);
        for name in layout::names(dir, scratch::ROOM)? {
            let dead = scratch::is_dead(dir, &name)?.is_some();
            let (path, bytes) = (format!("{}/{name}", scratch::ROOM), disk_usage(dir, name.as_bytes()));
            self.add(Thing { dead, ..Thing::new(Kind::Staging, path, None, bytes) });
        }
        Ok(())
    }

    fn blobs(&mut self, kind: BlobKind) -> Result<()> {
        let dir = Arc::clone(self.storage.rooms().blobs(kind));
        self.directory(&dir, kind.directory());
        for name in layout::names(&dir, kind.directory())? {
            let digest = kind.digest_of(&name);
            let kind_of = if digest.is_some() { kind.into() } else { Kind::Other };
            let mut thing = self.file(&dir, kind.directory(), &name, kind_of);
            thing.digest = thing.digest.or(digest);
            self.add(thing);
        }
        Ok(())
    }

    /// A directory of trees and that of their records, below `base`.
    fn trees(&mut self, trees: &Trees, base: &str, kind: Kind) -> Result<()> {
        let (extracted, records) = (format!("{base}extracted"), format!("{base}records"));
        self.directory(&trees.0.extracted, &extracted);
        for name in layout::names(&trees.0.extracted, "extracted")? {
            let path = format!("{extracted}/{name}");
            if let Some(digest) = Digest::from_file_stem(&name) {
                let bytes = trees.disk_bytes(&digest);
                self.add(Thing::new(kind, path, Some(digest), bytes));
                continue;
            }
            let bytes = disk_usage(&*trees.0.extracted, name.as_bytes());
            self.add(match names::parse(&name).filter(|staged| staged.staging.is_tree()) {
                Some(staged) => {
                    let dead = trees.is_dead(&name, &staged, &self.sweep);
                    Thing { dead, ..Thing::new(Kind::Staging, path, staged.digest, bytes) }
                }
                None => Thing::new(Kind::Other, path, None, bytes),
            });
        }
        self.directory(&trees.0.records, &records);
        for name in layout::names(&trees.0.records, "records")? {
            let mut thing = self.file(&trees.0.records, &records, &name, Kind::Other);
            if thing.kind == Kind::Other
                && let Some((about, digest)) = about(&name, &extracted)
            {
                thing.kind = Kind::Note;
                (thing.about, thing.digest) = (Some(about), Some(digest));
            }
            self.add(thing);
        }
        Ok(())
    }

    fn locks(&mut self) -> Result<()> {
        let dir = Arc::clone(self.storage.locks().dir());
        self.directory(&dir, "locks");
        for name in layout::names(&dir, "locks")? {
            let file = file::open(&dir, &name)?.filter(|_| lease::is_name(&name));
            let dead = file.is_some_and(|file| lease::is_dead(&file, &name).unwrap_or(false));
            let mut thing = self.file(&dir, "locks", &name, Kind::Bookkeeping);
            if dead {
                (thing.kind, thing.dead) = (Kind::Staging, true);
            }
            self.add(thing);
        }
        Ok(())
    }

    fn local(&mut self) -> Result<()> {
        let local = Arc::clone(&self.storage.rooms().local);
        self.directory(&local, "local");
        let keys = bundle::keys(self.storage)?;
        for name in layout::names(&local, "local")? {
            if !keys.contains(&name) {
                let thing = self.file(&local, "local", &name, Kind::Other);
                self.add(thing);
                continue;
            }
            let base = format!("local/{name}/");
            let Ok(bundle) = layout::open_dir(&local, &name) else { continue };
            self.directory(&bundle, base.trim_end_matches('/'));
            if let Some(trees) = bundle::look(self.storage, &name)? {
                self.trees(&trees, &base, Kind::LocalTree)?;
            }
            for other in layout::names(&bundle, "local")? {
                if !["extracted", "records"].contains(&other.as_str()) {
                    let thing = self.file(&bundle, base.trim_end_matches('/'), &other, Kind::Other);
                    self.add(thing);
                }
            }
        }
        Ok(())
    }

    /// The cache of compiled guests, whose form is wasmtime's.
    fn guests(&mut self, dir: &Dir, path: &str, depth: u32) -> Result<()> {
        self.directory(dir, path);
        for name in layout::names(dir, path)? {
            let Ok(stat) = rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let is_dir = FileType::from_raw_mode(stat.st_mode).is_dir();
            if is_dir && depth < 8 {
                let below = layout::open_dir(dir, &name).map_err(|e| Error::io("open", name.as_bytes(), e))?;
                self.guests(&below, &format!("{path}/{name}"), depth + 1)?;
                continue;
            }
            let used_at = u64::try_from(stat.st_mtime.max(stat.st_atime)).unwrap_or(0);
            let path = format!("{path}/{name}");
            self.add(Thing { used_at, ..Thing::new(Kind::Guest, path, None, disk_usage(dir, name.as_bytes())) });
        }
        Ok(())
    }
}

/// What a note is about: its path, and its digest.
fn about(name: &str, extracted: &str) -> Option<(String, Digest)> {
    if let Some(rest) = name.strip_prefix("manifest.") {
        let digest = Digest::from_file_stem(rest.split_once('.')?.0)?;
        return Some((format!("manifests/{}", BlobKind::Manifest.file_name(&digest)), digest));
    }
    let digest = Digest::from_file_stem(name.split_once('.')?.0)?;
    Some((format!("{extracted}/{}", digest.file_stem()), digest))
}

/// A path in the store as things have it, from the path that callers are told.
pub(super) fn relative(storage: &ImageStorage, path: &Path) -> String {
    path.strip_prefix(storage.images_dir()).unwrap_or(path).to_string_lossy().into_owned()
}
