//! `plugin new`: what it writes builds as it is, anywhere, and is a plugin.

use std::process::Stdio;

use anyhow::{Result, ensure};
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::{guests, paths};

use crate::bench::Bench;

#[test]
fn a_new_plugin_builds_and_runs() -> Result<()> {
    let bench = Bench::new()?;
    for world in ["inspector", "decoder", "extractor", "verifier"] {
        let dir = bench.scratch.join(format!("my-{world}"));
        let path = dir.display().to_string();
        bench.cofferdam.ok(["plugin", "new", "--world", world, &path])?;
        // Of a directory that holds something nothing is touched.
        bench.cofferdam.fails(exit::USAGE, ["plugin", "new", "--world", world, &path])?;
        let mut build = guests::cargo(&dir, &["build", "--quiet", "--release", "--target", guests::TARGET])?;
        // One target directory for all of them; not that of the guests, whose lock file is another.
        let target = paths::target().join("plugins/scaffold");
        let output = build.env("CARGO_TARGET_DIR", &target).stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "{world}: {}", String::from_utf8_lossy(&output.stderr));
        let built = target.join(guests::TARGET).join("release/plugin.wasm");
        std::fs::copy(built, dir.join("plugin.wasm"))?;
        bench.cofferdam.ok(["plugin", "add", &path, "--all-asked"])?;
    }
    let tested = bench.cofferdam.ok(["plugin", "test", "my-inspector", "--json"])?.json()?;
    ensure!(tested["accepted"] == true && tested["entries"] == 11, "{tested}");
    ensure!(tested["peak_memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{tested}");
    ensure!(tested["denied"].as_array().is_some_and(Vec::is_empty), "{tested}");
    Ok(())
}
