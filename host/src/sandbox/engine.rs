//! The engine that compiles and runs guests, shared by all layers of a process.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use wasmtime::component::Component;
use wasmtime::{Cache, CacheConfig, Config, Engine, OptLevel, Store};

use super::confine::{Confined, HANDLES, call_fuel, on_tick};
use super::embedded::Guest;
use super::powers::{self, Powers};
use super::program::{Interfaces, Program};
use super::ticker::{Running, Ticker};
use crate::ambient;
use crate::cancel::Cancel;
use crate::error::{Error, GuestFailure, Result};
use crate::limits::Limits;

/// Stack that a guest may use, of the thread that it runs on. Host calls need some beneath it: a quarter of the 2 MiB of
/// Rust's threads leaves enough, and half of the smallest on which a layer may be unpacked.
const WASM_STACK: usize = 512 << 10;

/// How a [`Sandbox`] is set up.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SandboxOptions {
    /// Where compiled guests are kept between runs of the program; nowhere if absent. The directory is made when it is
    /// missing, and is not used unless it belongs to the user and nobody else may write to it: what lies in it is machine
    /// code that will be run. Nothing of an image ever gets there.
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
        let engine = Engine::new(&config(options)?).map_err(|error| engine_error(&error))?;
        let ticker =
            Ticker::new(engine.clone()).map_err(|source| Error::Io { action: "start a thread".into(), source })?;
        Ok(Self { engine, ticker, programs: Default::default(), replaced: options.replaced.clone() })
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
    pub(crate) fn clocks(&self) -> Running {
        self.ticker.run()
    }

    /// A first-party guest. Two threads that come first together may both compile it; one result is kept.
    ///
    /// # Errors
    ///
    /// [`Error::Guest`] if a component that was put in its place cannot be loaded.
    pub fn builtin(&self, guest: Guest) -> Result<Program> {
        let slot = &self.programs[guest as usize];
        if let Some(program) = slot.get() {
            return Ok(program.clone());
        }
        let replaced = self.replaced.iter().rev().find(|(replaced, _)| *replaced == guest);
        let bytes = replaced.map_or(guest.component(), |(_, component)| component);
        let component = self.compile(bytes).map_err(|error| Error::Guest {
            guest: guest.name().into(),
            failure: GuestFailure::Load(format!("{error:#}")),
        })?;
        Ok(slot.get_or_init(|| Program::builtin(guest.name(), bytes, component)).clone())
    }

    pub(super) fn compile(&self, component: &[u8]) -> wasmtime::Result<Component> {
        Component::from_binary(&self.engine, component)
    }

    /// A fresh store for one run of a guest.
    pub(crate) fn store<H: 'static>(
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

/// Only the features that our guests use: what is off cannot have a bug that matters.
fn config(options: &SandboxOptions) -> Result<Config> {
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
        .max_wasm_stack(WASM_STACK)
        .wasm_backtrace_max_frames(None);
    if let Some(directory) = options.cache.as_deref().and_then(trusted) {
        let mut cache = CacheConfig::new();
        cache.with_directory(directory);
        config.cache(Some(Cache::new(cache).map_err(|error| engine_error(&error))?));
    }
    Ok(config)
}

/// The cache's directory, if what lies in it can only be this user's. Without a cache guests are compiled anew, which is
/// slow and harmless.
fn trusted(directory: &Path) -> Option<PathBuf> {
    let resolved = ambient::private_dir(directory).and_then(|()| {
        let path = ambient::canonical(directory);
        path.map_err(|error| Error::io("open", directory.as_os_str().as_bytes(), error))
    });
    let untold = |error: &Error| {
        tracing::warn!(error = error as &dyn std::error::Error, "compiled guests are not kept");
    };
    resolved.inspect_err(untold).ok()
}

fn engine_error(error: &wasmtime::Error) -> Error {
    Error::Io { action: "set up the WebAssembly engine".into(), source: std::io::Error::other(format!("{error:#}")) }
}
