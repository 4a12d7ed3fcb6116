//! `layer verify`: decodes a layer in the sandbox and checks its digest.

use cofferdam::Algorithm;
use serde_json::json;

use crate::args::LayerArgs;
use crate::failure::Failure;
use crate::output;
use crate::session::{Session, shown};

pub(crate) fn run(session: &Session, args: &LayerArgs) -> Result<(), Failure> {
    let layer = crate::layer_extract::open(args)?.hashing_blob(Algorithm::Sha256);
    session.wall_of_layers()?.enforce()?;
    let report = session.unpacker_of_layers()?.verify(layer)?;
    if session.json() {
        return output::json(&json!({
            "schema": "cofferdam/layer-verify/v1",
            "layer": shown(&args.layer),
            "digest": report.blob,
            "diff_id": report.diff_id,
            "compression": report.compression.to_string(),
            "blob_bytes": report.blob_bytes,
            "decoded_bytes": report.decoded_bytes,
        }));
    }
    let digest = report.blob.map(|digest| digest.to_string()).unwrap_or_default();
    output::table(
        &["DIGEST", "DIFF ID", "COMPRESSION", "SIZE", "DECODED"],
        &[vec![
            digest,
            report.diff_id.to_string(),
            report.compression.to_string(),
            output::bytes(report.blob_bytes),
            output::bytes(report.decoded_bytes),
        ]],
    )
}
