//! What goes to standard output: lines for people, or one JSON object with a `schema`.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write as _};

use cofferdam::tree::LeftOut;
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};

use crate::failure::Failure;
use crate::progress;

/// Prints one object.
pub(crate) fn json(object: &impl Serialize) -> Result<(), Failure> {
    progress::end();
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    object
        .serialize(&mut Serializer::with_formatter(&mut stdout, Harmless(PrettyFormatter::new())))
        .map_err(io::Error::from)?;
    writeln!(stdout)?;
    Ok(stdout.flush()?)
}

/// An object in one line, for where there are several.
pub(crate) fn compact(object: &impl Serialize) -> String {
    let mut text = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut text, Harmless(CompactFormatter));
    // Nothing here can fail to be written: all keys are text.
    let written = object.serialize(&mut serializer);
    written.ok().and_then(|()| String::from_utf8(text).ok()).unwrap_or_else(|| "{}".into())
}

/// Writes as another formatter does, and escapes in text what [`is_obeyed`]. The text stays what it is.
struct Harmless<F>(F);

macro_rules! as_the_other_does {
    ($($name:ident($($argument:ident: $type:ty),*);)+) => {
        $(fn $name<W: ?Sized + io::Write>(&mut self, writer: &mut W $(, $argument: $type)*) -> io::Result<()> {
            self.0.$name(writer $(, $argument)*)
        })+
    };
}

impl<F: Formatter> Formatter for Harmless<F> {
    as_the_other_does! {
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        end_object_key();
        begin_object_value();
        end_object_value();
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, found)) = rest.char_indices().find(|(_, c)| is_obeyed(*c)) {
            let (before, after) = rest.split_at(at);
            writer.write_all(before.as_bytes())?;
            let mut units = [0; 2];
            found.encode_utf16(&mut units).iter().try_for_each(|unit| write!(writer, "\\u{unit:04x}"))?;
            rest = after.get(found.len_utf8()..).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }
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
    progress::end();
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}

/// Prints one line.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    progress::end();
    Ok(writeln!(io::stdout().lock(), "{}", printable(text))?)
}

/// Whether a terminal obeys a character, or shows nothing for it, or shows what is around it in another order: control characters,
/// separators of lines, and all that Unicode calls format characters or ignorable by default.
pub(crate) fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
            | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Text with everything escaped that [`is_obeyed`]: much of it comes from images.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_obeyed(c) {
            let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// A line of somebody else's text, without what is no text, up to so many characters.
pub(crate) fn cut(line: &str, width: usize) -> String {
    let mut characters = line.chars().filter(|c| !is_obeyed(*c));
    let mut shown: String = characters.by_ref().take(width).collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

/// The widest cell that others are aligned with, in characters.
const WIDEST: usize = 100;

/// Prints a table: columns as wide as they need to be, the last one free. A cell that is very wide stands out of its column,
/// and widens no other row: what is printed is proportional to what is in the cells.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
    progress::end();
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    write_table(&mut stdout, header, rows)?;
    Ok(stdout.flush()?)
}

fn write_table(out: &mut impl io::Write, header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let width = |cell: &str| cell.chars().take(WIDEST + 1).count();
    let mut widths: Vec<usize> = header.iter().map(|cell| width(cell)).collect();
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            // Escapes are for few cells: their columns are as wide as what is escaped.
            let width = if cell.contains(is_obeyed) { width(&printable(cell)) } else { width(cell) };
            if width <= WIDEST {
                *widest = (*widest).max(width);
            }
        }
    }
    let mut put = |row: &mut dyn Iterator<Item = &str>| {
        // Written with the next cell, so that no line ends in spaces.
        let mut space = 0;
        for (cell, &widest) in row.zip(&widths) {
            let cell = printable(cell);
            if !cell.is_empty() {
                write!(out, "{:space$}{cell}", "")?;
                space = 0;
            }
            space += widest.saturating_sub(width(&cell)) + 2;
        }
        writeln!(out)
    };
    put(&mut header.iter().copied())?;
    rows.iter().try_for_each(|row| put(&mut row.iter().map(String::as_str)))
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

    /// In JSON the value is what it was, and in the text nothing is that a terminal obeys.
    #[test]
    fn json_holds_no_character_that_a_terminal_obeys() {
        let all: String = (0..=0x10_ffff).filter_map(char::from_u32).collect();
        let object = serde_json::json!({ all.as_str(): [all.as_str(), "é – 日本 \u{1f600}"] });
        let mut pretty = Vec::new();
        object.serialize(&mut Serializer::with_formatter(&mut pretty, Harmless(PrettyFormatter::new()))).unwrap();
        for text in [compact(&object), String::from_utf8(pretty).unwrap()] {
            assert!(!text.replace('\n', "").contains(is_obeyed));
            assert!(text.contains("é – 日本 \u{1f600}") && text.contains(r"\u202e") && text.contains(r"\udb40\udc41"));
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), object);
        }
        assert!(!printable(&all).contains(is_obeyed));
    }

    /// Padding every row to the widest cell makes of a megabyte in one cell and a thousand rows a gigabyte.
    #[test]
    fn a_table_is_as_long_as_what_is_in_it() {
        let cells = |first: &str, second: &str| vec![first.to_owned(), second.to_owned(), "end".to_owned()];
        let mut rows = vec![cells("a", "b"); 1000];
        rows.push(cells(&"w".repeat(1 << 20), &"v\n".repeat(1 << 20)));
        rows.push(cells("longer", ""));
        let mut out = Vec::new();
        write_table(&mut out, &["ONE", "TWO", "THREE"], &rows).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.len() < (10 << 20), "{} bytes", text.len());
        assert_eq!(text.lines().next(), Some("ONE     TWO  THREE"));
        assert_eq!(text.lines().nth(1), Some("a       b    end"));
        assert_eq!(text.lines().last(), Some("longer       end"));
        assert_eq!(text.lines().count(), 1003);
    }
}
