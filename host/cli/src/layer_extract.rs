//! `layer extract`: unpacks one layer onto a directory.

use cofferdam::ambient;
use cofferdam::tree::{Mode, TreeWriter, WriterOptions};
use cofferdam::unpack::Layer;
use serde_json::json;

use crate::args::{ExtractArgs, ExtractMode, LayerArgs};
use crate::failure::Failure;
use crate::output;
use crate::session::{Session, shown};

/// The layer that the arguments name.
pub(crate) fn open(args: &LayerArgs) -> Result<Layer, Failure> {
    let (blob, size) = ambient::open_blob(&args.layer)?;
    let mut layer = Layer::new(blob).named(shown(&args.layer));
    if let Some(size) = size {
        layer = layer.with_size(size);
    }
    if let Some(media_type) = &args.media_type {
        layer = layer.with_media_type(media_type);
    }
    if let Some(diff_id) = &args.diff_id {
        layer = layer.with_diff_id(diff_id.clone());
    }
    Ok(layer)
}

pub(crate) fn run(session: &Session, args: &ExtractArgs) -> Result<(), Failure> {
    session.allow_loss(&args.lossy);
    let layer = session.shown(open(&args.layer)?);
    let dest = ambient::open_dest(&args.dest)?;
    session.wall_of_layers()?.write(&dest)?.enforce()?;
    let unpacker = session.unpacker_of_layers()?;
    let mode = match args.mode {
        ExtractMode::Apply => Mode::Apply,
        ExtractMode::Preserve => Mode::Preserve,
        ExtractMode::Overlay => Mode::Overlay,
    };
    let (limits, lossy) = (unpacker.limits().clone(), unpacker.lossy());
    let options = WriterOptions { limits, lossy, ..WriterOptions::new(mode) };
    let writer = TreeWriter::new(dest, options)?;
    let (outcome, mut writer) = unpacker.extract(layer, writer);
    let report = outcome?;
    let record = writer
        .finish_layer()
        .and_then(|record| writer.finish().map(|()| record))
        .map_err(|error| error.context(format!("extracting {}", shown(&args.layer.layer))))?;
    output::left_out(&record.left_out);
    if session.json() {
        return output::json(&json!({
            "schema": "cofferdam/layer-extract/v1",
            "layer": shown(&args.layer.layer),
            "dest": shown(&args.dest),
            "diff_id": report.diff_id,
            "compression": report.compression.to_string(),
            "entries": report.entries,
            "blob_bytes": report.blob_bytes,
            "decoded_bytes": report.decoded_bytes,
            "left_out": record.left_out,
        }));
    }
    output::line(&format!(
        "{}: {} entries, {} decoded, {}",
        shown(&args.dest),
        report.entries,
        output::bytes(report.decoded_bytes),
        report.diff_id
    ))
}
