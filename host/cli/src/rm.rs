//! `rm`: removes images, and frees what nothing else needs.

use cofferdam::store::{ImageStorage, Removed};
use serde_json::{Value, json};

use crate::failure::{self, Failure};
use crate::image_name::to_remove;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session, names: &[String]) -> Result<(), Failure> {
    session.wall_of_existing()?.enforce()?;
    let storage = session.storage()?;
    let (mut objects, mut lines, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for name in names {
        match remove(name, &storage) {
            Ok((reference, removed)) => {
                lines.push(format!(
                    "removed {reference}: {} blobs ({}) and {} trees freed",
                    removed.blobs.len(),
                    output::bytes(removed.bytes),
                    removed.trees.len()
                ));
                objects.push(described(&reference, &removed));
            }
            // The others go nevertheless.
            Err(failure) => failures.push((name, failure)),
        }
    }
    // Only now: who does not read what is printed wants all of them removed nevertheless.
    let said = if session.json() {
        let failed: Vec<_> = failures
            .iter()
            .map(|(name, failure)| {
                let mut object = failure::described(failure);
                object["image"] = (*name).clone().into();
                object
            })
            .collect();
        let schema = "cofferdam/rm/v1";
        output::json(&json!({ "schema": schema, "removed": objects, "failed": failed }))
    } else {
        lines.iter().try_for_each(|line| output::line(line))
    };
    let mut failures = failures.into_iter().map(|(_, failure)| failure);
    let Some(first) = failures.next() else { return said };
    if !session.json() {
        // The first one decides about the exit code, and is said by who ends the command.
        failures.for_each(|failure| _ = failure::report(&failure, false));
    }
    Err(first)
}

fn remove(name: &str, storage: &ImageStorage) -> Result<(String, Removed), Failure> {
    let reference = to_remove(name, storage)?;
    let removed = storage.remove(&reference)?;
    if let Some(why) = &removed.kept {
        tracing::warn!("{reference} is removed, but some of it was kept: {why}");
    }
    Ok((reference, removed))
}

fn described(reference: &str, removed: &Removed) -> Value {
    json!({
        "reference": reference,
        "blobs": removed.blobs,
        "bytes": removed.bytes,
        "trees": removed.trees,
        "kept": removed.kept,
    })
}
