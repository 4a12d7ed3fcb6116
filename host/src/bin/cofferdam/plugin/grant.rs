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
    session.wall_of_store()?.enforce()?;
    let storage = session.storage()?;
    let mut plugins = storage.plugins()?;
    let plugin = plugins.change_grants(&args.name, |plugin| {
        let asked = &plugin.manifest.capabilities;
        let granted = args.grants.capabilities(asked);
        let wrong = |reason: String, hint: String| Err(Error::Usage { reason, hint: Some(hint) });
        if granted.is_empty() {
            return wrong("nothing is granted".into(), "cofferdam plugin grant --help lists what can be".into());
        }
        // A grant that nobody asked for changes nothing now, and might surprise later.
        match granted.beyond(asked).first() {
            Some(unasked) => {
                let reason = format!("`{}` does not ask for {}", plugin.name, unasked.flag());
                wrong(reason, format!("cofferdam plugin inspect {}", plugin.name))
            }
            None => Ok(plugin.granted.or(&granted)),
        }
    })?;
    show(session, &plugin)
}

pub(crate) fn revoke(session: &Session, args: &PluginRevokeArgs) -> Result<(), Failure> {
    session.wall_of_store()?.enforce()?;
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
    session.wall_of_store()?.enforce()?;
    let storage = session.storage()?;
    let mut plugins = storage.plugins()?;
    let mut removed = Vec::new();
    for name in names {
        // Nothing if the note was damaged.
        removed.push((name, plugins.remove(name)?.map(|plugin| plugin.digest)));
    }
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
