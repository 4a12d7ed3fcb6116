//! `cargo xtask test`: everything that must hold.

use std::env;
use std::fs;
use std::process::Command;

use anyhow::{Result, bail};
use cofferdam_tests::guests::{TARGET, hostile_workspace};
use cofferdam_tests::{paths, require};

use crate::setup;
use crate::steps::{Done, Steps};
use crate::{fuzz, guests, images, memory_disk, sh};

/// Test binaries that take long or need the images: left out by `--fast`.
const SLOW: &str = "not (binary(command) or binary(crash) or binary(crowd) or binary(faults) or binary(hostile) or binary(interop) \
     or binary(memory) or binary(plugin_denials) or binary(plugins) or binary(power))";

#[derive(Default)]
struct Options {
    fast: bool,
    require_all: bool,
    filter: Option<String>,
}

fn parse(words: &[&str]) -> Result<Options> {
    let ci = env::var("CI").is_ok_and(|value| value == "true" || value == "1");
    let mut options = Options { require_all: ci, ..Options::default() };
    for word in words {
        match *word {
            "--fast" => options.fast = true,
            "--require-all" => options.require_all = true,
            flag if flag.starts_with('-') => bail!("unknown option {flag}; see `cargo xtask help`"),
            filter if options.filter.is_none() => options.filter = Some(filter.to_owned()),
            extra => bail!("one filter at a time, not also {extra}"),
        }
    }
    Ok(options)
}

/// The verb.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let options = parse(words)?;
    let whole = options.filter.is_none();
    let mut steps = Steps::new(options.require_all);
    steps.step("rust targets", || setup::targets().map(|()| Done::Ok));
    if !options.fast {
        steps.step("tools", || {
            let missing = setup::tools(setup::FOR_TESTS)?;
            Ok(if missing.is_empty() { Done::Ok } else { Done::Skipped(format!("missing: {}", missing.join(", "))) })
        });
    }
    if !options.fast && (whole || options.require_all) {
        // Without a network there may be none: then the tests that want it are skipped.
        steps.step("wasmtime", || {
            Ok(setup::wasmtime().map_or_else(|error| Done::Skipped(format!("{error:#}")), |()| Done::Ok))
        });
    }
    if !options.fast && (whole || options.require_all) {
        steps.step("python", || {
            Ok(setup::python().map_or_else(|error| Done::Skipped(format!("{error:#}")), |()| Done::Ok))
        });
    }
    if whole {
        checks(&mut steps);
    }
    if !options.fast && whole {
        steps.step("images", || match images::obstacle() {
            Some(why) => Ok(Done::Skipped(why)),
            None => images::make(images::FOR_TESTS).map(|()| Done::Ok),
        });
    }
    tests(&mut steps, &options);
    if whole {
        steps.step("doc tests", || cargo("test --quiet --workspace --doc"));
        if !options.fast {
            steps.step("docs", || {
                sh::run(words_of("doc --quiet --workspace --no-deps").env("RUSTDOCFLAGS", "-D warnings"))?;
                Ok(Done::Ok)
            });
            steps.step("fuzz: fmt", || sh::run(&mut fuzz::cargo("fmt --check")).map(|()| Done::Ok));
            steps.step("fuzz: clippy", || {
                sh::run(&mut fuzz::cargo("clippy --quiet --locked --workspace --bins -- -D warnings"))
                    .map(|()| Done::Ok)
            });
            steps.step("fuzz (short)", fuzz::short);
        }
    }
    steps.finish()
}

/// Form and lints, of both workspaces, and the guests' own tests.
fn checks(steps: &mut Steps) {
    steps.step("fmt", || cargo("fmt --all --check"));
    steps.step("clippy", || cargo("clippy --quiet --workspace --all-targets -- -D warnings"));
    if guests::exist() {
        steps.step("guests: fmt", || guest_cargo(["fmt", "--all", "--check"]));
        steps.step("guests: clippy", || {
            guest_cargo(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])
        });
        steps.step("guests: clippy for WASI", || {
            let target = cofferdam_tests::wasi::TARGET;
            guest_cargo(["clippy", "--quiet", "-p", "cofferdam-command", "--target", target, "--", "-D", "warnings"])
        });
        steps.step("guests: tests", || guest_cargo(["test", "--quiet", "--workspace"]));
        steps.step("example plugins: fmt", || example_cargo(&["fmt", "--all", "--check"]));
        steps.step("example plugins: clippy", || {
            example_cargo(&["clippy", "--quiet", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"])
        });
        steps.step("example plugins: tests", || example_cargo(&["test", "--quiet", "--locked", "--workspace"]));
        steps.step("hostile guests: fmt", || hostile_cargo(&["fmt", "--all", "--check"]));
        // For their own target: natively, what `export!` makes has no one to call it.
        let clippy = ["clippy", "--quiet", "--workspace", "--target", TARGET, "--", "-D", "warnings"];
        steps.step("hostile guests: clippy", || hostile_cargo(&clippy));
    } else {
        steps.step("guests", || Ok(Done::Skipped("there is no guests/Cargo.toml".into())));
    }
}

fn tests(steps: &mut Steps, options: &Options) {
    // With the features that the tests are built with, so that the library is compiled once.
    if !steps.step("build", || cargo("build --quiet --workspace --bins")) {
        return;
    }
    let skips = paths::target().join("tmp/skipped.txt");
    let _ = fs::create_dir_all(paths::target().join("tmp"));
    let _ = fs::remove_file(&skips);
    steps.step("tests", || {
        let mut command = test_command(options);
        command.env("COFFERDAM_BIN", paths::target().join("debug/cofferdam"));
        command.env("COFFERDAM_IMAGES", paths::images()).env("COFFERDAM_SKIPS", &skips);
        if options.require_all {
            command.env("COFFERDAM_REQUIRE_ALL", "1");
        }
        sh::run(&mut if options.fast { command } else { memory_disk::wrap(command) })?;
        Ok(Done::Ok)
    });
    if let Ok(skipped) = fs::read_to_string(&skips) {
        let (count, list) = (skipped.lines().count(), skipped.trim_end().replace('\n', "; "));
        steps.step("tests that were skipped", || Ok(Done::Skipped(format!("{count}: {list}"))));
    }
}

/// `cargo nextest`, or `cargo test` where that is not installed.
fn test_command(options: &Options) -> Command {
    let filter = options.filter.as_deref();
    if require::find("cargo-nextest").is_some() {
        let mut command = words_of("nextest run --workspace");
        if options.require_all {
            command.args(["--profile", "ci"]);
        }
        if options.fast && filter.is_none() {
            command.args(["-E", SLOW]);
        }
        command.args(filter);
        return command;
    }
    eprintln!("cargo-nextest is not installed: `cargo test` runs the tests");
    let mut command = words_of("test --workspace --lib --bins");
    if options.fast && filter.is_none() {
        command.args(["--test", "cli", "--test", "guests", "--test", "fixture"]);
    } else {
        command.args(["--tests", "--examples", "--no-fail-fast"]);
    }
    command.args(filter);
    command
}

fn words_of(arguments: &str) -> Command {
    sh::cargo(arguments.split(' '))
}

fn cargo(arguments: &str) -> Result<Done> {
    sh::run(&mut words_of(arguments))?;
    Ok(Done::Ok)
}

fn guest_cargo<const N: usize>(arguments: [&str; N]) -> Result<Done> {
    sh::run(&mut guests::cargo(arguments)?)?;
    Ok(Done::Ok)
}

fn example_cargo(arguments: &[&str]) -> Result<Done> {
    sh::run(&mut cofferdam_tests::guests::cargo(&cofferdam_tests::plugins::workspace(), arguments)?)?;
    Ok(Done::Ok)
}

fn hostile_cargo(arguments: &[&str]) -> Result<Done> {
    sh::run(&mut cofferdam_tests::guests::cargo(&hostile_workspace(), arguments)?)?;
    Ok(Done::Ok)
}
