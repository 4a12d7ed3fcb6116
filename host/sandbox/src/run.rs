//! One run of a program: its store, its instance and its calls.

use std::io;
use std::panic::catch_unwind;
use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::task::{self, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use cofferdam_core::cancel::Cancel;
use cofferdam_core::error::{Error, GuestFailure, Result};
use cofferdam_core::limits::Limits;
use cofferdam_core::threads;
use cofferdam_documents::plugin::World;
use tokio::runtime::{Builder, Runtime};
use wasmtime::Store;
use wasmtime::component::{ComponentNamedList, Instance, Lift, Linker, Lower, TypedFunc};

use super::bindings::Failure;
use super::confine::Confined;
use super::engine::Sandbox;
use super::failure::judge;
use super::powers::{self, Context, Denial, Powers, RunReports};
use super::program::Program;

/// A program in its store. Dropping it ends it.
pub(crate) struct Run<H: 'static> {
    program: Program,
    /// For a program that can wait. Before the store: what is under way there ends first.
    waits: Option<Waits>,
    store: Store<Confined<H>>,
    begin: Instant,
    reports: Option<RunReports>,
}

impl<H: Send + 'static> Run<H> {
    pub(crate) fn new(
        sandbox: &Sandbox,
        program: &Program,
        memory: u64,
        limits: &Limits,
        context: &Context,
        host: H,
    ) -> std::result::Result<Self, (Error, H)> {
        let begin = Instant::now();
        let (powers, waits) = match prepare(program, limits, context) {
            Ok(prepared) => prepared,
            Err(error) => return Err((error, host)),
        };
        let store = sandbox.store(program, memory, limits, powers, &context.cancel, host);
        Ok(Self { program: program.clone(), waits, store, begin, reports: context.reports.clone() })
    }

    /// Links what the world has, by `link`, and what the program holds beyond it; then instantiates.
    pub(crate) fn instantiate(
        &mut self,
        sandbox: &Sandbox,
        link: impl FnOnce(&mut Linker<Confined<H>>) -> wasmtime::Result<()>,
    ) -> wasmtime::Result<Instance> {
        let mut linker = Linker::new(sandbox.engine());
        link(&mut linker)?;
        if let Some(held) = self.program.capabilities() {
            powers::link(&mut linker, held)?;
        }
        let component = self.program.component().clone();
        match &mut self.waits {
            None => linker.instantiate(&mut self.store, &component),
            Some(waits) => {
                let instance = linker.instantiate_async(&mut self.store, &component);
                waits.within(instance).unwrap_or_else(|over| Err(self.over(over)))
            }
        }
    }

    /// A function that the program exports, by itself or in an interface.
    pub(crate) fn export<P, R>(
        &mut self,
        instance: &Instance,
        interface: Option<&str>,
        name: &str,
    ) -> wasmtime::Result<TypedFunc<P, R>>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        let absent = || wasmtime::Error::msg(format!("it does not export {}", interface.unwrap_or(name)));
        let outer = interface
            .map(|interface| instance.get_export_index(&mut self.store, None, interface).ok_or_else(absent))
            .transpose()?;
        let index = instance.get_export_index(&mut self.store, outer.as_ref(), name).ok_or_else(absent)?;
        instance.get_typed_func(&mut self.store, index)
    }

    /// Calls a function.
    pub(crate) fn call<P, R>(&mut self, function: TypedFunc<P, R>, parameters: P) -> wasmtime::Result<R>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: ComponentNamedList + Lift + Send + Sync + 'static,
    {
        match &mut self.waits {
            None => function.call(&mut self.store, parameters),
            Some(waits) => {
                let returned = function.call_async(&mut self.store, parameters);
                waits.within(returned).unwrap_or_else(|over| Err(self.over(over)))
            }
        }
    }

    /// Lets one call carry this many bytes.
    pub(crate) fn carry(&mut self, bytes: usize) {
        let more = self.store.hostcall_fuel().max(bytes);
        self.store.set_hostcall_fuel(more);
    }

    pub(crate) fn state(&mut self) -> &mut Confined<H> {
        self.store.data_mut()
    }

    /// Ends it: judges how its export returned, and gives the host back. The report of the run goes where the context said.
    ///
    /// A plugin that failed after it had been denied what a person can grant has failed for that, as far as we can tell:
    /// the error then carries the command that grants it.
    pub(crate) fn end<T>(
        mut self,
        outcome: wasmtime::Result<std::result::Result<T, Failure>>,
        limits: &Limits,
    ) -> (Result<T>, H) {
        drop(self.waits.take());
        let name = self.program.name();
        let (host, failure, mut report) = self.store.into_data().release();
        report.wall = self.begin.elapsed();
        let result = judge(name, failure, outcome, limits).map_err(|error| because(name, error, &report.denials));
        if let Some(reports) = self.reports {
            reports.set(report);
        }
        (result, host)
    }

    /// The program is not waited for any longer.
    fn over(&mut self, over: Over) -> wasmtime::Error {
        let state = self.store.data_mut();
        let error = match over {
            Over::Late => state.stopped(GuestFailure::Waited),
            Over::GivenUp => Error::Interrupted,
        };
        state.fail(error);
        wasmtime::Error::msg("the plugin is not waited for any longer")
    }
}

/// The error of a plugin that was denied something, with what that was.
fn because(plugin: &str, error: Error, denials: &[Denial]) -> Error {
    let own = match &error {
        Error::Refused { .. } | Error::Corrupt { .. } => true,
        Error::Guest { failure, .. } => matches!(failure, GuestFailure::Trap(_) | GuestFailure::Misuse(_)),
        _ => false,
    };
    match denials.iter().find(|denial| denial.grant.is_some()) {
        Some(denial) if own => {
            let lacked =
                Error::Denied { plugin: plugin.to_owned(), what: denial.what.clone(), grant: denial.grant.clone() };
            lacked.context(error.to_string())
        }
        _ => error,
    }
}

/// Whether a program reads layers: then it waits for us, and for files at most, since it can hold neither a clock nor requests.
fn reads(program: &Program) -> bool {
    program.manifest().is_some_and(|manifest| matches!(manifest.world, World::Decoder | World::Extractor))
}

type Prepared = (Option<Box<Powers>>, Option<Waits>);

fn prepare(program: &Program, limits: &Limits, context: &Context) -> Result<Prepared> {
    threads::room_for_guests()?;
    let Some(held) = program.capabilities() else { return Ok((None, None)) };
    let powers = Powers::new(program, held, limits, context)?;
    let waits = Waits::new(limits.plugin_wait, !reads(program), context.cancel.clone())?;
    Ok((Some(Box::new(powers)), Some(waits)))
}

/// Where a program waits, and how much longer it may.
///
/// What it waits for is done on the runtime's own threads. The program runs on its caller's, which is not made part of the
/// runtime: a host call of one program may run another one, and a runtime cannot be run within a runtime.
struct Waits {
    /// Nothing once it is dropped.
    runtime: Option<Runtime>,
    left: Duration,
    /// Whether the time counts in which the program runs.
    all_counts: bool,
    cancel: Cancel,
}

/// Why a program is not waited for any longer.
enum Over {
    /// It has waited for as long as it may.
    Late,
    /// Whoever waits for it has given up.
    GivenUp,
}

impl Waits {
    fn new(left: Duration, all_counts: bool, cancel: Cancel) -> Result<Self> {
        /// Threads for what would block: files and names.
        const BLOCKING: usize = 8;
        /// How long its first thread may take to start.
        const START: Duration = Duration::from_secs(30);
        /// Longer than any program may wait.
        const KEEP: Duration = Duration::from_hours(365 * 24);
        let failed = |source| Error::Io { action: "set up what a plugin waits on".into(), source };
        // The runtime panics where it cannot have its own thread, and where it cannot have the first one for what would block; for
        // want of more, those that it has do the work. So it gets both now, and keeps them.
        threads::available(2)?;
        let build = || {
            let runtime = Builder::new_multi_thread()
                .worker_threads(1)
                .max_blocking_threads(BLOCKING)
                .thread_keep_alive(KEEP)
                .thread_name("cofferdam-waits")
                .enable_all()
                .build()?;
            let (sender, started) = mpsc::channel();
            drop(runtime.spawn_blocking(move || sender.send(())));
            Ok((runtime, started))
        };
        let built = catch_unwind(build).unwrap_or_else(|_| Err(io::ErrorKind::WouldBlock.into()));
        let (runtime, started) = built.map_err(failed)?;
        let waits = Self { runtime: Some(runtime), left, all_counts, cancel };
        started.recv_timeout(START).map_err(|_| failed(io::ErrorKind::TimedOut.into()))?;
        Ok(waits)
    }

    /// Runs `work` for as long as is left, or until that is given up.
    fn within<T>(&mut self, work: impl Future<Output = T>) -> std::result::Result<T, Over> {
        let Self { runtime, left, all_counts, cancel } = self;
        let _entered = runtime.as_ref().ok_or(Over::Late)?.enter();
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = task::Context::from_waker(&waker);
        let (mut work, mut given_up) = (pin!(work), pin!(cancel.cancelled()));
        loop {
            if given_up.as_mut().poll(&mut context).is_ready() {
                return Err(Over::GivenUp);
            }
            let begin = Instant::now();
            let done = work.as_mut().poll(&mut context);
            if *all_counts {
                *left = left.saturating_sub(begin.elapsed());
            }
            if let Poll::Ready(done) = done {
                return Ok(done);
            }
            if left.is_zero() {
                return Err(Over::Late);
            }
            let begin = Instant::now();
            thread::park_timeout(*left);
            *left = left.saturating_sub(begin.elapsed());
        }
    }
}

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Drop for Waits {
    /// Does not wait for a call of the system that does not return, such as a lookup or a read of a pipe.
    fn drop(&mut self) {
        /// For what is about to return.
        const GRACE: Duration = Duration::from_millis(100);
        match self.runtime.take() {
            // Where one may not block.
            Some(runtime) if tokio::runtime::Handle::try_current().is_ok() => runtime.shutdown_background(),
            Some(runtime) => runtime.shutdown_timeout(GRACE),
            None => {}
        }
    }
}
