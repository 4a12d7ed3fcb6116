//! Globs over paths of bytes: `?` and `*` stay inside of a component, `**` does not, `**/` may also be nothing.

/// One step of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// One byte, no slash.
    One,
    /// Any bytes without a slash.
    Star,
    /// Any bytes.
    Stars,
    /// In front of [`Token::Directories`]: leaves it out.
    Maybe,
    /// Any bytes up to and with a slash.
    Directories,
}

/// A pattern. Matching takes time in proportion to pattern and path, whatever is in them.
#[derive(Clone, Debug)]
pub(crate) struct Glob(Vec<Token>);

impl Glob {
    /// Reads a pattern; a slash at its beginning means nothing.
    pub(crate) fn new(text: &str) -> Self {
        let mut rest = text.trim_start_matches('/').as_bytes();
        let mut tokens = Vec::new();
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            match (first, after) {
                (b'*', [b'*', b'/', later @ ..]) => {
                    tokens.extend([Token::Maybe, Token::Directories]);
                    rest = later;
                }
                (b'*', [b'*', later @ ..]) => {
                    tokens.push(Token::Stars);
                    rest = later;
                }
                (b'*', _) => tokens.push(Token::Star),
                (b'?', _) => tokens.push(Token::One),
                (byte, _) => tokens.push(Token::Byte(byte)),
            }
        }
        Self(tokens)
    }

    /// Whether the whole path matches.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        let mut now = vec![false; self.0.len() + 1];
        now[0] = true;
        self.settle(&mut now);
        for &byte in path {
            let mut next = vec![false; now.len()];
            for (at, token) in self.0.iter().enumerate().filter(|&(at, _)| now[at]) {
                let slash = byte == b'/';
                let (stay, go) = match token {
                    Token::Byte(wanted) => (false, byte == *wanted),
                    Token::One => (false, !slash),
                    Token::Star => (!slash, false),
                    Token::Stars => (true, false),
                    Token::Maybe => (false, false),
                    Token::Directories => (true, slash),
                };
                next[at] |= stay;
                next[at + 1] |= go;
            }
            self.settle(&mut next);
            now = next;
        }
        now[self.0.len()]
    }

    /// Adds the places that are reached without a byte.
    fn settle(&self, places: &mut [bool]) {
        for (at, token) in self.0.iter().enumerate() {
            if places[at] {
                match token {
                    Token::Star | Token::Stars => places[at + 1] = true,
                    Token::Maybe => {
                        places[at + 1] = true;
                        places[at + 2] = true;
                    }
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Glob;

    #[test]
    fn patterns_match_what_they_say() {
        for (pattern, path, matches) in [
            ("usr/bin/su", "usr/bin/su", true),
            ("/usr/bin/su", "usr/bin/su", true),
            ("usr/bin/su", "usr/bin/sudo", false),
            ("usr/*/su", "usr/bin/su", true),
            ("usr/*/su", "usr/local/bin/su", false),
            ("usr/**/su", "usr/local/bin/su", true),
            ("usr/**/su", "usr/su", true),
            ("usr/**/su", "usr/xsu", false),
            ("**/su", "su", true),
            ("usr/**", "usr/a/b", true),
            ("usr/**", "usr", false),
            ("b?n/s*", "bin/s", true),
            ("b?n", "b/n", false),
            ("*", "a/b", false),
            ("**", "", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(path.as_bytes()), matches, "`{pattern}` and `{path}`");
        }
    }

    #[test]
    fn no_pattern_takes_long() {
        let pattern = Glob::new(&"**/*a*".repeat(50));
        assert!(!pattern.matches(&b"a/".repeat(2000)));
    }
}
