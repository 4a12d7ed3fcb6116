//! The example plugins, built and laid out as a person would: a directory each, with the component beside its manifest.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};

use crate::{guests, paths, require};

/// Where the workspace of the example plugins lies.
pub fn workspace() -> PathBuf {
    paths::workspace().join("guests/examples")
}

/// The Python that `cargo xtask test` equips with what the plugin in Python and the check of bills of materials need; else
/// the test is skipped.
pub fn python() -> Option<PathBuf> {
    let python = venv().join("bin/python3");
    if venv().join("complete").is_file() {
        return Some(python);
    }
    require::skip(&format!("{} is not there; `cargo xtask test` makes it", venv().display()));
    None
}

/// Where that Python lies.
pub fn venv() -> PathBuf {
    paths::target().join("tools/python")
}

/// Builds the plugin in Python, or finds that it is built, and gives the directory to add.
pub fn in_python() -> Result<Option<PathBuf>> {
    if python().is_none() {
        return Ok(None);
    }
    let source = workspace().join("python");
    let dir = paths::target().join("plugins/python");
    fs::create_dir_all(&dir)?;
    let component = dir.join("debian_licenses.wasm");
    let newest = |path: PathBuf| -> Result<SystemTime> { Ok(fs::metadata(path)?.modified()?) };
    let is_new = |path: &PathBuf| -> Result<bool> {
        let built = newest(path.clone())?;
        for file in ["plugin.py", "licenses.py", "build.sh"] {
            if newest(source.join(file))? > built {
                return Ok(false);
            }
        }
        Ok(true)
    };
    if !is_new(&component).unwrap_or(false) {
        let staged = dir.join(format!("{}.wasm", std::process::id()));
        let mut build = Command::new("sh");
        let output = build.arg(source.join("build.sh")).arg(&staged).arg(venv()).stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "the plugin in Python: {}", String::from_utf8_lossy(&output.stderr));
        fs::rename(&staged, &component)?;
    }
    fs::copy(source.join("plugin.toml"), dir.join("plugin.toml"))?;
    Ok(Some(dir))
}

/// Builds an example plugin, or finds that it is built, and gives the directory to add.
pub fn example(name: &str) -> Result<PathBuf> {
    // One at a time: what the SDK has for other worlds must not be in it.
    let arguments = ["build", "--quiet", "--locked", "--release", "--target", guests::TARGET, "--package", name];
    let mut command = guests::cargo(&workspace(), &arguments)?;
    let output = command.stdin(Stdio::null()).output().context("cannot start cargo")?;
    ensure!(output.status.success(), "the plugin {name}: {}", String::from_utf8_lossy(&output.stderr));
    let file = format!("{}.wasm", name.replace('-', "_"));
    let built = guests::target().join(guests::TARGET).join("release").join(&file);
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
