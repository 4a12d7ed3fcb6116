//! What holds a guest: its memory limit, its time and its budget of idle calls.

use std::time::{Duration, Instant};

use cofferdam_core::cancel::Cancel;
use cofferdam_core::error::{Error, GuestFailure, Result};
use cofferdam_core::limits::Limits;
use rustix::time::{ClockId, clock_gettime};
use wasmtime::{ResourceLimiter, StoreContextMut, UpdateDeadline};

use super::bounds::Bounds;
use super::failure::machine;
use super::powers::{Powers, RunReport};
use super::program::Program;

/// The most bytes that a guest may ask for or hand over in one call (`wit/layer.wit`).
pub(crate) const MAX_TRANSFER: usize = 1 << 20;

/// The most bytes of strings and lists that one host call may lift: a transfer, or what an entry's lists may hold.
pub(crate) fn call_fuel(limits: &Limits) -> usize {
    /// What the limits that real images keep to need, and some more.
    const LEAST: usize = 4 << 20;
    /// An extent, or an attribute without its bytes.
    const ITEM: usize = 64;
    let items = limits.sparse_extents.saturating_add(limits.xattrs).saturating_mul(ITEM);
    items.saturating_add(limits.xattr_bytes).saturating_add(limits.path_bytes.saturating_mul(2)).max(LEAST)
}

/// Handles of resources that a guest may hold. The contract has none, so only those that a guest defines for itself count.
pub(crate) const HANDLES: usize = 64;

/// What a host call costs of a guest's time at least. The host's own work is not charged to a guest, so without a price a
/// guest that moves single bytes would keep the host busy for hours; an honest one makes thousands of calls a MiB at most.
const CALL_PRICE: Duration = Duration::from_micros(1);

/// A guest's store: who it is, what it may use, the host that serves it, and why it was ended.
pub struct Confined<H> {
    pub host: H,
    program: Program,
    pub memory: MemoryWall,
    clock: GuestClock,
    idle_calls: u64,
    log_messages: u64,
    pub bounds: Bounds,
    /// What a plugin holds beyond its world. One that holds anything runs asynchronously.
    pub powers: Option<Box<Powers>>,
    /// The first error of a host call, or the limit that was crossed: it says more than the trap that follows.
    failure: Option<Error>,
    cancel: Cancel,
}

impl<H> Confined<H> {
    pub fn new(
        program: Program,
        memory_limit: u64,
        limits: &Limits,
        powers: Option<Box<Powers>>,
        cancel: Cancel,
        host: H,
    ) -> Self {
        let parts = if program.manifest().is_some() { PLUGIN } else { GUEST };
        Self {
            host,
            program,
            powers,
            memory: MemoryWall { limit: memory_limit, used: 0, last: 0, peak: 0, crossed: false, short: None, parts },
            clock: GuestClock::new(limits),
            idle_calls: limits.idle_calls,
            log_messages: limits.log_messages,
            bounds: Bounds::of(limits),
            failure: None,
            cancel,
        }
    }

    /// Serves a host call: its time is not the guest's, and its error ends the guest.
    pub fn serve<T>(&mut self, call: impl FnOnce(&mut Self) -> Result<T>) -> wasmtime::Result<T> {
        let begin = Instant::now();
        let result = call(self);
        self.clock.host += begin.elapsed();
        self.clock.used += CALL_PRICE;
        let result = match result {
            Ok(_) if self.clock.is_over() => Err(self.stopped(GuestFailure::TimeOut)),
            other => other,
        };
        result.map_err(|error| {
            self.fail(error);
            wasmtime::Error::msg("a host call failed")
        })
    }

    /// Notes why the guest is about to be ended. The first reason counts.
    pub fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
    }

    /// Begins a call of the guest's: what the thread did since its last one was the host's work.
    pub fn enter(&mut self) {
        self.clock.enter();
    }

    /// Ends a call of the guest's: charges it, also where no tick came. Says whether there is time left for another.
    pub fn leave(&mut self) -> Result<()> {
        if !self.clock.tick() {
            return Err(self.stopped(GuestFailure::TimeOut));
        }
        self.powers.as_mut().map_or(Ok(()), |powers| powers.check(false))
    }

    /// Whose store it is.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Counts bytes that passed through the guest: they buy time. A call that moves none is idle.
    pub fn moved(&mut self, bytes: u64) -> Result<()> {
        self.clock.moved += bytes;
        if bytes == 0 {
            self.idle_calls =
                self.idle_calls.checked_sub(1).ok_or_else(|| self.misuse("too many calls that move nothing"))?;
        }
        Ok(())
    }

    /// Counts a call that has nothing to do with the stream. For a first-party guest it is idle; a plugin pays for it with its time.
    pub fn asked(&mut self) -> Result<()> {
        if self.program.manifest().is_some() { Ok(()) } else { self.moved(0) }
    }

    /// Checks how many bytes a guest asks for.
    pub fn transfer(&self, max: u32) -> Result<usize> {
        match max as usize {
            0 => Err(self.misuse("a read of no bytes")),
            max if max > MAX_TRANSFER => Err(self.misuse("a read of more than 1 MiB")),
            max => Ok(max),
        }
    }

    /// The error of a guest that broke its contract.
    pub fn misuse(&self, rule: &str) -> Error {
        self.stopped(GuestFailure::Misuse(rule.to_owned()))
    }

    pub fn stopped(&self, failure: GuestFailure) -> Error {
        Error::Guest { guest: self.program.name().to_owned(), failure }
    }

    /// Takes the host back, the failure if there is one, and how the run went.
    pub fn release(mut self) -> (H, Option<Error>, RunReport) {
        if let Some(source) = self.memory.short.take() {
            let action = format!("give the guest `{}` the memory that it may have", self.program.name());
            self.failure.get_or_insert(Error::Io { action, source });
        }
        if self.memory.crossed {
            let error = self.stopped(GuestFailure::Memory(self.memory.limit));
            self.failure.get_or_insert(error);
        }
        let mut report =
            RunReport { peak_memory: self.memory.peak, guest_time: self.clock.used, ..RunReport::default() };
        if let Some(mut powers) = self.powers {
            if let Err(error) = powers.check(true) {
                self.failure.get_or_insert(error);
            }
            powers.close(&mut report);
        }
        (self.host, self.failure, report)
    }

    /// Takes one message from the budget; says whether there was one.
    pub fn message(&mut self) -> bool {
        // Shared with standard output.
        if let Some(powers) = &self.powers {
            return powers.message();
        }
        let left = self.log_messages.checked_sub(1);
        self.log_messages = left.unwrap_or_default();
        left.is_some()
    }
}

/// The bound on a guest's memory and on what else a store may hold.
pub struct MemoryWall {
    /// Of all memories together.
    limit: u64,
    used: u64,
    /// By how much it was about to grow last.
    last: u64,
    peak: u64,
    crossed: bool,
    /// Why the machine did not give what is within the limit.
    short: Option<std::io::Error>,
    parts: PartBounds,
}

/// How many parts a guest may be put together of.
struct PartBounds {
    instances: usize,
    tables: usize,
    /// In each table.
    elements: usize,
}

/// What Rust makes of a guest needs half a dozen instances and one table.
const GUEST: PartBounds = PartBounds { instances: 16, tables: 8, elements: 20_000 };

/// Runtimes of other languages are linked of dozens of modules, when they start.
const PLUGIN: PartBounds = PartBounds { instances: 128, tables: 32, elements: 200_000 };

impl ResourceLimiter for MemoryWall {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.last = desired.saturating_sub(current) as u64;
        let desired = self.used.saturating_add(self.last);
        self.crossed |= desired > self.limit;
        // An error ends the guest: one that could go on without the memory would only fail later and less clearly.
        if self.crossed {
            return Err(wasmtime::Error::msg("the memory limit was crossed"));
        }
        self.used = desired;
        self.peak = self.peak.max(desired);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.used = self.used.saturating_sub(std::mem::take(&mut self.last));
        // Beyond a maximum of its own a guest learns that, and goes on. What the machine lacks is no fault of the guest's, which
        // would only trap without it.
        self.short = machine(&error);
        if self.short.is_some() { Err(error) } else { Ok(()) }
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.short = machine(&error);
        if self.short.is_some() { Err(error) } else { Ok(()) }
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= self.parts.elements)
    }

    fn instances(&self) -> usize {
        self.parts.instances
    }

    fn memories(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        self.parts.tables
    }
}

/// Charges a guest for the time in which it runs, and for nothing else.
///
/// The wall clock less the time spent in host calls is an upper bound, and so is the thread's processor time; the smaller
/// of the two is charged, so that neither a slow disk nor a busy machine makes an honest guest late.
struct GuestClock {
    budget: Duration,
    per_mib: Duration,
    moved: u64,
    used: Duration,
    host: Duration,
    last: Option<(Instant, Duration)>,
}

impl GuestClock {
    fn new(limits: &Limits) -> Self {
        Self {
            budget: limits.guest_time,
            per_mib: limits.guest_time_per_mib,
            moved: 0,
            used: Duration::ZERO,
            host: Duration::ZERO,
            last: None,
        }
    }

    /// From here on time is the guest's.
    fn enter(&mut self) {
        self.last = Some((Instant::now(), thread_time()));
        self.host = Duration::ZERO;
    }

    /// Charges the time since the last tick; says whether there is any left.
    fn tick(&mut self) -> bool {
        let now = (Instant::now(), thread_time());
        if let Some((wall, processor)) = self.last.replace(now) {
            let wall = now.0.duration_since(wall).saturating_sub(self.host);
            self.used += wall.min(now.1.saturating_sub(processor));
        }
        self.host = Duration::ZERO;
        !self.is_over()
    }

    /// Whether more was used than there is.
    fn is_over(&self) -> bool {
        let earned = self.per_mib.saturating_mul(u32::try_from(self.moved >> 20).unwrap_or(u32::MAX));
        self.used > self.budget.saturating_add(earned)
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Called at each tick of the engine's epoch while a guest runs.
pub(crate) fn on_tick<H>(mut store: StoreContextMut<'_, Confined<H>>) -> wasmtime::Result<UpdateDeadline> {
    let state = store.data_mut();
    if !state.clock.tick() {
        let error = state.stopped(GuestFailure::TimeOut);
        state.fail(error);
        return Err(wasmtime::Error::msg("the time limit was crossed"));
    }
    if let Err(error) = state.cancel.check() {
        state.fail(error);
        return Err(wasmtime::Error::msg("whoever waits for the guest has given up"));
    }
    let Some(powers) = &mut state.powers else { return Ok(UpdateDeadline::Continue(1)) };
    match powers.check(false) {
        // So that the time in which it must be done passes for one that never waits, too.
        Ok(()) => Ok(UpdateDeadline::Yield(1)),
        Err(error) => {
            state.fail(error);
            Err(wasmtime::Error::msg("a limit was crossed"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limit `log-messages`, crossed by one.
    #[test]
    fn messages_beyond_the_limit_are_dropped() {
        let limits = Limits::default().with(|limits| limits.log_messages = 2);
        let sandbox = super::super::Sandbox::new(&super::super::SandboxOptions::default()).unwrap();
        let untar = sandbox.builtin(super::super::Guest::Untar).unwrap();
        let mut state = Confined::new(untar, 0, &limits, None, Cancel::new(), ());
        let heard = std::iter::repeat_with(|| state.message()).take(4).collect::<Vec<_>>();
        assert_eq!(heard, [true, true, false, false]);
    }

    #[test]
    fn a_call_may_carry_what_the_limits_allow() {
        let many = Limits::default().with(|limits| limits.sparse_extents = 1_000_000);
        assert!(call_fuel(&many) > 16 * 1_000_000);
        assert!(call_fuel(&Limits::default()) > MAX_TRANSFER);
    }
}
