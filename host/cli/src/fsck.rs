//! `fsck`: checks that all in the store is what it says it is, and repairs it.

use std::sync::Arc;

use cofferdam::store::{Counts, Finding, FsckOptions, FsckReport, ImageStorage};
use cofferdam::{Error, ambient};
use serde_json::json;

use crate::args::FsckArgs;
use crate::failure::Failure;
use crate::interrupt;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session, args: &FsckArgs) -> Result<(), Failure> {
    let path = session.store_path()?;
    let wall = session.wall()?;
    // The store as it is: nothing is made.
    match ambient::hold(&path) {
        Ok(store) => wall.write(store)?.enforce()?,
        Err(_) => wall.enforce()?,
    }
    let options = FsckOptions {
        repair: args.repair,
        deep: args.deep,
        jobs: args.jobs.unwrap_or(FsckOptions::default().jobs),
        cancel: interrupt::cancel()?,
        ..FsckOptions::default()
    };
    let unpacker = Arc::new(session.unpacker()?);
    let report = ImageStorage::fsck_at(path, session.limits(), unpacker, &options, &session.progress())?;
    if session.json() {
        output::json(&json!({
            "schema": "cofferdam/fsck/v1",
            "damaged": report.is_damaged(),
            "checked": report.checked,
            "findings": report.findings,
        }))?;
    } else {
        show(&report)?;
    }
    if report.is_damaged() { Err(damaged(&report, args.repair).into()) } else { Ok(()) }
}

fn show(report: &FsckReport) -> Result<(), Failure> {
    if !report.findings.is_empty() {
        let rows: Vec<_> = report.findings.iter().flat_map(rows).collect();
        output::table(&["PROBLEM", "PART", "SUBJECT", "DETAIL"], &rows)?;
    }
    let Counts { images, manifests, configs, layers, trees, plugins, entries, bytes, .. } = report.checked;
    let damage = report.findings.iter().filter(|finding| finding.damage).count();
    let repaired = report.findings.iter().filter(|finding| finding.damage && finding.repaired).count();
    let verdict = match (damage, repaired) {
        (0, _) => "nothing is damaged".to_owned(),
        (damage, repaired) if damage == repaired => format!("{damage} damaged, all repaired"),
        (damage, 0) => format!("{damage} damaged"),
        (damage, repaired) => format!("{damage} damaged, {repaired} of them repaired"),
    };
    output::line(&format!(
        "checked {images} images, {manifests} manifests, {configs} configurations, {layers} layers, {trees} trees \
({entries} entries) and {plugins} plugins, {}: {verdict}",
        output::bytes(bytes)
    ))
}

/// A finding as rows of a table: what it is, then in what a tree differs, who needs it, and what was done or can be.
fn rows(finding: &Finding) -> Vec<Vec<String>> {
    let more = |text: String| vec![String::new(), String::new(), String::new(), text];
    let mut rows = vec![vec![
        finding.problem.word().to_owned(),
        finding.part.word().to_owned(),
        finding.subject.clone(),
        finding.what.clone(),
    ]];
    let differences = &finding.differences;
    rows.extend(differences.iter().map(|difference| more(format!("{}: {}", difference.path, difference.what))));
    let hidden = finding.different - differences.len() as u64;
    if hidden > 0 {
        rows.push(more(format!("and {hidden} more")));
    }
    if !finding.images.is_empty() {
        rows.push(more(format!("needed by {}", finding.images.join(", "))));
    }
    if let Some(remedy) = &finding.remedy {
        rows.push(more(if finding.repaired { format!("repaired: {remedy}") } else { remedy.clone() }));
    }
    rows
}

fn damaged(report: &FsckReport, tried: bool) -> Error {
    let left = report.findings.iter().filter(|finding| finding.damage && !finding.repaired).count();
    let hint = if tried { "do what the report says of each" } else { "cofferdam fsck --repair" };
    Error::Damaged { subject: "the store".into(), reason: format!("{left} findings"), hint: hint.into() }
}
