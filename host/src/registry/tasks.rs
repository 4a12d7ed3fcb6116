//! Blocking work of a pull, on threads of the runtime, of which none is left behind.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};

/// The blocking work of one pull. Dropping this asks what still runs to stop.
#[derive(Debug)]
pub(super) struct Tasks {
    /// Each piece of work holds a clone; when all are gone, so is the work.
    alive: mpsc::Sender<Infallible>,
    gone: mpsc::Receiver<Infallible>,
    stop: Stop,
}

/// Whether work should stop, for work that waits for nobody who would tell it.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

/// Work that was begun.
#[derive(Debug)]
pub(super) struct Task<T>(JoinHandle<Result<T>>);

impl Tasks {
    pub(super) fn new() -> Self {
        let (alive, gone) = mpsc::channel(1);
        Self { alive, gone, stop: Stop::default() }
    }

    /// Begins blocking work.
    pub(super) fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Task<T> {
        let alive = self.alive.clone();
        Task(tokio::task::spawn_blocking(move || {
            let result = work();
            drop(alive);
            result
        }))
    }

    /// For work that reads what is there already.
    pub(super) fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Asks all work to stop and waits until it has. What it held is released then.
    pub(super) async fn stop_all(mut self) {
        self.stop.0.store(true, Ordering::Relaxed);
        let (unused, _) = mpsc::channel(1);
        self.alive = unused;
        while self.gone.recv().await.is_some() {}
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.stop.0.store(true, Ordering::Relaxed);
    }
}

impl Stop {
    /// Whether to stop.
    pub(super) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
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
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::Interrupted),
            },
        }
    }
}
