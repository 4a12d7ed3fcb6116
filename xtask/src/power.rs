//! `cargo xtask power`: the whole form of the tests that cut the power. `cargo xtask test` has the short one.

use anyhow::{Result, bail};
use cofferdam_tests::require;

use crate::{setup, sh};

/// The verb.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let cuts = match words {
        [] => "all",
        [count] if count.parse::<usize>().is_ok() => count,
        _ => bail!("a number of cuts, or nothing for all; see `cargo xtask help`"),
    };
    if !require::is_root() {
        bail!("disks and mounts need root");
    }
    setup::targets()?;
    let missing = setup::tools(setup::FOR_TESTS)?;
    if !missing.is_empty() {
        bail!("missing: {}", missing.join(", "));
    }
    sh::run(&mut sh::cargo("build --quiet --workspace --bins".split(' ')))?;
    // Not by nextest: this takes as long as it takes, and its tables are to be seen.
    let arguments = "test --quiet --workspace --test power -- --nocapture power_cuts synced";
    let mut command = sh::cargo(arguments.split(' '));
    command.env("COFFERDAM_BIN", cofferdam_tests::paths::target().join("debug/cofferdam"));
    sh::run(command.env("COFFERDAM_POWER", cuts).env("COFFERDAM_REQUIRE_ALL", "1"))
}
