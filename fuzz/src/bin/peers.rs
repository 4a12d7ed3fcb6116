//! Archives of a corpus, as other programs see them: `peers list.py CORPUS`.
//!
//! Of the archives that our parser reads, Python's tarfile and libarchive must see the same or refuse. Where an archive holds
//! what one of them is known to read otherwise than the rules say, its disagreement is counted and not held against us.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs};

use cofferdam_fuzz::archive::{self, Oddities};
use cofferdam_fuzz::listing::{self, Kind, Seen};
use cofferdam_fuzz::{compare, ours};
// Built with coverage as all is, this wants the counters' callbacks.
use libfuzzer_sys as _;
use serde_json::Value;

/// Archives for one start of a peer.
const BATCH: usize = 400;

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let (Some(lister), Some(corpus)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: peers LIST.PY CORPUS");
        return ExitCode::from(2);
    };
    let mut files: Vec<_> = fs::read_dir(&corpus).expect("the corpus").flatten().map(|file| file.path()).collect();
    files.sort();
    let total = files.len();
    let read: Vec<_> = files
        .into_iter()
        .filter_map(|path| {
            let archive = fs::read(&path).ok()?;
            let seen = ours::read(&archive, usize::MAX).ok()?;
            Some((path, seen, archive::oddities(&archive)))
        })
        .collect();
    println!("{total} archives, {} of them read here", read.len());
    let mut disagreements = 0;
    for peer in ["tarfile", "libarchive"] {
        disagreements += ask(peer, &lister, &read);
    }
    if read.is_empty() || disagreements > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

type Ours = (PathBuf, Vec<Seen>, Oddities);

fn ask(peer: &str, lister: &Path, read: &[Ours]) -> usize {
    let (mut agreed, mut refused, mut disagreed) = (0, 0, 0);
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    for batch in read.chunks(BATCH) {
        let mut command = Command::new("python3");
        command.arg(lister).arg(peer).args(batch.iter().map(|(path, ..)| path));
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().expect("python3");
        let lines = String::from_utf8_lossy(&output.stdout);
        let mut lines = lines.lines();
        for (path, here, odd) in batch {
            let line = lines.next().expect("a line for each archive");
            let line: Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(line["file"], path.to_string_lossy().as_ref());
            let Some(entries) = line["entries"].as_array() else {
                refused += 1;
                continue;
            };
            let there: Vec<_> = entries.iter().filter_map(|entry| seen(entry).normal()).collect();
            match (compare::difference(here, &there), excuse(peer, *odd)) {
                (None, _) => agreed += 1,
                (Some(_), Some(why)) => *known.entry(why).or_default() += 1,
                (Some(difference), None) => {
                    disagreed += 1;
                    println!("{peer} sees another archive in {}: {difference}", path.display());
                }
            }
        }
    }
    println!("{peer}: {agreed} the same, {refused} refused there, {disagreed} different, known to differ: {known:?}");
    // A peer that agrees with nothing was not asked.
    disagreed + usize::from(agreed == 0)
}

/// Why a peer sees another archive than the rules say.
fn excuse(peer: &str, odd: Oddities) -> Option<&'static str> {
    let tarfile = peer == "tarfile";
    [
        (odd.global && tarfile, "global headers are applied (CONFORMANCE 11 ignores them)"),
        (odd.long_before_global, "`L` or `K` in front of `g` (CONFORMANCE 10 keeps it for the next member)"),
        (odd.prefix, "a prefix is read in other formats too (CONFORMANCE 8: with `ustar\\0` only)"),
        (
            odd.sparse_path && tarfile,
            "of `path` and `GNU.sparse.name` the last counts; GNU tar's `path` is a temporary name",
        ),
        (
            odd.untyped && tarfile,
            "a slash in the header's name makes a directory (CONFORMANCE 12: in the name that counts)",
        ),
        (
            odd.slash && !tarfile,
            "a file whose name ends in a slash is a directory (CONFORMANCE 12: if its type is NUL)",
        ),
        (odd.no_link && !tarfile, "`K` is lost if the header itself has no target (CONFORMANCE 10)"),
        (odd.void_size && !tarfile, "a size on a member without a body is one (CONFORMANCE 12: it means nothing)"),
        (odd.negative && !tarfile, "the fraction of a time before 1970 counts forward (CONFORMANCE 22)"),
        (odd.vendor && !tarfile, "records of star and Solaris count (CONFORMANCE 9 ignores unknown keys)"),
    ]
    .into_iter()
    .find_map(|(applies, why)| applies.then_some(why))
}

fn seen(entry: &Value) -> Seen {
    let bytes = |key: &str| unhex(entry[key].as_str().unwrap_or_default());
    let kind = match entry["kind"].as_str() {
        Some("file") => Kind::File,
        Some("directory") => Kind::Directory,
        Some("symlink") => Kind::Symlink,
        Some("hard link") => Kind::HardLink,
        Some("character") => Kind::Character,
        Some("block") => Kind::Block,
        Some("fifo") => Kind::Fifo,
        other => panic!("{other:?}"),
    };
    Seen {
        size: entry["size"].as_u64(),
        link: Some(bytes("link")),
        device: entry["device"][0].as_u64().zip(entry["device"][1].as_u64()),
        mode: entry["mode"].as_u64(),
        uid: entry["uid"].as_i64().map(i128::from),
        gid: entry["gid"].as_i64().map(i128::from),
        modified: entry["mtime"].as_i64(),
        content: entry["content"].as_str().map(|content| listing::hash(&unhex(content))),
        ..Seen::new(bytes("path"), kind)
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().as_chunks::<2>().0;
    digits.iter().filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
