//! `images`: what the store holds.

use serde_json::json;

use crate::failure::Failure;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session) -> Result<(), Failure> {
    session.wall_of_store()?.enforce()?;
    let storage = session.storage()?;
    let mut rows = Vec::new();
    let mut objects = Vec::new();
    for entry in storage.images()? {
        match storage.load_image(&entry) {
            Ok(image) => {
                rows.push(vec![
                    entry.reference.clone(),
                    entry.manifest.to_string().chars().take(19).collect(),
                    image.platform.clone(),
                    image.layers.len().to_string(),
                    output::bytes(image.total_size),
                ]);
                objects.push(json!({
                    "reference": entry.reference,
                    "manifest": entry.manifest,
                    "platform": image.platform,
                    "layers": image.layers.len(),
                    "bytes": image.total_size,
                    "pulled_at": entry.pulled_at,
                }));
            }
            // One damaged image must not hide the others.
            Err(error) => tracing::warn!("{}: {}", entry.reference, error.root()),
        }
    }
    if session.json() {
        return output::json(&json!({ "schema": "cofferdam/images/v1", "images": objects }));
    }
    output::table(&["IMAGE", "MANIFEST", "PLATFORM", "LAYERS", "SIZE"], &rows)
}
