//! `limits`: every limit, its value in this run, and its default.

use cofferdam::Limits;
use cofferdam::limits::Unit;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session) -> Result<(), Failure> {
    session.bare_wall()?.enforce()?;
    let (limits, defaults) = (session.limits(), Limits::default());
    if session.json() {
        let all: Vec<Value> = Limits::ALL
            .iter()
            .map(|limit| {
                json!({
                    "name": limit.name,
                    "unit": unit(limit.unit),
                    "value": limits.value(limit),
                    "default": defaults.value(limit),
                    "about": limit.about,
                })
            })
            .collect();
        return output::json(&json!({ "schema": "cofferdam/limits/v1", "limits": all }));
    }
    let rows: Vec<Vec<String>> = Limits::ALL
        .iter()
        .map(|limit| vec![limit.name.into(), limits.show(limit), defaults.show(limit), limit.about.into()])
        .collect();
    output::table(&["LIMIT", "VALUE", "DEFAULT", "WHAT IT BOUNDS"], &rows)
}

fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Bytes => "bytes",
        Unit::Time => "milliseconds",
        _ => "count",
    }
}
