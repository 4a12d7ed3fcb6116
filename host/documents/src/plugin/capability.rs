//! What a plugin may hold beyond its world, and how asking and granting meet.

use std::collections::BTreeSet;

use cofferdam_core::error::{Error, Escaped, Result};
use serde::{Deserialize, Serialize};

use super::http_rule::HttpRule;

/// A set of capabilities: what a plugin asks for, what it was granted, or what it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a word of the manifest")]
pub struct Capabilities {
    /// What the standard library of a language wants in order to start, and which holds no power: streams, no arguments,
    /// no environment, an empty standard input, an output that goes to the log, random numbers that are always the same.
    #[serde(skip_serializing_if = "is_false")]
    pub runtime: bool,
    /// The time, and waiting.
    #[serde(skip_serializing_if = "is_false")]
    pub clock: bool,
    /// Random numbers.
    #[serde(skip_serializing_if = "is_false")]
    pub random: bool,
    /// A directory of its own that is empty at the beginning of each run, as `/scratch`.
    #[serde(skip_serializing_if = "is_false")]
    pub write: bool,
    /// Directories that it may read, by their absolute paths.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub read: BTreeSet<String>,
    /// Requests that it may make.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub http: BTreeSet<HttpRule>,
    /// Among the names in `http`, those that may stand for private addresses. Granted only, never asked for.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub http_private: BTreeSet<HttpRule>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// One capability, as it is missed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Capability {
    /// [`Capabilities::runtime`].
    Runtime,
    /// [`Capabilities::clock`].
    Clock,
    /// [`Capabilities::random`].
    Random,
    /// [`Capabilities::write`].
    Write,
    /// A directory of [`Capabilities::read`].
    Read(String),
    /// A rule of [`Capabilities::http`].
    Http(HttpRule),
}

impl Capability {
    /// The arguments of `plugin grant` that grant it.
    pub fn flag(&self) -> String {
        match self {
            Self::Runtime => "--runtime".into(),
            Self::Clock => "--clock".into(),
            Self::Random => "--random".into(),
            Self::Write => "--write".into(),
            Self::Read(path) => format!("--read {}", quoted(path)),
            Self::Http(rule) => format!("--http {}", quoted(&rule.to_string())),
        }
    }
}

/// An argument as a shell reads it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/:.-_,".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.into() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

impl Capabilities {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks what serde cannot: that directories are absolute and say what they mean.
    pub fn check(&self) -> Result<()> {
        for path in &self.read {
            let plain = path.starts_with('/') && !path.contains('\0');
            if !plain || path.split('/').any(|component| matches!(component, "." | "..")) {
                return Err(Error::Usage {
                    reason: format!("`{}` cannot be a directory to read", Escaped(path.as_bytes())),
                    hint: Some("write an absolute path without `.` and `..`".into()),
                });
            }
        }
        Ok(())
    }

    /// What a plugin that asks for `self` has when `granted` was granted.
    #[must_use]
    pub fn effective(&self, granted: &Self) -> Self {
        let http: BTreeSet<_> =
            self.http.iter().flat_map(|asked| granted.http.iter().filter_map(|rule| asked.and(rule))).collect();
        let private = |rule: &&HttpRule| http.iter().any(|had| had.authority() == rule.authority());
        Self {
            runtime: self.runtime && granted.runtime,
            clock: self.clock && granted.clock,
            random: self.random && granted.random,
            write: self.write && granted.write,
            read: self.read.intersection(&granted.read).cloned().collect(),
            http_private: granted.http_private.iter().filter(private).cloned().collect(),
            http,
        }
    }

    /// What of `self` is not in `other`.
    pub fn beyond(&self, other: &Self) -> Vec<Capability> {
        let mut missing = Vec::new();
        for (asked, had, capability) in [
            (self.runtime, other.runtime, Capability::Runtime),
            (self.clock, other.clock, Capability::Clock),
            (self.random, other.random, Capability::Random),
            (self.write, other.write, Capability::Write),
        ] {
            if asked && !had {
                missing.push(capability);
            }
        }
        missing.extend(self.read.difference(&other.read).cloned().map(Capability::Read));
        let unheard = |rule: &&HttpRule| !other.http.iter().any(|had| rule.is_within(had));
        missing.extend(self.http.iter().filter(unheard).cloned().map(Capability::Http));
        missing
    }

    /// All that is in one of the two.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let joined = |one: &BTreeSet<HttpRule>, two: &BTreeSet<HttpRule>| one.union(two).cloned().collect();
        Self {
            runtime: self.runtime || other.runtime,
            clock: self.clock || other.clock,
            random: self.random || other.random,
            write: self.write || other.write,
            read: self.read.union(&other.read).cloned().collect(),
            http: joined(&self.http, &other.http),
            http_private: joined(&self.http_private, &other.http_private),
        }
    }

    /// What is left of `self` without `other`. A rule for requests goes as a whole, by whom it is about.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let gone =
            |rules: &BTreeSet<HttpRule>, rule: &HttpRule| rules.iter().any(|r| r.authority() == rule.authority());
        Self {
            runtime: self.runtime && !other.runtime,
            clock: self.clock && !other.clock,
            random: self.random && !other.random,
            write: self.write && !other.write,
            read: self.read.difference(&other.read).cloned().collect(),
            http: self.http.iter().filter(|rule| !gone(&other.http, rule)).cloned().collect(),
            http_private: (self.http_private.iter())
                .filter(|rule| !gone(&other.http, rule) && !gone(&other.http_private, rule))
                .cloned()
                .collect(),
        }
    }

    /// The whole set in words, for people; one line each.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> =
            self.beyond(&Self::default()).iter().map(|one| one.flag()[2..].to_owned()).collect();
        lines.extend(self.http_private.iter().map(|rule| format!("http-private {rule}")));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> Capabilities {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_plugin_has_what_it_asked_for_and_was_granted() {
        let asked =
            set("clock = true\nrandom = true\nread = ['/etc/keys', '/srv']\nhttp = ['https://a.b', 'registry']");
        let granted =
            set("clock = true\nwrite = true\nread = ['/srv', '/root']\nhttp = ['GET https://a.b', 'https://c.d']");
        let had = asked.effective(&granted);
        assert_eq!(had, set("clock = true\nread = ['/srv']\nhttp = ['GET https://a.b']"));
        let missing: Vec<_> = asked.beyond(&had).iter().map(Capability::flag).collect();
        assert_eq!(missing, ["--random", "--read /etc/keys", "--http registry", "--http https://a.b"]);
    }

    #[test]
    fn a_private_address_is_granted_with_its_rule_or_not_at_all() {
        let asked = set("http = ['https://a.b']");
        let granted = set("http = ['https://a.b']\nhttp-private = ['https://a.b', 'https://c.d']");
        assert_eq!(asked.effective(&granted).http_private, set("http-private = ['https://a.b']").http_private);
        assert!(asked.effective(&set("http-private = ['https://a.b']")).is_empty());
    }

    #[test]
    fn what_is_revoked_is_gone() {
        let granted = set("clock = true\nread = ['/a', '/b']\nhttp = ['https://a.b']\nhttp-private = ['https://a.b']");
        let left = granted.without(&set("read = ['/a']\nhttp = ['https://a.b']"));
        assert_eq!(left, set("clock = true\nread = ['/b']"));
        assert_eq!(left.or(&set("read = ['/a']")).read.len(), 2);
    }

    #[test]
    fn directories_are_absolute() {
        for path in ["etc", "/a/../b", "/a/.", ""] {
            let asked = Capabilities { read: [path.to_owned()].into(), ..Capabilities::default() };
            assert!(asked.check().is_err(), "{path}");
        }
    }

    #[test]
    fn an_argument_of_a_shell_stays_one() {
        let capability = Capability::Read("/it's; rm".into());
        assert_eq!(capability.flag(), r"--read '/it'\''s; rm'");
    }
}
