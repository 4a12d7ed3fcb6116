//! The policy of the configuration file, and who is asked about an image.
//!
//! ```toml
//! [[policy]]
//! images = ["docker.io/library/*", "registry.example.com/**"]
//! verify = ["cosign"]
//! inspect = ["setuid-policy"]
//! [policy.settings.cosign]
//! key = { file = "/etc/cofferdam/cosign.pub" }
//!
//! [[policy]]
//! images = ["**"]
//! refuse = "it comes from a registry that we do not use"
//! ```

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use cofferdam::policy::{Admit, Panel, Policy, Requirement, Rule};
use cofferdam::sandbox::Context;
use cofferdam::store::{ImageObject, ImageStorage};
use cofferdam::unpack::{Extensions, Unpacker};
use cofferdam::{Digest, Error, ambient};
use serde::Deserialize;

use crate::args::AskArgs;
use crate::failure::{Failure, usage};
use crate::session::Session;

/// The most bytes of a setting that is read from a file.
const SETTING_BYTES: u64 = 16 << 10;

/// A rule as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRule {
    images: Vec<String>,
    #[serde(default)]
    verify: Vec<String>,
    #[serde(default)]
    inspect: Vec<String>,
    refuse: Option<String>,
    #[serde(default)]
    settings: BTreeMap<String, BTreeMap<String, RawSetting>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "a setting is text in quotes, or { file = \"PATH\" }")]
enum RawSetting {
    Text(String),
    File(RawFile),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    file: PathBuf,
}

/// Reads the rules, and the files that they name: before the wall is closed.
pub(crate) fn read(rules: &[RawRule]) -> Result<Policy, Failure> {
    let rules: Vec<Rule> = rules.iter().map(rule).collect::<Result<_, _>>()?;
    Ok(Policy::new(rules))
}

fn rule(raw: &RawRule) -> Result<Rule, Failure> {
    let mut rule = Rule::new(&raw.images)?;
    let name = rule.name();
    if let Some(stranger) = raw.settings.keys().find(|name| !raw.verify.contains(name) && !raw.inspect.contains(name)) {
        let reason = format!("the policy for `{name}` has settings of `{stranger}`, which it does not require");
        return Err(usage(reason, None));
    }
    if raw.refuse.is_some() && !(raw.verify.is_empty() && raw.inspect.is_empty()) {
        return Err(usage(format!("the policy for `{name}` refuses all, and requires plugins"), None));
    }
    let requirement = |plugin: &String| -> Result<Requirement, Failure> {
        let settings = raw.settings.get(plugin).into_iter().flatten();
        let settings = settings.map(|(key, value)| Ok((key.clone(), text(value)?))).collect::<Result<_, Failure>>()?;
        Ok(Requirement { plugin: plugin.clone(), settings })
    };
    rule.verify = raw.verify.iter().map(requirement).collect::<Result<_, _>>()?;
    rule.inspect = raw.inspect.iter().map(requirement).collect::<Result<_, _>>()?;
    rule.refuse.clone_from(&raw.refuse);
    Ok(rule)
}

fn text(setting: &RawSetting) -> Result<String, Failure> {
    let RawSetting::File(RawFile { file: path }) = setting else {
        let RawSetting::Text(text) = setting else { return Ok(String::new()) };
        return Ok(text.clone());
    };
    read_setting(path).map_err(|error| error.context("reading the policy's settings").into())
}

fn read_setting(path: &Path) -> cofferdam::Result<String> {
    let mut text = String::new();
    ambient::open_file(path)?
        .take(SETTING_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| Error::io("read", path.as_os_str().as_bytes(), error))?;
    if text.len() as u64 > SETTING_BYTES {
        let subject = path.display().to_string();
        return Err(Error::Limit { subject, what: "bytes in a setting", limit: SETTING_BYTES });
    }
    Ok(text)
}

/// What is ready to bring in one image.
pub(crate) struct Ready {
    pub(crate) unpacker: Unpacker,
    pub(crate) storage: ImageStorage,
    panel: Panel,
    reference: String,
}

impl Ready {
    /// Makes ready who is asked about an image of this name, and who reads its layers.
    pub(crate) fn new(session: &Session, policy: &Policy, asked: &AskArgs, reference: &str) -> Result<Self, Failure> {
        let (storage, unpacker) = (session.storage()?, session.unpacker()?);
        let plugins = storage.plugins()?;
        let by_hand = |names: &[String]| names.iter().map(Requirement::of).collect::<Vec<_>>();
        let (verify, inspect) = (by_hand(&asked.verify), by_hand(&asked.inspect));
        let panel = Panel::of(reference, policy, (&verify, &inspect), &plugins, unpacker.sandbox())?;
        let readers = Extensions::of_store(&plugins, unpacker.sandbox())?;
        let unpacker = unpacker.with_extensions(panel.extensions(&readers)?);
        let storage = storage.with_unpacker(std::sync::Arc::new(unpacker.clone()));
        Ok(Self { unpacker, storage, panel, reference: reference.to_owned() })
    }

    /// Makes ready for an image of the store, and checks that all who are asked about it now have let it in, under the name that
    /// it has; under one of its names, if it is asked for by its digest.
    pub(crate) fn for_stored(
        session: &Session,
        policy: &Policy,
        image: &ImageObject,
        asked_as: &str,
    ) -> Result<Self, Failure> {
        let mut names = vec![image.reference.clone()];
        if asked_as.parse::<Digest>().is_ok() {
            let named =
                session.storage()?.images()?.into_iter().filter(|entry| entry.manifest == image.manifest_digest);
            let named: Vec<_> = named.map(|entry| entry.reference).collect();
            names = if named.is_empty() { names } else { named };
        }
        let mut refused = None;
        for name in names {
            let ready = Self::new(session, policy, &AskArgs::default(), &name)
                .and_then(|ready| ready.check(image).map(|()| ready));
            match ready {
                Ok(ready) => return Ok(ready),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or_else(|| usage(format!("{asked_as} has no name"), None)))
    }

    /// Who lets the image in.
    pub(crate) fn admission(&self) -> Admit {
        let (sandbox, limits) = (self.unpacker.sandbox().clone(), self.unpacker.limits().clone());
        let context = Context { scratch: Some(self.storage.scratch_dir()), ..Context::default() };
        Admit::new(self.reference.clone(), self.panel.clone(), sandbox, limits, context)
    }

    /// Checks that the image, which is in the store, was let in by all who are asked now.
    fn check(&self, image: &ImageObject) -> Result<(), Failure> {
        let entry = self.storage.resolve(&self.reference)?;
        // What the name stands for by now may be another image, which they were asked about.
        let decision = entry.filter(|entry| entry.manifest == image.manifest_digest).and_then(|entry| entry.decision);
        Ok(self.panel.check(&self.reference, decision.as_ref())?)
    }

    /// Whether nobody is asked about the image.
    pub(crate) fn is_free(&self) -> bool {
        self.panel.is_empty()
    }
}
