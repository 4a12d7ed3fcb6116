//! Patterns of image names. `*` stands for anything without a slash, `**` for anything at all; all else for itself.

use std::net::Ipv6Addr;

use crate::error::{Error, Result};
use crate::registry::RegistryHost;

/// The longest pattern, in bytes.
const LONGEST: usize = 1024;

/// A pattern of image names, in full and with tag or digest. One that says nothing of a tag or a digest is for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    text: String,
    /// What may stand behind, where the pattern does not say.
    tails: &'static [&'static str],
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for an empty one, for characters that other tools read as something else, and for one that fits no name:
    /// a rule that never counts lets in what it was to keep out.
    pub(super) fn new(text: &str) -> Result<Self> {
        let wrong = |reason: &str| {
            Err(Error::Usage {
                reason: format!("the policy's pattern {text:?} {reason}"),
                hint: Some("`*` stands for anything without a slash, `**` for anything".into()),
            })
        };
        if text.is_empty() || text.len() > LONGEST {
            return wrong("is empty or longer than 1024 bytes");
        }
        if let Some(odd) =
            without_address(text).chars().find(|c| !c.is_ascii_graphic() || "?[]{}!\\^$|()+\"'`<>".contains(*c))
        {
            return wrong(&format!("has the character {odd:?}, which no name has"));
        }
        if let Err(reason) = fits_names(text) {
            return wrong(&reason);
        }
        let last = text.rsplit('/').next().unwrap_or_default();
        let tails: &[&str] = match (last.contains('@') || last.ends_with("**"), last.contains(':')) {
            (true, _) => &[""],
            // The tag of a layout may hold a slash.
            (false, _) if text.starts_with("oci:") => &["", ":**", "@**"],
            (false, true) => &["", "@*"],
            (false, false) => &["", ":*", "@*", ":*@*"],
        };
        Ok(Self { text: text.to_owned(), tails })
    }

    /// The pattern as it was written.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is for this name.
    pub(super) fn is_for(&self, name: &str) -> bool {
        self.tails.iter().any(|tail| matches(format!("{}{tail}", self.text).as_bytes(), name.as_bytes()))
    }
}

/// What is behind an IPv6 address, whose brackets are no wild cards.
fn without_address(text: &str) -> &str {
    let parts = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    parts.filter(|(address, _)| address.parse::<Ipv6Addr>().is_ok()).map_or(text, |(_, rest)| rest)
}

/// Whether there are names that a pattern fits; else why not.
fn fits_names(text: &str) -> std::result::Result<(), String> {
    let fails = |reason: &str| Err(reason.to_owned());
    if text.contains("://") {
        return fails("begins with a scheme, and names begin with a host");
    }
    if text.ends_with('/') {
        return fails("ends in a slash, and no name does: `/**` is for all that is below");
    }
    if let Some(path) = text.strip_prefix("oci:") {
        return if path.starts_with(['/', '*']) { Ok(()) } else { fails("is for a layout and has no whole path") };
    }
    let (host, rest) = text.split_once('/').map_or((text, None), |(host, rest)| (host, Some(rest)));
    let repository = text.split('@').next().unwrap_or_default();
    let repository = match repository.rfind('/') {
        Some(slash) => &repository[..slash + repository[slash..].find(':').unwrap_or(repository.len() - slash)],
        None => repository,
    };
    if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return fails("has an upper case letter before the tag, and names have none");
    }
    if host.contains('*') {
        let some = rest.is_some() || host.contains("**");
        return if some { Ok(()) } else { fails("has no slash, and names in full have one") };
    }
    let canonical = match host.parse::<RegistryHost>() {
        Ok(canonical) => canonical.to_string(),
        Err(Error::InvalidReference { reason, .. }) if host.contains(['.', ':']) => {
            return Err(format!("begins with no host that names have: {reason}"));
        }
        Err(_) => return fails("begins with no host, and names are in full, as in `docker.io/library/debian`"),
    };
    let canonical = canonical.strip_suffix(":443").unwrap_or(&canonical);
    if canonical != host {
        return Err(format!("begins with `{host}`, which is `{canonical}` in names"));
    }
    match rest {
        None => fails("names a registry and no image: `HOST/**` is for all of its images"),
        Some(rest) if host == "docker.io" && !rest.contains('/') && !rest.contains("**") => {
            fails("is for no image of Docker Hub, whose names have two parts, as in `docker.io/library/debian`")
        }
        Some(_) => Ok(()),
    }
}

/// Whether a pattern covers all of a name, in time by the product of their lengths: `reached[at]` says whether what was read of
/// the pattern covers the first `at` bytes.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    let mut rest = pattern;
    while let [first, tail @ ..] = rest {
        if *first == b'*' {
            let anything = tail.first() == Some(&b'*');
            rest = if anything { &tail[1..] } else { tail };
            for at in 1..=name.len() {
                reached[at] |= reached[at - 1] && (anything || name[at - 1] != b'/');
            }
        } else {
            rest = tail;
            for at in (1..=name.len()).rev() {
                reached[at] = reached[at - 1] && name[at - 1] == *first;
            }
            reached[0] = false;
        }
    }
    reached[name.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_what_they_say() {
        for (pattern, name, expected) in [
            ("a/*", "a/b", true),
            ("a/*", "a/b/c", false),
            ("a/**", "a/b/c", true),
            ("a/**", "ab/c", false),
            ("**", "anything/at:all@sha256:00", true),
            ("oci:**", "oci:/a/b:c", true),
            ("oci:**", "docker.io/oci:x", false),
            ("*/b", "a/b", true),
            ("*/b", "/b", true),
            ("*/b", "a/c/b", false),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("***", "a/b", true),
            ("a", "a", true),
            ("a", "aa", false),
            ("a", "", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    /// What takes exponential time where a matcher goes back and forth.
    #[test]
    fn many_stars_take_no_time() {
        let (pattern, name) = ("a*".repeat(500) + "b", "a".repeat(1000));
        assert!(!matches(pattern.as_bytes(), name.as_bytes()));
    }

    #[test]
    fn what_other_tools_read_otherwise_is_refused() {
        for text in [
            "debian",
            "debian:*",
            "library/*",
            "*",
            "index.docker.io/**",
            "Docker.io/**",
            "docker.io:443/**",
            "docker.io/debian",
            "docker.io/*",
            "docker://127.0.0.1:5999/**",
            "https://a.example/**",
            "127.0.0.1:5999",
            "127.0.0.1:05999/**",
            "a.example/b/",
            "a.example/B/*",
            "[::0:1]:5000/**",
            "[::ffff:127.0.0.1]:5000/**",
            "0.0.0.0:5000/**",
            "127.1/**",
            "0x7f.1:5000/**",
            "2130706433:5000/**",
            "127.0.0.01/**",
            "docker.io./**",
            "registry-1.docker.io:443/**",
            "oci:layout",
        ] {
            assert!(Pattern::new(text).is_err(), "{text:?}");
        }
        for text in [
            "**",
            "*/app:1.*",
            "*.corp/app:1.*",
            "docker.io/library/*",
            "docker.io/**",
            "docker.io/library/debian:12-Slim",
            "localhost/a",
            "127.0.0.1:5999/team/app@sha256:*",
            "[::1]:5000/**",
            "oci:/a/B:*",
            "oci:**",
        ] {
            assert!(Pattern::new(text).is_ok(), "{:?}", Pattern::new(text));
        }
        for text in ["", "a?", "a[b]", "{a,b}", "a b", "!a", "^a$", "é"] {
            assert!(Pattern::new(text).is_err(), "{text:?}");
        }
    }
}
