//! `inspect`: what is known of one image.

use serde_json::json;

use crate::failure::Failure;
use crate::image_name::in_store;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session, name: &str) -> Result<(), Failure> {
    session.wall_of_store()?.enforce()?;
    let storage = session.storage()?;
    let image = storage.image(&in_store(name, &storage)?)?;
    if session.json() {
        let trees: Vec<_> = image.layer_digests().map(|digest| storage.trees().is_ready(digest)).collect();
        return output::json(&json!({ "schema": "cofferdam/image/v1", "image": image, "trees": trees }));
    }
    let config = &image.config;
    let mut rows = vec![
        vec!["reference".into(), image.reference.clone()],
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
    rows.extend(config.env.iter().map(|variable| vec!["env".into(), variable.clone()]));
    for (index, layer) in image.layers.iter().enumerate() {
        let tree = if storage.trees().is_ready(&layer.digest) { "extracted" } else { "not extracted" };
        let size = layer.size.map(output::bytes).unwrap_or_default();
        rows.push(vec![format!("layer {}", index + 1), format!("{}  {size}  {tree}", layer.digest)]);
        if let Some(diff_id) = &layer.diff_id {
            rows.push(vec![String::new(), format!("{diff_id} decoded")]);
        }
    }
    output::table(&["WHAT", "VALUE"], &rows)
}
