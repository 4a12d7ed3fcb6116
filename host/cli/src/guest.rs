//! `guest list|inspect|export`: what the sandboxed components are.

use std::path::Path;
use std::time::Instant;

use cofferdam::sandbox::{Guest, GuestInfo};
use cofferdam::{Digest, ambient};
use serde_json::{Value, json};

use crate::failure::{Failure, usage};
use crate::output;
use crate::session::{Session, shown};

pub(crate) fn list(session: &Session) -> Result<(), Failure> {
    session.wall()?.enforce()?;
    let begin = Instant::now();
    let guests = session.unpacker()?.sandbox().inspect()?;
    let total = begin.elapsed();
    if session.json() {
        return output::json(&json!({
            "schema": "cofferdam/guests/v1",
            "guests": guests.iter().map(described).collect::<Vec<_>>(),
            "load_ms": total.as_secs_f64() * 1e3,
        }));
    }
    let rows: Vec<Vec<String>> = guests
        .iter()
        .map(|info| {
            vec![
                info.guest.name().to_owned(),
                info.guest.world().to_owned(),
                output::bytes(info.guest.component().len() as u64),
                format!("{:.1} ms", info.load_time.as_secs_f64() * 1e3),
            ]
        })
        .collect();
    output::table(&["GUEST", "WORLD", "SIZE", "LOADED IN"], &rows)
}

pub(crate) fn inspect(session: &Session, name: Option<&str>) -> Result<(), Failure> {
    session.wall()?.enforce()?;
    let mut guests = session.unpacker()?.sandbox().inspect()?;
    if let Some(name) = name {
        guests.retain(|info| info.guest.name() == name);
        if guests.is_empty() {
            return Err(usage(format!("there is no guest {name:?}"), Some("cofferdam guest list".into())));
        }
    }
    if session.json() {
        let guests: Vec<Value> = guests.iter().map(described).collect();
        return output::json(&json!({ "schema": "cofferdam/guests/v1", "guests": guests }));
    }
    let mut rows = Vec::new();
    for info in &guests {
        rows.push(vec![info.guest.name().into(), "digest".into(), Digest::of(info.guest.component()).to_string()]);
        rows.push(vec![String::new(), "world".into(), info.guest.world().into()]);
        rows.extend(info.imports.iter().map(|name| vec![String::new(), "import".into(), name.clone()]));
        rows.extend(info.exports.iter().map(|name| vec![String::new(), "export".into(), name.clone()]));
    }
    output::table(&["GUEST", "WHAT", "NAME"], &rows)
}

pub(crate) fn export(session: &Session, directory: &Path) -> Result<(), Failure> {
    session.bare_wall()?.make(directory)?.enforce()?;
    let mut rows = Vec::new();
    for guest in Guest::ALL {
        let name = format!("{}.wasm", guest.name());
        ambient::write_file(directory, &name, guest.component())?;
        rows.push(vec![shown(&directory.join(name)), Digest::of(guest.component()).to_string()]);
    }
    if session.json() {
        let files: Vec<Value> = rows.iter().map(|row| json!({ "path": row[0], "digest": row[1] })).collect();
        return output::json(&json!({ "schema": "cofferdam/guest-export/v1", "files": files }));
    }
    output::table(&["FILE", "DIGEST"], &rows)
}

fn described(info: &GuestInfo) -> Value {
    json!({
        "name": info.guest.name(),
        "world": info.guest.world(),
        "digest": Digest::of(info.guest.component()),
        "bytes": info.guest.component().len(),
        "imports": info.imports,
        "exports": info.exports,
        "load_ms": info.load_time.as_secs_f64() * 1e3,
    })
}
