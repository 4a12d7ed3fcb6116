//! The words of a scenario's line: bytes, separated by spaces.
//!
//! `"…"` quotes, also inside of a word; `\n`, `\t`, `\0`, `\\`, `\"` and `\xNN` stand for bytes; `%{TEXT*N}` repeats a text,
//! and `%{OUT}` is the directory in which the destination lies.

use anyhow::{Context as _, Result, bail};

/// One word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// What it says.
    pub bytes: Vec<u8>,
    /// Whether it began with a quote: then it is content, whatever it looks like.
    pub quoted: bool,
}

impl Word {
    /// The word as text, unless it was quoted or is none.
    pub fn text(&self) -> Option<&str> {
        if self.quoted { None } else { std::str::from_utf8(&self.bytes).ok() }
    }

    /// `NAME=VALUE` in two.
    pub fn pair(&self) -> Option<(&str, &[u8])> {
        let at = self.bytes.iter().position(|&byte| byte == b'=').filter(|_| !self.quoted)?;
        Some((std::str::from_utf8(&self.bytes[..at]).ok()?, &self.bytes[at + 1..]))
    }
}

/// Splits a line into words.
pub fn words(line: &str, out: &str) -> Result<Vec<Word>> {
    let mut found = Vec::new();
    let mut word: Option<Word> = None;
    let mut inside = false;
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let mut taken = first.len_utf8();
        match first {
            ' ' if !inside => found.extend(word.take()),
            '"' => {
                inside = !inside;
                word.get_or_insert(Word { bytes: Vec::new(), quoted: true });
            }
            _ => {
                let (bytes, length) = piece(rest, out).with_context(|| format!("in `{line}`"))?;
                taken = length;
                word.get_or_insert(Word { bytes: Vec::new(), quoted: false }).bytes.extend(bytes);
            }
        }
        rest = rest.get(taken..).unwrap_or_default();
    }
    if inside {
        bail!("a quote without an end in `{line}`");
    }
    found.extend(word);
    Ok(found)
}

/// The bytes that a text begins with, and how much of it they take.
fn piece(text: &str, out: &str) -> Result<(Vec<u8>, usize)> {
    if let Some(code) = text.strip_prefix('\\') {
        let single = |byte: u8| Ok((vec![byte], 2));
        return match code.chars().next() {
            Some('n') => single(b'\n'),
            Some('t') => single(b'\t'),
            Some('0') => single(0),
            Some('\\') => single(b'\\'),
            Some('"') => single(b'"'),
            Some('x') => {
                let digits = code.get(1..3).context("`\\x` without two digits")?;
                Ok((vec![u8::from_str_radix(digits, 16)?], 4))
            }
            _ => bail!("`\\` with something unknown behind it"),
        };
    }
    if let Some(inner) = text.strip_prefix("%{") {
        let (inner, _) = inner.split_once('}').context("`%{` without `}`")?;
        let taken = inner.len() + 3;
        if inner == "OUT" {
            return Ok((out.into(), taken));
        }
        let (what, count) = inner.rsplit_once('*').context("neither `%{OUT}` nor `%{TEXT*N}`")?;
        return Ok((what.repeat(count.parse()?).into_bytes(), taken));
    }
    let first = text.chars().next().map_or(0, char::len_utf8);
    Ok((text.as_bytes()[..first].to_vec(), first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_words() {
        let found = words(r#"F "a b" \xff%{ab*3} uid:="0 \0" %{OUT}/x"#, "/tmp").unwrap();
        let bytes: Vec<&[u8]> = found.iter().map(|word| &word.bytes[..]).collect();
        assert_eq!(bytes, [&b"F"[..], b"a b", b"\xffababab", b"uid:=0 \0", b"/tmp/x"]);
        assert_eq!(found.iter().map(|word| word.quoted).collect::<Vec<_>>(), [false, true, false, false, false]);
        assert_eq!(found[3].pair(), Some(("uid:", &b"0 \0"[..])));
    }

    #[test]
    fn what_is_no_word_is_an_error() {
        for line in [r#"F "a"#, r"\q", r"\x1", "%{a", "%{a}"] {
            assert!(words(line, "").is_err(), "{line}");
        }
    }
}
