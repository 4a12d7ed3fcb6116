//! What a plugin holds beyond its world: parts of WASI, each behind a capability.
//!
//! **Does**: link exactly the interfaces that the held capabilities stand for (`link.rs`), and keep what serves them: a
//! console that is the log, directories that are opened for reading, a scratch directory with bounds (`scratch.rs`), and a
//! gate for HTTP (`http.rs`). What was used and denied goes to an account (`account.rs`).
//!
//! **Does not**: give sockets, arguments, an environment or an input to anybody.

mod account;
mod address;
mod console;
mod http;
mod http_body;
mod http_client;
mod link;
mod scratch;

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{Deterministic, FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

pub use account::{Denial, RunReport, RunReports};
pub use http_client::Resolver;
pub(crate) use link::link;

use account::Account;
use cofferdam_core::ambient;
use cofferdam_core::cancel::Cancel;
use cofferdam_core::error::{Error, Result};
use cofferdam_core::limits::Limits;
use cofferdam_documents::plugin::{Authority, Capabilities, Capability};
use console::Console;
use http::Gate;
use scratch::Scratch;

use super::confine::Confined;
use super::program::Program;

/// Handles of resources that a plugin with capabilities may hold: streams, files, requests, headers.
pub(crate) const HANDLES: usize = 128;

/// What the host keeps for those handles.
const RESOURCES: usize = 1024;

/// Random bytes that a plugin gets in one call.
const RANDOM_BYTES: u64 = 64 << 10;

/// What a run is about, as far as capabilities depend on it.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The registry of the image that is being verified: what the rule `registry` means. It may lie at a private address:
    /// it was named by whoever named the image.
    pub registry: Option<Authority>,
    /// Whether the certificate of that registry need not be valid.
    pub registry_any_certificate: bool,
    /// Certificates that are trusted beside the system's, each in PEM.
    pub certificates: Vec<Vec<u8>>,
    /// Who resolves names; the system if absent.
    pub resolver: Option<Resolver>,
    /// The directory in which scratch directories are made, a new one for each run. It is made if it is missing. What a
    /// process leaves in it that was killed is for its owner to sweep.
    pub scratch: Option<PathBuf>,
    /// Where the reports of runs go.
    pub reports: Option<RunReports>,
    /// How whoever waits for a run gives up: it ends with [`Error::Interrupted`].
    pub cancel: Cancel,
}

/// The state of a plugin's capabilities.
pub struct Powers {
    account: Arc<Account>,
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    gate: Gate,
    consoles: [Console; 2],
    scratch: Option<Scratch>,
    /// Directories that it asks for and was not granted.
    absent: Vec<Capability>,
}

/// Lets a plugin see the directory at `path` under the name `seen_as`. Links are followed as the shell would.
///
/// # Errors
///
/// [`Error::NotFound`], and [`Error::Io`] for a path that is not a directory or cannot be opened.
fn preopen(plugin: &mut WasiCtxBuilder, path: &Path, seen_as: &str, may: FsPerms) -> Result<()> {
    // WASI's own errors do not say which path was opened.
    ambient::hold(path)?;
    ambient::open_dir(path)?;
    let opened = plugin.preopened_dir(path, seen_as, may);
    opened
        .map(drop)
        .map_err(|error| Error::io("open", path.as_os_str().as_bytes(), io::Error::other(format!("{error:#}"))))
}

impl Powers {
    pub fn new(program: &Program, held: &Capabilities, limits: &Limits, context: &Context) -> Result<Self> {
        let name = program.name();
        let account = Account::new(name, limits);
        let nothing = Capabilities::default();
        let asked = program.manifest().map_or(&nothing, |manifest| &manifest.capabilities);
        let consoles = [Console::new(&account, false), Console::new(&account, true)];
        let mut builder = WasiCtx::builder();
        builder
            .stdout(consoles[0].clone())
            .stderr(consoles[1].clone())
            // Constants, so that runs repeat; 7 has no meaning.
            .insecure_random(Deterministic::new(vec![7]))
            .insecure_random_seed(7)
            .max_random_size(RANDOM_BYTES);
        for path in &held.read {
            preopen(&mut builder, Path::new(path), path, FsPerms::ReadOnly)
                .map_err(|error| error.context(format!("letting the plugin `{name}` read")))?;
        }
        let scratch = if held.write { Some(scratch(name, limits, context)?) } else { None };
        if let Some(scratch) = &scratch {
            preopen(&mut builder, scratch.path(), scratch::NAME, FsPerms::ReadWrite)?;
        }
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES);
        let gate = Gate::new(held, asked, context, &account);
        let missing = asked.beyond(held).into_iter();
        let absent = missing.filter(|one| matches!(one, Capability::Read(_) | Capability::Write)).collect();
        Ok(Self { account, table, wasi: builder.build(), http: WasiHttpCtx::new(), gate, consoles, scratch, absent })
    }

    /// The plugin looks which directories there are. It will not ask for those that are not there, so this is the moment.
    fn sought(&self) {
        for absent in &self.absent {
            let flag = absent.flag();
            self.account.deny(flag.trim_start_matches('-'), Some(&flag));
        }
    }

    /// Takes one message from the budget of the log; says whether there was one.
    pub fn message(&self) -> bool {
        self.account.message()
    }

    /// Why the run must end, if it must. Looks at the scratch directory, if it is time or must be `now`.
    pub fn check(&mut self, now: bool) -> Result<()> {
        if let Some(failure) = self.account.failure() {
            return Err(failure);
        }
        self.scratch.as_mut().map_or(Ok(()), |scratch| scratch.check(now))
    }

    /// Ends them; adds to the report of the run.
    pub fn close(self, report: &mut RunReport) {
        for console in &self.consoles {
            console.close();
        }
        self.account.report(report);
    }
}

fn scratch(name: &str, limits: &Limits, context: &Context) -> Result<Scratch> {
    let place = context.scratch.as_deref().ok_or_else(|| Error::Usage {
        reason: format!("the plugin `{name}` holds `write`, and there is no place for its scratch directory"),
        hint: Some("run it with a store, or revoke it: cofferdam plugin revoke … --write".into()),
    })?;
    Scratch::new(name, place, limits)
}

/// Where the linked functions find what serves them. They are linked only for programs that hold something.
impl<H> Confined<H> {
    fn powers(&mut self) -> &mut Powers {
        self.powers.as_mut().expect("what serves capabilities is there where they are linked")
    }
}

impl<H: Send> WasiView for Confined<H> {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let powers = self.powers();
        WasiCtxView { ctx: &mut powers.wasi, table: &mut powers.table }
    }
}

impl<H: Send> WasiHttpView for Confined<H> {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let powers = self.powers();
        WasiHttpCtxView { ctx: &mut powers.http, table: &mut powers.table, hooks: &mut powers.gate }
    }
}
