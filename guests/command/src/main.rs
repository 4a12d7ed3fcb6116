//! `cofferdam-layer`: lists, extracts or verifies a layer under any WASI host, with no host of ours at all.
//!
//! ```text
//! wasmtime run --dir IN::/in --dir OUT::/out cofferdam-layer.wasm list /in/layer.tar.gz
//! wasmtime run --dir IN::/in --dir OUT::/out cofferdam-layer.wasm extract /in/layer.tar.gz /out
//! wasmtime run --dir IN::/in                 cofferdam-layer.wasm verify /in/layer.tar.gz sha256:…
//! ```
//!
//! It reads a layer with the code of the guests `gunzip`, `unzstd` and `untar`, to the same rules. What WASI has no words for is
//! not made and counted in a message: owners, modes, attributes, devices, pipes, names that are not UTF-8.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to people")]

mod blob;
mod extract;
mod list;
mod place;
mod problem;
mod stream;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use blob::Blob;
use problem::Problem;

const USAGE: &str = "usage: cofferdam-layer list LAYER
       cofferdam-layer extract LAYER DEST [DIFF-ID]
       cofferdam-layer verify LAYER [DIFF-ID]";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["list", layer] => list(layer),
        ["extract", layer, dest] => extract(layer, dest, None),
        ["extract", layer, dest, diff_id] => extract(layer, dest, Some(diff_id)),
        ["verify", layer] => verify(layer, None),
        ["verify", layer, diff_id] => verify(layer, Some(diff_id)),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Err(Problem::Usage(USAGE.into())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::from(problem.code())
        }
    }
}

fn list(layer: &str) -> Result<(), Problem> {
    let mut blob = Blob::open(Path::new(layer))?;
    let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
    list::run(&mut blob, &mut stdout)?;
    blob.finish()?;
    stdout.flush().map_err(|error| Problem::io("write to standard output", error))
}

fn extract(layer: &str, dest: &str, diff_id: Option<&str>) -> Result<(), Problem> {
    let mut blob = Blob::open(Path::new(layer))?;
    let made = extract::run(&mut blob, Path::new(dest))?;
    let (decoded, bytes) = blob.finish()?;
    check(diff_id, &decoded)?;
    println!("{dest}: {} entries, {bytes} bytes decoded, {decoded}", made.entries);
    for line in made.not_made() {
        eprintln!("{line}");
    }
    Ok(())
}

fn verify(layer: &str, diff_id: Option<&str>) -> Result<(), Problem> {
    let mut blob = Blob::open(Path::new(layer))?;
    let (decoded, bytes) = blob.finish()?;
    check(diff_id, &decoded)?;
    println!("{decoded} ({bytes} bytes decoded)");
    Ok(())
}

fn check(diff_id: Option<&str>, decoded: &str) -> Result<(), Problem> {
    match diff_id {
        Some(expected) if expected != decoded => {
            Err(Problem::Corrupt(format!("the decoded layer hashes to {decoded}, not to {expected}")))
        }
        _ => Ok(()),
    }
}
