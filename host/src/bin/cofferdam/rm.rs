//! `rm`: removes images, and frees what nothing else needs.

use serde_json::json;

use crate::failure::Failure;
use crate::image_name::in_store;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session, names: &[String]) -> Result<(), Failure> {
    session.wall_of_store()?.enforce()?;
    let storage = session.storage()?;
    let (mut objects, mut lines) = (Vec::new(), Vec::new());
    for name in names {
        let reference = in_store(name, &storage)?;
        let removed = storage.remove(&reference)?;
        if let Some(why) = &removed.kept {
            tracing::warn!("{reference} is removed, but some of it was kept: {why}");
        }
        lines.push(format!(
            "removed {reference}: {} blobs ({}) and {} trees freed",
            removed.blobs.len(),
            output::bytes(removed.bytes),
            removed.trees.len()
        ));
        objects.push(json!({
            "reference": reference,
            "blobs": removed.blobs,
            "bytes": removed.bytes,
            "trees": removed.trees,
            "kept": removed.kept,
        }));
    }
    if session.json() {
        return output::json(&json!({ "schema": "cofferdam/rm/v1", "removed": objects }));
    }
    // Only now: who does not read what is printed wants all of them removed nevertheless.
    lines.iter().try_for_each(|line| output::line(line))
}
