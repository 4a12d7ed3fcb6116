//! What a run used and what it was denied: shared by everybody who serves it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cofferdam_core::error::Error;
use cofferdam_core::limits::Limits;

use crate::failure::one_line;

/// Denials that are kept of one run.
const DENIALS: usize = 32;

/// Something that a plugin tried, or asks for, and does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Denial {
    /// What it was: `POST https://example.com`.
    pub what: String,
    /// The command that would grant it; nothing where the plugin does not ask for it, so that no command would.
    pub grant: Option<String>,
}

/// How a run of a plugin went.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RunReport {
    /// The most linear memory that it had, in bytes.
    pub peak_memory: u64,
    /// Processor time that it was charged.
    pub guest_time: Duration,
    /// How long it took, waiting and the host's work included.
    pub wall: Duration,
    /// What it was denied, in order; of many, the first ones.
    pub denials: Vec<Denial>,
    /// Requests that it made.
    pub requests: u64,
    /// Bytes that it sent and received.
    pub bytes: u64,
}

/// Where the report of a run goes when it ends, however it ends. Clones are the same place.
#[derive(Clone, Debug, Default)]
pub struct RunReports(Arc<Mutex<Option<RunReport>>>);

impl RunReports {
    /// The report of the run that ended last.
    pub fn last(&self) -> Option<RunReport> {
        lock(&self.0).clone()
    }

    pub(crate) fn set(&self, report: RunReport) {
        *lock(&self.0) = Some(report);
    }
}

/// The account of one run.
pub(super) struct Account {
    plugin: String,
    most_requests: u64,
    most_bytes: u64,
    /// Messages that may still reach the log.
    messages: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    denials: Vec<Denial>,
    requests: u64,
    bytes: u64,
    /// Why the run is to be ended.
    failure: Option<Error>,
}

impl Account {
    pub(super) fn new(plugin: &str, limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            plugin: plugin.to_owned(),
            most_requests: limits.http_requests,
            most_bytes: limits.http_bytes,
            messages: AtomicU64::new(limits.log_messages),
            state: Mutex::default(),
        })
    }

    /// Whose it is.
    pub(super) fn plugin(&self) -> &str {
        &self.plugin
    }

    /// Takes one message from the budget of the log; says whether there was one.
    pub(super) fn message(&self) -> bool {
        let less = |left: u64| left.checked_sub(1);
        self.messages.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// Notes what was denied, and the arguments of `plugin grant` that would grant it.
    pub(super) fn deny(&self, what: &str, flag: Option<&str>) {
        let grant = flag.map(|flag| format!("cofferdam plugin grant {} {flag}", self.plugin));
        let denial = Denial { what: one_line(what), grant };
        let mut state = lock(&self.state);
        // Each once, and not all of many: the words are the plugin's.
        if state.denials.len() < DENIALS && !state.denials.contains(&denial) {
            tracing::info!(guest = self.plugin, "denied: {}", denial.what);
            state.denials.push(denial);
        }
    }

    /// Counts a request; says whether it may be made.
    pub(super) fn request(&self) -> bool {
        let mut state = lock(&self.state);
        state.requests += 1;
        let within = state.requests <= self.most_requests;
        if !within {
            state.requests = self.most_requests;
            self.limit(&mut state, "requests of a plugin", self.most_requests);
        }
        within
    }

    /// Counts bytes that go over the network; says whether they may.
    pub(super) fn bytes(&self, count: usize) -> bool {
        let mut state = lock(&self.state);
        state.bytes = state.bytes.saturating_add(count as u64);
        let within = state.bytes <= self.most_bytes;
        if !within {
            self.limit(&mut state, "bytes sent and received by a plugin", self.most_bytes);
        }
        within
    }

    fn limit(&self, state: &mut State, what: &'static str, limit: u64) {
        state.failure.get_or_insert_with(|| over(&self.plugin, what, limit));
    }

    /// Why the run is to be ended, if it is. Given out once.
    pub(super) fn failure(&self) -> Option<Error> {
        lock(&self.state).failure.take()
    }

    /// Writes what was counted into a report.
    pub(super) fn report(&self, report: &mut RunReport) {
        let state = lock(&self.state);
        report.denials.clone_from(&state.denials);
        (report.requests, report.bytes) = (state.requests, state.bytes);
    }
}

/// The error of a plugin that crossed a limit.
pub(super) fn over(plugin: &str, what: &'static str, limit: u64) -> Error {
    Error::Limit { subject: format!("the plugin `{plugin}`"), what, limit }
}

/// Nobody who holds such a lock can panic half-way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
