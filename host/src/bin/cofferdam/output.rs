//! What goes to standard output: lines for people, or one JSON object with a `schema`.

use std::io::{self, Write as _};

use serde_json::Value;

use crate::failure::Failure;

/// Prints one object.
pub(crate) fn json(object: &Value) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer_pretty(&mut stdout, object).map_err(io::Error::from)?;
    writeln!(stdout)?;
    Ok(())
}

/// Prints one line.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}

/// Prints a table: columns as wide as they need to be, the last one free.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    let header: Vec<String> = header.iter().map(|&cell| cell.to_owned()).collect();
    for row in std::iter::once(&header).chain(rows) {
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
