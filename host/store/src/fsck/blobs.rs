//! Blobs: hashed whole, in constant memory. And what else lies beside them.

use std::fs::File;
use std::io::{ErrorKind, Read as _};

use cap_std::fs::Dir;
use cofferdam_core::digest::{Digest, Hasher};
use cofferdam_core::error::{Error, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::{Check, Finding, Part, Problem, part};
use crate::layout::{self, BlobKind};
use crate::names::{self, Staging};
use crate::sweep::Sweep;
use crate::trees::Trees;
use crate::{lock, plugins, promote};

/// Bytes that are read at a time.
const CHUNK: usize = 256 << 10;

/// What a blob is.
pub(super) enum Judged {
    /// What its name says.
    Good,
    /// Not there.
    Gone,
    /// Something else: what.
    Bad(String),
    /// Nobody can tell.
    Unreadable(String),
}

impl Check<'_> {
    /// The digests under which there are blobs of a kind.
    pub(super) fn blobs(&self, kind: BlobKind) -> Result<Vec<Digest>> {
        let names = layout::names(self.storage.rooms().blobs(kind), kind.directory())?;
        Ok(names.iter().filter_map(|name| blob_digest(kind, name)).collect())
    }

    pub(super) fn blob(&self, kind: BlobKind, digest: &Digest) -> Result<()> {
        self.count(|counts| match kind {
            BlobKind::Manifest => counts.manifests += 1,
            BlobKind::Config => counts.configs += 1,
            BlobKind::Layer => counts.layers += 1,
        });
        let name = kind.file_name(digest);
        let judged = self.judge(kind, digest)?;
        let images = self.needs.images_of(part(kind), digest);
        let finding = match judged {
            Judged::Gone => return Ok(()),
            Judged::Good => {
                self.mark_good(part(kind), digest);
                return Ok(());
            }
            Judged::Bad(what) if kind == BlobKind::Manifest && self.is_foreign(digest, &images) => {
                let remedy = "nothing needs to be done: it is fetched again when it is needed";
                Finding::new(part(kind), Problem::Foreign, digest, format!("{what}, as other programs write manifests"))
                    .remedy(remedy)
            }
            Judged::Bad(what) => Finding::new(part(kind), Problem::Damaged, digest, what)
                .remedy("with --repair it is removed, so that it can be fetched again"),
            Judged::Unreadable(what) => Finding::new(part(kind), Problem::Unreadable, digest, what)
                .remedy("see to it that the user who runs this may read it, and that the disk is well"),
        };
        self.find(Finding { images, ..finding }.at(format!("{}/{name}", kind.directory())));
        Ok(())
    }

    /// Whether a manifest may be one that another program has written in its own form: it is one, and no image of ours needs it.
    fn is_foreign(&self, digest: &Digest, images: &[String]) -> bool {
        let dir = self.storage.rooms().blobs(BlobKind::Manifest);
        let limit = self.storage.limit_of(BlobKind::Manifest);
        images.is_empty()
            && self.storage.keeps_unreferenced()
            && crate::file::read(dir, &BlobKind::Manifest.file_name(digest), limit)
                .is_ok_and(|bytes| bytes.is_some_and(|bytes| crate::manifest::parse(&bytes, digest).is_ok()))
    }

    /// Reads a blob to its end.
    pub(super) fn judge(&self, kind: BlobKind, digest: &Digest) -> Result<Judged> {
        let judged = self.judge_file(self.storage.rooms().blobs(kind), &kind.file_name(digest), digest)?;
        let as_saved =
            matches!(judged, Judged::Bad(_)) && kind == BlobKind::Manifest && self.storage.is_as_saved(digest)?;
        Ok(if as_saved { Judged::Good } else { judged })
    }

    /// Reads a file to its end.
    pub(super) fn judge_file(&self, dir: &Dir, name: &str, digest: &Digest) -> Result<Judged> {
        let mut file = match open(dir, name) {
            Ok(Opened::File(file)) => file,
            Ok(Opened::Gone) => return Ok(Judged::Gone),
            Ok(Opened::Other(kind)) => return Ok(Judged::Bad(format!("it is {}, not a file", noun(kind)))),
            Err(error) => return Ok(Judged::Unreadable(format!("it cannot be opened: {error}"))),
        };
        let mut hasher = Hasher::new(digest.algorithm());
        let mut chunk = vec![0; CHUNK];
        let mut total = 0_u64;
        loop {
            self.options.cancel.check()?;
            match file.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => {
                    hasher.update(chunk.get(..count).unwrap_or_default());
                    total += count as u64;
                    self.tell(count as u64);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Ok(Judged::Unreadable(format!("it cannot be read to its end: {error}"))),
            }
        }
        let actual = hasher.finish();
        if actual == *digest {
            return Ok(Judged::Good);
        }
        Ok(Judged::Bad(match total {
            0 => "it is empty".into(),
            _ => format!("its {total} bytes hash to {actual}"),
        }))
    }

    /// Finds what lies in the store's directories and is none of what belongs there.
    pub(super) fn strays(&self) -> Result<()> {
        let rooms = self.storage.rooms();
        for kind in BlobKind::ALL {
            self.look_through(rooms.blobs(kind), kind.directory(), None, &|name| blob_digest(kind, name).is_some())?;
        }
        self.look_through(&rooms.refs, "refs", None, &|name| name.strip_suffix(".json").is_some())?;
        if let Some(dir) = &self.plugins.dir {
            self.look_through(dir, plugins::ROOM, None, &plugins::is_known)?;
        }
        // Others may keep what they like in the root.
        self.look_through(&rooms.root, "", None, &|_| true)?;
        for place in &self.trees {
            let (path, trees) = (&place.path, self.open(place)?);
            let is_tree = |name: &str| Digest::from_file_stem(name).is_some();
            self.look_through(&trees.0.extracted, path, Some(&trees), &is_tree)?;
            let records = path.replace("extracted", "records");
            self.look_through(&trees.0.records, &records, None, &super::trees::is_record)?;
        }
        Ok(())
    }

    /// Looks through a directory, perhaps one of trees.
    fn look_through(&self, dir: &Dir, path: &str, trees: Option<&Trees>, belongs: &dyn Fn(&str) -> bool) -> Result<()> {
        let slash = if path.is_empty() { "" } else { "/" };
        for name in layout::names(dir, path)? {
            let at = format!("{path}{slash}{name}");
            let finding = match names::parse(&name) {
                Some(staged) => {
                    if !is_dead(dir, &name, &staged, trees)? {
                        continue;
                    }
                    let what = "somebody who is gone was writing it";
                    Finding::new(Part::Other, Problem::Leftover, &at, what)
                        .remedy("the next use of the store removes it")
                }
                None if names::is_damaged(&name) => {
                    let what = "it was set aside, since it was not what its name said";
                    Finding::new(Part::Other, Problem::Stray, &at, what).remedy("look at it if you like, and remove it")
                }
                None if belongs(&name) => continue,
                None => {
                    let what = "nothing of the store's has such a name";
                    Finding::new(Part::Other, Problem::Stray, &at, what).remedy("whoever put it there may remove it")
                }
            };
            self.find(finding.at(at));
        }
        Ok(())
    }

    /// Whether a name in the root is one that this version knows.
    pub(super) fn is_known_in_root(name: &str) -> bool {
        layout::ROOMS.contains(&name)
            || [crate::meta::NAME, crate::keep::NAME].contains(&name)
            || names::parse(name).is_some()
            || names::is_damaged(name)
    }
}

/// What was found under a name.
enum Opened {
    File(File),
    Gone,
    Other(FileType),
}

fn open(dir: &Dir, name: &str) -> rustix::io::Result<Opened> {
    let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(rustix::io::Errno::NOENT) => return Ok(Opened::Gone),
        other => other?,
    };
    let kind = FileType::from_raw_mode(stat.st_mode);
    if !kind.is_file() {
        return Ok(Opened::Other(kind));
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => Ok(Opened::Gone),
        other => other.map(|file| Opened::File(file.into())),
    }
}

pub(super) fn noun(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "something else",
    }
}

/// The digest that a blob's file name holds.
fn blob_digest(kind: BlobKind, name: &str) -> Option<Digest> {
    let digest = Digest::from_file_stem(name.split_once('.')?.0)?;
    (kind.file_name(&digest) == name).then_some(digest)
}

/// Whether nobody is at work on what is staged under a name.
fn is_dead(dir: &Dir, name: &str, staged: &names::StagingName, trees: Option<&Trees>) -> Result<bool> {
    if !staged.ours {
        return Ok(Sweep::new(promote::seconds()).is_abandoned(dir, name));
    }
    if staged.staging == Staging::Replaced {
        return Ok(trees.is_some_and(|trees| trees.may_go(name)));
    }
    if staged.staging == Staging::Tree {
        let Some(digest) = &staged.digest else { return Ok(false) };
        return Ok(trees.is_none_or(|trees| !trees.is_busy(digest)));
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(dir, name, flags, Mode::empty()) else { return Ok(false) };
    lock::try_lock_exclusively(&File::from(file)).map_err(|e| Error::io("lock", name.as_bytes(), e))
}
