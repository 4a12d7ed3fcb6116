//! `inspect`: what is known of one image.

use cofferdam::Digest;
use cofferdam::error::Escaped;
use cofferdam::store::{Decision, ImageObject};
use cofferdam::unpack::InspectorReport;
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::image_name::in_store;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session, name: &str) -> Result<(), Failure> {
    session.wall_of_look()?.enforce()?;
    let storage = session.look()?;
    let image = storage.image(&in_store(name, &storage)?)?;
    let entry = storage.resolve(&image.reference)?;
    let decision = entry.as_ref().and_then(|entry| entry.decision.clone());
    let mut reports: Vec<(&Digest, InspectorReport)> = Vec::new();
    for layer in image.layer_digests() {
        reports.extend(storage.layer_reports(layer)?.into_iter().map(|report| (layer, report)));
    }
    if session.json() {
        let trees: Vec<_> = image.layer_digests().map(|digest| storage.trees().is_ready(digest)).collect();
        return output::json(&Inspected {
            schema: "cofferdam/image/v1",
            image: &image,
            trees,
            pulled_as: entry.as_ref().and_then(|entry| entry.pulled_as.as_deref()),
            decision: decision.as_ref(),
            reports: reports.iter().map(|(layer, report)| described(layer, report)).collect(),
        });
    }
    let config = &image.config;
    let mut rows = vec![
        vec!["reference".into(), image.reference.clone()],
        vec!["pulled as".into(), entry.and_then(|entry| entry.pulled_as).unwrap_or_default()],
        vec!["manifest".into(), image.manifest_digest.to_string()],
        vec!["config".into(), image.config_digest.to_string()],
        vec!["platform".into(), image.platform.clone()],
        vec!["size".into(), output::bytes(image.total_size)],
    ];
    for (name, value) in [
        ("entrypoint", config.entrypoint.join(" ")),
        ("cmd", config.cmd.join(" ")),
        ("user", config.user.clone()),
        ("working dir", config.working_dir.clone()),
        ("ports", config.exposed_ports.join(" ")),
    ] {
        if !value.is_empty() {
            rows.push(vec![name.into(), value]);
        }
    }
    rows.retain(|row| row.last().is_some_and(|value| !value.is_empty()));
    rows.extend(config.env.iter().take(VARIABLES).map(|variable| vec!["env".into(), variable.clone()]));
    if config.env.len() > VARIABLES {
        rows.push(vec!["env".into(), format!("… and {} more (--json shows them)", config.env.len() - VARIABLES)]);
    }
    for (index, layer) in image.layers.iter().enumerate() {
        let tree = if storage.trees().is_ready(&layer.digest) { "extracted" } else { "not extracted" };
        let size = layer.size.map(output::bytes).unwrap_or_default();
        rows.push(vec![format!("layer {}", index + 1), format!("{}  {size}  {tree}", layer.digest)]);
        if let Some(diff_id) = &layer.diff_id {
            rows.push(vec![String::new(), format!("{diff_id} decoded")]);
        }
    }
    if let Some(decision) = &decision {
        let rule = decision.rule.as_ref().map_or("asked by hand".to_owned(), |rule| format!("policy for {rule}"));
        let name =
            if decision.reference == image.reference { String::new() } else { format!(", as {}", decision.reference) };
        rows.push(vec!["let in".into(), format!("{rule}{name}")]);
        rows.extend(decision.verdicts.iter().map(|verdict| vec![String::new(), crate::pull::accepted(verdict)]));
    }
    for (layer, report) in &reports {
        let about = format!("{} on {}…", report.plugin, layer.to_string().chars().take(19).collect::<String>());
        rows.push(vec!["report".into(), format!("{about}  {}", output::bytes(report.report.len() as u64))]);
        let text = String::from_utf8_lossy(&report.report);
        rows.extend(text.lines().take(LINES).map(|line| vec![String::new(), output::cut(line, WIDTH)]));
        if text.lines().count() > LINES || text.lines().any(|line| line.chars().count() > WIDTH) {
            rows.push(vec![String::new(), "… (--json shows all of it)".into()]);
        }
    }
    output::table(&["WHAT", "VALUE"], &rows)
}

/// All that is known of an image.
#[derive(Serialize)]
struct Inspected<'a> {
    schema: &'static str,
    image: &'a ImageObject,
    trees: Vec<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pulled_as: Option<&'a str>,
    decision: Option<&'a Decision>,
    reports: Vec<Value>,
}

/// Variables of the environment that people are shown.
const VARIABLES: usize = 500;

/// Lines of a report that people are shown.
const LINES: usize = 12;

/// Characters of such a line.
const WIDTH: usize = 120;

/// A report as JSON: itself, if it is JSON; else its text, or its bytes as escaped text.
fn described(layer: &Digest, report: &InspectorReport) -> Value {
    let content = serde_json::from_slice(&report.report).unwrap_or_else(|_| {
        let text = std::str::from_utf8(&report.report).map(str::to_owned);
        Value::String(text.unwrap_or_else(|_| Escaped(&report.report).uncut()))
    });
    json!({ "layer": layer, "plugin": report.plugin, "identity": report.identity, "report": content })
}
