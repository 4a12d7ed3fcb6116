//! The project's chores. `cargo xtask` without a verb lists them.

mod bench;
mod conformance;
mod crash;
mod demo;
mod fuzz;
mod guests;
mod images;
mod memory_disk;
mod power;
mod setup;
mod sh;
mod steps;
mod table;
mod test;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask VERB

  demo                    a real image, pulled, verified and unpacked; shows what was checked
  test [--fast] [--require-all] [FILTER]
                          everything that must hold; with FILTER only the tests whose names contain it
  bench [--rounds N] [--layers A,B] [--bin PATH] [--write]
                          our extraction beside that of other tools; --write puts it into BENCHMARKS.md
  conformance [--alone] [--write] [FILTER]
                          the scenarios of tests/conformance by us and by other tools, as a table; --write makes
                          CONFORMANCE.md of it, --alone leaves the others out
  crash [--all] [FILTER]  kills each command at a sample of its system calls, or at all of them, and shows the table
  fuzz [TARGET …] [--seconds N]
                          fuzzes the parsers beside other implementations, each target for N seconds (60)
  power [CUTS]            cuts the power below a store, on ext4 and on xfs, at each flush and between, and prints what
                          was seen; with a number at so many points only (as root, on Linux with FUSE and loop devices)
  images [SET | STAGE …]  the images that tests and benchmarks use, into target/images (as root, on Debian)
  guests                  the sandboxed components, into target/guests

CI=true implies --require-all: nothing may be skipped.";

fn main() -> ExitCode {
    // Tests run as other users too, who must be able to read what is made here.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.split_first() {
        Some((&"test", rest)) => test::run(rest),
        Some((&"demo", [])) => demo::run(),
        Some((&"bench", rest)) => bench::run(rest),
        Some((&"conformance", rest)) => conformance::run(rest),
        Some((&"crash", rest)) => crash::run(rest),
        Some((&"fuzz", rest)) => fuzz::run(rest),
        Some((&"power", rest)) => power::run(rest),
        Some((&"images", rest)) => images::run(rest),
        Some((&"guests", [])) => guests::run(),
        Some((&("help" | "--help" | "-h"), _)) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
