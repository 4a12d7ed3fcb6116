//! Patterns of image names. `*` stands for anything without a slash, `**` for anything at all; all else for itself.

use crate::error::{Error, Result};

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
    /// [`Error::Usage`] for an empty one, and for characters that other tools read as something else.
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
        if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic() || "?[]{}!\\^$|()+\"'`<>".contains(*c)) {
            return wrong(&format!("has the character {odd:?}, which no name has"));
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
        for text in ["", "a?", "a[b]", "{a,b}", "a b", "!a", "^a$", "é"] {
            assert!(Pattern::new(text).is_err(), "{text:?}");
        }
    }
}
