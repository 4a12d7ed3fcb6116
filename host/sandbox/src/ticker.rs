//! Advances the engine's epoch while guests run, and sleeps while none does.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::Engine;

use cofferdam_core::error::Result;
use cofferdam_core::threads;

/// The grain of guests' time limits.
const TICK: Duration = Duration::from_millis(10);

/// Owns the thread that ticks. The thread ends with the ticker.
pub(crate) struct Ticker(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    running: usize,
    closed: bool,
}

/// Keeps the epoch advancing while it lives.
pub struct Running(Arc<Shared>);

impl Ticker {
    pub(crate) fn new(engine: Engine) -> Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let thread_shared = Arc::clone(&shared);
        threads::spawn("cofferdam-tick", move || tick(&thread_shared, &engine))?;
        Ok(Self(shared))
    }

    pub(crate) fn run(&self) -> Running {
        self.0.change(|state| state.running += 1);
        Running(Arc::clone(&self.0))
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.change(|state| state.running -= 1);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.change(|state| state.closed = true);
    }
}

fn tick(shared: &Shared, engine: &Engine) {
    let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    let mut due = Instant::now() + TICK;
    while !state.closed {
        if state.running == 0 {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            due = Instant::now() + TICK;
            continue;
        }
        // Until then, however often somebody comes or goes meanwhile.
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            engine.increment_epoch();
            due = Instant::now() + TICK;
            continue;
        }
        state = shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}
