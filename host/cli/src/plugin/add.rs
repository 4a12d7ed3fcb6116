//! `plugin add`: puts a plugin into the store, pinned by its digest.

use cofferdam::plugin::{Capabilities, Capability};
use cofferdam::store::{Added, InstalledPlugin};
use serde_json::json;

use super::grant::is_asked;
use super::source::Source;
use crate::args::PluginAddArgs;
use crate::failure::Failure;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session, args: &PluginAddArgs) -> Result<(), Failure> {
    let source = Source::parse(&args.source);
    let mut wall = session.wall_of_store()?;
    if let Some(path) = source.path() {
        wall = wall.read(&path)?;
    }
    if source.needs_network() {
        wall = wall.network()?;
    }
    wall.enforce()?;
    let found = source.read(session, &args.access)?;
    let granted = args.grants.capabilities(&found.manifest.capabilities);
    is_asked(&found.manifest.name, &granted, &found.manifest.capabilities)?;
    // Compiled and checked before it is kept: what cannot run is not added. What it lacks can be granted later.
    session.unpacker()?.sandbox().plugin(
        &found.manifest.name,
        &found.manifest,
        &found.component,
        &found.manifest.capabilities,
        &std::collections::BTreeMap::new(),
    )?;
    let storage = session.storage()?;
    let mut plugins = storage.plugins()?;
    let (plugin, added) = plugins.add(args.name.as_deref(), &found.component, &found.source, &granted, args.replace)?;
    if session.json() {
        return output::json(&json!({
            "schema": "cofferdam/plugin/v1",
            "plugin": plugin,
            "replaced": added == Added::Replaced,
            "lacks": lacking(&plugin).iter().map(Capability::flag).collect::<Vec<_>>(),
        }));
    }
    let what = match added {
        Added::New => "added",
        Added::Same => "was there",
        Added::Replaced => "replaced; what the other one was granted is gone",
    };
    output::line(&format!("{} ({}, {}): {what}", plugin.name, plugin.manifest.world, plugin.digest))?;
    say_lacking(&plugin)
}

/// What a plugin asks for and was not granted.
pub(super) fn lacking(plugin: &InstalledPlugin) -> Vec<Capability> {
    let asked: &Capabilities = &plugin.manifest.capabilities;
    asked.beyond(&asked.effective(&plugin.granted))
}

/// Says what a plugin lacks, and how to grant it.
pub(super) fn say_lacking(plugin: &InstalledPlugin) -> Result<(), Failure> {
    let flags: Vec<_> = lacking(plugin).iter().map(Capability::flag).collect();
    if flags.is_empty() {
        return Ok(());
    }
    output::line("it asks for what it was not granted; if you trust it:")?;
    output::line(&format!("  cofferdam plugin grant {} {}", plugin.name, flags.join(" ")))
}
