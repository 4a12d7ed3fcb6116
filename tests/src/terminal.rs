//! A terminal that a program writes to, and what a person would see on it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{FromRawFd as _, OwnedFd};

use anyhow::{Result, ensure};

/// Both ends of a terminal of so many columns and lines: a person's, and the program's.
#[expect(unsafe_code, reason = "neither std nor rustix, with the features that are in use, opens terminals")]
pub fn open(columns: u16, lines: u16) -> Result<(Terminal, OwnedFd)> {
    let size = libc::winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let (mut person, mut program) = (0, 0);
    // SAFETY: the two handles are written to places that are ours, and nothing else is but read.
    let opened = unsafe {
        libc::openpty(&raw mut person, &raw mut program, std::ptr::null_mut(), std::ptr::null(), &raw const size)
    };
    ensure!(opened == 0, "cannot open a terminal: {}", io::Error::last_os_error());
    // SAFETY: both were just opened, and nobody else has them.
    let (person, program) = unsafe { (File::from_raw_fd(person), OwnedFd::from_raw_fd(program)) };
    Ok((Terminal { person, pending: Vec::new(), screen: Screen::new(columns.into()) }, program))
}

/// The person's end.
#[derive(Debug)]
pub struct Terminal {
    person: File,
    pending: Vec<u8>,
    screen: Screen,
}

impl Terminal {
    /// Waits for more to be written, and shows the screen after it; nothing when all programs have closed it.
    pub fn see(&mut self) -> Result<Option<&Screen>> {
        let mut chunk = [0; 4096];
        let count = match self.person.read(&mut chunk) {
            // What Linux says of a terminal that nobody has open.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => 0,
            other => other?,
        };
        if count == 0 {
            return Ok(None);
        }
        self.pending.extend_from_slice(&chunk[..count]);
        // A character or a sequence may arrive in parts.
        let whole = std::str::from_utf8(&self.pending).map_or_else(|error| error.valid_up_to(), str::len);
        let text = String::from_utf8(self.pending[..whole].to_vec())?;
        let left = self.screen.write(&text);
        self.pending.drain(..whole - left.len());
        Ok(Some(&self.screen))
    }
}

/// What is on a screen, in lines.
#[derive(Debug)]
pub struct Screen {
    columns: usize,
    lines: Vec<Vec<char>>,
    row: usize,
    column: usize,
}

impl Screen {
    fn new(columns: usize) -> Self {
        Self { columns, lines: vec![Vec::new()], row: 0, column: 0 }
    }

    /// The lines, without the spaces at their ends.
    pub fn lines(&self) -> Vec<String> {
        self.lines.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned()).collect()
    }

    /// Does as it is told, and returns what is not whole yet.
    fn write<'a>(&mut self, text: &'a str) -> &'a str {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if first == '\u{1b}' {
                let Some(end) = rest.find(|c: char| c.is_ascii_alphabetic()) else { return rest };
                let (sequence, tail) = rest.split_at(end + 1);
                self.obey(sequence);
                rest = tail;
                continue;
            }
            self.put(first);
            rest = &rest[first.len_utf8()..];
        }
        rest
    }

    fn obey(&mut self, sequence: &str) {
        let count = sequence[..sequence.len() - 1].trim_start_matches("\u{1b}[").parse().unwrap_or(1);
        match sequence.chars().last() {
            Some('A') => self.row = self.row.saturating_sub(count),
            Some('B') => self.down(count),
            Some('G') => self.column = count - 1,
            Some('K') if sequence.contains('2') => self.lines[self.row].clear(),
            Some('K') => self.lines[self.row].truncate(self.column),
            Some('J') => {
                self.lines[self.row].truncate(self.column);
                self.lines.truncate(self.row + 1);
            }
            _ => {}
        }
    }

    fn put(&mut self, character: char) {
        match character {
            '\r' => self.column = 0,
            '\n' => self.down(1),
            character => {
                if self.column == self.columns {
                    self.column = 0;
                    self.down(1);
                }
                let line = &mut self.lines[self.row];
                line.resize(line.len().max(self.column + 1), ' ');
                line[self.column] = character;
                self.column += 1;
            }
        }
    }

    fn down(&mut self, count: usize) {
        self.row += count;
        self.lines.resize(self.lines.len().max(self.row + 1), Vec::new());
    }
}
