//! Threads: how the library starts them.
//!
//! A machine may have none left (`ulimit -u`, the `pids` limit of a control group), or no memory for another stack. That is an
//! [`Error::Io`] here, and nothing waits for a thread that never began. `std::thread::spawn` and `Scope::spawn` panic
//! instead, and so does the blocking pool of tokio, or it queues the work where nobody takes it: none of them is used.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

use tokio::sync::{Notify, oneshot};

use crate::error::{Error, Result};

/// Stack of a thread, in bytes: that of Rust's threads, whatever `RUST_MIN_STACK` says. A guest runs on it as well.
const STACK: usize = 2 << 20;

/// Address space that a thread needs beside its stack, in bytes: stacks for signals, which both Rust and the engine panic
/// without, and what is allocated for it. Generous, since several may start at once.
const BESIDE: usize = 4 << 20;

/// Starts a thread.
///
/// # Errors
///
/// [`Error::Io`] if there is none to be had.
pub fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    room(1).and_then(|()| builder(name).spawn(work)).map_err(failed)
}

/// Starts a thread that ends within a scope.
///
/// # Errors
///
/// As [`spawn`].
pub fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    room(1).and_then(|()| builder(name).spawn_scoped(scope, work)).map_err(failed)
}

/// Fails unless so many more threads are to be had at once.
///
/// # Errors
///
/// As [`spawn`].
pub fn available(count: usize) -> Result<()> {
    let gate = Mutex::new(());
    std::thread::scope(|scope| {
        // None ends before all have begun, or could not.
        let _closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
        (0..count).try_for_each(|_| {
            spawn_scoped(scope, "cofferdam-try", || drop(gate.lock().unwrap_or_else(PoisonError::into_inner))).map(drop)
        })
    })
}

/// Does the same work on up to `count` threads, the calling one included; on fewer where there are no more. Returns when all have
/// ended.
pub fn share(name: &str, count: usize, work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        for _ in 1..count {
            if let Err(error) = spawn_scoped(scope, name, &work) {
                tracing::debug!(%error, "fewer threads share the work");
                break;
            }
        }
        work();
    });
}

/// Runs blocking work on a thread of its own. When the future is dropped, the work goes on. A panic in it goes on in the caller.
///
/// # Errors
///
/// As [`spawn`], and those of the work.
pub async fn blocking<T: Send + 'static>(name: &str, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (sender, receiver) = oneshot::channel();
    spawn(name, move || drop(sender.send(catch_unwind(AssertUnwindSafe(work)))))?;
    match receiver.await {
        Ok(Ok(result)) => result,
        // A defect of ours is not an interruption.
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => Err(Error::Interrupted),
    }
}

/// Runs short blocking work as [`blocking`] does. If the future is dropped first, [`abandoned_work`] waits for the work, which may
/// have staged something that it removes only when it finds that its result is not wanted.
///
/// # Errors
///
/// As [`blocking`].
pub async fn brief<T: Send + 'static>(name: &str, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (sender, receiver) = oneshot::channel();
    let state = Arc::new(AtomicU8::new(UNDER_WAY));
    let watched = Watched(Arc::clone(&state));
    let begun = spawn(name, move || {
        drop(sender.send(catch_unwind(AssertUnwindSafe(work))));
        if state.swap(ENDED, Ordering::SeqCst) == ABANDONED && LEFT.fetch_sub(1, Ordering::SeqCst) == 1 {
            NONE_LEFT.notify_waiters();
        }
    });
    if let Err(error) = begun {
        // There is nothing to wait for.
        watched.0.store(ENDED, Ordering::SeqCst);
        return Err(error);
    }
    match receiver.await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => Err(Error::Interrupted),
    }
}

/// Waits until no [`brief`] work of this process is under way whose future was dropped.
pub async fn abandoned_work() {
    loop {
        let mut none_left = std::pin::pin!(NONE_LEFT.notified());
        // From here on a notification is not missed.
        none_left.as_mut().enable();
        if LEFT.load(Ordering::SeqCst) == 0 {
            return;
        }
        none_left.await;
    }
}

/// The number of pieces of brief work that are under way and abandoned.
static LEFT: AtomicUsize = AtomicUsize::new(0);
static NONE_LEFT: Notify = Notify::const_new();

const UNDER_WAY: u8 = 0;
const ABANDONED: u8 = 1;
const ENDED: u8 = 2;

/// The state of a piece of brief work. Dropped by the future that waits for it.
struct Watched(Arc<AtomicU8>);

impl Drop for Watched {
    fn drop(&mut self) {
        // Counted first, so that the work's own end never counts below zero.
        LEFT.fetch_add(1, Ordering::SeqCst);
        let left = self.0.compare_exchange(UNDER_WAY, ABANDONED, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if !left && LEFT.fetch_sub(1, Ordering::SeqCst) == 1 {
            NONE_LEFT.notify_waiters();
        }
    }
}

/// Fails if the address space has no room for so many threads.
pub fn room(threads: usize) -> io::Result<()> {
    fits(threads.saturating_mul(STACK).saturating_add(BESIDE))
}

/// Fails if the address space has no room for what the engine needs on a thread that runs or compiles guests, and panics without.
///
/// # Errors
///
/// [`Error::Io`].
pub fn room_for_guests() -> Result<()> {
    fits(BESIDE).map_err(|source| Error::Io { action: "set up the WebAssembly engine".into(), source })
}

/// Fails if the address space has no room for this many bytes.
fn fits(bytes: usize) -> io::Result<()> {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    #[expect(unsafe_code, reason = "memory that is not there aborts a program in every other way to ask for it")]
    // SAFETY: the kernel chooses where the mapping lies, so it replaces nothing; it is not used, and goes at once.
    unsafe {
        let place = mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, flags)?;
        munmap(place, bytes)?;
    }
    Ok(())
}

fn builder(name: &str) -> Builder {
    Builder::new().name(name.to_owned()).stack_size(STACK)
}

fn failed(source: io::Error) -> Error {
    Error::Io { action: "start a thread".into(), source }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn what_does_not_fit_is_an_error() {
        assert!(fits(1 << 20).is_ok());
        assert_eq!(fits(1 << 60).unwrap_err().raw_os_error(), Some(rustix::io::Errno::NOMEM.raw_os_error()));
        assert!(room(1 << 40).is_err());
    }

    /// A value that is removed late.
    struct Staged(Arc<AtomicUsize>);

    impl Drop for Staged {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn abandoned_work_is_waited_for() {
        let staged = Arc::new(AtomicUsize::new(0));
        let (begin, begun) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let count = Arc::clone(&staged);
        let work = brief("test", move || {
            count.fetch_add(1, Ordering::SeqCst);
            let value = Staged(count);
            begin.send(()).ok();
            // Until the other end is dropped.
            ended.recv().ok();
            Ok(value)
        });
        let mut work = Box::pin(work);
        assert!(poll(work.as_mut()).is_pending());
        begun.recv().unwrap();
        drop(work);
        let mut waiting = std::pin::pin!(abandoned_work());
        assert!(poll(waiting.as_mut()).is_pending());
        assert_eq!(staged.load(Ordering::SeqCst), 1);
        drop(end);
        waiting.await;
        assert_eq!(staged.load(Ordering::SeqCst), 0);
        // Work whose result was taken leaves nothing to wait for.
        assert_eq!(brief("test", || Ok(7)).await.unwrap(), 7);
        abandoned_work().await;
    }

    #[test]
    fn work_is_shared_by_as_many_as_there_are() {
        for count in [0, 1, 3] {
            let done = AtomicUsize::new(0);
            share("test", count, || {
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(done.into_inner(), count.max(1));
        }
    }
}
