//! `layer list`: what a layer holds, in its own order and without unpacking it. Nothing is resolved or merged: a path that
//! a layer names twice is listed twice, and whiteouts are listed as what they are.

use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cofferdam::Error;
use cofferdam::error::Escaped;
use cofferdam::tree::entry::{Entry, Node};
use cofferdam::unpack::Listing;
use serde_json::{Value, json};

use crate::args::LayerArgs;
use crate::failure::Failure;
use crate::output::compact;
use crate::session::Session;

pub(crate) fn run(session: &Session, args: &LayerArgs) -> Result<(), Failure> {
    let layer = crate::layer_extract::open(args)?;
    session.wall_of_layers()?.enforce()?;
    let unpacker = session.unpacker_of_layers()?;
    let json = session.json();
    let mut first = true;
    // Written as they come: a layer may have millions of them.
    let stdout = Arc::new(Mutex::new(io::BufWriter::new(io::stdout())));
    if json {
        write!(locked(&stdout), "{{\"schema\":\"cofferdam/layer-list/v1\",\"entries\":[")?;
    }
    let listed = Arc::clone(&stdout);
    let lister = Listing::new(move |entry: Entry| {
        let mut stdout = locked(&listed);
        let separator = if json && !std::mem::take(&mut first) { ",\n" } else { "" };
        let written = if json {
            write!(stdout, "{separator}{}", compact(&described(&entry)))
        } else {
            writeln!(stdout, "{}", line(&entry))
        };
        written.map_err(|source| Error::Io { action: "write to standard output".into(), source })
    });
    let (outcome, _) = unpacker.extract(layer, lister);
    let mut stdout = locked(&stdout);
    let report = match outcome {
        Ok(report) => report,
        Err(error) => {
            // What was listed before the error is shown; the error counts, whatever becomes of that.
            let _ = stdout.flush();
            let broken_pipe =
                matches!(error.root(), Error::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe);
            return Err(if broken_pipe { Failure::BrokenPipe } else { error.into() });
        }
    };
    if json {
        writeln!(stdout, "],\"diff_id\":\"{}\",\"decoded_bytes\":{}}}", report.diff_id, report.decoded_bytes)?;
    }
    Ok(stdout.flush()?)
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kind(node: &Node) -> (&'static str, char) {
    match node {
        Node::Directory => ("directory", 'd'),
        Node::File { .. } => ("file", '-'),
        Node::Sparse { .. } => ("sparse-file", '-'),
        Node::Symlink { .. } => ("symlink", 'l'),
        Node::HardLink { .. } => ("hard-link", 'h'),
        Node::CharDevice(_) => ("character-device", 'c'),
        Node::BlockDevice(_) => ("block-device", 'b'),
        Node::Fifo => ("fifo", 'p'),
        Node::Whiteout => ("whiteout", 'w'),
        Node::Opaque => ("opaque", 'o'),
    }
}

/// One line in the manner of `tar -tv`: type and mode, owner, size or device, time in seconds, path, target.
fn line(entry: &Entry) -> String {
    let Entry { path, node, metadata } = entry;
    let size = match node {
        Node::File { size } | Node::Sparse { size, .. } => size.to_string(),
        Node::CharDevice(device) | Node::BlockDevice(device) => format!("{},{}", device.major, device.minor),
        _ => "0".into(),
    };
    let target = match node {
        Node::Symlink { target } => format!(" -> {}", Escaped(target).uncut()),
        Node::HardLink { target } => format!(" link to {}", Escaped(target.as_bytes()).uncut()),
        _ => String::new(),
    };
    let shown = if path.is_root() { "./".to_owned() } else { Escaped(path.as_bytes()).uncut() };
    format!(
        "{}{} {:>11} {size:>10} {:>10} {shown}{target}",
        kind(node).1,
        permissions(metadata.mode),
        format!("{}/{}", metadata.uid, metadata.gid),
        metadata.mtime.seconds,
    )
}

fn permissions(mode: u16) -> String {
    let special = [(0o4000, 's', 'S'), (0o2000, 's', 'S'), (0o1000, 't', 'T')];
    let mut text = String::with_capacity(9);
    for (class, (bit, with, without)) in special.into_iter().enumerate() {
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

fn described(entry: &Entry) -> Value {
    let Entry { path, node, metadata } = entry;
    let mut object = json!({
        "path": Escaped(path.as_bytes()).uncut(),
        "type": kind(node).0,
    });
    if !matches!(node, Node::Whiteout | Node::Opaque | Node::HardLink { .. }) {
        object["mode"] = format!("{:04o}", metadata.mode).into();
        object["uid"] = metadata.uid.into();
        object["gid"] = metadata.gid.into();
        object["mtime"] = json!({ "seconds": metadata.mtime.seconds, "nanoseconds": metadata.mtime.nanoseconds });
    }
    match node {
        Node::File { size } | Node::Sparse { size, .. } => object["size"] = (*size).into(),
        Node::Symlink { target } => object["target"] = Escaped(target).uncut().into(),
        Node::HardLink { target } => object["target"] = Escaped(target.as_bytes()).uncut().into(),
        Node::CharDevice(device) | Node::BlockDevice(device) => {
            object["device"] = json!({ "major": device.major, "minor": device.minor });
        }
        _ => {}
    }
    if !metadata.xattrs.is_empty() {
        let names =
            metadata.xattrs.iter().map(|xattr| (Escaped(&xattr.name).uncut(), Escaped(&xattr.value).uncut().into()));
        object["xattrs"] = Value::Object(names.collect());
    }
    object
}
