//! A component that can be run: a first-party guest or a plugin, through the same doors.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, LazyLock};

use cofferdam_core::cancel::Cancel;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, GuestFailure, Result};
use cofferdam_core::limits::Limits;
use cofferdam_documents::plugin::{Capabilities, Capability, PluginManifest, World};
use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use super::engine::Sandbox;
use super::failure::one_line;
use super::powers::Context;

/// A compiled component, and what it may hold. Cheap to clone.
#[derive(Clone)]
pub struct Program(Arc<Parts>);

#[derive(Clone)]
struct Parts {
    name: String,
    identity: Digest,
    report_key: Digest,
    component: Component,
    /// Nothing for a first-party guest.
    plugin: Option<PluginParts>,
}

#[derive(Clone)]
struct PluginParts {
    manifest: PluginManifest,
    capabilities: Capabilities,
    settings: BTreeMap<String, String>,
    context: Context,
}

impl Program {
    pub(super) fn builtin(name: &str, identity: Digest, component: Component) -> Self {
        Self(Arc::new(Parts { name: name.to_owned(), report_key: identity.clone(), identity, component, plugin: None }))
    }

    /// What errors call it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What runs: for a first-party guest the digest of its component; for a plugin that of its component's digest and of all
    /// its settings and all that it holds. Of two runs on the same input with the same identity, one is enough.
    pub fn identity(&self) -> &Digest {
        &self.0.identity
    }

    /// By which its reports are found. What reads files, asks servers, or knows the time or chance may say something else the next time: its
    /// reports are found by nobody but this program.
    pub fn report_key(&self) -> &Digest {
        &self.0.report_key
    }

    /// What its manifest says; nothing for a first-party guest.
    pub fn manifest(&self) -> Option<&PluginManifest> {
        self.0.plugin.as_ref().map(|plugin| &plugin.manifest)
    }

    /// The limits under which it runs when those of the host are these.
    #[must_use]
    pub fn limits(&self, host: &Limits) -> Limits {
        self.manifest().map_or_else(|| host.clone(), |manifest| manifest.limits(host))
    }

    /// What it holds beyond its world; nothing for a first-party guest.
    pub fn capabilities(&self) -> Option<&Capabilities> {
        self.0.plugin.as_ref().map(|plugin| &plugin.capabilities).filter(|held| !held.is_empty())
    }

    /// The same program, run in this context where the call brings none of its own. A first-party guest needs none.
    #[must_use]
    pub fn in_context(&self, context: Context) -> Self {
        let mut parts = Parts::clone(&self.0);
        if let Some(plugin) = &mut parts.plugin {
            plugin.context = context;
        }
        Self(Arc::new(parts))
    }

    /// The same program, for somebody who may give up.
    #[must_use]
    pub fn given_up_by(&self, cancel: &Cancel) -> Self {
        match &self.0.plugin {
            None => self.clone(),
            Some(plugin) => self.in_context(Context { cancel: cancel.clone(), ..plugin.context.clone() }),
        }
    }

    pub(crate) fn context(&self) -> &Context {
        static NONE: LazyLock<Context> = LazyLock::new(Context::default);
        self.0.plugin.as_ref().map_or(&NONE, |plugin| &plugin.context)
    }

    /// What it was told.
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.0.plugin.as_ref()?.settings.get(key).map(String::as_str)
    }

    pub(crate) fn component(&self) -> &Component {
        &self.0.component
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("name", &self.0.name).finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Makes a plugin ready to run, with what it asks for *and* was granted. `name` is what it is called here, which need
    /// not be what it calls itself. `settings` go before those of its manifest, which declares all that there are.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for a setting that its manifest does not declare; [`Error::Denied`] if it imports what it does not hold; [`Error::Guest`] if it is not of the world that it says, or
    /// cannot be compiled.
    pub fn plugin(
        &self,
        name: &str,
        manifest: &PluginManifest,
        component: &[u8],
        granted: &Capabilities,
        settings: &BTreeMap<String, String>,
    ) -> Result<Program> {
        let failed = |reason: String| Error::Guest { guest: name.to_owned(), failure: GuestFailure::Load(reason) };
        if let Some(unknown) = settings.keys().find(|key| !manifest.settings.contains_key(*key)) {
            return Err(Error::Usage {
                reason: format!("the plugin `{name}` has no setting {unknown:?}"),
                hint: Some(match &*manifest.settings.keys().map(String::as_str).collect::<Vec<_>>().join(", ") {
                    "" => "its manifest declares none".into(),
                    names => format!("its manifest declares {names}"),
                }),
            });
        }
        let mut all = manifest.settings.clone();
        all.extend(settings.clone());
        let digest = Digest::of(component);
        let component = self.load(name, component, &digest)?;
        let capabilities = manifest.capabilities.effective(granted);
        let doors = doors(&component, self.engine());
        if let Some(unknown) = doors.iter().find(|door| door.needs(manifest.world) == Need::Nobody) {
            return Err(failed(format!(
                "it imports {}, which neither the world {} nor a capability gives",
                one_line(&unknown.name),
                manifest.world
            )));
        }
        let needed: Vec<_> = doors.iter().map(|door| door.needs(manifest.world)).collect();
        check_held(name, manifest, &capabilities, &needed)?;
        let identity = identity(&digest, &all, &capabilities);
        let repeats = Capabilities { runtime: false, ..capabilities.clone() }.is_empty();
        let report_key = if repeats {
            identity.clone()
        } else {
            Digest::of(format!("{identity} {}", uuid::Uuid::new_v4()).as_bytes())
        };
        let plugin =
            PluginParts { manifest: manifest.clone(), capabilities, settings: all, context: Context::default() };
        let program =
            Program(Arc::new(Parts { name: name.to_owned(), identity, report_key, component, plugin: Some(plugin) }));
        if program.component().get_export_index(None, manifest.world.export()).is_none() {
            return Err(failed(format!(
                "it does not export {}, as the world {} does",
                manifest.world.export(),
                manifest.world
            )));
        }
        Ok(program)
    }

    /// What a component imports and exports, without running it.
    ///
    /// # Errors
    ///
    /// [`Error::Guest`] if it cannot be compiled.
    pub fn interfaces(&self, name: &str, component: &[u8]) -> Result<Interfaces> {
        let component = self.load(name, component, &Digest::of(component))?;
        Ok(Interfaces::of(&component, self.engine()))
    }
}

/// What runs when a component of this digest has these settings and holds this.
fn identity(component: &Digest, settings: &BTreeMap<String, String>, held: &Capabilities) -> Digest {
    let mut text = component.to_string();
    for line in held.lines() {
        let _ = write!(text, "\n{}:{line}", line.len());
    }
    for (key, value) in settings {
        // Each with its length: no two sets of settings read the same.
        let _ = write!(text, "\n{}:{key}={}:{value}", key.len(), value.len());
    }
    Digest::of(text.as_bytes())
}

/// What a component imports and exports.
#[derive(Clone, Debug)]
pub struct Interfaces {
    /// The names of its imports.
    pub imports: Vec<String>,
    /// The names of its exports.
    pub exports: Vec<String>,
}

impl Interfaces {
    pub(super) fn of(component: &Component, engine: &Engine) -> Self {
        let ty = component.component_type();
        Self {
            imports: ty.imports(engine).map(|(name, _)| name.to_owned()).collect(),
            exports: ty.exports(engine).map(|(name, _)| name.to_owned()).collect(),
        }
    }
}

/// Refuses a plugin that imports what it does not hold, and says how to grant it.
fn check_held(name: &str, manifest: &PluginManifest, held: &Capabilities, needed: &[Need]) -> Result<()> {
    let asked = &manifest.capabilities;
    let mut missing = Vec::new();
    let mut unasked = Vec::new();
    let http: Vec<_> = asked.http.iter().cloned().map(Capability::Http).collect();
    // Streams and waiting come with each of these: the first that is asked for is what is missing.
    let io = if asked.clock && !asked.runtime { vec![Capability::Clock] } else { vec![Capability::Runtime] };
    let io = if asked.runtime || asked.clock || http.is_empty() { io } else { http.clone() };
    for (need, asked_one, held_one, flags) in [
        (Need::Runtime, asked.runtime, held.runtime, vec![Capability::Runtime]),
        (
            Need::Io,
            asked.runtime || asked.clock || !http.is_empty(),
            held.runtime || held.clock || !held.http.is_empty(),
            io,
        ),
        (Need::Clock, asked.clock, held.clock, vec![Capability::Clock]),
        (Need::Random, asked.random, held.random, vec![Capability::Random]),
        (Need::Http, !asked.http.is_empty(), !held.http.is_empty(), http),
    ] {
        if !needed.contains(&need) || held_one {
            continue;
        }
        if !asked_one {
            unasked.push(need.word());
            continue;
        }
        for flag in flags {
            if !missing.contains(&flag) {
                missing.push(flag);
            }
        }
    }
    unasked.dedup();
    if !unasked.is_empty() {
        return Err(Error::Denied {
            plugin: name.to_owned(),
            what: format!("{}, and does not ask for it in its manifest", unasked.join(", ")),
            grant: None,
        });
    }
    if missing.is_empty() {
        return Ok(());
    }
    let flags: Vec<_> = missing.iter().map(Capability::flag).collect();
    Err(Error::Denied {
        plugin: name.to_owned(),
        what: flags.iter().map(|flag| flag.trim_start_matches("--")).collect::<Vec<_>>().join(", "),
        grant: Some(format!("cofferdam plugin grant {name} {}", flags.join(" "))),
    })
}

/// What an import needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// The world has it, or it is types alone.
    World,
    Runtime,
    /// Streams and waiting: what speaks of them brings them.
    Io,
    Clock,
    Random,
    Http,
    /// Nothing gives it.
    Nobody,
}

impl Need {
    fn word(self) -> &'static str {
        match self {
            Self::World => "nothing",
            Self::Runtime | Self::Io => "runtime",
            Self::Clock => "clock",
            Self::Random => "random",
            Self::Http => "http",
            Self::Nobody => "what nobody has",
        }
    }
}

/// An import of a component.
struct Door {
    name: String,
    /// Whether it is an instance that has nothing but types.
    only_types: bool,
}

impl Door {
    fn needs(&self, world: World) -> Need {
        let Some((package, interface)) = self.name.split_once('/') else { return Need::Nobody };
        let (interface, version) = interface.split_once('@').unwrap_or((interface, ""));
        match package {
            "cofferdam:layer"
                if version == World::VERSION && (self.only_types || world.imports().contains(&interface)) =>
            {
                Need::World
            }
            "wasi:io" | "wasi:cli" | "wasi:filesystem" | "wasi:clocks" | "wasi:random" | "wasi:http"
                if self.only_types =>
            {
                Need::World
            }
            "wasi:io" => Need::Io,
            "wasi:cli" | "wasi:filesystem" => Need::Runtime,
            "wasi:random" if interface.starts_with("insecure") => Need::Runtime,
            "wasi:random" => Need::Random,
            "wasi:clocks" => Need::Clock,
            "wasi:http" if matches!(interface, "types" | "outgoing-handler") => Need::Http,
            _ => Need::Nobody,
        }
    }
}

fn doors(component: &Component, engine: &Engine) -> Vec<Door> {
    let is_type = |item: &ComponentItem| matches!(item, ComponentItem::Type(_));
    let ty = component.component_type();
    ty.imports(engine)
        .map(|(name, item)| Door {
            name: name.to_owned(),
            only_types: match &item.ty {
                ComponentItem::ComponentInstance(instance) => {
                    instance.exports(engine).all(|(_, item)| is_type(&item.ty))
                }
                _ => false,
            },
        })
        .collect()
}
