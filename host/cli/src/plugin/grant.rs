//! `plugin grant|revoke|rm`: what plugins may do, and whether they are there.

use cofferdam::Error;
use cofferdam::plugin::Capabilities;
use cofferdam::store::InstalledPlugin;
use serde_json::json;

use super::add::{lacking, say_lacking};
use crate::args::{PluginGrantArgs, PluginRevokeArgs};
use crate::failure::{Failure, usage};
use crate::output;
use crate::session::Session;

pub(crate) fn grant(session: &Session, args: &PluginGrantArgs) -> Result<(), Failure> {
    session.wall_of_existing()?.enforce()?;
    let storage = session.storage()?;
    let mut plugins = storage.plugins()?;
    let plugin = plugins.change_grants(&args.name, |plugin| {
        let asked = &plugin.manifest.capabilities;
        let granted = args.grants.capabilities(asked);
        if granted.is_empty() {
            let hint = "cofferdam plugin grant --help lists what can be".to_owned();
            return Err(Error::Usage { reason: "nothing is granted".into(), hint: Some(hint) });
        }
        is_asked(&plugin.name, &granted, asked)?;
        Ok(plugin.granted.or(&granted))
    })?;
    show(session, &plugin)
}

/// Refuses a grant that nobody asked for: it changes nothing now, and might surprise later.
pub(super) fn is_asked(name: &str, granted: &Capabilities, asked: &Capabilities) -> Result<(), Error> {
    match granted.beyond(asked).first() {
        None => Ok(()),
        Some(unasked) => Err(Error::Usage {
            reason: format!("`{name}` does not ask for {}", unasked.flag()),
            hint: Some("`cofferdam plugin inspect` shows what a plugin asks for".into()),
        }),
    }
}

pub(crate) fn revoke(session: &Session, args: &PluginRevokeArgs) -> Result<(), Failure> {
    session.wall_of_existing()?.enforce()?;
    let storage = session.storage()?;
    let mut plugins = storage.plugins()?;
    let asked = plugins.get(&args.name)?.manifest.capabilities;
    let revoked = args.grants.capabilities(&asked);
    if revoked.is_empty() && !args.all {
        return Err(usage("nothing is revoked", Some("give --all, or what to revoke".into())));
    }
    let plugin = plugins.change_grants(&args.name, |before| {
        Ok(if args.all { Capabilities::default() } else { before.granted.without(&revoked) })
    })?;
    show(session, &plugin)
}

pub(crate) fn remove(session: &Session, names: &[String]) -> Result<(), Failure> {
    session.wall_of_existing()?.enforce()?;
    let storage = session.storage()?;
    let mut plugins = storage.plugins()?;
    // All of them, or none for a name that was mistyped.
    for name in names {
        if let Err(error @ (Error::NotFound { .. } | Error::Usage { .. })) = plugins.get(name) {
            return Err(error.into());
        }
    }
    let (mut removed, mut failed) = (Vec::new(), None);
    for name in names {
        match plugins.remove(name) {
            // Nothing if the note was damaged.
            Ok(plugin) => removed.push((name, plugin.map(|plugin| plugin.digest))),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let said = say_removed(session, &removed);
    failed.map_or(said, |error| Err(error.into()))
}

fn say_removed(session: &Session, removed: &[(&String, Option<cofferdam::Digest>)]) -> Result<(), Failure> {
    if session.json() {
        let removed: Vec<_> = removed.iter().map(|(name, digest)| json!({ "name": name, "digest": digest })).collect();
        return output::json(&json!({ "schema": "cofferdam/plugin-rm/v1", "removed": removed }));
    }
    removed.iter().try_for_each(|(name, digest)| {
        let what = digest.as_ref().map_or_else(|| "its note was damaged".into(), ToString::to_string);
        output::line(&format!("{name} ({what}): removed"))
    })
}

fn show(session: &Session, plugin: &InstalledPlugin) -> Result<(), Failure> {
    if session.json() {
        let lacks: Vec<_> = lacking(plugin).iter().map(cofferdam::plugin::Capability::flag).collect();
        return output::json(&json!({ "schema": "cofferdam/plugin/v1", "plugin": plugin, "lacks": lacks }));
    }
    let granted = plugin.manifest.capabilities.effective(&plugin.granted).lines();
    let granted = if granted.is_empty() { "nothing".to_owned() } else { granted.join(", ") };
    output::line(&format!("{} has {granted}", plugin.name))?;
    say_lacking(plugin)
}
