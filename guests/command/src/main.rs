//! `cofferdam-layer`: lists, extracts or verifies a layer under any WASI host, with no host of ours at all.
//!
//! ```text
//! wasmtime run --dir IN::/in                 cofferdam-layer.wasm list /in/layer.tar.gz
//! wasmtime run --dir IN::/in --dir OUT::/out cofferdam-layer.wasm extract /in/layer.tar.gz /out
//! wasmtime run --dir IN::/in                 cofferdam-layer.wasm verify --diff-id sha256:… /in/layer.tar.gz
//! ```
//!
//! It reads a layer with the code of the guests `gunzip`, `unzstd` and `untar`, and makes what `cofferdam layer extract` makes,
//! to the same rules and limits and with the same exit codes. What WASI has no words for is left out and counted in a
//! message: owners, modes, attributes, devices, pipes, names that are not UTF-8, times before 1970. It trusts nothing of
//! the layer, and needs nothing but the directories that it is given; no link of a layer leads out of DEST, also before the
//! WASI host has a say.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to people")]
#![expect(clippy::disallowed_methods, reason = "WASI is the only authority here, and paths its only form")]

mod args;
mod blob;
mod digest;
mod exit;
mod limits;
mod list;
mod problem;
mod stream;
mod tree;

use std::io::{self, BufWriter, Write as _};
use std::process::ExitCode;

use args::{Args, Verb};
use blob::Blob;
use digest::{Digest, Hasher};
use problem::Problem;

fn main() -> ExitCode {
    let done = Args::parse(std::env::args().skip(1)).and_then(run);
    let done = done.and_then(|()| io::stdout().flush().map_err(written));
    exit::with(match done {
        Ok(()) => 0,
        Err(problem) => {
            if !matches!(problem, Problem::BrokenPipe) {
                let hint = problem.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
                eprintln!("error: {problem}{hint}");
            }
            problem.code()
        }
    })
}

fn run(args: Args) -> Result<(), Problem> {
    let Args { verb, layer, diff_id, limits } = args;
    let expected = diff_id.as_ref();
    let open = |hasher| Blob::open(&layer, hasher, &limits);
    let hasher = || Some(Hasher::of(expected));
    match verb {
        Verb::Help => {
            println!("{}", args::USAGE);
            Ok(())
        }
        Verb::List => {
            let mut blob = open(expected.and_then(|_| hasher()))?;
            let mut stdout = BufWriter::with_capacity(64 << 10, io::stdout().lock());
            // What was listed before a failure is shown.
            let listed = list::run(&mut blob, &limits, &mut stdout);
            let shown = stdout.flush().map_err(written);
            listed.and(shown)?;
            blob.finish(expected).map(drop)
        }
        Verb::Extract { dest, mode } => {
            let mut blob = open(hasher())?;
            let made = tree::extract(&mut blob, &dest, mode, &limits)?;
            let (decoded, found) = blob.finish(expected)?;
            for line in made.left_out() {
                eprintln!("{line}");
            }
            let found = found.as_ref().map_or("", Digest::as_str);
            println!("{}: {} entries, {decoded} bytes decoded, {found}", dest.display(), made.entries);
            Ok(())
        }
        Verb::Verify => {
            let (decoded, found) = open(hasher())?.finish(expected)?;
            println!("{} ({decoded} bytes decoded)", found.as_ref().map_or("", Digest::as_str));
            Ok(())
        }
    }
}

fn written(error: io::Error) -> Problem {
    Problem::io("write to standard output", error)
}
