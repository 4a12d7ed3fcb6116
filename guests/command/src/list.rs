//! `list`: one line for each entry, those of `cofferdam layer list`.

use std::fmt::Write as _;
use std::io::Write;

use cofferdam_layer::{Entry, Layer, Node};

use crate::blob::Blob;
use crate::limits::{Limits, Meter};
use crate::problem::Problem;

pub(crate) fn run(blob: &mut Blob, limits: &Limits, out: &mut impl Write) -> Result<(), Problem> {
    let mut layer = Layer::new(limits.entry.clone());
    let mut meter = Meter::default();
    while let Some(entry) = layer.next(blob)? {
        meter.admit(&entry, &blob.known(), limits)?;
        writeln!(out, "{}", line(&entry)).map_err(|error| Problem::io("write to standard output", error))?;
        layer.skip_content();
    }
    Ok(())
}

fn line(entry: &Entry<'_>) -> String {
    let (kind, size, target) = match entry.node {
        Node::Directory => ('d', "0".to_owned(), String::new()),
        Node::File { size } | Node::Sparse { size, .. } => ('-', size.to_string(), String::new()),
        Node::Symlink { target } => ('l', "0".into(), format!(" -> {}", shown(target))),
        Node::HardLink { target } => ('h', "0".into(), format!(" link to {}", shown(target))),
        Node::CharacterDevice(device) => ('c', format!("{},{}", device.major, device.minor), String::new()),
        Node::BlockDevice(device) => ('b', format!("{},{}", device.major, device.minor), String::new()),
        Node::Fifo => ('p', "0".into(), String::new()),
        Node::Whiteout => ('w', "0".into(), String::new()),
        Node::Opaque => ('o', "0".into(), String::new()),
    };
    let Entry { mode, uid, gid, modified, .. } = *entry;
    let seconds = modified.seconds;
    let path = if entry.path.is_empty() { "./".to_owned() } else { shown(entry.path) };
    format!("{kind}{} {:>11} {size:>10} {seconds:>10} {path}{target}", permissions(mode), format!("{uid}/{gid}"))
}

fn permissions(mode: u32) -> String {
    let special = [(0o4000, 's', 'S'), (0o2000, 's', 'S'), (0o1000, 't', 'T')];
    let mut text = String::with_capacity(9);
    for (class, (bit, with, without)) in (0_u32..).zip(special) {
        let bits = mode >> (6 - 3 * class);
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & bit != 0, bits & 1 != 0) {
            (true, true) => with,
            (true, false) => without,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Printable ASCII as it is, all else as `\xNN`, with a backslash twice.
fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    text
}
