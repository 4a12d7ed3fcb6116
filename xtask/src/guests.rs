//! `cargo xtask guests`: the sandboxed components.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::paths;

use crate::{setup, sh, table};

/// The package of the command guest.
const COMMAND: &str = "cofferdam-command";

/// The verb.
pub(crate) fn run() -> Result<()> {
    setup::targets()?;
    let [ours, wasi] = setup::TARGETS;
    // The command is the one guest that is made for WASI, and for nothing else.
    sh::run(&mut cargo(["build", "--release", "--workspace", "--exclude", COMMAND, "--target", ours])?)?;
    sh::run(&mut cargo(["build", "--release", "--package", COMMAND, "--target", wasi])?)?;
    let mut rows = Vec::new();
    for target in setup::TARGETS {
        let dir = paths::guests().join(target).join("release");
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "wasm") {
                rows.push(vec![path.display().to_string(), fs::metadata(&path)?.len().to_string()]);
            }
        }
    }
    rows.sort();
    ensure!(!rows.is_empty(), "no component came out, in {}", paths::guests().display());
    println!("{}", table::render(&["guest", "bytes"], &rows));
    Ok(())
}

/// Whether the guests' workspace is there.
pub(crate) fn exist() -> bool {
    paths::workspace().join("guests/Cargo.toml").is_file()
}

/// `cargo` in the guests' workspace, with the linker on its path that makes components of modules.
pub(crate) fn cargo<const N: usize>(arguments: [&str; N]) -> Result<Command> {
    cofferdam_tests::guests::cargo(&paths::workspace().join("guests"), &arguments)
}
