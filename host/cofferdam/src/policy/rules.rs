//! Rules: patterns of image names, and what is required of the images.

use std::collections::BTreeMap;

use super::pattern::Pattern;
use crate::error::{Error, Result};
use crate::registry::RegistryHost;

/// Rules in order. The first that has a pattern for an image's name is the one that counts.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    rules: Vec<Rule>,
}

/// What is required of some images.
#[derive(Clone, Debug)]
pub struct Rule {
    patterns: Vec<Pattern>,
    /// Who must accept the image before a layer of it is fetched.
    pub verify: Vec<Requirement>,
    /// Who must accept each of its layers.
    pub inspect: Vec<Requirement>,
    /// Why such images are refused whatever plugins say, if they are.
    pub refuse: Option<String>,
}

/// A plugin that is asked, with these settings on top of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirement {
    /// The plugin's name in the store.
    pub plugin: String,
    /// Settings.
    pub settings: BTreeMap<String, String>,
}

impl Requirement {
    /// A plugin with no settings but its own.
    pub fn of(plugin: impl Into<String>) -> Self {
        Self { plugin: plugin.into(), settings: BTreeMap::new() }
    }
}

impl Rule {
    /// A rule for the images whose names, in full and with tag or digest, match one of these patterns: `*` stands for anything
    /// without a slash, `**` for anything. A pattern that says nothing of a tag or a digest is for all of them.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for a rule without patterns, or with one that cannot be read.
    pub fn new(patterns: &[String]) -> Result<Self> {
        if patterns.is_empty() {
            return Err(Error::Usage { reason: "a rule of the policy has no images".into(), hint: None });
        }
        let patterns = patterns.iter().map(|pattern| Pattern::new(pattern)).collect::<Result<_>>()?;
        Ok(Self { patterns, verify: Vec::new(), inspect: Vec::new(), refuse: None })
    }

    /// The patterns, as they were written.
    pub fn name(&self) -> String {
        self.patterns.iter().map(Pattern::as_str).collect::<Vec<_>>().join(", ")
    }

    fn is_for(&self, reference: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.is_for(reference))
    }
}

impl Policy {
    /// A policy of these rules.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules }
    }

    /// The plugins that it asks, whatever the image.
    pub fn plugins(&self) -> impl Iterator<Item = &str> {
        let required = self.rules.iter().flat_map(|rule| rule.verify.iter().chain(&rule.inspect));
        required.map(|requirement| &*requirement.plugin)
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rule for an image.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if the rule lets no such image in.
    pub fn rule(&self, reference: &str) -> Result<Option<&Rule>> {
        let spellings = spellings(reference);
        let rule = self.rules.iter().find(|rule| spellings.iter().any(|name| rule.is_for(name)));
        match rule.and_then(|rule| rule.refuse.as_ref()) {
            Some(reason) => Err(Error::Refused {
                subject: format!("`{reference}`"),
                reason: format!("the policy lets no such image in: {reason}"),
            }),
            None => Ok(rule),
        }
    }
}

/// Ports that are left out of a name: that of HTTPS, and that of HTTP. A name does not say by which of them its registry is
/// reached, so one without a port is held to the rules for both.
const DEFAULT_PORTS: [&str; 2] = ["443", "80"];

/// Returns the names under which rules know an image, its own first: all that reach the same registry have the same.
fn spellings(reference: &str) -> Vec<String> {
    let own = vec![reference.to_owned()];
    let Some((host, rest)) = reference.split_once('/').filter(|_| !reference.starts_with("oci:")) else { return own };
    let Some(registry) = RegistryHost::reached_by(host) else { return own };
    let names = match registry.parts() {
        (host, port) if port.is_none_or(|port| DEFAULT_PORTS.contains(&port)) => {
            let hub = HUB_NAMES.contains(&host);
            let host = if hub { "docker.io" } else { host };
            // A name in full has it already.
            let official = hub && !rest.contains('/') && !reference.starts_with("docker.io/");
            let rest = if official { format!("library/{rest}") } else { rest.to_owned() };
            let ports = DEFAULT_PORTS.iter().map(|port| format!("{host}:{port}/{rest}"));
            std::iter::once(format!("{host}/{rest}")).chain(ports).collect()
        }
        _ => vec![format!("{registry}/{rest}")],
    };
    own.into_iter().chain(names).collect()
}

/// Hosts that serve Docker Hub's images.
const HUB_NAMES: [&str; 4] = ["docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(patterns: &[&str], plugin: &str) -> Rule {
        let patterns: Vec<_> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        Rule { verify: vec![Requirement::of(plugin)], ..Rule::new(&patterns).unwrap() }
    }

    #[test]
    fn the_first_rule_for_a_name_counts() {
        let policy = Policy::new(vec![
            rule(&["docker.io/library/*"], "official"),
            rule(&["registry.corp:5000/**", "*.corp/app:1.*"], "corp"),
            Rule { refuse: Some("unknown".into()), ..rule(&["**"], "none") },
        ]);
        for (reference, expected) in [
            ("docker.io/library/debian:12", Some("official")),
            ("docker.io/library/debian@sha256:00", Some("official")),
            ("docker.io/library/debian:12@sha256:00", Some("official")),
            ("docker.io/library", None),
            ("docker.io/library/a/b:1", None),
            ("docker.io.evil.com/library/debian:12", None),
            ("registry.corp:5000/a/b/c:latest", Some("corp")),
            ("registry.corp:5001/a", None),
            ("hub.corp/app:1.2", Some("corp")),
            ("hub.corp/app:1.2@sha256:00", Some("corp")),
            ("hub.corp/app:2", None),
            ("evil/hub.corp/app:1.2", None),
            ("hub.corp:443/app:1.2", Some("corp")),
            ("hub.corp:444/app:1.2", None),
            ("registry-1.docker.io:443/library/debian:12", Some("official")),
        ] {
            let found = policy.rule(reference).ok().flatten().map(|rule| rule.verify[0].plugin.as_str());
            assert_eq!(found, expected, "{reference}");
        }
        assert!(policy.rule("anything/else:1").is_err());
        assert!(Policy::default().rule("anything").unwrap().is_none());
    }

    /// Whatever name an image goes by, the same rule counts for all that reach the same registry.
    #[test]
    fn every_spelling_of_a_registry_meets_its_rule() {
        for (pattern, names) in [
            (
                "docker.io/library/*",
                &[
                    "docker.io/library/a:1",
                    "DOCKER.io/a",
                    "index.docker.io:443/library/a",
                    "registry-1.docker.io:80/library/a",
                    "registry-1.docker.io:80/a:1",
                    "docker.io./a",
                    "registry.hub.docker.com/library/a@sha256:00",
                ][..],
            ),
            (
                "127.0.0.1:5000/**",
                &[
                    "127.0.0.1:5000/a",
                    "127.1:5000/a",
                    "0x7f.1:5000/a",
                    "2130706433:5000/a",
                    "127.0.0.01:5000/a",
                    "0177.0.0.1:5000/a",
                    "[::ffff:127.0.0.1]:5000/a",
                    "127.0.0.1.:5000/a",
                    "127.0.0.1:05000/a",
                    "0.0.0.0:5000/a",
                ],
            ),
            ("a.corp/**", &["a.corp/x", "a.corp:80/x", "a.corp:443/x", "a.corp:0080/x", "A.Corp./x", "a.corp.:80/x"]),
            ("a.corp:80/**", &["a.corp/x", "a.corp:80/x", "a.corp:443/x"]),
            ("a.corp:*/x", &["a.corp/x", "a.corp:80/x", "a.corp:5000/x:1"]),
            ("*.corp/app:1.*", &["a.corp:80/app:1.2", "a.corp:443/app:1.2", "A.CORP/app:1.2"]),
            ("[::1]/**", &["[::1]/a", "[::1]:80/a", "[0:0::1]:443/a", "[::]/a"]),
            ("oci:**", &["oci:/a/b:c"]),
        ] {
            let policy = Policy::new(vec![rule(&[pattern], "it")]);
            for name in names {
                assert!(policy.rule(name).unwrap().is_some(), "{pattern} {name}");
            }
        }
        let policy = Policy::new(vec![rule(&["docker.io/library/*", "127.0.0.1:5000/**", "a.corp/**"], "it")]);
        for name in [
            "docker.io:5000/library/a",
            "127.0.0.1:5001/a",
            "127.0.0.2:5000/a",
            "b.a.corp/x",
            "a.corp:8080/x",
            "a.corp.evil/x",
            "oci:/a.corp/x",
            "a/b",
        ] {
            assert!(policy.rule(name).unwrap().is_none(), "{name}");
        }
    }

    #[test]
    fn a_rule_has_patterns() {
        assert!(Rule::new(&[]).is_err());
        assert!(Rule::new(&["a[".into()]).is_err());
    }
}
