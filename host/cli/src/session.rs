//! What the verbs share: the global options, the sandbox, and how messages are shown.

use std::cell::{Cell, OnceCell};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::fs::Dir;
use cofferdam::plugin::World;
use cofferdam::policy::{Policy, readers};
use cofferdam::sandbox::{Sandbox, SandboxOptions};
use cofferdam::store::{ImageStorage, LayerDescriptor, LayerUnpacker, UnpackedLayer, Watch};
use cofferdam::tree::Lossy;
use cofferdam::unpack::{Layer, Unpacker};
use cofferdam::{Error, ErrorKind, Limits, Progress, ambient};
use tracing_subscriber::EnvFilter;

use crate::args::{AskArgs, Global, LossyArgs};
use crate::configure::{self, Configuration};
use crate::confine::{self, Wall};
use crate::environment;
use crate::failure::{Failure, usage};
use crate::policy::{self, RawRule};
use crate::progress;

/// One run of the command.
pub(crate) struct Session {
    global: Global,
    limits: Limits,
    policy: Option<Vec<RawRule>>,
    unpacker: OnceCell<Unpacker>,
    lossy: Cell<Lossy>,
    cache: OnceCell<Option<(PathBuf, Dir)>>,
}

impl Session {
    pub(crate) fn new(global: Global) -> Result<Self, Failure> {
        let level = match (global.quiet, global.verbose) {
            (true, _) => "error",
            (false, 0) => "warn",
            (false, 1) => "info",
            (false, _) => "debug",
        };
        confine::check(global.confine)?;
        let filter = environment::log_filter()?.unwrap_or_else(|| format!("off,cofferdam={level}"));
        let filter =
            EnvFilter::try_new(&filter).map_err(|error| usage(format!("COFFERDAM_LOG={filter}: {error}"), None))?;
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(progress::messages)
            .with_ansi(!environment::no_color() && std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .without_time()
            .with_target(false)
            .init();
        let Configuration { limits, policy } = configure::read_all(&global)?;
        Ok(Self { limits, policy, global, unpacker: OnceCell::new(), lossy: Cell::default(), cache: OnceCell::new() })
    }

    pub(crate) fn json(&self) -> bool {
        self.global.json
    }

    /// Whether nothing but data is wanted.
    pub(crate) fn is_quiet(&self) -> bool {
        self.global.quiet
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits.clone()
    }

    /// Allows trees to lose this. To be said before the guests are set up.
    pub(crate) fn allow_loss(&self, args: &LossyArgs) {
        debug_assert!(self.unpacker.get().is_none(), "the guests are set up already");
        self.lossy.set(args.allowed());
    }

    /// The guests and their limits, set up when they are first needed.
    pub(crate) fn unpacker(&self) -> Result<Unpacker, Failure> {
        if let Some(unpacker) = self.unpacker.get() {
            return Ok(unpacker.clone());
        }
        let mut options = SandboxOptions::default();
        if let Some((path, _)) = self.cache() {
            options = options.with_cache(path);
        }
        let unpacker = Unpacker::new(Arc::new(Sandbox::new(&options)?), self.limits()).with_lossy(self.lossy.get());
        Ok(self.unpacker.get_or_init(|| unpacker).clone())
    }

    /// Where compiled guests are kept, if that is a safe place.
    fn cache(&self) -> Option<&(PathBuf, Dir)> {
        let cache = self.cache.get_or_init(|| {
            let path = environment::cache()?;
            match ambient::trusted_dir(&path) {
                Ok(dir) => Some((path, dir)),
                Err(error) => {
                    // The kernel refused nothing: the directory was there, and was judged.
                    let untrusted = matches!(&error, Error::Io { source, .. } if source.raw_os_error().is_none());
                    let error: &dyn std::error::Error = &error;
                    let hint = "compiled guests are not kept; COFFERDAM_CACHE names a directory for them, and is empty for none";
                    // Many users of services have no home; one that others may write to should be looked at.
                    if untrusted { tracing::warn!(error, "{hint}") } else { tracing::info!(error, "{hint}") }
                    None
                }
            }
        });
        cache.as_ref()
    }

    /// The wall around a verb that needs nothing.
    pub(crate) fn bare_wall(&self) -> Result<Wall, Failure> {
        Wall::new(self.global.confine, None)
    }

    /// The wall around a verb. To be enforced before anything untrusted is read, and before the guests are set up, which
    /// starts threads.
    pub(crate) fn wall(&self) -> Result<Wall, Failure> {
        Wall::new(self.global.confine, self.cache().map(|(_, dir)| dir))
    }

    /// The wall around a verb that works on the store, which is made if it is not there.
    pub(crate) fn wall_of_store(&self) -> Result<Wall, Failure> {
        let (store, _) = ambient::create_private_dir(&self.store_path()?)?;
        self.wall()?.write(store)
    }

    /// The wall around a verb that works on a store, and makes none.
    pub(crate) fn wall_of_existing(&self) -> Result<Wall, Failure> {
        let path = self.existing_path()?;
        self.wall()?.write(ambient::open_dir(&path)?)
    }

    /// The store's directory, if there is a store in it, or what would be taken over as one.
    fn existing_path(&self) -> Result<PathBuf, Failure> {
        let path = self.store_path()?;
        if ImageStorage::is_at(&path)? { Ok(path) } else { Err(ImageStorage::absent(&path).into()) }
    }

    /// Opens the store, which is made if it is not there.
    pub(crate) fn storage(&self) -> Result<ImageStorage, Failure> {
        Ok(ImageStorage::open(self.store_path()?, self.limits(), Arc::new(self.unpacker()?))?)
    }

    /// The policy, with the files that it names. To be asked before the wall is closed.
    pub(crate) fn policy(&self) -> Result<Policy, Failure> {
        let unread = || {
            let hint = "give a file that may be read with --config, or an empty one if there is no policy";
            usage("the configuration may not be read, and it may hold a policy", Some(hint.into()))
        };
        policy::read(self.policy.as_ref().ok_or_else(unread)?)
    }

    /// The wall around a verb that may run plugins: with what those may reach that can be asked.
    pub(crate) fn wall_of_plugins(&self, policy: &Policy, asked: &AskArgs) -> Result<Wall, Failure> {
        self.with_plugins(self.wall_of_store()?, policy, asked)
    }

    /// The same for a verb that makes no store.
    pub(crate) fn wall_of_existing_plugins(&self, policy: &Policy) -> Result<Wall, Failure> {
        self.with_plugins(self.wall_of_existing()?, policy, &AskArgs::default())
    }

    fn with_plugins(&self, mut wall: Wall, policy: &Policy, asked: &AskArgs) -> Result<Wall, Failure> {
        let by_hand = || asked.verify.iter().chain(&asked.inspect).map(String::as_str);
        if let Ok(storage) = self.look() {
            for plugin in storage.plugins()?.survey()?.0 {
                let reads = matches!(plugin.manifest.world, World::Decoder | World::Extractor);
                if !reads && !policy.plugins().chain(by_hand()).any(|name| name == plugin.name) {
                    continue;
                }
                let held = plugin.manifest.capabilities.effective(&plugin.granted);
                wall = held.read.iter().try_fold(wall, |wall, path| wall.read(Path::new(path)))?;
                if !held.http.is_empty() {
                    wall = wall.network()?;
                }
            }
        }
        Ok(wall)
    }

    /// The wall around a verb for layers of no store: the plugins of the store may read them.
    pub(crate) fn wall_of_layers(&self) -> Result<Wall, Failure> {
        match self.global.store.clone().or_else(environment::store) {
            Some(store) => self.wall()?.read(&store),
            None => self.wall(),
        }
    }

    /// The guests, with the decoders and extractors of the store, if there is one.
    pub(crate) fn unpacker_of_layers(&self) -> Result<Unpacker, Failure> {
        let unpacker = self.unpacker()?;
        let storage = match self.look() {
            Ok(storage) => storage,
            Err(failure) => {
                if failure.kind() == Some(ErrorKind::Refused) {
                    tracing::warn!("the plugins of the store are not used: {failure}");
                }
                return Ok(unpacker);
            }
        };
        let readers = readers(&storage.plugins()?, unpacker.sandbox())?;
        Ok(unpacker.with_extensions(readers))
    }

    /// The wall around a verb that only looks at the store.
    pub(crate) fn wall_of_look(&self) -> Result<Wall, Failure> {
        self.bare_wall()?.read(&self.store_path()?)
    }

    /// Opens the store to look at it: nothing is made, and nothing swept.
    pub(crate) fn look(&self) -> Result<ImageStorage, Failure> {
        struct Nobody;
        impl LayerUnpacker for Nobody {
            fn unpack(
                &self,
                _: Box<dyn Read + Send>,
                _: &LayerDescriptor,
                _: OwnedFd,
                _: &Watch,
            ) -> cofferdam::Result<UnpackedLayer> {
                Err(Error::Unsupported { what: "extracting a layer while a store is only looked at".into() })
            }

            fn with_limits(self: Arc<Self>, _: &Limits) -> Arc<dyn LayerUnpacker> {
                self
            }
        }
        Ok(ImageStorage::open_as_it_is(self.store_path()?, self.limits(), Arc::new(Nobody))?)
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

/// Shows a path to people.
pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string()
}
