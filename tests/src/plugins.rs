//! The example plugins, built and laid out as a person would: a directory each, with the component beside its manifest.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use crate::{guests, paths};

/// Where the workspace of the example plugins lies.
pub fn workspace() -> PathBuf {
    paths::workspace().join("guests/examples")
}

/// What a plugin is compiled for: nothing of WASI, unless it needs the network.
fn target(plugin: &str) -> &'static str {
    if plugin == "cosign" { "wasm32-wasip2" } else { guests::TARGET }
}

/// Builds an example plugin, or finds that it is built, and gives the directory to add.
pub fn example(name: &str) -> Result<PathBuf> {
    let target = target(name);
    let arguments = ["build", "--quiet", "--locked", "--release", "--target", target, "--package", name];
    let mut command = guests::cargo(&workspace(), &arguments)?;
    let output = command.stdin(Stdio::null()).output().context("cannot start cargo")?;
    ensure!(output.status.success(), "the plugin {name}: {}", String::from_utf8_lossy(&output.stderr));
    let file = format!("{}.wasm", name.replace('-', "_"));
    let built = guests::target().join(target).join("release").join(&file);
    let manifest = workspace().join(name).join("plugin.toml");
    let dir = paths::target().join("plugins").join(name);
    fs::create_dir_all(&dir)?;
    for (from, to) in [(built, file.as_str()), (manifest, "plugin.toml")] {
        // Under another name first: other tests may be reading.
        let staged = dir.join(format!("{to}.{}", std::process::id()));
        fs::copy(&from, &staged).with_context(|| format!("cannot copy {}", from.display()))?;
        fs::rename(&staged, dir.join(to))?;
    }
    Ok(dir)
}
