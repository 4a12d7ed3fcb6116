//! `gc`: frees what nothing needs, and what is too old or too much.

use cofferdam::store::{Collected, GcOptions, Why};
use serde_json::json;

use crate::args::GcArgs;
use crate::failure::Failure;
use crate::interrupt;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session, args: &GcArgs) -> Result<(), Failure> {
    let storage = if args.dry_run {
        session.wall_of_look()?.enforce()?;
        session.look()?
    } else {
        session.wall_of_store()?.enforce()?;
        session.storage()?
    };
    let options = GcOptions {
        dry_run: args.dry_run,
        older_than: args.older_than,
        keep_storage: args.keep_storage,
        cancel: interrupt::cancel()?,
        ..GcOptions::default()
    };
    report(session, &storage.gc(&options)?)
}

fn report(session: &Session, collected: &Collected) -> Result<(), Failure> {
    if session.json() {
        let mut object = json!(collected);
        object["schema"] = "cofferdam/gc/v1".into();
        return output::json(&object);
    }
    let (removed, freed) = if collected.dry_run { ("would remove", "would free") } else { ("removed", "freed") };
    for image in &collected.images {
        let why = match image.why {
            Why::OlderThan => "not used for long",
            _ => "the store was too large",
        };
        output::line(&format!("{removed} {}: {why}", image.reference))?;
    }
    for thing in &collected.freed {
        output::line(&format!("{freed} {} {} ({})", thing.kind.noun(), thing.path, output::bytes(thing.bytes)))?;
    }
    for kept in &collected.kept {
        output::line(&format!("kept {}: {}", kept.what, kept.why))?;
    }
    let (bytes, remaining) = (output::bytes(collected.bytes), output::bytes(collected.remaining));
    output::line(&format!("{freed} {bytes} in all; the store takes {remaining} then"))
}
