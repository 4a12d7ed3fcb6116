//! `extract`: makes a layer's entries in an empty directory, as far as WASI can.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cofferdam_layer::{Entry, Extent, Layer, Limits, Node, Timestamp};

use crate::blob::Blob;
use crate::place::{Root, Way};
use crate::problem::Problem;

/// Bytes of names and times that may be kept until the end.
const KEPT: usize = 64 << 20;

/// What was made, and what was not.
#[derive(Default)]
pub(crate) struct Made {
    pub(crate) entries: u64,
    devices: u64,
    pipes: u64,
    names: u64,
    attributes: u64,
    absolute: u64,
}

impl Made {
    /// What is not as the layer has it, for people.
    pub(crate) fn not_made(&self) -> Vec<String> {
        let counted = [
            (self.devices, "devices were not made"),
            (self.pipes, "named pipes were not made"),
            (self.names, "entries with names that are not UTF-8 were not made"),
            (self.attributes, "extended attributes were not set"),
            (self.absolute, "absolute links were made relative"),
        ];
        let mut lines: Vec<_> =
            counted.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        lines.push("owners and modes were not set: WASI has no words for them".into());
        lines
    }
}

pub(crate) fn run(blob: &mut Blob, dest: &Path) -> Result<Made, Problem> {
    let mut entries = fs::read_dir(dest).map_err(|error| Problem::io(&format!("open `{}`", dest.display()), error))?;
    if entries.next().is_some() {
        return Err(Problem::Usage(format!("`{}` is not empty", dest.display())));
    }
    let mut extraction = Extraction {
        root: Root::new(dest),
        times: BTreeMap::new(),
        links: BTreeMap::new(),
        kept: 0,
        made: Made::default(),
    };
    let mut layer = Layer::new(Limits::default());
    while let Some(entry) = layer.next(blob)? {
        extraction.made.entries += 1;
        if extraction.put(&entry, blob)? == Content::Left {
            layer.skip_content();
        }
    }
    extraction.finish()
}

/// Whether an entry's content was taken from the blob.
#[derive(PartialEq, Eq)]
enum Content {
    Taken,
    Left,
}

struct Extraction {
    root: Root,
    /// Of directories, set at the end: what is made in one changes it.
    times: BTreeMap<PathBuf, Timestamp>,
    /// Hard links whose target is not there yet, by path.
    links: BTreeMap<Vec<u8>, Vec<u8>>,
    kept: usize,
    made: Made,
}

impl Extraction {
    fn put(&mut self, entry: &Entry<'_>, blob: &mut Blob) -> Result<Content, Problem> {
        // There is nothing below this layer that a marker could remove.
        if matches!(entry.node, Node::Whiteout | Node::Opaque) {
            return Ok(Content::Left);
        }
        let target = match entry.node {
            Node::Symlink { target } | Node::HardLink { target } => target,
            _ => b"",
        };
        if [entry.path, target].iter().any(|bytes| std::str::from_utf8(bytes).is_err()) {
            self.made.names += 1;
            return Ok(Content::Left);
        }
        if !matches!(entry.node, Node::HardLink { .. }) {
            self.made.attributes += entry.attributes.len() as u64;
        }
        if entry.path.is_empty() {
            self.times.insert(self.root.path().to_owned(), entry.modified);
            return Ok(Content::Left);
        }
        let Some(place) = self.root.place(entry.path, Way::Make)? else { return Ok(Content::Left) };
        // Whatever waited for this path is replaced by what comes now.
        self.links.remove(entry.path);
        if let Node::HardLink { target } = entry.node {
            return self.link(entry.path, target, &place).map(|()| Content::Left);
        }
        clear(&place, matches!(entry.node, Node::Directory))?;
        let failed = |error| Problem::io(&format!("make `{}`", place.display()), error);
        match entry.node {
            Node::Directory => {
                match fs::create_dir(&place) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
                    _ => {}
                }
                self.keep(place.as_os_str().len())?;
                self.times.insert(place, entry.modified);
            }
            Node::File { size } => {
                let mut file = File::create_new(&place).map_err(failed)?;
                blob.take_all(size, |bytes| file.write_all(bytes).map_err(failed))?;
                set_time(&file, entry.modified).map_err(failed)?;
                return Ok(Content::Taken);
            }
            Node::Sparse { size, extents } => {
                let mut file = File::create_new(&place).map_err(failed)?;
                for &Extent { offset, length } in extents {
                    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
                    blob.take_all(length, |bytes| file.write_all(bytes).map_err(failed))?;
                }
                file.set_len(size).map_err(failed)?;
                set_time(&file, entry.modified).map_err(failed)?;
                return Ok(Content::Taken);
            }
            Node::Symlink { target } => self.symlink(target, &place)?,
            Node::CharacterDevice(_) | Node::BlockDevice(_) => self.made.devices += 1,
            Node::Fifo => self.made.pipes += 1,
            Node::HardLink { .. } | Node::Whiteout | Node::Opaque => {}
        }
        Ok(Content::Left)
    }

    /// Makes a link. WASI has no absolute ones: those are made relative, from where the link lies.
    #[expect(deprecated, reason = "the only way to a symbolic link under WASI that is stable")]
    fn symlink(&mut self, target: &[u8], place: &Path) -> Result<(), Problem> {
        let target = std::str::from_utf8(target).unwrap_or_default();
        let relative = target.strip_prefix('/').map(|rest| {
            self.made.absolute += 1;
            let depth = place.strip_prefix(self.root.path()).map_or(0, |inside| inside.components().count() - 1);
            let rest = rest.trim_start_matches('/');
            match (depth, rest) {
                (0, "") => ".".to_owned(),
                (_, "") => "../".repeat(depth).trim_end_matches('/').to_owned(),
                _ => format!("{}{rest}", "../".repeat(depth)),
            }
        });
        fs::soft_link(relative.as_deref().unwrap_or(target), place)
            .map_err(|error| Problem::io(&format!("make the link `{}`", place.display()), error))
    }

    /// Makes a hard link, or keeps it for the end.
    fn link(&mut self, path: &[u8], target: &[u8], place: &Path) -> Result<(), Problem> {
        if !self.try_link(target, place)? {
            clear(place, false)?;
            self.keep(path.len() + target.len())?;
            self.links.insert(path.to_vec(), target.to_vec());
        }
        Ok(())
    }

    /// Says whether the target is there.
    fn try_link(&self, target: &[u8], place: &Path) -> Result<bool, Problem> {
        let Some(source) = self.root.place(target, Way::Look)? else { return Ok(false) };
        match fs::symlink_metadata(&source) {
            Ok(found) if found.is_dir() => return Err(Problem::refused(target, "a hard link to a directory")),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Problem::io(&format!("look at `{}`", source.display()), error)),
        }
        // To itself: nothing is lost.
        if source != place {
            clear(place, false)?;
            fs::hard_link(&source, place)
                .map_err(|error| Problem::io(&format!("link `{}`", place.display()), error))?;
        }
        Ok(true)
    }

    fn keep(&mut self, bytes: usize) -> Result<(), Problem> {
        self.kept += bytes + 64;
        if self.kept > KEPT {
            return Err(Problem::Refused(format!("more than {KEPT} bytes of names to be kept until the end")));
        }
        Ok(())
    }

    /// Makes the links that waited, each as soon as its target is there, and sets the times of directories.
    fn finish(mut self) -> Result<Made, Problem> {
        loop {
            let waiting = self.links.len();
            for (path, target) in std::mem::take(&mut self.links) {
                let place = self.root.place(&path, Way::Make)?;
                if !place.as_ref().map_or(Ok(false), |place| self.try_link(&target, place))? {
                    self.links.insert(path, target);
                }
            }
            match self.links.first_key_value() {
                None => break,
                Some((path, target)) if self.links.len() == waiting => {
                    let what = format!("the target of the hard link, `{}`, is not there", target.escape_ascii());
                    return Err(Problem::refused(path, what));
                }
                Some(_) => {}
            }
        }
        // The deepest come last in this order, and must come first.
        for (path, modified) in self.times.iter().rev() {
            let failed = |error| Problem::io(&format!("set the time of `{}`", path.display()), error);
            if fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
                let directory = File::open(path).map_err(failed)?;
                set_time(&directory, *modified).map_err(failed)?;
            }
        }
        Ok(self.made)
    }
}

/// Removes what lies at a place, unless it is a directory that may stay.
fn clear(place: &Path, directory_stays: bool) -> Result<(), Problem> {
    let failed = |error| Problem::io(&format!("replace `{}`", place.display()), error);
    match fs::symlink_metadata(place) {
        Ok(found) if found.is_dir() && directory_stays => Ok(()),
        Ok(found) if found.is_dir() => fs::remove_dir_all(place).map_err(failed),
        Ok(_) => fs::remove_file(place).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

fn set_time(file: &File, time: Timestamp) -> io::Result<()> {
    let nanoseconds = Duration::from_nanos(time.nanoseconds.into());
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    // Before 1970 is not for WASI: its times count from there.
    let whole =
        if time.seconds < 0 { Some(SystemTime::UNIX_EPOCH) } else { SystemTime::UNIX_EPOCH.checked_add(seconds) };
    let Some(time) = whole.and_then(|whole| whole.checked_add(nanoseconds)) else { return Ok(()) };
    file.set_times(FileTimes::new().set_modified(time))
}
