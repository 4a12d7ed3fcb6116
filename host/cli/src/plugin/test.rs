//! `plugin test`: one run of a plugin, and its account.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cofferdam::Error;
use cofferdam::ambient;
use cofferdam::plugin::{Capabilities, World};
use cofferdam::policy::{Admit, Panel};
use cofferdam::registry::{Admission, NetworkOptions, Registries, RetryPolicy, candidate};
use cofferdam::sandbox::{Context, Program, RunReport, RunReports};
use cofferdam::transport::{ImageSource, OciLayout, PlatformChoice};
use cofferdam::unpack::{Extensions, Layer, Listing};
use serde_json::{Value, json};

use super::source::Source;
use crate::args::PluginTestArgs;
use crate::environment;
use crate::failure::{Failure, usage};
use crate::image_name::ImageName;
use crate::interrupt;
use crate::output;
use crate::session::{Session, shown};

/// The layer that is shown to a plugin where none is given: the lowest of the image that the tests are made with.
const SAMPLE: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/fixtures/hello-oci/blobs/sha256/877536a54bf3436bab106a649763f6414977287ddba52ee6979a4a310f2ee808"
));

/// What a run came to.
#[derive(Default)]
struct Account {
    /// Entries that the plugin was shown, or that it put; nothing for a verifier.
    entries: Option<u64>,
    /// What an inspector reports, or a verifier says.
    said: Option<Vec<u8>>,
    outcome: Option<Error>,
}

pub(crate) fn run(session: &Session, args: &PluginTestArgs) -> Result<(), Failure> {
    let mut wall = session.wall()?.network()?;
    let source = Source::parse(&args.plugin);
    if let Source::File(path) = &source {
        wall = wall.read(path)?;
    }
    wall = wall.read(&session.store_path()?)?;
    let layer = args.layer.as_ref().map(|path| ambient::open_blob(path)).transpose()?;
    if let Some(ImageName::Layout(path, _)) = args.image.as_deref().map(ImageName::parse).transpose()? {
        wall = wall.read(&path)?;
    }
    let may = may_hold(session, &source, args)?;
    for path in &may.read {
        wall = wall.read(path.as_ref())?;
    }
    if may.write {
        wall = wall.write(ambient::create_private_dir(&session.store_path()?)?.0)?;
    }
    wall.enforce()?;
    let (program, granted) = load(session, &source, args)?;
    let scratch = if granted.write {
        let scratch = session.storage()?.scratch_dir();
        ambient::private_dir(&scratch)?;
        Some(scratch)
    } else {
        None
    };
    let reports = RunReports::default();
    let context = Context { scratch, reports: Some(reports.clone()), ..Context::default() };
    let program = program.in_context(context.clone());
    let world = program.manifest().map(|manifest| manifest.world);
    let account = match (world, &args.image) {
        (Some(World::Verifier), Some(image)) => verify(session, args, image, program.clone(), context)?,
        (Some(World::Verifier), None) => {
            return Err(usage("a verifier is asked about an image", Some("give one with --image".into())));
        }
        (_, Some(_)) => return Err(usage("only a verifier is asked about an image", Some("give --layer".into()))),
        (Some(World::Decoder | World::Extractor), None) if layer.is_none() => {
            return Err(usage("what reads layers wants one", Some("give one with --layer".into())));
        }
        (_, None) => {
            let layer = match layer {
                Some((blob, Some(size))) => Layer::new(blob).with_size(size),
                Some((blob, None)) => Layer::new(blob),
                None => Layer::new(SAMPLE).with_size(SAMPLE.len() as u64),
            };
            let name = args.layer.as_ref().map_or_else(|| "the sample".to_owned(), |path| shown(path));
            read(session, &program, layer.named(name))?
        }
    };
    let used = reports.last().unwrap_or_default();
    show(session, &program, &account, &used)?;
    account.outcome.map_or(Ok(()), |error| Err(error.into()))
}

/// What the plugin may hold at most, for the wall around it. Nothing is compiled, and no thread started: the wall holds for this
/// thread and those that it starts later. The component is read only if all that it asks for is granted, which it says itself.
fn may_hold(session: &Session, source: &Source, args: &PluginTestArgs) -> Result<Capabilities, Failure> {
    match source {
        Source::File(_) if args.grants.all_asked => {
            let asked = source.read(session, &crate::args::AccessArgs::default())?.manifest.capabilities;
            Ok(args.grants.capabilities(&asked))
        }
        Source::File(_) => Ok(args.grants.capabilities(&Capabilities::default())),
        Source::Artifact(name) => {
            let plugin = session.look()?.plugins()?.get(name)?;
            let asked = &plugin.manifest.capabilities;
            Ok(asked.effective(&plugin.granted.or(&args.grants.capabilities(asked))))
        }
    }
}

/// The plugin with its settings, and what it holds.
fn load(session: &Session, source: &Source, args: &PluginTestArgs) -> Result<(Program, Capabilities), Failure> {
    let (name, manifest, component, granted) = match source {
        Source::File(_) => {
            let found = source.read(session, &crate::args::AccessArgs::default())?;
            let granted = args.grants.capabilities(&found.manifest.capabilities);
            (found.manifest.name.clone(), found.manifest, found.component, granted)
        }
        Source::Artifact(name) => {
            let storage = session.look()?;
            let plugins = storage.plugins()?;
            let plugin = plugins.get(name)?;
            let component = plugins.component(&plugin)?;
            let granted = plugin.granted.or(&args.grants.capabilities(&plugin.manifest.capabilities));
            (plugin.name, plugin.manifest, component, granted)
        }
    };
    let settings = args.setting.iter().cloned().collect();
    let program = session.unpacker()?.sandbox().plugin(&name, &manifest, &component, &granted, &settings)?;
    Ok((program, manifest.capabilities.effective(&granted)))
}

/// Has a decoder or an extractor read a layer, or an inspector look at it.
fn read(session: &Session, program: &Program, layer: Layer) -> Result<Account, Failure> {
    // What it looks at may be for a decoder of the store to read; of two that read the same, it is asked first.
    let unpacker = session.unpacker_of_layers()?;
    let extensions = Extensions::first(program.clone(), unpacker.extensions())?;
    let unpacker = unpacker.with_extensions(extensions);
    let media_type = program.manifest().and_then(|manifest| manifest.media_types().first());
    let layer = match media_type {
        Some(media_type) => layer.with_media_type(media_type),
        None => layer,
    };
    let seen = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&seen);
    let listing = Listing::new(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(())
    });
    // Given up, it still ends its run, and takes the plugin's scratch directory with it.
    let (outcome, _) = unpacker.extract(layer.with_cancel(interrupt::cancel()?), listing);
    let entries = Some(seen.load(Ordering::Relaxed));
    Ok(match outcome {
        Ok(report) => {
            let said = report.reports.into_iter().next().map(|report| report.report);
            Account { entries, said, outcome: None }
        }
        Err(error) => Account { entries, said: None, outcome: Some(error) },
    })
}

/// Asks a verifier about an image.
fn verify(
    session: &Session,
    args: &PluginTestArgs,
    image: &str,
    program: Program,
    context: Context,
) -> Result<Account, Failure> {
    let limits = session.limits();
    let source: Box<dyn ImageSource> = match ImageName::parse(image)? {
        ImageName::Layout(_, layout) => {
            args.access.refuse(image)?;
            Box::new(OciLayout::open(layout, limits.clone())?)
        }
        ImageName::Reference(name) | ImageName::Registry(name) => {
            let mut network = NetworkOptions::default();
            environment::proxies(&mut network)?;
            let logins = crate::pull::logins(&args.access)?;
            let access = crate::pull::access_list(&args.access, &logins)?;
            Box::new(Registries::new(access, network, limits.clone())?.search(&name, &[])?)
        }
    };
    let (platform, retry) = (PlatformChoice::default(), RetryPolicy::default());
    let candidate = interrupt::block_on(candidate(&*source, &platform, &limits, &retry))?;
    let panel = Panel { rule: None, verifiers: vec![program], inspectors: Vec::new() };
    let sandbox = session.unpacker()?.sandbox().clone();
    let admit = Admit::new(candidate.reference.clone(), panel, sandbox, limits, context);
    Ok(match admit.admit(&candidate, &interrupt::cancel()?) {
        Ok(decision) => {
            let said = decision.and_then(|decision| decision.verdicts.into_iter().next());
            Account { said: said.map(|verdict| verdict.said.into_bytes()), ..Account::default() }
        }
        Err(error) => Account { outcome: Some(error), ..Account::default() },
    })
}

fn show(session: &Session, program: &Program, account: &Account, used: &RunReport) -> Result<(), Failure> {
    let verdict = match account.outcome.as_ref().map(Error::root) {
        None => "accepted",
        Some(Error::Refused { .. }) => "refused",
        Some(_) => "failed",
    };
    let reason = account.outcome.as_ref().map(ToString::to_string);
    let said = account.said.as_deref().filter(|said| !said.is_empty());
    if session.json() {
        let said = said.map(|said| {
            serde_json::from_slice(said).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(said).into_owned()))
        });
        return output::json(&json!({
            "schema": "cofferdam/plugin-test/v1",
            "plugin": program.name(),
            "accepted": account.outcome.is_none(),
            "verdict": verdict,
            "reason": reason,
            "entries": account.entries,
            "said": said,
            "peak_memory_bytes": used.peak_memory,
            "guest_ms": used.guest_time.as_secs_f64() * 1e3,
            "wall_ms": used.wall.as_secs_f64() * 1e3,
            "requests": used.requests,
            "request_bytes": used.bytes,
            "denied": used.denials.iter().map(|denial| json!({ "what": denial.what, "grant": denial.grant })).collect::<Vec<_>>(),
        }));
    }
    let mut rows = vec![vec!["plugin".into(), program.name().to_owned()], vec!["verdict".into(), verdict.into()]];
    rows.extend(reason.map(|reason| vec!["because".into(), reason]));
    if let Some(entries) = account.entries {
        rows.push(vec!["entries".into(), entries.to_string()]);
    }
    rows.push(vec!["peak memory".into(), output::bytes(used.peak_memory)]);
    rows.push(vec!["time".into(), format!("{:.1} ms", used.guest_time.as_secs_f64() * 1e3)]);
    rows.push(vec!["with the host's".into(), format!("{:.1} ms", used.wall.as_secs_f64() * 1e3)]);
    if used.requests > 0 {
        rows.push(vec!["requests".into(), format!("{} ({})", used.requests, output::bytes(used.bytes))]);
    }
    for denial in &used.denials {
        rows.push(vec!["denied".into(), denial.what.clone()]);
        rows.extend(denial.grant.iter().map(|grant| vec!["  to grant it".into(), grant.clone()]));
    }
    if let Some(said) = said {
        let text = String::from_utf8_lossy(said);
        let lines = text.lines().take(20).map(|line| vec![String::new(), output::cut(line, 160)]);
        rows.push(vec!["said".into(), output::bytes(said.len() as u64)]);
        rows.extend(lines);
    }
    output::table(&["WHAT", "VALUE"], &rows)
}
