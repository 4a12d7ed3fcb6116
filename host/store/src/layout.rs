//! Where things are: the store's directories as handles, and the paths that callers are told.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::fs::Dir;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Escaped, Result};
use cofferdam_core::inherited;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::trust;

/// The last component of a path that was asked for with text that is no digest. Nothing is ever made under this name.
const NO_DIGEST: &str = "invalid-digest";

/// The kinds of blobs. Each has a directory of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlobKind {
    /// A manifest or an index.
    Manifest,
    /// An image configuration.
    Config,
    /// A layer, compressed or not.
    Layer,
}

impl BlobKind {
    pub(super) const ALL: [Self; 3] = [Self::Manifest, Self::Config, Self::Layer];

    /// The directory's name.
    pub(super) fn directory(self) -> &'static str {
        match self {
            Self::Manifest => "manifests",
            Self::Config => "configs",
            Self::Layer => "layers",
        }
    }

    /// The word for it in messages.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Config => "config",
            Self::Layer => "layer",
        }
    }

    /// What a limit on its size counts.
    pub(super) fn counted(self) -> &'static str {
        match self {
            Self::Manifest => "bytes in a manifest",
            Self::Config => "bytes in an image configuration",
            Self::Layer => "bytes in a layer",
        }
    }

    /// The final file name. A layer's ends in `.tar.gz` whatever its compression: that is the contract.
    pub(super) fn file_name(self, digest: &Digest) -> String {
        match self {
            Self::Manifest | Self::Config => format!("{}.json", digest.file_stem()),
            Self::Layer => format!("{}.tar.gz", digest.file_stem()),
        }
    }

    /// The digest of the blob of this file name, if it is one of this kind.
    pub(super) fn digest_of(self, name: &str) -> Option<Digest> {
        let digest = Digest::from_file_stem(name.split_once('.')?.0)?;
        (self.file_name(&digest) == *name).then_some(digest)
    }
}

/// The path of a blob. Pure text: no I/O, and for text that is no digest a path inside the store that never exists, with
/// nothing of the text in it (CVE-2014-9358, CVE-2024-3727).
pub(super) fn blob_path(root: &Path, kind: BlobKind, digest: &str) -> PathBuf {
    let name = digest.parse().map_or_else(|_| NO_DIGEST.to_owned(), |digest| kind.file_name(&digest));
    root.join(kind.directory()).join(name)
}

/// The path of a tree, in the same manner.
pub(super) fn tree_path(root: &Path, digest: &str) -> PathBuf {
    root.join("extracted").join(stem(digest))
}

/// A digest as a file name, in the same manner.
pub(super) fn stem(digest: &str) -> String {
    digest.parse().map_or_else(|_| NO_DIGEST.to_owned(), |digest: Digest| digest.file_stem())
}

/// The first directory that a new store gets. A directory of the reference has none of this name.
pub(super) const FIRST: &str = "records";

/// All directories that may be in a store's.
pub(super) const ROOMS: [&str; 12] = [
    "manifests",
    "configs",
    "layers",
    "extracted",
    FIRST,
    "refs",
    "locks",
    "local",
    "overlay",
    "guests",
    super::plugins::ROOM,
    super::scratch::ROOM,
];

/// The directories that each store has.
pub(super) const NEEDED: [&str; 8] = ["manifests", "configs", "layers", "extracted", FIRST, "refs", "locks", "local"];

/// The store's directories, opened once.
#[derive(Debug)]
pub(super) struct Rooms {
    pub(super) root: Arc<Dir>,
    manifests: Arc<Dir>,
    configs: Arc<Dir>,
    layers: Arc<Dir>,
    pub(super) extracted: Arc<Dir>,
    pub(super) records: Arc<Dir>,
    pub(super) refs: Arc<Dir>,
    pub(super) locks: Arc<Dir>,
    pub(super) local: Arc<Dir>,
}

impl Rooms {
    /// Opens the directories below `root`, making those that are missing and closing them to others.
    ///
    /// # Errors
    ///
    /// [`Error::Untrusted`] for one that another user owns or that others may write to.
    pub(super) fn open(root: Arc<Dir>) -> Result<Self> {
        Self::of(&root, |name| private_dir(&root, name))
    }

    /// As [`Rooms::open`], for a store that is being made of another program's directory. That program may have left its own directories
    /// writable for a group: nothing in them is believed before it was verified.
    pub(super) fn take_over(root: Arc<Dir>) -> Result<Self> {
        let theirs = |name: &str| ["manifests", "configs", "layers", "extracted", "local"].contains(&name);
        Self::of(&root, |name| if theirs(name) { closed_dir(&root, name) } else { private_dir(&root, name) })
    }

    /// Opens the directories below `root` if all of them are there. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Untrusted`], as [`Rooms::open`].
    pub(super) fn look(root: Arc<Dir>) -> Result<Option<Self>> {
        let room = |name: &str| trusted_dir(&root, name);
        match Self::of(&root, room) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            rooms => rooms.map(Some),
        }
    }

    fn of(root: &Arc<Dir>, room: impl Fn(&str) -> Result<Dir>) -> Result<Self> {
        // Those that are made when they are first needed are judged too, where they are there.
        for name in ROOMS {
            if !NEEDED.contains(&name)
                && let Err(error @ Error::Untrusted { .. }) = trusted_dir(root, name)
            {
                return Err(error);
            }
        }
        let room = |name: &str| room(name).map(Arc::new);
        Ok(Self {
            records: room(FIRST)?,
            manifests: room("manifests")?,
            configs: room("configs")?,
            layers: room("layers")?,
            extracted: room("extracted")?,
            refs: room("refs")?,
            locks: room("locks")?,
            local: room("local")?,
            root: Arc::clone(root),
        })
    }

    /// The directory of a kind of blobs.
    pub(super) fn blobs(&self, kind: BlobKind) -> &Arc<Dir> {
        match kind {
            BlobKind::Manifest => &self.manifests,
            BlobKind::Config => &self.configs,
            BlobKind::Layer => &self.layers,
        }
    }
}

/// Opens the directory `name`, made if it is missing, for its owner alone whatever the umask (CVE-2021-41091,
/// CVE-2024-25621). A link in its place is refused. One that another process collects before it is open, since it is empty, is made
/// again.
///
/// # Errors
///
/// [`Error::Untrusted`] for one that another user owns or that others may write to.
pub(super) fn private_dir(parent: &Dir, name: &str) -> Result<Dir> {
    made_dir(parent, name, |dir| trust::ensure(dir, name.as_bytes()))
}

/// As [`private_dir`], for a directory in which nothing is believed before it was verified: what others could write there so far does no
/// harm.
pub(super) fn closed_dir(parent: &Dir, name: &str) -> Result<Dir> {
    made_dir(parent, name, |dir| trust::ensure_owner(dir, name.as_bytes()))
}

fn made_dir(parent: &Dir, name: &str, judge: impl Fn(&Dir) -> Result<()>) -> Result<Dir> {
    loop {
        match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
            // What will be in it is to outlive a power cut, so must its name.
            Ok(()) => super::file::sync_dir(parent).inspect_err(|_| {
                // Nobody would sync it again if it stayed.
                let _ = rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR);
            })?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(Error::io("create", name.as_bytes(), error)),
        }
        match open_dir(parent, name) {
            Err(Errno::NOENT) => {}
            Err(error) => return Err(Error::io("open the directory", name.as_bytes(), error)),
            Ok(dir) => {
                judge(&dir)?;
                close_to_others(&dir, name)?;
                return Ok(dir);
            }
        }
    }
}

/// Opens a directory of the store that is there already. Changes nothing.
///
/// # Errors
///
/// [`Error::Untrusted`] for one that another user owns or that others may write to.
pub(super) fn trusted_dir(parent: &Dir, name: &str) -> Result<Dir> {
    let dir = open_dir(parent, name).map_err(|e| Error::io("open the directory", name.as_bytes(), e))?;
    trust::ensure(&dir, name.as_bytes())?;
    Ok(dir)
}

/// Takes the permissions of group and others away from a directory, and what it would hand on to what is made inside.
pub(super) fn close_to_others(dir: &Dir, name: &str) -> Result<()> {
    let failed = |e: Errno| Error::io("close to others the directory", name.as_bytes(), e);
    inherited::hand_nothing_on(dir).map_err(failed)?;
    let mode = rustix::fs::fstat(dir).map_err(failed)?.st_mode;
    if mode & 0o777 == 0o700 {
        return Ok(());
    }
    rustix::fs::fchmod(dir, Mode::from_raw_mode(mode & 0o7000 | 0o700)).map_err(failed)
}

/// An error about a directory of the store, with the store's path `shown` before it.
pub(super) fn within(error: Error, shown: &[u8]) -> Error {
    match error {
        Error::Untrusted { path, owner, mode, user } => {
            Error::Untrusted { path: format!("{}/{path}", Escaped(shown)), owner, mode, user }
        }
        other => other,
    }
}

/// Whether a directory holds nothing.
pub(super) fn is_empty(dir: &Dir) -> Result<bool> {
    let failed = |e| Error::io("list", b"the store", e);
    Ok(dir.entries().map_err(failed)?.next().transpose().map_err(failed)?.is_none())
}

/// Opens a directory for listing and syncing; a link is not followed.
pub(super) fn open_dir(parent: &Dir, name: &str) -> Result<Dir, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    Ok(Dir::from_std_file(File::from(handle)))
}

/// The names in a directory. A name that is no UTF-8 is not one of ours and is left out.
pub(super) fn names(dir: &Dir, what: &str) -> Result<Vec<String>> {
    let failed = |e| Error::io("list", what.as_bytes(), e);
    let mut names = Vec::new();
    for entry in dir.entries().map_err(failed)? {
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Whether a regular file of this name exists, and its size in bytes.
pub(super) fn file_size(dir: &Dir, name: &str) -> Option<u64> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let regular = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
    regular.then(|| u64::try_from(stat.st_size).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a collection does it, which may remove a directory between the call that makes it and the one that opens it.
    #[test]
    fn a_directory_that_is_removed_before_it_is_open_is_made_again() {
        let temp = tempfile::tempdir().unwrap();
        let parent = cofferdam_core::ambient::open_dir(temp.path()).unwrap();
        let (done, met) = (std::sync::atomic::AtomicBool::new(false), std::sync::atomic::AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    if rustix::fs::unlinkat(&parent, "a", AtFlags::REMOVEDIR).is_ok() {
                        met.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                }
            });
            let opened: Result<Vec<_>> = (0..2000).map(|_| private_dir(&parent, "a").map(drop)).collect();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            opened.unwrap();
        });
        assert!(met.into_inner() > 0);
    }

    /// CVE-2014-9358, CVE-2024-3727, CVE-2026-95839, GHSA-f689-h8m7-3jp2: digest text used as a path.
    #[test]
    fn cve_2014_9358_cve_2024_3727_text_that_is_no_digest_never_gets_into_a_path() {
        let root = Path::new("/store");
        let good = Digest::of(b"x").to_string();
        let attacks = [
            "",
            ".",
            "..",
            "/etc",
            "/etc/passwd",
            "sha256:x/../../",
            "sha256:../../../etc/passwd",
            "sha256-abc",
            "sha512:00",
            "sha256:\0",
            &format!("{good}/../../x"),
            &format!("{good}\n"),
            &good.to_uppercase(),
        ];
        for text in attacks {
            for kind in BlobKind::ALL {
                let expected = root.join(kind.directory()).join(NO_DIGEST);
                assert_eq!(blob_path(root, kind, text), expected, "{text:?}");
            }
            assert_eq!(tree_path(root, text), root.join("extracted").join(NO_DIGEST), "{text:?}");
        }
    }

    #[test]
    fn names_are_those_of_the_contract() {
        let digest = Digest::of(b"x");
        let hex = digest.hex();
        let root = Path::new("/store");
        let text = digest.to_string();
        assert_eq!(
            blob_path(root, BlobKind::Layer, &text),
            PathBuf::from(format!("/store/layers/sha256-{hex}.tar.gz"))
        );
        assert_eq!(
            blob_path(root, BlobKind::Config, &text),
            PathBuf::from(format!("/store/configs/sha256-{hex}.json"))
        );
        assert_eq!(
            blob_path(root, BlobKind::Manifest, &text),
            PathBuf::from(format!("/store/manifests/sha256-{hex}.json"))
        );
        assert_eq!(tree_path(root, &text), PathBuf::from(format!("/store/extracted/sha256-{hex}")));
    }
}
