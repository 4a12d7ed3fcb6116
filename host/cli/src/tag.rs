//! `tag`: gives an image a further name.

use serde_json::json;

use crate::failure::Failure;
use crate::image_name::{in_store, new_name, pinned};
use crate::output;
use crate::policy;
use crate::session::Session;

pub(crate) fn run(session: &Session, image: &str, name: &str) -> Result<(), Failure> {
    let rules = session.policy()?;
    session.wall_of_existing_plugins(&rules)?.enforce()?;
    let storage = session.storage()?;
    if name.parse::<cofferdam::Digest>().is_ok() {
        return Err(crate::failure::usage("a digest is no name", Some("give one such as `example.com/app:1`".into())));
    }
    let name = new_name(name)?;
    let mut image = in_store(image, &storage)?;
    if !rules.is_empty() {
        // What may not be used under the name that it has gets no other; nor does it get one that may not be used.
        rules.rule(&name)?;
        let prepared = policy::for_stored(session, &rules, &storage.image(&image)?, &image)?;
        prepared.reference().clone_into(&mut image);
    }
    let tagged = storage.tag(&image, &name)?;
    if session.json() {
        let (digest, pinned) = (&tagged.manifest_digest, pinned(&name, &tagged.manifest_digest));
        let object = json!({ "schema": "cofferdam/tag/v1", "name": pinned, "reference": name, "manifest": digest });
        return output::json(&object);
    }
    output::line(&pinned(&name, &tagged.manifest_digest))
}
