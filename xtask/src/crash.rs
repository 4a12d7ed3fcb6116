//! `cargo xtask crash`: kills each command at its system calls, and shows the table of kill points.

use std::fs;

use anyhow::{Context as _, Result, bail};
use cofferdam_tests::{paths, require};

use crate::{setup, sh};

/// The verb.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let (mut all, mut filter) = (false, "");
    for word in words {
        match *word {
            "--all" => all = true,
            flag if flag.starts_with('-') => bail!("unknown option {flag}; see `cargo xtask help`"),
            text => filter = text,
        }
    }
    if !require::is_root() {
        bail!("owners and devices need root");
    }
    let missing = setup::tools(setup::FOR_TESTS)?;
    if !missing.is_empty() {
        bail!("missing: {}", missing.join(", "));
    }
    sh::run(&mut sh::cargo(["build", "--quiet", "--workspace", "--bins"]))?;
    // Only what was measured now is in the table.
    let _ = fs::remove_dir_all(paths::target().join("crash-points"));
    let tests = format!("binary(crash) & test(/^operations::.*{filter}/)");
    let mut command = sh::cargo(["nextest", "run", "--workspace", "--profile", "crash", "-E", &tests]);
    command.env("COFFERDAM_BIN", paths::target().join("debug/cofferdam"));
    command.env("COFFERDAM_REQUIRE_ALL", "1").env("COFFERDAM_CRASH_ALL", if all { "1" } else { "0" });
    let outcome = sh::run(&mut command);
    let table = paths::target().join("crash-points.md");
    println!("{}", fs::read_to_string(&table).with_context(|| format!("cannot read {}", table.display()))?);
    println!("written: {}", table.display());
    outcome
}
