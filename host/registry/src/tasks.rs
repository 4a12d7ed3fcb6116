//! Blocking work of a pull, on threads of its own, of which none is left behind.
//!
//! Not on those of the runtime: their number is bounded, a layer takes two until it has arrived, and what feeds the layer may need
//! one too.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use cofferdam_core::cancel::Cancel;
use cofferdam_core::error::{Error, Result};
use cofferdam_core::threads;

/// How long a failed pull waits for short work that was given up, in this pull or another one. What it leaves after that is swept
/// when the store is next opened.
const ABANDONED: Duration = Duration::from_secs(10);

/// The blocking work of one pull. Dropping this asks what still runs to stop.
#[derive(Debug)]
pub(super) struct Tasks {
    /// Each piece of work holds a clone; when all are gone, so is the work.
    alive: mpsc::Sender<Infallible>,
    gone: mpsc::Receiver<Infallible>,
    stop: Cancel,
}

/// Work that was begun.
#[derive(Debug)]
pub(super) struct Task<T>(oneshot::Receiver<thread::Result<Result<T>>>);

impl Tasks {
    pub(super) fn new() -> Self {
        let (alive, gone) = mpsc::channel(1);
        Self { alive, gone, stop: Cancel::new() }
    }

    /// Begins blocking work.
    pub(super) fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Task<T> {
        let alive = self.alive.clone();
        let (sender, receiver) = oneshot::channel();
        let run = move || {
            // What nobody waits for any more is dropped here, before this work counts as gone.
            drop(sender.send(catch_unwind(AssertUnwindSafe(work))));
            drop(alive);
        };
        match threads::spawn("cofferdam-pull", run) {
            Ok(_) => Task(receiver),
            Err(error) => {
                let (sender, receiver) = oneshot::channel();
                drop(sender.send(Ok(Err(error))));
                Task(receiver)
            }
        }
    }

    /// Set when work is to stop, for work that waits for nobody who would tell it.
    pub(super) fn stop(&self) -> Cancel {
        self.stop.clone()
    }

    /// Asks all work to stop and waits until it has. What it held is released then.
    pub(super) async fn stop_all(mut self) {
        self.stop.cancel();
        let (unused, _) = mpsc::channel(1);
        self.alive = unused;
        while self.gone.recv().await.is_some() {}
        // Such as a blob that was being staged for a layer when another layer failed.
        let patience = tokio::time::timeout(ABANDONED, threads::abandoned_work());
        if patience.await.is_err() {
            tracing::debug!("work that was given up is still under way");
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl<T> Task<T> {
    /// Waits for the work. A panic in it goes on here.
    pub(super) async fn join(mut self) -> Result<T> {
        self.ended().await
    }

    /// As [`Task::join`], for somebody who may have to wait for something else too. Not to be called again once it has
    /// answered.
    pub(super) async fn ended(&mut self) -> Result<T> {
        match (&mut self.0).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Interrupted),
        }
    }
}
