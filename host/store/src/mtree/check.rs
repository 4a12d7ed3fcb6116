//! Compares a tree with its list, in one pass over both.

use std::cmp::Ordering;
use std::io::{BufRead, Read as _};
use std::os::fd::BorrowedFd;

use cofferdam_core::cancel::Cancel;
use cofferdam_core::error::{Error, Escaped, Result};
use rustix::io::Errno;

use super::content::{Contents, Form};
use super::line;
use super::walk::{Found, Visitor, walk};
use super::{HEADER, failed};

/// Something in which a tree is not what its list says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Its path in the tree, escaped; `/` for the root.
    pub(crate) path: String,
    /// What it is.
    pub(crate) what: String,
}

/// What came of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checked {
    /// Entries that were found in the tree.
    pub(crate) entries: u64,
    /// Bytes of files that were read.
    pub(crate) bytes: u64,
    /// How many differences there are.
    pub(crate) different: u64,
    /// The first of them.
    pub(crate) differences: Vec<Difference>,
}

/// Compares the tree at `root` with its list. At most `show` differences are kept, all are counted. `read` is told of bytes that
/// were read.
pub(crate) fn check(
    root: BorrowedFd<'_>,
    list: &mut dyn BufRead,
    show: usize,
    cancel: &Cancel,
    read: &dyn Fn(u64),
) -> Result<Checked> {
    let mut lines = Lines { list, buffer: Vec::new(), next: None };
    lines.header()?;
    lines.advance()?;
    let mut checker =
        Checker { lines, contents: Contents::default(), checked: Checked::default(), show, cancel, told: 0, read };
    walk(root, &mut checker)?;
    while let Some((path, _)) = checker.lines.next.take() {
        checker.note(&path, "it is missing".into());
        checker.lines.advance()?;
    }
    checker.checked.bytes = checker.contents.bytes;
    Ok(checker.checked)
}

/// The lines of a list, one ahead.
struct Lines<'a> {
    list: &'a mut dyn BufRead,
    buffer: Vec<u8>,
    next: Option<(Vec<u8>, String)>,
}

impl Lines<'_> {
    fn header(&mut self) -> Result<()> {
        self.line()?;
        if self.buffer == HEADER.trim_ascii_end() { Ok(()) } else { Err(broken()) }
    }

    fn line(&mut self) -> Result<bool> {
        self.buffer.clear();
        (&mut *self.list).take(line::LONGEST).read_until(b'\n', &mut self.buffer).map_err(failed)?;
        match self.buffer.pop() {
            None => Ok(false),
            Some(b'\n') => Ok(true),
            Some(_) => Err(broken()),
        }
    }

    fn advance(&mut self) -> Result<()> {
        self.next = if self.line()? {
            let (path, keywords) = line::parse(&self.buffer).ok_or_else(broken)?;
            Some((path, keywords.to_owned()))
        } else {
            None
        };
        Ok(())
    }
}

fn broken() -> Error {
    Error::Corrupt { subject: "the list of the tree".into(), reason: "it is not in the form of a list".into() }
}

struct Checker<'a> {
    lines: Lines<'a>,
    contents: Contents,
    checked: Checked,
    show: usize,
    cancel: &'a Cancel,
    told: u64,
    read: &'a dyn Fn(u64),
}

impl Checker<'_> {
    fn note(&mut self, path: &[u8], what: String) {
        self.checked.different += 1;
        if self.checked.differences.len() < self.show {
            let path = if path.is_empty() { "/".to_owned() } else { Escaped(path).to_string() };
            self.checked.differences.push(Difference { path, what });
        }
    }

    /// Compares an entry with what the list says of it.
    fn compare(&mut self, found: &Found<'_>, listed: &str) -> Result<()> {
        let form = Form::ALL.into_iter().find(|form| value(listed, form.keyword()).is_some());
        // What has another size need not be read, however large it is.
        let size = found.stat.st_size.to_string();
        if rustix::fs::FileType::from_raw_mode(found.stat.st_mode).is_file()
            && let Some(expected) = value(listed, "size").filter(|expected| *expected != size)
        {
            self.note(found.path, format!("size is {size}, not {expected}"));
            return Ok(());
        }
        let line = match line::describe(found, &mut self.contents, form, self.cancel) {
            Ok(line) => line,
            Err(error) if matches!(error.root(), Error::Interrupted | Error::Limit { .. }) => return Err(error),
            // A system that is short of something says nothing about the tree.
            Err(error) if is_passing(&error) => return Err(error),
            Err(error) => {
                self.note(found.path, format!("it cannot be read: {}", sentence(&error)));
                return Ok(());
            }
        };
        let actual = line.split_once(' ').map_or("", |(_, keywords)| keywords);
        if actual != listed {
            self.note(found.path, differing(actual, listed));
        }
        Ok(())
    }
}

impl Visitor for Checker<'_> {
    fn entry(&mut self, found: &Found<'_>) -> Result<()> {
        self.cancel.check()?;
        self.checked.entries += 1;
        loop {
            let order = self.lines.next.as_ref().map_or(Ordering::Greater, |(path, _)| order(path, found.path));
            match (order, self.lines.next.take()) {
                (Ordering::Less, Some((path, _))) => {
                    self.note(&path, "it is missing".into());
                    self.lines.advance()?;
                }
                (Ordering::Equal, Some((_, listed))) => {
                    self.lines.advance()?;
                    self.compare(found, &listed)?;
                    break;
                }
                (_, next) => {
                    self.lines.next = next;
                    self.note(found.path, "it is not in the layer".into());
                    break;
                }
            }
        }
        (self.read)(self.contents.bytes - self.told);
        self.told = self.contents.bytes;
        Ok(())
    }

    fn failed(&mut self, path: &[u8], error: Error) -> Result<()> {
        if matches!(error, Error::Busy { .. }) || is_passing(&error) {
            return Err(error);
        }
        self.note(path, format!("it cannot be read: {}", sentence(&error)));
        Ok(())
    }
}

/// Whether something failed for a reason that lies outside of the tree and may be gone the next time: anything but that an
/// entry is not there, or is another thing than it was.
fn is_passing(error: &Error) -> bool {
    let Error::Io { source, .. } = error.root() else { return false };
    !matches!(Errno::from_io_error(source), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

/// The order of a list: a directory before what is in it, names by their bytes.
fn order(a: &[u8], b: &[u8]) -> Ordering {
    // The root's path is empty, and comes before everything.
    match (a.is_empty(), b.is_empty()) {
        (false, false) => a.split(|&byte| byte == b'/').cmp(b.split(|&byte| byte == b'/')),
        (a, b) => b.cmp(&a),
    }
}

/// The value of a keyword.
fn value<'a>(keywords: &'a str, name: &str) -> Option<&'a str> {
    keywords.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

/// In which keywords two descriptions differ.
fn differing(actual: &str, listed: &str) -> String {
    let cut = |value: &str| if value.len() > 80 { format!("{}…", &value[..80]) } else { value.to_owned() };
    let mut parts = Vec::new();
    for word in listed.split(' ') {
        let Some((name, expected)) = word.split_once('=') else { continue };
        match value(actual, name) {
            Some(found) if found == expected => {}
            Some(found) => parts.push(format!("{name} is {}, not {}", cut(found), cut(expected))),
            None => parts.push(format!("{name} is gone, which was {}", cut(expected))),
        }
    }
    for word in actual.split(' ') {
        let Some((name, found)) = word.split_once('=') else { continue };
        if value(listed, name).is_none() {
            parts.push(format!("{name} is {}, where there was none", cut(found)));
        }
    }
    parts.join("; ")
}

fn sentence(error: &Error) -> String {
    let root = error.root();
    match std::error::Error::source(root) {
        Some(cause) => cause.to_string(),
        None => root.to_string(),
    }
}
