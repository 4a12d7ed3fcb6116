//! Trees: compared with their lists, or with what their layers give when they are extracted once more.

use std::fs::File;
use std::io::BufRead;
use std::os::fd::AsFd as _;

use cofferdam_core::Watch;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use cofferdam_documents::LayerDescriptor;
use rustix::fs::{AtFlags, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::{Check, Finding, Part, Problem, TreeDifference, is_read_only, sentence};
use crate::mtree::{self, Checked};
use crate::record::{Identity, TreeRecord};
use crate::reports;
use crate::tree_list::{self, ListDraft};
use crate::trees::{self, Trees};
use crate::unpacker::unpack_stored;
use crate::{file, layout};

/// What extracting a layer once more gave.
enum Again {
    /// The list of the tree that it gives.
    List(Box<ListDraft>),
    /// Nothing: why.
    Not(String),
}

/// A tree that is being checked.
struct Subject<'a> {
    trees: &'a Trees,
    digest: &'a Digest,
    /// Its path in the store, and that of its records.
    path: String,
    records: String,
    images: Vec<String>,
    /// Whether it is of a registry's layer.
    shared: bool,
    /// The mark of the tree that is judged, if something vouches for it.
    mark: Option<String>,
    /// The reader that made it.
    reader: Option<Digest>,
}

impl Subject<'_> {
    fn find(&self, part: Part, problem: Problem, what: impl Into<String>) -> Finding {
        let suffix = match part {
            Part::Record => Some(".json"),
            Part::LayerRecord => Some(trees::LAYER_SUFFIX),
            Part::TreeList => Some(tree_list::SUFFIX),
            _ => None,
        };
        let path = match suffix {
            Some(suffix) => format!("{}/{}{suffix}", self.records, self.digest.file_stem()),
            None => format!("{}/{}", self.path, self.digest.file_stem()),
        };
        let (images, mark) = (self.images.clone(), self.mark.clone());
        Finding { images, mark, ..Finding::new(part, problem, self.digest, what) }.at(path)
    }

    /// Has the tree's record name this list, if it still is the same tree.
    fn keep(&self, draft: ListDraft, record: &TreeRecord) -> Result<()> {
        let Subject { trees, digest, .. } = self;
        let Some(_lock) = trees.0.locks.try_acquire(&trees.lock_name(digest))? else { return Ok(()) };
        match trees.vouched(digest)? {
            Some((_, now)) if now.mark == record.mark => trees.keep_list(draft, now),
            _ => Ok(()),
        }
    }
}

impl Check<'_> {
    /// Checks a tree. What keeps that from being done is a finding too, and keeps nothing else.
    pub(super) fn tree_or_why(&self, index: usize, digest: &Digest) -> Result<()> {
        match self.tree(index, digest) {
            Ok(()) => Ok(()),
            Err(error) if error.is_interrupted() => Err(error),
            Err(error) => {
                let at = self.trees.get(index).map_or("", |place| place.path.as_str());
                let at = format!("{at}/{}", digest.file_stem());
                self.find(Finding::new(Part::Tree, Problem::Unreadable, digest, sentence(&error)).at(at));
                Ok(())
            }
        }
    }

    fn tree(&self, index: usize, digest: &Digest) -> Result<()> {
        let Some(place) = self.trees.get(index) else { return Ok(()) };
        let (path, trees) = (&place.path, &self.open(place)?);
        let shared = index == 0;
        let images = if shared { self.needs.images_of(Part::Layer, digest) } else { Vec::new() };
        let records = path.replace("extracted", "records");
        // Somebody makes it just now, or looks at it just as we do.
        if trees.is_busy(digest) {
            return Ok(());
        }
        self.count(|counts| counts.trees += 1);
        let vouched = trees.vouched(digest)?;
        let mark = vouched.as_ref().map(|(_, record)| record.mark.clone());
        let reader = vouched.as_ref().and_then(|(_, record)| record.reader.clone());
        let subject = Subject { trees, digest, path: path.clone(), records, images, shared, mark, reader };
        let Some((directory, record)) = vouched else { return self.unvouched(&subject) };
        if !self.layer_record(&subject, &record)? {
            return Ok(());
        }
        let sound = match (trees.open_list(&record)?, &record.list) {
            (Some(mut list), _) => self.compare(&subject, &directory, &mut list)?,
            (None, Some(_)) => self.listless(&subject, &directory, record, true)?,
            (None, None) => self.listless(&subject, &directory, record, false)?,
        };
        if sound && self.options.deep && shared && self.storage.writable().is_ok() {
            return self.deep(&subject, &directory);
        }
        Ok(())
    }

    /// Says why nothing vouches for a tree.
    fn unvouched(&self, subject: &Subject<'_>) -> Result<()> {
        let Subject { trees, digest, .. } = subject;
        let name = trees::record_name(digest);
        let there = rustix::fs::statat(&*trees.0.records, &name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        let record = trees.read_record(digest)?;
        let directory = trees.directory(&digest.file_stem(), OFlags::RDONLY)?;
        let again = "nothing needs to be done: the layer is extracted again when it is needed";
        let finding = match (record, directory) {
            (None, _) if there => subject
                .find(Part::Record, Problem::Damaged, "it is not what the store writes")
                .remedy("with --repair it is removed with its tree, and the layer is extracted again"),
            (Some(_), None) => {
                subject.find(Part::Record, Problem::Leftover, "the tree that it vouches for is gone").remedy(again)
            }
            (Some(record), Some(directory)) => {
                let identity = Identity::of(&directory)?;
                let boot = record.boot_id.clone();
                if !record.vouches(digest, &identity, boot.as_deref()) {
                    subject
                        .find(Part::Tree, Problem::Unvouched, "it is not the directory that was extracted")
                        .remedy(again)
                } else if record.vouches(digest, &identity, trees.0.boot_id.as_deref()) {
                    self.layer_record(subject, &record)?;
                    return Ok(());
                } else {
                    let what = "the machine was started since it was written, and no sync came before that";
                    subject.find(Part::Tree, Problem::Unvouched, what).remedy(again)
                }
            }
            (None, Some(_)) => {
                subject.find(Part::Tree, Problem::Unvouched, "nobody noted that it was verified").remedy(again)
            }
            (None, None) if trees.path_taken(digest) => subject
                .find(Part::Tree, Problem::Damaged, "it is not a directory")
                .remedy("with --repair it is removed, and the layer is extracted again"),
            (None, None) => return Ok(()),
        };
        self.find(finding);
        Ok(())
    }

    fn layer_record(&self, subject: &Subject<'_>, record: &TreeRecord) -> Result<bool> {
        let dir = &subject.trees.0.records;
        let bytes = match file::read(dir, &trees::layer_name(subject.digest), record.layer.bytes) {
            Err(Error::Limit { .. }) => None,
            other => other?,
        };
        if bytes.is_some_and(|bytes| Digest::of(&bytes) == record.layer.digest) {
            return Ok(true);
        }
        let there = layout::file_size(dir, &trees::layer_name(subject.digest)).is_some();
        let (problem, what) = if there {
            (Problem::Damaged, "it is not what was written")
        } else {
            (Problem::Missing, "without it, nothing can be merged from the tree")
        };
        let finding = subject.find(Part::LayerRecord, problem, what);
        self.find(finding.remedy("with --repair the layer is extracted again"));
        Ok(false)
    }

    /// Compares a tree with a list, and says whether it is right.
    fn compare(&self, subject: &Subject<'_>, directory: &File, list: &mut dyn BufRead) -> Result<bool> {
        let (shown, cancel) = (self.options.differences, &self.options.cancel);
        let checked = match mtree::check(directory.as_fd(), list, shown, cancel, &|bytes| self.tell(bytes)) {
            Ok(checked) => checked,
            Err(error) if error.is_interrupted() => return Err(error),
            Err(error) if matches!(error.root(), Error::Busy { .. }) => return Ok(true),
            Err(error) => {
                self.find(subject.find(Part::Tree, Problem::Unreadable, sentence(&error)));
                return Ok(false);
            }
        };
        self.count(|counts| counts.entries += checked.entries);
        if checked.different == 0 {
            if subject.shared {
                self.mark_whole(subject.digest);
            }
            return Ok(true);
        }
        self.differs(subject, checked);
        Ok(false)
    }

    fn differs(&self, subject: &Subject<'_>, checked: Checked) {
        let what = match checked.different {
            1 => "an entry is not as it was extracted".to_owned(),
            many => format!("{many} entries are not as they were extracted"),
        };
        let differences = checked.differences.into_iter().map(|d| TreeDifference { path: d.path, what: d.what });
        let finding = subject.find(Part::Tree, Problem::Damaged, what);
        self.find(
            Finding { differences: differences.collect(), different: checked.different, ..finding }
                .remedy("with --repair it is removed, and the layer is extracted again"),
        );
    }

    /// Checks a tree that has no list, by that of the tree which its layer gives now. Says whether it is right.
    fn listless(&self, subject: &Subject<'_>, directory: &File, record: TreeRecord, lost: bool) -> Result<bool> {
        let again = self.again(subject, directory)?;
        let draft = match again {
            Again::List(draft) => draft,
            Again::Not(why) => {
                // It counts all the same.
                if subject.shared {
                    self.mark_whole(subject.digest);
                }
                self.find(if lost {
                    let what = format!("its list is gone or damaged, and the tree cannot be checked otherwise: {why}");
                    subject.find(Part::TreeList, Problem::Damaged, what)
                } else {
                    let what = format!("it has no list yet, and cannot be checked otherwise: {why}");
                    subject.find(Part::Tree, Problem::Unlisted, what)
                });
                return Ok(false);
            }
        };
        if !self.compare(subject, directory, &mut draft.reader()?)? {
            return Ok(false);
        }
        let keep = !lost || self.options.repair;
        if keep {
            subject.keep(*draft, &record)?;
        }
        let mut finding = if lost {
            let what = "it is not what was written; the tree is what its layer gives";
            subject.find(Part::TreeList, Problem::Damaged, what).remedy("with --repair it is written again")
        } else {
            let what = "it had no list yet; it is what its layer gives";
            subject.find(Part::Tree, Problem::Unlisted, what).remedy("its list was written")
        };
        if lost && keep {
            finding.settle(Ok("it was written again".into()));
        }
        self.find(finding);
        Ok(true)
    }

    /// Extracts a layer once more, beside its tree, and lists what that gives.
    fn again(&self, subject: &Subject<'_>, tree: &File) -> Result<Again> {
        let Subject { trees, digest, shared, .. } = subject;
        if !shared {
            return Ok(Again::Not("it is not made of one of the store's layers alone".into()));
        }
        if self.storage.writable().is_err() {
            return Ok(Again::Not("the store may only be read".into()));
        }
        let blob = match self.storage.open_layer(digest) {
            Ok(blob) => blob,
            Err(Error::NotFound { .. }) => return Ok(Again::Not("its layer's blob is not there".into())),
            Err(error) => return Ok(Again::Not(sentence(&error))),
        };
        let layer = self.needs.layers.get(digest).cloned().unwrap_or_else(|| LayerDescriptor::of((*digest).clone()));
        let staged = (|| {
            let lock = trees.0.locks.acquire_unless(&trees.lock_name(digest), Some(&self.options.cancel))?;
            trees.stage(&layer, lock)
        })();
        let staged = match staged {
            Err(error) if is_read_only(&error) => return Ok(Again::Not("the store may only be read".into())),
            Err(error) if error.is_interrupted() => return Err(error),
            Err(error) => return Ok(Again::Not(sentence(&error))),
            Ok(staged) => staged,
        };
        let watch = Watch { cancel: self.options.cancel.clone(), ..Watch::default() };
        let unpacked = unpack_stored(self.storage.unpacker(), blob, &layer, staged.directory_handle()?, &watch);
        if unpacked.as_ref().is_ok_and(|unpacked| unpacked.layer.reader != subject.reader) {
            return Ok(Again::Not("another plugin read the layer than would read it now".into()));
        }
        let verified = unpacked.and_then(|unpacked| staged.verify(unpacked));
        let staged = match verified {
            Ok(verified) => verified.into_staged(),
            Err(error) if error.is_interrupted() => return Err(error),
            Err(error) => return Ok(Again::Not(format!("its layer cannot be extracted: {}", sentence(&error)))),
        };
        // The time of a root that the layer does not list is that of the extraction.
        let failed = |e: Errno| Error::io("set the time of", b"a tree", e);
        let stat = rustix::fs::fstat(tree).map_err(failed)?;
        let modified = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.cast_signed() };
        let times = Timestamps { last_access: modified, last_modification: modified };
        rustix::fs::futimens(staged.directory(), &times).map_err(failed)?;
        match trees.draft_list(staged.directory(), &self.options.cancel) {
            Ok(draft) => Ok(Again::List(Box::new(draft))),
            Err(error) if error.is_interrupted() => Err(error),
            Err(error) => Ok(Again::Not(sentence(&error))),
        }
    }

    /// Decodes a layer that an image needs, and compares its tree with what that gives.
    fn deep(&self, subject: &Subject<'_>, directory: &File) -> Result<()> {
        match self.again(subject, directory)? {
            Again::List(draft) => self.compare(subject, directory, &mut draft.reader()?).map(drop),
            Again::Not(why) => {
                // Of a blob that is damaged, the blob itself tells.
                tracing::debug!(layer = %subject.digest, why, "not decoded");
                Ok(())
            }
        }
    }
}

/// Whether a name is one that the store gives to records.
pub(super) fn is_record(name: &str) -> bool {
    let name = name.strip_prefix("manifest.").unwrap_or(name);
    [trees::LAYER_SUFFIX, tree_list::SUFFIX, reports::SUFFIX, ".json"]
        .into_iter()
        .filter_map(|suffix| name.strip_suffix(suffix))
        .any(|stem| Digest::from_file_stem(stem).is_some())
}
