//! Ctrl-C: work is told to stop, cleans up, and the command ends with 130. A second one ends it at once.

use std::future::Future;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use cofferdam::{Cancel, Error, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::INTERRUPTED;
use crate::machine;

/// A flag that Ctrl-C sets, and the signal that asks a program to end. The same one whoever asks.
pub(crate) fn cancel() -> Result<Cancel> {
    static CANCEL: Mutex<Option<Cancel>> = Mutex::new(None);
    let mut slot = CANCEL.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cancel) = &*slot {
        return Ok(cancel.clone());
    }
    let cancel = Cancel::new();
    watch(cancel.clone()).map_err(|source| Error::Io { action: "wait for signals".into(), source })?;
    Ok(slot.insert(cancel).clone())
}

/// Watches on a thread of its own: it hears the second signal too, whatever the first one left the others doing.
fn watch(cancel: Cancel) -> io::Result<()> {
    spare_files()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anybody works: from here on no signal is missed.
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    // A thread that starts where there is no room for it takes the process with it.
    machine::room(8 << 20);
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            let mut next = async || {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            };
            next().await;
            cancel.cancel();
            next().await;
            end();
        });
    })?;
    Ok(())
}

/// Fails if so few files may be open that setting up the runtime would panic, as it does where it cannot have its sockets.
fn spare_files() -> io::Result<()> {
    let (one, two) = UnixStream::pair()?;
    let _more = [one.try_clone()?, one.try_clone()?, two.try_clone()?, two.try_clone()?];
    Ok(())
}

/// Ends the process as it is. What it leaves is what a crash leaves, and is swept as that is.
#[expect(clippy::disallowed_methods, clippy::exit, reason = "the others do not listen, or this would not be needed")]
fn end() -> ! {
    std::process::exit(INTERRUPTED.into())
}

/// Runs asynchronous work to its end. It looks at [`cancel`] itself.
///
/// On this thread: a runtime with threads panics where it cannot have them, and waits for ever where it cannot have another one.
/// What blocks or takes long has threads of the library's.
pub(crate) fn finish<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|source| Error::Io { action: "start the runtime".into(), source })?.block_on(work)
}

/// Runs asynchronous work to its end, or until Ctrl-C: then it is dropped, and what it began on other threads cleans up
/// before this returns, since the runtime waits for it.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let cancel = cancel()?;
    finish(async {
        tokio::select! {
            outcome = work => outcome,
            () = cancel.cancelled() => Err(Error::Interrupted),
        }
    })
}
