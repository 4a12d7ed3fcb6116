//! Rules: patterns of image names, and what is required of the images.

use std::collections::BTreeMap;

use super::pattern::Pattern;
use crate::error::{Error, Result};

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
        let plain = without_standard_port(reference);
        let rule = self.rules.iter().find(|rule| rule.is_for(reference) || rule.is_for(&plain));
        match rule.and_then(|rule| rule.refuse.as_ref()) {
            Some(reason) => Err(Error::Refused {
                subject: format!("`{reference}`"),
                reason: format!("the policy lets no such image in: {reason}"),
            }),
            None => Ok(rule),
        }
    }
}

/// The name without a port that says nothing: `registry.corp:443/app` is `registry.corp/app`, however the port is written.
fn without_standard_port(reference: &str) -> String {
    let parts = reference.split_once('/').and_then(|(host, rest)| Some((host.rsplit_once(':')?, rest)));
    match parts {
        Some(((host, port), rest)) if port.parse() == Ok(443_u16) => match host {
            "index.docker.io" | "registry-1.docker.io" => format!("docker.io/{rest}"),
            _ => format!("{host}/{rest}"),
        },
        _ => reference.to_owned(),
    }
}

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

    #[test]
    fn a_rule_has_patterns() {
        assert!(Rule::new(&[]).is_err());
        assert!(Rule::new(&["a[".into()]).is_err());
    }
}
