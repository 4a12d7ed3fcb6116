//! `images`: what the store holds.

use cofferdam::{Error, ErrorKind};
use serde_json::json;

use crate::failure::Failure;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session) -> Result<(), Failure> {
    session.wall_of_look()?.enforce()?;
    let storage = match session.look() {
        Ok(storage) => Some(storage),
        // A store that nobody has made yet holds nothing.
        Err(Failure::Library(error)) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let mut rows = Vec::new();
    let mut objects = Vec::new();
    let mut damage = None;
    let entries = storage.as_ref().map_or_else(|| Ok(Vec::new()), |storage| storage.images())?;
    for entry in entries {
        let Some(storage) = &storage else { break };
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
            // Removed meanwhile, or replaced.
            Err(_)
                if storage
                    .resolve(&entry.reference)
                    .is_ok_and(|now| now.is_none_or(|now| now.manifest != entry.manifest)) => {}
            // One damaged image must not hide the others, nor itself.
            Err(error) => {
                let manifest = entry.manifest.to_string();
                let short = manifest.chars().take(19).collect();
                rows.push(vec![entry.reference.clone(), short, "damaged".into(), String::new(), String::new()]);
                objects.push(json!({
                    "reference": entry.reference,
                    "manifest": manifest,
                    "pulled_at": entry.pulled_at,
                    "error": error.root().to_string(),
                }));
                damage.get_or_insert(incomplete(error, &entry.reference));
            }
        }
    }
    if session.json() {
        output::json(&json!({ "schema": "cofferdam/images/v1", "images": objects }))?;
    } else {
        output::table(&["IMAGE", "MANIFEST", "PLATFORM", "LAYERS", "SIZE"], &rows)?;
    }
    damage.map_or(Ok(()), |error| Err(error.into()))
}

/// What is wrong with an image that is listed: a part that is gone was there, so that is damage too.
fn incomplete(error: Error, reference: &str) -> Error {
    if error.kind() == ErrorKind::NotFound {
        return Error::Damaged {
            subject: format!("the image {reference}"),
            reason: error.root().to_string(),
            hint: format!("pull it again: cofferdam pull {reference}"),
        };
    }
    error.context(format!("reading the image {reference}"))
}
