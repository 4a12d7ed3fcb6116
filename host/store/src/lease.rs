//! Leases: what somebody relies on is not freed, everything else may be.
//!
//! A [`Lease`] is a file `locks/<uuid>.lease` that lists digests, one a line, and that its owner keeps locked (`flock`). It is
//! made whole, under the gate (`gate.lock`), and never changed; it goes with its owner, or counts for nothing from the moment
//! in which its owner dies, and is swept.
//!
//! Who relies on something **leases it before looking whether it is there**. Who frees (`collect.rs`) holds the gate alone
//! while it reads the live leases, lists the references, and takes the names of all else away; the content goes after that.
//!
//! # Why nothing is freed that somebody relies on
//!
//! Take a thing X, somebody S who leases X and then looks whether it is there, and a collector C that takes X's name away.
//! Both pass the gate, which one has alone:
//!
//! * S first: the lease was made, with all its digests, when C reads the leases. It is seen, since its owner holds its lock, and C
//!   keeps X until S lets go.
//! * C first: X has lost its name when S's lease is made, so S finds it absent and makes it (again).
//!
//! A reference is published while its parts are leased, and behind the gate, so that who removes old ones does not
//! remove the new one in the old one's place ([`ImageStorage::publish`]). So when C has the gate, each part of
//! an image is leased, or the reference is there to be read, or (never) was not relied on; there is no moment between.
//! What is not listed anywhere because it is being written is known by its own lock: a staged file by the lock on itself, a staged
//! tree by its layer's lock, which C tries and does not wait for. An open [`super::Tree`] shares a lock on its directory, and an
//! open local layout one on the layout's directory in `local/`; C takes a name only after it got that lock alone. So neither needs
//! a lease, nor a further descriptor: an image of hundreds of layers takes one for its lease and one for each open tree.
//!
//! Who is killed leaves a file without a lock, at any instant: before it is locked it is taken for a dead one's, and removed, and its
//! maker notices that and makes another; a half-written one is behind the gate, or dead.
//!
//! # Nobody waits for ever
//!
//! The gate is the only lock that a collector waits for; all others it tries. Who shares the gate takes no other lock
//! but that of the file it just made. So there is no circle. Who holds a lease may wait for anything.
//!
//! [`InUse`] is the coarse form: as long as somebody has it, nothing at all is freed.
//!
//! After a `fork`, a lease is the parent's and the child's: it ends when both have closed it, by `exec`, by their end, or by
//! dropping it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use cap_std::fs::Dir;
use cofferdam_core::cancel::Cancel;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use cofferdam_documents::image::ImageObject;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use uuid::Uuid;

use crate::images::unknown;
use crate::lock::{self, InUse, Locks, waiting};
use crate::overlay::Source;
use crate::storage::ImageStorage;
use crate::sweep::Sweep;
use crate::{file, layout, overlay};

const SUFFIX: &str = ".lease";

/// The largest lease that is read, in bytes. A larger one counts as one of everything.
const LIMIT: u64 = 16 << 20;

/// Keeps what it names from being freed, by any process, for as long as it lives. Cheap to clone. See [`ImageStorage::lease`].
#[derive(Clone, Debug)]
#[must_use = "what is leased is kept only for as long as this lives"]
pub struct Lease(Arc<Held>);

#[derive(Debug)]
struct Held {
    digests: BTreeSet<Digest>,
    _by: By,
}

/// How a lease is held.
#[derive(Debug)]
enum By {
    /// By a file of its own.
    File { dir: Arc<Dir>, name: String, file: Option<File> },
    /// By the store's use as a whole, where no file can be made.
    Use { _in_use: InUse },
    /// Not at all, since there is nothing to hold.
    Nothing,
}

/// Says of a digest that it will not be freed: what [`ImageStorage::publish`] wants to be sure of.
pub trait Keeps {
    /// Whether what has this digest is kept.
    fn keeps(&self, digest: &Digest) -> bool;
}

impl Keeps for Lease {
    fn keeps(&self, digest: &Digest) -> bool {
        self.0.digests.contains(digest)
    }
}

impl Keeps for InUse {
    fn keeps(&self, _: &Digest) -> bool {
        true
    }
}

impl Lease {
    /// A lease of nothing.
    pub fn nothing() -> Self {
        Self(Arc::new(Held { digests: BTreeSet::new(), _by: By::Nothing }))
    }
}

impl Drop for By {
    fn drop(&mut self) {
        if let Self::File { dir, name, file } = self {
            // Closed first: after a fork the other one may still hold it, and then its name stays.
            drop(file.take());
            let _ = sweep_one(dir, name);
        }
    }
}

impl ImageStorage {
    /// Leases all that has these digests, whether it is there or not: manifests, configurations, blobs and trees of layers. What
    /// is there when this returns stays, and what comes later, for as long as the lease lives, in any process.
    /// [`ImageStorage::remove`] still removes references. Waits while names are being taken away, which is short.
    pub async fn lease(&self, digests: impl IntoIterator<Item = Digest>) -> Result<Lease> {
        let (locks, digests) = (self.locks().clone(), digests.into_iter().collect());
        waiting(move || lease(&locks, digests, None)).await
    }

    /// As [`ImageStorage::lease`], blocking the thread until that is given up.
    pub fn lease_blocking(&self, digests: impl IntoIterator<Item = Digest>, cancel: &Cancel) -> Result<Lease> {
        lease(self.locks(), digests.into_iter().collect(), Some(cancel))
    }
}

impl ImageStorage {
    /// The image that a reference stands for, and a lease of it: what is there of it when this returns stays for as long as the
    /// lease lives. Counts as a use of the image. [`Error::NotFound`] if there is no such reference. Blocks the thread.
    pub fn lease_image(&self, reference: &str, cancel: &Cancel) -> Result<(ImageObject, Lease)> {
        loop {
            let image = self.resolve(reference)?.ok_or_else(|| unknown(reference))?;
            let object = match self.load_image(&image) {
                // Removed meanwhile, or fetched again.
                Err(_) if self.resolve(reference)?.as_ref() != Some(&image) => continue,
                object => object?,
            };
            let lease = self.lease_blocking(digests(&object).chain(image.index.clone()), cancel)?;
            // Whoever removed it before that may have freed parts of it.
            let now = self.resolve(reference)?;
            if now.is_some_and(|now| (now.manifest, now.index) == (image.manifest, image.index)) {
                self.used(&image.reference);
                return Ok((object, lease));
            }
        }
    }

    /// Leases what an image consists of, and notes that it is used.
    pub fn lease_object(&self, image: &ImageObject, cancel: &Cancel) -> Result<Lease> {
        let lease = self.lease_blocking(digests(image), cancel)?;
        if self.resolve(&image.reference).is_ok_and(|now| now.is_some_and(|now| now.manifest == image.manifest_digest))
        {
            self.used(&image.reference);
        }
        Ok(lease)
    }

    /// Notes that an image is used now. Where that cannot be noted, it is not.
    fn used(&self, reference: &str) {
        if self.writable().is_ok()
            && let Err(error) = self.refs().touch(reference)
        {
            tracing::debug!(reference, %error, "the use of an image is not noted");
        }
    }
}

/// What an image consists of, and what may be made of it for overlayfs.
fn digests(image: &ImageObject) -> impl Iterator<Item = Digest> {
    let parts = [&image.manifest_digest, &image.config_digest].into_iter().chain(image.layer_digests()).cloned();
    parts.chain(overlay::names(image.layers.iter().map(Source::from)))
}

fn lease(locks: &Locks, digests: BTreeSet<Digest>, cancel: Option<&Cancel>) -> Result<Lease> {
    if digests.is_empty() {
        return Ok(Lease::nothing());
    }
    let by = match make(locks, &digests, cancel) {
        Ok(by) => by,
        // Who cannot write here can still see to it that nobody else frees anything.
        Err(error) if is_unwritable(&error) => By::Use { _in_use: locks.share(cancel)? },
        Err(error) => return Err(error),
    };
    Ok(Lease(Arc::new(Held { digests, _by: by })))
}

fn make(locks: &Locks, digests: &BTreeSet<Digest>, cancel: Option<&Cancel>) -> Result<By> {
    let mut text = format!("# of process {}\n", rustix::process::getpid());
    for digest in digests {
        text.push_str(&digest.to_string());
        text.push('\n');
    }
    let _gate = locks.gate(cancel)?;
    let dir = Arc::clone(locks.dir());
    loop {
        let name = format!("{}{SUFFIX}", Uuid::new_v4().simple());
        let failed = |e: std::io::Error| Error::io("make the lease", name.as_bytes(), e);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&*dir, &name, flags, Mode::RUSR | Mode::WUSR).map_err(|e| failed(e.into()))?;
        let mut file = File::from(file);
        lock::lock_exclusively(&file).map_err(failed)?;
        // Between the two, a sweep may have taken it for a dead owner's.
        if rustix::fs::fstat(&file).map_err(|e| failed(e.into()))?.st_nlink == 0 {
            continue;
        }
        let written = file.write_all(text.as_bytes()).map_err(failed);
        let by = By::File { dir: Arc::clone(&dir), name, file: Some(file) };
        return written.map(|()| by);
    }
}

fn is_unwritable(error: &Error) -> bool {
    let Error::Io { source, .. } = error.root() else { return false };
    matches!(Errno::from_io_error(source), Some(Errno::ROFS | Errno::ACCESS | Errno::NOSPC | Errno::DQUOT))
}

/// What the leases of the living name. To be read with the gate held alone; without, it is a guess.
#[derive(Debug, Default)]
pub(super) struct Leased {
    digests: BTreeSet<Digest>,
    /// A lease that cannot be read counts as one of everything.
    unreadable: Option<String>,
}

impl Leased {
    /// Reads them, removing those of the dead if that is wanted.
    pub(super) fn read(locks: &Locks, sweep: bool) -> Result<Self> {
        let mut leased = Self::default();
        for name in layout::names(locks.dir(), "locks")?.into_iter().filter(|name| is_name(name)) {
            let Some(file) = file::open(locks.dir(), &name)? else { continue };
            if is_dead(&file, &name)? {
                if sweep {
                    remove(locks.dir(), &name)?;
                }
            } else if leased.add(file).is_none() {
                leased.unreadable = Some(name);
            }
        }
        Ok(leased)
    }

    fn add(&mut self, file: File) -> Option<()> {
        let mut text = String::new();
        file.take(LIMIT + 1).read_to_string(&mut text).ok().filter(|&bytes| bytes as u64 <= LIMIT)?;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            self.digests.insert(line.parse().ok()?);
        }
        Some(())
    }

    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.unreadable.is_some() || self.digests.contains(digest)
    }

    /// The lease of which it is not known what it names.
    pub(super) fn unreadable(&self) -> Option<&str> {
        self.unreadable.as_deref()
    }
}

/// Whether a lock's file is a lease.
pub(super) fn is_name(name: &str) -> bool {
    name.ends_with(SUFFIX)
}

/// Removes the leases of the dead.
pub(super) fn sweep(locks: &Locks, sweep: &mut Sweep) {
    for name in sweep.list(layout::names(locks.dir(), "locks")) {
        if is_name(&name) {
            sweep.note(sweep_one(locks.dir(), &name));
        }
    }
}

fn sweep_one(dir: &Dir, name: &str) -> Result<()> {
    match file::open(dir, name)? {
        // Its lock is kept until the name is gone: who has just made it notices.
        Some(file) if is_dead(&file, name)? => remove(dir, name),
        _ => Ok(()),
    }
}

/// Whether a lease's owner is dead; then its lock is held by `file` now.
pub(super) fn is_dead(file: &File, name: &str) -> Result<bool> {
    lock::try_lock_exclusively(file).map_err(|e| Error::io("look at the lease", name.as_bytes(), e))
}

fn remove(dir: &Dir, name: &str) -> Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(Error::io("remove the lease", name.as_bytes(), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temp() -> (tempfile::TempDir, Locks) {
        let temp = tempfile::tempdir().unwrap();
        let dir = cofferdam_core::ambient::open_dir(temp.path()).unwrap();
        (temp, Locks::new(Arc::new(dir)))
    }

    fn leases(temp: &tempfile::TempDir) -> usize {
        let names = temp.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().ends_with(SUFFIX)).count()
    }

    fn of(names: &[&str]) -> BTreeSet<Digest> {
        names.iter().map(|name| Digest::of(name.as_bytes())).collect()
    }

    #[test]
    fn a_lease_names_its_digests_until_it_is_dropped() {
        let (temp, locks) = temp();
        let one = lease(&locks, of(&["a", "b"]), None).unwrap();
        let two = lease(&locks, of(&["b", "c"]), None).unwrap();
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| Digest::of(name.as_bytes()));
        let read = || Leased::read(&locks, true).unwrap();
        assert!(read().has(&a) && read().has(&b) && read().has(&c) && !read().has(&d));
        assert!(one.keeps(&a) && !one.keeps(&c));
        let clone = one.clone();
        drop(one);
        assert!(read().has(&a), "a clone holds it");
        drop(clone);
        assert!(!read().has(&a) && read().has(&b));
        drop(two);
        assert!(!read().has(&b));
        assert_eq!(leases(&temp), 0);
    }

    #[test]
    fn the_dead_lease_nothing() {
        let (temp, locks) = temp();
        let digest = Digest::of(b"a");
        // What a killed process leaves, whole or not.
        let dead = temp.path().join("0123.lease");
        for text in [format!("{digest}\n"), "sha256:01".into(), String::new()] {
            locks.dir().write("0123.lease", &text).unwrap();
            assert!(!Leased::read(&locks, false).unwrap().has(&digest));
            assert!(dead.exists(), "only looked at");
            assert!(!Leased::read(&locks, true).unwrap().has(&digest));
            assert!(!dead.exists());
        }
        locks.dir().write("0123.lease", "x").unwrap();
        let living = lease(&locks, of(&["a"]), None).unwrap();
        sweep(&locks, &mut Sweep::new(0));
        assert_eq!(leases(&temp), 1);
        assert!(Leased::read(&locks, false).unwrap().has(&digest));
        drop(living);
    }

    #[test]
    fn a_lease_that_cannot_be_read_is_one_of_everything() {
        let (_temp, locks) = temp();
        locks.dir().write("0123.lease", "what a later version writes").unwrap();
        let file = file::open(locks.dir(), "0123.lease").unwrap().unwrap();
        assert!(is_dead(&file, "").unwrap(), "we are its owner now");
        let leased = Leased::read(&locks, true).unwrap();
        assert!(leased.has(&Digest::of(b"anything")));
        assert_eq!(leased.unreadable(), Some("0123.lease"));
    }

    /// Both are under way at once, often: whatever is leased while it is there stays until it is let go of.
    #[test]
    fn who_leases_first_keeps_it() {
        let (_temp, locks) = temp();
        let room = tempfile::tempdir().unwrap();
        let things = cofferdam_core::ambient::open_dir(room.path()).unwrap();
        let digest = Digest::of(b"thing");
        let kept = std::sync::atomic::AtomicU32::new(0);
        let done = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let lease = lease(&locks, of(&["thing"]), None).unwrap();
                        things.write("thing", "x").unwrap();
                        std::thread::yield_now();
                        assert!(things.exists("thing"), "taken from who leased it");
                        drop(lease);
                    }
                    done.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                });
            }
            scope.spawn(|| {
                while done.load(std::sync::atomic::Ordering::SeqCst) < 4 {
                    let _gate = locks.gate_alone(None).unwrap();
                    if Leased::read(&locks, true).unwrap().has(&digest) {
                        kept.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    } else {
                        let _ = things.remove_file("thing");
                    }
                }
            });
        });
    }

    #[test]
    fn where_nothing_can_be_written_the_whole_store_is_held() {
        for errno in [Errno::ROFS, Errno::ACCESS, Errno::NOSPC, Errno::DQUOT] {
            assert!(is_unwritable(&Error::io("open", b"x", errno)), "{errno}");
        }
        assert!(!is_unwritable(&Error::io("open", b"x", Errno::IO)));
    }
}
