//! What must not change: a tree beside the destination, remembered with all that the kernel tells of it.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use cofferdam_tests::{Snapshot, tree};

/// The victim. Its names are those that the attacks use, so that a step that goes astray finds something to harm.
#[derive(Debug)]
pub struct Victim {
    path: PathBuf,
    content: Snapshot,
    stamps: BTreeMap<PathBuf, Stamp>,
}

/// What `stat` tells, but for what is in a [`Snapshot`]. The time of access of files: nobody has read them.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    mode: u32,
    links: u64,
    changed: (i64, i64),
    accessed: Option<(i64, i64)>,
}

impl Victim {
    /// Makes one at this path, as large as the attacks are wide.
    pub fn make(path: PathBuf) -> Result<Self> {
        for dir in ["", "a", "a/b", "a/b/c", "etc", "deep", "deep/0", "deep/0/1", "wide", "gone", "locked"] {
            fs::create_dir_all(path.join(dir))?;
        }
        for dir in ["", "a", "a/b", "a/b/c", "etc", "deep", "deep/0", "deep/0/1", "wide", "gone", "locked"] {
            for file in ["f", "file", "0", "1", "2", "passwd", "hosts", "x", "link", "sub"] {
                let file = path.join(dir).join(file);
                if !file.exists() {
                    fs::write(&file, format!("precious: {}", file.display()))?;
                }
            }
        }
        symlink("f", path.join("to-f"))?;
        fs::set_permissions(path.join("etc/passwd"), Permissions::from_mode(0o4711))?;
        fs::set_permissions(path.join("locked"), Permissions::from_mode(0o500))?;
        // A mount with `relatime` notes the first reading of what was last read before it was changed.
        let old = fs::FileTimes::new().set_accessed(std::time::UNIX_EPOCH);
        let content = Snapshot::read(&path)?;
        let mut files = Vec::new();
        walk(&path, &mut |path, metadata| {
            if metadata.is_file() {
                files.push(path.to_owned());
            }
            Ok(())
        })?;
        for file in files {
            fs::File::open(file)?.set_times(old)?;
        }
        let stamps = stamps(&path)?;
        Ok(Self { path, content, stamps })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fails unless nothing was made, changed, linked, removed or read. A time of change cannot be set back, so the times
    /// say it all; what a file holds is compared by [`Victim::ensure_same`].
    pub fn ensure_untouched(&self) -> Result<()> {
        let stamps = stamps(&self.path)?;
        for (path, was) in &self.stamps {
            let is = stamps.get(path).with_context(|| format!("{} is gone", path.display()))?;
            ensure!(is == was, "{} was {was:?} and is {is:?}", path.display());
        }
        match stamps.keys().find(|path| !self.stamps.contains_key(*path)) {
            Some(new) => bail!("{} was made", new.display()),
            None => Ok(()),
        }
    }

    /// The same, and reads what is there; so only once.
    pub fn ensure_same(self) -> Result<()> {
        self.ensure_untouched()?;
        tree::ensure_same(("the victim", &Snapshot::read(&self.path)?), ("before", &self.content), |_, _| false)
    }
}

fn stamps(root: &Path) -> Result<BTreeMap<PathBuf, Stamp>> {
    let mut stamps = BTreeMap::new();
    walk(root, &mut |path, metadata| {
        let stamp = Stamp {
            inode: (metadata.dev(), metadata.ino()),
            mode: metadata.mode(),
            links: metadata.nlink(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            accessed: metadata.is_file().then(|| (metadata.atime(), metadata.atime_nsec())),
        };
        stamps.insert(path.to_owned(), stamp);
        Ok(())
    })?;
    Ok(stamps)
}

fn walk(path: &Path, visit: &mut impl FnMut(&Path, &fs::Metadata) -> Result<()>) -> Result<()> {
    let metadata = path.symlink_metadata()?;
    visit(path, &metadata)?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            walk(&entry?.path(), visit)?;
        }
    }
    Ok(())
}
