//! `tag`: gives an image a further name.

use serde_json::json;

use crate::failure::Failure;
use crate::image_name::in_store;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session, image: &str, name: &str) -> Result<(), Failure> {
    session.wall_of_store()?.enforce()?;
    let storage = session.storage()?;
    if name.parse::<cofferdam::Digest>().is_ok() {
        return Err(crate::failure::usage("a digest is no name", Some("give one such as `example.com/app:1`".into())));
    }
    let name = in_store(name, &storage)?;
    let tagged = storage.tag(&in_store(image, &storage)?, &name)?;
    if session.json() {
        let object = json!({ "schema": "cofferdam/tag/v1", "reference": name, "manifest": tagged.manifest_digest });
        return output::json(&object);
    }
    output::line(&format!("{name}@{}", tagged.manifest_digest))
}
