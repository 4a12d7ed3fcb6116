//! What goes to standard output: lines for people, or one JSON object with a `schema`.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write as _};

use cofferdam::tree::LeftOut;
use serde_json::Value;

use crate::failure::Failure;

/// Prints one object.
pub(crate) fn json(object: &Value) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer_pretty(&mut stdout, object).map_err(io::Error::from)?;
    writeln!(stdout)?;
    Ok(())
}

/// Tells, once by name, which attributes a tree could not hold.
pub(crate) fn left_out(left_out: &LeftOut) {
    for (name, count) in left_out.iter() {
        let entries = if count == 1 { "entry" } else { "entries" };
        tracing::warn!("left out the extended attribute `{name}` of {count} {entries}: it cannot be set there");
    }
}

/// Prints bytes as they are.
pub(crate) fn raw(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}

/// Prints one line.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    Ok(writeln!(io::stdout().lock(), "{}", printable(text))?)
}

/// Text with everything escaped that a terminal obeys or that reorders what people see: much of it comes from images.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if obeyed(c) {
            let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// A line of somebody else's text, without what is no text, up to so many characters.
pub(crate) fn cut(line: &str, width: usize) -> String {
    let mut characters = line.chars().filter(|c| !c.is_control());
    let mut shown: String = characters.by_ref().take(width).collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

/// Prints a table: columns as wide as they need to be, the last one free.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
    let rows: Vec<Vec<Cow<'_, str>>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    let header: Vec<_> = header.iter().map(|&cell| Cow::Borrowed(cell)).collect();
    for row in std::iter::once(&header).chain(&rows) {
        let mut line = String::new();
        for (cell, &width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        writeln!(stdout, "{}", line.trim_end())?;
    }
    stdout.flush()?;
    Ok(())
}

/// A number of bytes, for people.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped_and_the_rest_is_not() {
        assert_eq!(printable("é – 日本 \\ x"), "é – 日本 \\ x");
        for (text, shown) in [
            ("a\u{1b}[31mb", "a\\u{1b}[31mb"),
            ("a\nb\r\t", "a\\u{a}b\\u{d}\\u{9}"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("a\u{202e}b\u{2066}", "a\\u{202e}b\\u{2066}"),
        ] {
            assert_eq!(printable(text), shown);
        }
    }
}
