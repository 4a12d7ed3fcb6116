//! Locks: one at work, others waiting, nobody waiting for the dead.
//!
//! A lock is an advisory lock (`flock`) on a file in `locks/`. It belongs to an open file, so threads exclude each other
//! just as processes do, and the system frees it when its holder dies. Who frees one removes its file: only the holder
//! may, and whoever waited on the removed file notices that its name now means another one, and starts again.
//!
//! Two locks are different: their files stay. `store.lock` is shared ([`InUse`]) by those who rely on all that they found in the
//! store, and held alone by who frees space. `gate.lock` is shared by who makes a lease, for as long as that takes, and held
//! alone by who takes names away: see [`super::lease`].

use std::fs::{File, TryLockError};
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use cap_std::fs::Dir;
use cofferdam_core::cancel::Cancel;
use cofferdam_core::error::{Error, Result};
use cofferdam_core::threads;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::sweep::Sweep;
use crate::trace::step;

/// How often a wait that can be given up looks whether it was.
const LOOK: Duration = Duration::from_millis(20);

const STORE: &str = "store.lock";
const GATE: &str = "gate.lock";

/// The directory of locks.
#[derive(Clone, Debug)]
pub(super) struct Locks {
    dir: Arc<Dir>,
    /// The share of the store's use that this process has, if it has one: an image of many layers opens many trees, each
    /// of which holds one, and files that may be open are few.
    shared: Arc<Mutex<Weak<File>>>,
}

/// A lock that is held. Dropping it frees it and removes its file.
#[derive(Debug)]
pub(super) struct Lock {
    dir: Arc<Dir>,
    name: String,
    _file: File,
}

/// Says that somebody relies on what is in the store: as long as it lives, nothing in the store is freed, in any process.
/// To be held from the first look into the store to the publication of a reference, and while trees are read.
#[derive(Clone, Debug)]
#[must_use = "the store is in use only for as long as this lives"]
pub struct InUse {
    _file: Arc<File>,
}

/// The store is in nobody's use as a whole but ours.
#[derive(Debug)]
pub(super) struct Alone {
    _file: File,
}

/// The gate between those who make leases and those who free: shared by the former, one of the latter alone.
#[derive(Debug)]
pub(super) struct Gate {
    _file: File,
}

impl Locks {
    pub(super) fn new(dir: Arc<Dir>) -> Self {
        Self { dir, shared: Arc::default() }
    }

    /// Makes the files of the locks that stay, so that they can be shared where nothing can be written.
    pub(super) fn prepare(&self) {
        for name in [STORE, GATE] {
            if let Err(error) = self.open(name) {
                tracing::debug!(name, %error, "a lock cannot be made");
            }
        }
    }

    /// Takes a lock, waiting for its holder. Blocks the thread.
    pub(super) fn acquire(&self, name: &str) -> Result<Lock> {
        let failed = |e| Error::io("lock", name.as_bytes(), e);
        loop {
            let file = self.open(name).map_err(failed)?;
            lock_exclusively(&file).map_err(failed)?;
            if let Some(lock) = self.settle(name, file)? {
                step("lock", &*self.dir, name);
                return Ok(lock);
            }
        }
    }

    /// Takes a lock if nobody holds it.
    pub(super) fn try_acquire(&self, name: &str) -> Result<Option<Lock>> {
        let failed = |e| Error::io("lock", name.as_bytes(), e);
        loop {
            let file = self.open(name).map_err(failed)?;
            if !try_lock_exclusively(&file).map_err(failed)? {
                return Ok(None);
            }
            if let Some(lock) = self.settle(name, file)? {
                return Ok(Some(lock));
            }
        }
    }

    /// Takes a lock, waiting for its holder until that is given up. Blocks the thread.
    pub(super) fn acquire_unless(&self, name: &str, cancel: Option<&Cancel>) -> Result<Lock> {
        let Some(cancel) = cancel else { return self.acquire(name) };
        until(cancel, || self.try_acquire(name))
    }

    /// Takes a lock without blocking the executor. The wait has a thread of its own, so that giving up (dropping the
    /// future) never holds up the end of the runtime.
    pub(super) async fn acquire_async(&self, name: String) -> Result<Lock> {
        let locks = self.clone();
        waiting(move || locks.acquire(&name)).await
    }

    /// Shares the use of the store, waiting while space is being freed, or until that is given up. Blocks the thread.
    pub(super) fn share(&self, cancel: Option<&Cancel>) -> Result<InUse> {
        let failed = |e| Error::io("lock", STORE.as_bytes(), e);
        let shared = || self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = shared().upgrade() {
            return Ok(InUse { _file: file });
        }
        let file = self.open_to_share(STORE).map_err(failed)?;
        share_file(&file, cancel)?;
        let file = Arc::new(file);
        *shared() = Arc::downgrade(&file);
        Ok(InUse { _file: file })
    }

    /// The use of the store for us alone, if nobody shares it.
    pub(super) fn try_alone(&self) -> Result<Option<Alone>> {
        let failed = |e| Error::io("lock", STORE.as_bytes(), e);
        let file = self.open(STORE).map_err(failed)?;
        Ok(try_lock_exclusively(&file).map_err(failed)?.then_some(Alone { _file: file }))
    }

    /// Shares the gate, waiting while names are taken away, or until that is given up. Blocks the thread.
    pub(super) fn gate(&self, cancel: Option<&Cancel>) -> Result<Gate> {
        let file = self.open_to_share(GATE).map_err(|e| Error::io("lock", GATE.as_bytes(), e))?;
        share_file(&file, cancel)?;
        Ok(Gate { _file: file })
    }

    /// The gate for us alone, waiting for those who make a lease or take names away: neither takes long. Blocks the thread.
    pub(super) fn gate_alone(&self, cancel: Option<&Cancel>) -> Result<Gate> {
        let failed = |e| Error::io("lock", GATE.as_bytes(), e);
        let file = self.open(GATE).map_err(failed)?;
        match cancel {
            None => lock_exclusively(&file).map_err(failed)?,
            Some(cancel) => until(cancel, || Ok(try_lock_exclusively(&file).map_err(failed)?.then_some(())))?,
        }
        Ok(Gate { _file: file })
    }

    /// Whether somebody holds a lock or a share of it. Changes nothing.
    pub(super) fn is_held(&self, name: &str) -> bool {
        let held = |file| !try_lock_exclusively(&file).unwrap_or(false);
        super::file::open(&self.dir, name).ok().flatten().is_some_and(held)
    }

    /// Whether somebody uses the store as a whole. Changes nothing.
    pub(super) fn is_shared(&self) -> bool {
        self.is_held(STORE)
    }

    /// The directory of locks, in which leases are too.
    pub(super) fn dir(&self) -> &Arc<Dir> {
        &self.dir
    }

    /// Removes the files of locks whose holders died.
    pub(super) fn sweep(&self, sweep: &mut Sweep) {
        for name in sweep.list(super::layout::names(&self.dir, "locks")) {
            if ![STORE, GATE].contains(&name.as_str()) && name.strip_suffix(".lock").is_some() {
                sweep.note(self.try_acquire(&name).map(drop));
            }
        }
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&*self.dir, name, flags, Mode::RUSR | Mode::WUSR)?))
    }

    /// Opens a lock's file to share it: also where nothing can be written, as long as the file is there.
    fn open_to_share(&self, name: &str) -> io::Result<File> {
        match self.open(name) {
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::ROFS | Errno::ACCESS)) => {
                super::file::open(&self.dir, name).ok().flatten().ok_or(error)
            }
            opened => opened,
        }
    }

    /// The lock, if the name still means the file that was locked.
    fn settle(&self, name: &str, file: File) -> Result<Option<Lock>> {
        let failed = |e: Errno| Error::io("lock", name.as_bytes(), e);
        let held = rustix::fs::fstat(&file).map_err(failed)?;
        let named = match rustix::fs::statat(&*self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) => named,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let same = (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino);
        Ok(same.then(|| Lock { dir: Arc::clone(&self.dir), name: name.to_owned(), _file: file }))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Still locked: only the holder may remove the name, and the file is closed, and so freed, after this.
        let _ = rustix::fs::unlinkat(&*self.dir, &self.name, AtFlags::empty());
    }
}

/// Tries until it works, or until it is given up.
fn until<T>(cancel: &Cancel, mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    loop {
        cancel.check()?;
        if let Some(done) = attempt()? {
            return Ok(done);
        }
        std::thread::sleep(LOOK);
    }
}

/// Runs a wait of unknown length on a thread of its own.
pub(super) async fn waiting<T: Send + 'static>(wait: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    threads::blocking("cofferdam-lock", wait).await
}

/// Runs short blocking work beside the executor.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    threads::brief("cofferdam-store", work).await
}

/// Shares the lock of an open file, waiting for who holds it alone, or until that is given up.
fn share_file(file: &File, cancel: Option<&Cancel>) -> Result<()> {
    let failed = |e| Error::io("lock", b"the store", e);
    match cancel {
        None => uninterrupted(|| file.lock_shared()).map_err(failed),
        Some(cancel) => until(cancel, || match file.try_lock_shared() {
            Ok(()) => Ok(Some(())),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }),
    }
}

/// Locks an open file for us alone, waiting for its holder.
pub(super) fn lock_exclusively(file: &File) -> io::Result<()> {
    uninterrupted(|| file.lock())
}

/// Locks an open file for us alone, if nobody holds it.
pub(super) fn try_lock_exclusively(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn uninterrupted(mut lock: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match lock() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::*;

    fn temp() -> (tempfile::TempDir, Locks) {
        let temp = tempfile::tempdir().unwrap();
        let dir = cofferdam_core::ambient::open_dir(temp.path()).unwrap();
        (temp, Locks::new(Arc::new(dir)))
    }

    #[test]
    fn a_lock_is_held_once_and_leaves_no_file() {
        let (temp, locks) = temp();
        let lock = locks.acquire("a.lock").unwrap();
        assert!(locks.try_acquire("a.lock").unwrap().is_none());
        assert!(locks.try_acquire("b.lock").unwrap().is_some());
        drop(lock);
        assert_eq!(temp.path().read_dir().unwrap().count(), 0);
        assert!(locks.try_acquire("a.lock").unwrap().is_some());
    }

    /// The race that removing lock files invites: a waiter that gets the lock of a removed file, beside the holder of a
    /// new one. Many threads, each takes the lock often; no two may be inside.
    #[test]
    fn removal_of_lock_files_lets_nobody_in_twice() {
        let (temp, locks) = temp();
        let inside = AtomicBool::new(false);
        let entered = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let lock = locks.acquire("a.lock").unwrap();
                        assert!(!inside.swap(true, Ordering::SeqCst), "two holders of one lock");
                        entered.fetch_add(1, Ordering::SeqCst);
                        inside.store(false, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        assert_eq!(entered.into_inner(), 1600);
        assert_eq!(temp.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn the_dead_leave_a_file_but_no_lock() {
        let (temp, locks) = temp();
        // What a killed process leaves: the file, unlocked.
        temp.path().join("a.lock").metadata().unwrap_err();
        drop(locks.open("a.lock").unwrap());
        assert!(locks.try_acquire("a.lock").unwrap().is_some());
        drop(locks.open("b.lock").unwrap());
        let held = locks.acquire("c.lock").unwrap();
        locks.sweep(&mut Sweep::new(0));
        assert!(!temp.path().join("b.lock").exists());
        assert!(temp.path().join("c.lock").exists());
        drop(held);
    }

    #[test]
    fn a_store_in_use_is_nobodys_alone() {
        let (_temp, locks) = temp();
        let (first, second) = (locks.share(None).unwrap(), locks.share(None).unwrap());
        assert!(locks.try_alone().unwrap().is_none());
        drop(first);
        assert!(locks.try_alone().unwrap().is_none());
        drop(second);
        assert!(locks.try_alone().unwrap().is_some());
        let third = locks.share(None).unwrap();
        assert!(locks.try_alone().unwrap().is_none());
        let fourth = locks.clone().share(None).unwrap();
        assert_eq!(locks.shared.lock().unwrap().strong_count(), 2, "one file for all of a process");
        drop((third, fourth));
    }

    #[test]
    fn a_wait_ends_when_it_is_given_up() {
        let (temp, locks) = temp();
        let held = locks.acquire("a.lock").unwrap();
        let alone = locks.try_alone().unwrap().unwrap();
        for wait in [
            &(|cancel: &Cancel| locks.acquire_unless("a.lock", Some(cancel)).map(drop))
                as &(dyn Fn(&Cancel) -> _ + Sync),
            &|cancel| locks.share(Some(cancel)).map(drop),
        ] {
            let cancel = Cancel::new();
            std::thread::scope(|scope| {
                let waiter = scope.spawn(|| wait(&cancel));
                cancel.cancel();
                assert!(matches!(waiter.join().unwrap(), Err(Error::Interrupted)));
            });
        }
        drop((held, alone));
        let cancel = Cancel::new();
        locks.acquire_unless("a.lock", Some(&cancel)).map(drop).unwrap();
        locks.share(Some(&cancel)).map(drop).unwrap();
        drop(temp);
    }

    #[tokio::test]
    #[should_panic(expected = "a defect")]
    async fn a_panic_in_a_wait_is_a_panic() {
        let _ = waiting(|| -> Result<()> { panic!("a defect") }).await;
    }

    #[tokio::test]
    async fn giving_up_a_wait_leaves_no_lock_behind() {
        let (_temp, locks) = temp();
        let held = locks.acquire("a.lock").unwrap();
        let wait = locks.acquire_async("a.lock".into());
        assert!(tokio::time::timeout(Duration::from_millis(20), wait).await.is_err());
        drop(held);
        // The abandoned waiter may get the lock first, and frees it at once.
        drop(locks.acquire_async("a.lock".into()).await.unwrap());
        drop(locks.acquire("a.lock").unwrap());
    }
}
