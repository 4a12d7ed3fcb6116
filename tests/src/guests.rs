//! Building components: cargo in a workspace of guests, with the linker that makes components of modules.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::paths;

/// What guests are compiled for.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// Where the workspace of the hostile guests lies.
pub fn hostile_workspace() -> PathBuf {
    paths::workspace().join("tests/hostile/guests")
}

/// `cargo` in a workspace of guests, with the linker on its path and the guests' target directory.
pub fn cargo(workspace: &Path, arguments: &[&str]) -> Result<Command> {
    let sysroot = rustc(workspace, &["--print", "sysroot"])?;
    let version = rustc(workspace, &["--version", "--verbose"])?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let tools = PathBuf::from(sysroot.trim()).join("lib/rustlib").join(host).join("bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(std::iter::once(tools).chain(env::split_paths(&path)))?;
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The guests have their own flags; those of the host's build must not reach them.
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTC_WRAPPER"] {
        command.env_remove(variable);
    }
    command.args(arguments).current_dir(workspace).env("PATH", path).env("CARGO_TARGET_DIR", target());
    Ok(command)
}

/// Where guests are built.
pub fn target() -> PathBuf {
    env::var_os("COFFERDAM_GUESTS_TARGET").map_or_else(paths::guests, PathBuf::from)
}

/// Builds the hostile guests, or finds that they are built, and gives the component of this name.
pub fn hostile(name: &str) -> Result<Vec<u8>> {
    let mut command = cargo(&hostile_workspace(), &["build", "--quiet", "--locked", "--release", "--target", TARGET])?;
    let output = command.stdin(Stdio::null()).output().context("cannot start cargo")?;
    ensure!(output.status.success(), "the hostile guests: {}", String::from_utf8_lossy(&output.stderr));
    let path = target().join(TARGET).join("release").join(format!("hostile_{name}.wasm"));
    std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn rustc(directory: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new("rustc").args(arguments).current_dir(directory).output().context("cannot start rustc")?;
    ensure!(output.status.success(), "rustc: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
