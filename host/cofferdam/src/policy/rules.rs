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

    /// Asks for what another rule asks for as well.
    fn add(&mut self, other: &Self) {
        self.patterns.extend(other.patterns.iter().cloned());
        self.verify.extend(other.verify.iter().cloned());
        self.inspect.extend(other.inspect.iter().cloned());
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

    /// Returns what the rules say of an image: the first rule for its name, together with the rules above that one which are for another
    /// name of the same registry. A name without a port may be served by HTTPS or HTTP, so a rule for `HOST:80` is one for another
    /// name of `HOST`. Such a rule can refuse and ask for plugins, and never takes the place of the name's own rule.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if one of these rules refuses the image.
    pub fn rule(&self, reference: &str) -> Result<Option<Rule>> {
        let Names { own, other } = Names::of(reference);
        let mut found: Option<Rule> = None;
        for rule in &self.rules {
            let is_for = |names: &[String]| names.iter().any(|name| rule.is_for(name));
            let is_own = is_for(&own);
            if !is_own && !is_for(&other) {
                continue;
            }
            if let Some(reason) = &rule.refuse {
                return Err(Error::Refused {
                    subject: format!("`{reference}`"),
                    reason: format!("the policy lets no such image in: {reason}"),
                });
            }
            match &mut found {
                None => found = Some(rule.clone()),
                Some(found) => found.add(rule),
            }
            if is_own {
                break;
            }
        }
        Ok(found)
    }
}

/// The names under which rules know an image.
struct Names {
    /// As it is written, and as it is written in full: without the port of HTTPS and with it, and Docker Hub's in one way.
    own: Vec<String>,
    /// Those that may reach the same registry: the ports of HTTPS and of HTTP, which a name may leave out, for each other.
    other: Vec<String>,
}

impl Names {
    fn of(reference: &str) -> Self {
        let mut own = vec![reference.to_owned()];
        let split = reference.split_once('/').filter(|_| !reference.starts_with("oci:"));
        let registry = split.and_then(|(host, rest)| Some((RegistryHost::reached_by(host)?, rest)));
        let Some((registry, rest)) = registry else { return Self { own, other: Vec::new() } };
        let (host, port) = registry.parts();
        let hub = HUB_NAMES.contains(&host);
        let host = if hub { "docker.io" } else { host };
        // A name in full has it already.
        let official = hub && !rest.contains('/') && !reference.starts_with("docker.io/");
        let rest = if official { format!("library/{rest}") } else { rest.to_owned() };
        let https = [format!("{host}/{rest}"), format!("{host}:443/{rest}")];
        let http = [format!("{host}:80/{rest}")];
        let other = match port {
            Some("80") if !hub => {
                own.extend(http);
                https.into()
            }
            None | Some("443" | "80") => {
                own.extend(https);
                http.into()
            }
            Some(_) => {
                own.push(format!("{registry}/{rest}"));
                Vec::new()
            }
        };
        Self { own, other }
    }
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
            let found = policy.rule(reference).ok().flatten().map(|rule| rule.verify[0].plugin.clone());
            assert_eq!(found.as_deref(), expected, "{reference}");
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

    /// A rule for another name of the registry refuses and asks, and does not decide.
    #[test]
    fn a_rule_for_another_port_does_not_take_the_place_of_ones_own() {
        let asked = |policy: &Policy, name: &str| -> Vec<String> {
            let rule = policy.rule(name).unwrap();
            rule.into_iter().flat_map(|rule| rule.verify).map(|requirement| requirement.plugin).collect()
        };
        let free = Rule::new(&["a.corp:80/**".into()]).unwrap();
        let policy = Policy::new(vec![free, rule(&["a.corp/**"], "signed")]);
        assert_eq!(asked(&policy, "a.corp/x"), ["signed"]);
        assert_eq!(asked(&policy, "a.corp:443/x"), ["signed"]);
        assert_eq!(asked(&policy, "a.corp:80/x"), [""; 0]);
        let policy = Policy::new(vec![rule(&["a.corp:80/**"], "old"), rule(&["**"], "any")]);
        assert_eq!(asked(&policy, "a.corp/x"), ["old", "any"]);
        assert_eq!(asked(&policy, "a.corp:80/x"), ["old"]);
        let refuses = Rule { refuse: Some("plain".into()), ..rule(&["a.corp:80/**"], "none") };
        let policy = Policy::new(vec![rule(&["a.corp/b"], "first"), refuses, rule(&["a.corp/**"], "signed")]);
        assert!(policy.rule("a.corp/x").is_err() && policy.rule("a.corp:80/x").is_err());
        assert_eq!(asked(&policy, "a.corp/b:1"), ["first"]);
    }

    #[test]
    fn a_rule_has_patterns() {
        assert!(Rule::new(&[]).is_err());
        assert!(Rule::new(&["a[".into()]).is_err());
    }
}
