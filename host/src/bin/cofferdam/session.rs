//! What the verbs share: the global options, the sandbox, and how messages are shown.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cofferdam::sandbox::{Sandbox, SandboxOptions};
use cofferdam::store::ImageStorage;
use cofferdam::unpack::{Layer, Unpacker};
use cofferdam::{Cancel, Error, Limits, Progress, ambient};
use tracing_subscriber::EnvFilter;

use crate::args::Global;
use crate::environment;
use crate::failure::{Failure, usage};
use crate::progress;

/// One run of the command.
pub(crate) struct Session {
    global: Global,
}

impl Session {
    pub(crate) fn new(global: Global) -> Result<Self, Failure> {
        let level = match (global.quiet, global.verbose) {
            (true, _) => "error",
            (false, 0) => "warn",
            (false, 1) => "info",
            (false, _) => "debug",
        };
        let filter = environment::log_filter().unwrap_or_else(|| format!("off,cofferdam={level}"));
        let filter =
            EnvFilter::try_new(&filter).map_err(|error| usage(format!("COFFERDAM_LOG={filter}: {error}"), None))?;
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(!environment::no_color() && std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .without_time()
            .with_target(false)
            .init();
        Ok(Self { global })
    }

    pub(crate) fn json(&self) -> bool {
        self.global.json
    }

    pub(crate) fn sandbox(&self) -> Result<Arc<Sandbox>, Failure> {
        let mut options = SandboxOptions::default();
        if let Some(directory) = environment::cache() {
            match ambient::private_dir(&directory) {
                Ok(()) => options = options.with_cache(directory),
                Err(error) => tracing::info!("compiled guests are not kept: {error}"),
            }
        }
        Ok(Arc::new(Sandbox::new(&options)?))
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits::default()
    }

    pub(crate) fn unpacker(&self) -> Result<Unpacker, Failure> {
        Ok(Unpacker::new(self.sandbox()?, self.limits()))
    }

    /// Opens the store, which is made if it is not there.
    pub(crate) fn storage(&self, unpacker: &Unpacker) -> Result<ImageStorage, Failure> {
        Ok(ImageStorage::open(self.store_path()?, self.limits(), Arc::new(unpacker.clone()))?)
    }

    /// Runs asynchronous work to its end, or until Ctrl-C: then it is dropped, and what it began is cleaned up before
    /// this returns.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = cofferdam::Result<T>>) -> cofferdam::Result<T> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|source| Error::Io { action: "start the runtime".into(), source })?;
        runtime.block_on(async {
            tokio::select! {
                outcome = work => outcome,
                _ = interrupted() => Err(Error::Interrupted),
            }
        })
        // Dropping the runtime waits for work on other threads, which removes what it staged.
    }

    /// A flag that Ctrl-C sets, for work that looks at it.
    pub(crate) fn cancel_on_interrupt(&self) -> Result<Cancel, Failure> {
        let cancel = Cancel::new();
        let flag = cancel.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| Error::Io { action: "start the runtime".into(), source })?;
        std::thread::spawn(move || {
            runtime.block_on(interrupted());
            flag.cancel();
        });
        Ok(cancel)
    }

    /// Where progress goes.
    pub(crate) fn progress(&self) -> Progress {
        progress::start(self.global.progress, self.global.quiet)
    }

    /// A layer of no store, with its progress shown.
    pub(crate) fn shown(&self, layer: Layer) -> Layer {
        layer.with_progress(None, self.progress())
    }

    /// The store's directory.
    pub(crate) fn store_path(&self) -> Result<PathBuf, Failure> {
        self.global.store.clone().or_else(environment::store).ok_or_else(|| {
            usage("there is no directory for the store", Some("give one with --store DIR or COFFERDAM_STORE".into()))
        })
    }
}

/// Waits for Ctrl-C, or for the signal that asks a program to end.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Shows a path to people.
pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string()
}
