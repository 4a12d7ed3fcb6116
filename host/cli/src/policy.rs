//! The policy of the configuration file.
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

use cofferdam::policy::{Policy, PreparedImage, Requirement, Rule};
use cofferdam::store::ImageObject;
use cofferdam::{Error, ambient};
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

/// Prepares the pull of an image of this name: with what the policy requires, and what options ask for.
pub(crate) fn for_pull(
    session: &Session,
    policy: &Policy,
    asked: &AskArgs,
    reference: &str,
) -> Result<PreparedImage, Failure> {
    let by_hand = |names: &[String]| names.iter().map(Requirement::of).collect::<Vec<_>>();
    let (verify, inspect) = (by_hand(&asked.verify), by_hand(&asked.inspect));
    let (storage, unpacker) = (session.storage()?, session.unpacker()?);
    Ok(PreparedImage::for_pull(reference, policy, (&verify, &inspect), &storage, &unpacker)?)
}

/// Prepares the use of an image of the store, if the policy lets it in today.
pub(crate) fn for_stored(
    session: &Session,
    policy: &Policy,
    image: &ImageObject,
    asked_as: &str,
) -> Result<PreparedImage, Failure> {
    Ok(PreparedImage::for_stored(image, asked_as, policy, &session.storage()?, &session.unpacker()?)?)
}
