//! The command guest, `cofferdam-layer`, under the real `wasmtime` command: no host of ours at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{Run, Scratch, guests, paths, require, usage};

/// What the command guest is compiled for.
pub const TARGET: &str = "wasm32-wasip2";

/// The version of `wasmtime` that is wanted, and that `cargo xtask test` builds from `tests/wasmtime`.
pub const VERSION: &str = "48.0.8";

/// The command guest, and who runs it.
#[derive(Debug)]
pub struct Wasi {
    wasmtime: PathBuf,
    component: PathBuf,
    output: Scratch,
}

/// Finds the wanted version where `cargo xtask test` builds it, else one of its major version on the path.
pub fn wasmtime() -> Option<PathBuf> {
    let built = Some(paths::target().join("debug/wasmtime")).filter(|built| has_version(built, VERSION));
    let major = VERSION.split('.').next().unwrap_or_default();
    built.or_else(|| require::find("wasmtime").filter(|found| has_version(found, &format!("{major}."))))
}

/// Whether a program says `wasmtime` and this version; there may be a commit behind it.
fn has_version(program: &Path, version: &str) -> bool {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    output.is_ok_and(|output| {
        let said = String::from_utf8_lossy(&output.stdout).replace('\n', " ");
        said.starts_with(&format!("wasmtime {version}"))
    })
}

impl Wasi {
    /// Finds `wasmtime` and builds the guest; else the test is skipped.
    pub fn new() -> Result<Option<Self>> {
        static READY: OnceLock<Result<Option<[PathBuf; 2]>, String>> = OnceLock::new();
        let prepare = || -> Result<_> {
            let Some(wasmtime) = wasmtime() else { return Ok(None) };
            Ok(Some([compiled(&wasmtime)?, wasmtime]))
        };
        let ready = READY.get_or_init(|| prepare().map_err(|error| format!("{error:#}")));
        let Some([component, wasmtime]) = ready.as_ref().map_err(anyhow::Error::msg)?.clone() else {
            require::skip("there is no wasmtime 48: `cargo xtask test` builds one");
            return Ok(None);
        };
        Ok(Some(Self { wasmtime, component, output: Scratch::new()? }))
    }

    /// Runs it with these directories, each under a name of its own, and these words.
    pub fn run(&self, grants: &[(&Path, &str)], words: &[&str]) -> Result<Run> {
        self.run_on(Stdio::null(), grants, words)
    }

    /// The same, with this for its standard input.
    pub fn run_on(&self, input: Stdio, grants: &[(&Path, &str)], words: &[&str]) -> Result<Run> {
        let dir = tempfile::tempdir_in(self.output.path())?.keep();
        let (stdout, stderr) = (dir.join("stdout"), dir.join("stderr"));
        // A umask that would show everywhere, as other ways of extracting have it.
        let mut command = Command::new("sh");
        command.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg(&self.wasmtime).arg("run");
        if self.component.extension().is_some_and(|extension| extension == "cwasm") {
            command.arg("--allow-precompiled");
        }
        for (directory, name) in grants {
            let mut grant = OsString::from(directory);
            grant.push(format!("::{name}"));
            command.arg("--dir").arg(grant);
        }
        command.arg(&self.component).args(words);
        command.stdin(input).stdout(File::create(&stdout)?).stderr(File::create(&stderr)?);
        let line = format!("{command:?}");
        let child = command.spawn().with_context(|| format!("cannot start {line}"))?;
        let usage = usage::wait(child, Instant::now())?;
        Ok(Run { line, usage, stdout: fs::read(&stdout)?, stderr: fs::read(&stderr)? })
    }
}

/// The component, built now if it is not.
pub fn component() -> Result<PathBuf> {
    let workspace = paths::workspace().join("guests");
    let words = ["build", "--quiet", "--locked", "--release", "--package", "cofferdam-command", "--target", TARGET];
    let output = guests::cargo(&workspace, &words)?.stdin(Stdio::null()).output().context("cannot start cargo")?;
    ensure!(output.status.success(), "the command guest: {}", String::from_utf8_lossy(&output.stderr));
    let path = guests::target().join(TARGET).join("release/cofferdam-layer.wasm");
    if path.is_file() { Ok(path) } else { bail!("there is no {}", path.display()) }
}

/// The component in the form that starts at once, where this `wasmtime` can make it: the tests start it a thousand times.
fn compiled(wasmtime: &Path) -> Result<PathBuf> {
    let component = component()?;
    let made = |path: &Path| fs::metadata(path).and_then(|found| found.modified());
    let newest = made(&component)?.max(made(wasmtime)?);
    let compiled = component.with_extension("cwasm");
    if made(&compiled).is_ok_and(|made| made > newest) {
        return Ok(compiled);
    }
    // Tests are processes: each makes its own, and the last one stays.
    let new = compiled.with_extension(format!("{}.cwasm", std::process::id()));
    let output = Command::new(wasmtime).arg("compile").arg(&component).arg("-o").arg(&new).output()?;
    if !output.status.success() {
        return Ok(component);
    }
    fs::rename(&new, &compiled)?;
    Ok(compiled)
}
