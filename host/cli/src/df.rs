//! `df`: what the store takes on disk, and for whom.

use serde_json::json;

use crate::failure::Failure;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session) -> Result<(), Failure> {
    session.wall_of_look()?.enforce()?;
    let usage = session.look()?.usage()?;
    if session.json() {
        let mut object = json!(usage);
        object["schema"] = "cofferdam/df/v1".into();
        return output::json(&object);
    }
    let bytes = |count| output::bytes(count);
    let mut rows = Vec::new();
    for image in &usage.images {
        let damaged = if image.complete { "" } else { " (damaged)" };
        let shared = image.bytes.saturating_sub(image.own);
        rows.push(vec![format!("{}{damaged}", image.reference), bytes(image.bytes), bytes(shared), bytes(image.own)]);
    }
    output::table(&["IMAGE", "SIZE", "SHARED", "OWN"], &rows)?;
    output::line("")?;
    let mut rows = Vec::new();
    for layer in &usage.layers {
        let short = layer.digest.to_string().chars().take(19).collect();
        rows.push(vec![short, bytes(layer.blob), bytes(layer.tree), layer.images.to_string()]);
    }
    output::table(&["LAYER", "BLOB", "TREE", "IMAGES"], &rows)?;
    output::line("")?;
    let mut rows: Vec<_> =
        usage.by_kind.iter().map(|(kind, count)| vec![kind.noun().to_owned(), bytes(*count)]).collect();
    rows.push(vec!["all".into(), bytes(usage.total)]);
    rows.push(vec!["reclaimable".into(), bytes(usage.reclaimable)]);
    output::table(&["KIND", "SIZE"], &rows)
}
