//! `plugin list|inspect`: what plugins there are, and what one is. Nothing of a plugin is run.

use std::collections::BTreeMap;

use cofferdam::plugin::{Capabilities, World};
use cofferdam::store::InstalledPlugin;
use cofferdam::{Digest, Error};
use serde_json::json;

use super::add::lacking;
use super::source::Source;
use crate::args::AccessArgs;
use crate::failure::Failure;
use crate::output;
use crate::session::Session;

pub(crate) fn list(session: &Session) -> Result<(), Failure> {
    session.wall_of_look()?.enforce()?;
    let (plugins, damaged) = match session.look() {
        Ok(storage) => storage.plugins()?.survey()?,
        Err(Failure::Library(Error::NotFound { .. })) => Default::default(),
        Err(error) => return Err(error),
    };
    if session.json() {
        let damaged: Vec<_> =
            damaged.iter().map(|error| json!({ "error": error.to_string(), "hint": error.hint() })).collect();
        output::json(&json!({ "schema": "cofferdam/plugins/v1", "plugins": plugins, "damaged": damaged }))?;
    } else {
        show(&plugins)?;
    }
    for error in &damaged {
        tracing::warn!("{error}; {}", error.hint().unwrap_or_default());
    }
    if damaged.is_empty() {
        return Ok(());
    }
    let reason = format!("the notes about {} of them cannot be read", damaged.len());
    Err(Error::Damaged { subject: "the plugins".into(), reason, hint: "cofferdam fsck --repair".into() }.into())
}

fn show(plugins: &[InstalledPlugin]) -> Result<(), Failure> {
    let rows: Vec<Vec<String>> = plugins
        .iter()
        .map(|plugin| {
            let lacks = lacking(plugin);
            let state = if lacks.is_empty() { "ready".to_owned() } else { format!("lacks {} grants", lacks.len()) };
            vec![
                plugin.name.clone(),
                plugin.manifest.version.clone(),
                plugin.manifest.world.to_string(),
                plugin.digest.to_string().chars().take(19).collect(),
                state,
                plugin.manifest.description.clone(),
            ]
        })
        .collect();
    output::table(&["PLUGIN", "VERSION", "WORLD", "DIGEST", "STATE", "WHAT IT IS FOR"], &rows)
}

pub(crate) fn inspect(session: &Session, name: &str) -> Result<(), Failure> {
    let source = Source::parse(name);
    let (plugin, component) = match source {
        Source::File(_) => {
            let mut wall = session.wall()?;
            if let Some(path) = source.path() {
                wall = wall.read(&path)?;
            }
            wall.enforce()?;
            let found = source.read(session, &AccessArgs::default())?;
            let plugin = InstalledPlugin {
                name: found.manifest.name.clone(),
                digest: Digest::of(&found.component),
                source: found.source,
                manifest: found.manifest,
                granted: Capabilities::default(),
                added_at: 0,
            };
            (plugin, found.component)
        }
        Source::Artifact(_) => {
            session.wall()?.read(&session.store_path()?)?.enforce()?;
            let storage = session.look()?;
            let plugins = storage.plugins()?;
            let plugin = plugins.get(name)?;
            let component = plugins.component(&plugin)?;
            (plugin, component)
        }
    };
    let interfaces = session.unpacker()?.sandbox().interfaces(&plugin.name, &component)?;
    let limits = plugin.manifest.limits(&session.limits());
    let memory = match plugin.manifest.world {
        World::Decoder => limits.decoder_memory,
        _ => limits.guest_memory,
    };
    let held = plugin.manifest.capabilities.effective(&plugin.granted);
    if session.json() {
        return output::json(&json!({
            "schema": "cofferdam/plugin-inspect/v1",
            "plugin": plugin,
            "holds": held,
            "lacks": lacking(&plugin).iter().map(cofferdam::plugin::Capability::flag).collect::<Vec<_>>(),
            "imports": interfaces.imports,
            "exports": interfaces.exports,
            "bytes": component.len(),
            "limits": {
                "memory_bytes": memory,
                "time_ms": u64::try_from(limits.guest_time.as_millis()).unwrap_or(u64::MAX),
            },
        }));
    }
    let manifest = &plugin.manifest;
    let mut rows = vec![
        vec!["name".into(), plugin.name.clone()],
        vec!["version".into(), manifest.version.clone()],
        vec!["world".into(), format!("cofferdam:layer/{}@{}", manifest.world, World::VERSION)],
        vec!["digest".into(), plugin.digest.to_string()],
        vec!["size".into(), output::bytes(component.len() as u64)],
        vec!["source".into(), plugin.source.clone()],
        vec!["memory".into(), output::bytes(memory)],
        vec!["time".into(), format!("{:.1} s", limits.guest_time.as_secs_f64())],
    ];
    let mut many = |what: &str, values: Vec<String>| {
        rows.extend(values.into_iter().map(|value| vec![what.to_owned(), value]));
    };
    many("for", manifest.media_types().to_vec());
    many("import", interfaces.imports);
    many("export", interfaces.exports);
    many("holds", held.lines());
    many("lacks", lacking(&plugin).iter().map(|lack| lack.flag().trim_start_matches("--").to_owned()).collect());
    many("setting", settings(&manifest.settings));
    output::table(&["WHAT", "VALUE"], &rows)
}

/// Settings, one line each; of long ones the beginning.
fn settings(settings: &BTreeMap<String, String>) -> Vec<String> {
    let short = |value: &str| {
        let line = value.lines().next().unwrap_or_default();
        let cut: String = line.chars().take(60).collect();
        if cut.len() < value.len() { format!("{cut}…") } else { cut }
    };
    settings.iter().map(|(key, value)| format!("{key} = {}", short(value))).collect()
}
