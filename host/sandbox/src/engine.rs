//! The engine that compiles and runs guests, shared by all layers of a process.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use cofferdam_core::cancel::Cancel;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, GuestFailure, Result};
use cofferdam_core::limits::Limits;
use cofferdam_core::threads;
use wasmtime::component::Component;
use wasmtime::{Config, Engine, OptLevel, Store};

use super::compiled::Compiled;
use super::confine::{Confined, HANDLES, call_fuel, on_tick};
use super::embedded::Guest;
use super::failure::{machine, one_line};
use super::powers::{self, Powers};
use super::program::{Interfaces, Program};
use super::ticker::{Running, Ticker};

/// Stack that a guest may use, of the thread that it runs on. Host calls need some beneath it: a quarter of the 2 MiB of
/// Rust's threads leaves enough, and half of the smallest on which a layer may be unpacked.
const WASM_STACK: usize = 512 << 10;

/// How a [`Sandbox`] is set up.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SandboxOptions {
    /// Where compiled guests are kept between runs of the program; nowhere if absent. The directory is made when it is
    /// missing, and is not used unless it is the user's and no other user but root can write to it or to a directory above it
    /// ([`trusted_dir`](cofferdam_core::ambient::trusted_dir)): what lies in it is machine code that will be run. Nothing of an image
    /// ever gets there.
    pub cache: Option<PathBuf>,
    /// Components that take the place of first-party guests.
    pub replaced: Vec<(Guest, Vec<u8>)>,
}

impl SandboxOptions {
    /// Keeps compiled guests in this directory.
    #[must_use]
    pub fn with_cache(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cache = Some(directory.into());
        self
    }

    /// Runs this component in the place of a first-party guest: one that was built elsewhere, or one that attacks.
    #[must_use]
    pub fn with_guest(mut self, guest: Guest, component: impl Into<Vec<u8>>) -> Self {
        self.replaced.push((guest, component.into()));
        self
    }
}

/// Compiles guests once and runs them any number of times, from any number of threads.
pub struct Sandbox {
    engine: Engine,
    ticker: Ticker,
    cache: Option<Compiled>,
    programs: [OnceLock<Program>; Guest::ALL.len()],
    replaced: Vec<(Guest, Vec<u8>)>,
}

/// What a guest is, read from its component without running it.
#[derive(Clone, Debug)]
pub struct GuestInfo {
    /// Which one.
    pub guest: Guest,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// How long it took to load, compiled or from the cache.
    pub load_time: Duration,
}

impl Sandbox {
    /// Sets up the engine; guests are compiled when they are first used.
    pub fn new(options: &SandboxOptions) -> Result<Self> {
        // One that starts no threads: see `compile`.
        let engine = engine(false)?;
        let cache = options.cache.as_deref().and_then(|directory| Compiled::open(directory, &engine));
        let ticker = Ticker::new(engine.clone())?;
        Ok(Self { engine, ticker, cache, programs: Default::default(), replaced: options.replaced.clone() })
    }

    /// Loads all guests, from the cache where they are in it, and says what they are.
    pub fn inspect(&self) -> Result<Vec<GuestInfo>> {
        Guest::ALL.into_iter().map(|guest| self.inspect_one(guest)).collect()
    }

    fn inspect_one(&self, guest: Guest) -> Result<GuestInfo> {
        let begin = Instant::now();
        let program = self.builtin(guest)?;
        let load_time = begin.elapsed();
        let Interfaces { imports, exports } = Interfaces::of(program.component(), &self.engine);
        Ok(GuestInfo { guest, imports, exports, load_time })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Keeps guests' clocks running while it lives.
    pub fn clocks(&self) -> Running {
        self.ticker.run()
    }

    /// A first-party guest. Two threads that come first together may both compile it; one result is kept.
    ///
    /// # Errors
    ///
    /// [`Error::Guest`] if a component that was put in its place cannot be loaded, [`Error::Io`] if the machine has not got
    /// what that takes.
    pub fn builtin(&self, guest: Guest) -> Result<Program> {
        let slot = &self.programs[guest as usize];
        if let Some(program) = slot.get() {
            return Ok(program.clone());
        }
        let replaced = self.replaced.iter().rev().find(|(replaced, _)| *replaced == guest);
        let bytes = replaced.map_or(guest.component(), |(_, component)| component);
        let digest = Digest::of(bytes);
        let component = self.load(guest.name(), bytes, &digest)?;
        Ok(slot.get_or_init(|| Program::builtin(guest.name(), digest, component)).clone())
    }

    /// Loads a component, from the cache if it is there. `name` is what errors call it, `digest` that of its bytes.
    pub(super) fn load(&self, name: &str, component: &[u8], digest: &Digest) -> Result<Component> {
        if let Some(compiled) = self.cache.as_ref().and_then(|cache| cache.load(&self.engine, digest)) {
            return Ok(compiled);
        }
        threads::room_for_guests()?;
        self.compile(component, digest).map_err(|error| match machine(&error) {
            Some(source) => Error::Io { action: format!("compile the guest `{name}`"), source },
            None => {
                Error::Guest { guest: name.to_owned(), failure: GuestFailure::Load(one_line(&format!("{error:#}"))) }
            }
        })
    }

    /// Compiles a component, on several threads if they can be had.
    ///
    /// They belong to a pool that ends with this: the engine would use that of the process, which panics where there are no
    /// threads, and stays. What it has compiled is handed over in serialized form, since a component is of one engine.
    fn compile(&self, component: &[u8], digest: &Digest) -> wasmtime::Result<Component> {
        let compiler = compiler()?.filter(|_| component.len() >= WORTH_THREADS);
        let serialized = match &compiler {
            Some((pool, engine)) => pool.install(|| engine.precompile_component(component))?,
            None if self.cache.is_none() => return Component::from_binary(&self.engine, component),
            None => self.engine.precompile_component(component)?,
        };
        if let Some(cache) = &self.cache {
            cache.store(digest, &serialized);
        }
        #[expect(unsafe_code, reason = "the only way from one engine to the other")]
        // SAFETY: the bytes are what an engine of this version serialized just now, in this process.
        unsafe {
            Component::deserialize(&self.engine, serialized)
        }
    }

    /// A fresh store for one run of a guest.
    pub fn store<H: 'static>(
        &self,
        program: &Program,
        memory_limit: u64,
        limits: &Limits,
        powers: Option<Box<Powers>>,
        cancel: &Cancel,
        host: H,
    ) -> Store<Confined<H>> {
        let handles = if powers.is_some() { powers::HANDLES } else { HANDLES };
        let state = Confined::new(program.clone(), memory_limit, limits, powers, cancel.clone(), host);
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.memory);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(on_tick);
        store.set_hostcall_fuel(call_fuel(limits));
        store.set_max_component_handles(handles);
        store
    }
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sandbox")
    }
}

/// A component from which on several threads compile faster than they start, in bytes.
const WORTH_THREADS: usize = 16 << 10;

/// Threads that compile, and the engine that uses them; nothing if there are none to be had.
fn compiler() -> wasmtime::Result<Option<(rayon::ThreadPool, Engine)>> {
    /// More do not help: a component has a few hundred functions.
    const MOST: usize = 16;
    let count = std::thread::available_parallelism().map_or(1, usize::from).min(MOST);
    if count < 2 || threads::room(count).is_err() {
        return Ok(None);
    }
    let named = |index| format!("cofferdam-jit-{index}");
    match rayon::ThreadPoolBuilder::new().num_threads(count).thread_name(named).build() {
        Ok(pool) => Ok(Some((pool, Engine::new(&config(true))?))),
        Err(error) => {
            tracing::debug!(%error, "guests are compiled on one thread");
            Ok(None)
        }
    }
}

fn engine(parallel: bool) -> Result<Engine> {
    Engine::new(&config(parallel)).map_err(|error| Error::Io {
        action: "set up the WebAssembly engine".into(),
        source: machine(&error).unwrap_or_else(|| std::io::Error::other(format!("{error:#}"))),
    })
}

/// Only the features that our guests use: what is off cannot have a bug that matters.
fn config(parallel: bool) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .wasm_simd(true)
        .wasm_bulk_memory(true)
        .wasm_relaxed_simd(false)
        .wasm_tail_call(false)
        .wasm_multi_memory(false)
        .wasm_memory64(false)
        // What compilers of other languages than Rust write.
        .wasm_extended_const(true)
        .concurrency_support(false)
        .cranelift_opt_level(OptLevel::Speed)
        .epoch_interruption(true)
        .parallel_compilation(parallel)
        // Where there are no memfds, memories are filled by copying.
        .memory_init_cow(has_memfd())
        .max_wasm_stack(WASM_STACK)
        .wasm_backtrace_max_frames(None);
    config
}

/// Whether the system has files in memory. The engine can do without, but fails where something forbids them.
fn has_memfd() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| rustix::fs::memfd_create("cofferdam", rustix::fs::MemfdFlags::CLOEXEC).is_ok())
}
