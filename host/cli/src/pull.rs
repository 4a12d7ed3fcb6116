//! `pull`: fetches, verifies and extracts an image into the store.

use std::sync::Arc;

use cofferdam::plugin::World;
use cofferdam::policy::{Policy, PreparedImage};
use cofferdam::registry::{
    AccessList, Auth, HostAccess, NetworkOptions, PullOptions, Pulled, Registries, Transport, pull,
};
use cofferdam::store::{Durability, Verdict};
use cofferdam::transport::{ImageSource, OciLayout, Platform, PlatformChoice};
use serde_json::json;

use crate::args::{AccessArgs, AskArgs, Credentials, PullArgs, Secret, credentials};
use crate::environment;
use crate::failure::{Failure, usage};
use crate::image_name::{ImageName, pinned};
use crate::interrupt;
use crate::output;
use crate::policy;
use crate::session::Session;

pub(crate) fn run(session: &Session, args: &PullArgs) -> Result<(), Failure> {
    session.allow_loss(&args.lossy);
    let mut options = PullOptions { platform: choice(args.platform.as_ref()), ..PullOptions::default() };
    options.concurrency = args.parallel;
    let name = ImageName::parse(&args.image)?;
    let policy = session.policy()?;
    let wall = session.wall_of_plugins(&policy, &args.asked)?;
    match &name {
        ImageName::Reference(_) | ImageName::Registry(_) => wall.network()?.enforce()?,
        ImageName::Layout(path, _) => wall.read(path)?.enforce()?,
    }
    let pulled = match name {
        ImageName::Reference(name) | ImageName::Registry(name) => {
            let from = FromRegistry { access: &args.access, asked: &args.asked, policy: &policy };
            from.pull(session, &name, &options, args.durability)?
        }
        ImageName::Layout(_, name) => {
            args.access.refuse(&args.image)?;
            let source = OciLayout::open(name, session.limits())?;
            let ready = policy::for_pull(session, &policy, &args.asked, &source.store_name()?)?;
            into_store(session, &source, ready, &options, args.durability)?
        }
    };
    report(session, &pulled)
}

/// How an image is brought from a registry.
pub(crate) struct FromRegistry<'a> {
    pub(crate) access: &'a AccessArgs,
    pub(crate) asked: &'a AskArgs,
    pub(crate) policy: &'a Policy,
}

impl FromRegistry<'_> {
    /// Pulls from the registry that the name means.
    pub(crate) fn pull(
        &self,
        session: &Session,
        name: &str,
        options: &PullOptions,
        durability: Durability,
    ) -> Result<Pulled, Failure> {
        let mut network = NetworkOptions::default();
        environment::proxies(&mut network)?;
        let logins = logins(self.access)?;
        let registries = Registries::new(access_list(self.access, &logins)?, network, session.limits())?;
        let source = registries.search(name, &[])?;
        // With a login for a host that was mistyped, the image would be asked for as nobody.
        let named = logins.iter().map(|login| ("--user", &login.registry));
        for (option, host) in named.chain(self.access.token_host.iter().map(|(host, _)| ("--token-host", host))) {
            if source.candidates().all(|candidate| candidate.registry() != host) {
                return Err(usage(format!("{option} names {host}, which is not asked for `{name}`"), None));
            }
        }
        let ready = policy::for_pull(session, self.policy, self.asked, &source.name())?;
        into_store(session, &source, ready, options, durability)
    }
}

/// Pulls an image into the store, if all who are asked let it in.
pub(crate) fn into_store(
    session: &Session,
    source: &dyn ImageSource,
    ready: PreparedImage,
    options: &PullOptions,
    durability: Durability,
) -> Result<Pulled, Failure> {
    let progress = session.progress();
    let options =
        PullOptions { admission: Some(Arc::new(ready.admission())), cancel: interrupt::cancel()?, ..options.clone() };
    let storage = ready.storage.with_durability(durability);
    Ok(interrupt::finish(pull(source, &storage, Arc::new(ready.unpacker), &options, &progress))?)
}

/// The platform that was asked for.
pub(crate) fn choice(platform: Option<&Platform>) -> PlatformChoice {
    platform.map_or(PlatformChoice::Host, |platform| PlatformChoice::Exactly(platform.clone()))
}

/// The logins that options give.
pub(crate) fn logins(args: &AccessArgs) -> Result<Vec<Credentials>, Failure> {
    let login = |Secret(text): &Secret| credentials(text).map_err(|reason| usage(format!("--user: {reason}"), None));
    args.user.iter().map(login).collect()
}

/// What was decided for each registry. One registry cannot be reached in two ways.
pub(crate) fn access_list(args: &AccessArgs, logins: &[Credentials]) -> Result<AccessList, Failure> {
    let mut list = AccessList::new();
    for host in &args.plain_http {
        if args.insecure.contains(host) {
            return Err(usage(format!("{host} cannot be reached by --plain-http and by --insecure at once"), None));
        }
    }
    let transports = [(&args.plain_http, Transport::PlainHttp), (&args.insecure, Transport::InsecureTls)];
    for (hosts, transport) in transports {
        for host in hosts {
            list.set(host.clone(), HostAccess { transport, ..list.get(host) });
        }
    }
    let from_environment = environment::auth()?
        .map(|text| credentials(&text).map_err(|reason| usage(format!("COFFERDAM_AUTH: {reason}"), None)))
        .transpose()?;
    for login in from_environment.iter().chain(logins) {
        let auth = Auth::Basic { user: login.user.clone(), password: login.password.clone() };
        list.set(login.registry.clone(), HostAccess { auth, ..list.get(&login.registry) });
    }
    for (registry, host) in &args.token_host {
        let mut access = list.get(registry);
        access.token_hosts.push(host.clone());
        list.set(registry.clone(), access);
    }
    Ok(list)
}

fn report(session: &Session, pulled: &Pulled) -> Result<(), Failure> {
    let image = &pulled.image;
    let left_out = session.look()?.left_out(image)?;
    output::left_out(&left_out);
    let name = pinned(&image.reference, &image.manifest_digest);
    if session.json() {
        return output::json(&json!({
            "schema": "cofferdam/pull/v1",
            "name": name,
            "image": image,
            "index": pulled.published.index,
            "layers": image.layers.len(),
            "downloaded_layers": pulled.downloaded_layers,
            "downloaded_bytes": pulled.downloaded_bytes,
            "unpacked_layers": pulled.unpacked_layers,
            "cached_layers": pulled.cached_layers,
            "decision": pulled.published.decision,
            "left_out": left_out,
        }));
    }
    // Whether as a tree or as a blob. A layer that comes twice is one.
    let stored = pulled.unpacked_layers + pulled.cached_layers;
    output::line(&name)?;
    if session.is_quiet() {
        return Ok(());
    }
    output::line(&format!(
        "{}, {} layers: {} downloaded ({}), {} in the store already; every digest and DiffID is right",
        image.platform,
        pulled.downloaded_layers + stored,
        pulled.downloaded_layers,
        output::bytes(pulled.downloaded_bytes),
        stored
    ))?;
    for verdict in pulled.published.decision.iter().flat_map(|decision| &decision.verdicts) {
        output::line(&accepted(verdict))?;
    }
    Ok(())
}

/// One line about a plugin that accepted the image.
pub(crate) fn accepted(verdict: &Verdict) -> String {
    match (verdict.world, verdict.said.as_str()) {
        (World::Inspector, _) => format!("accepted by {}: each of its layers", verdict.plugin),
        (_, "") => format!("accepted by {}", verdict.plugin),
        (_, said) => format!("accepted by {}: {said}", verdict.plugin),
    }
}
