//! What has to be on the machine: Rust targets, on Debian as root the tools from packages, and the `wasmtime` command.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use cofferdam_tests::require::{find, is_root};
use cofferdam_tests::{paths, plugins, wasi};

use crate::sh;

/// What the guests are compiled for.
pub(crate) const TARGETS: [&str; 2] = ["wasm32-unknown-unknown", "wasm32-wasip2"];

/// A tool, and the Debian package that it comes in.
pub(crate) type Tool = (&'static str, &'static str);

/// What the tests call.
pub(crate) const FOR_TESTS: &[Tool] = &[
    ("bsdtar", "libarchive-tools"),
    ("curl", "curl"),
    ("docker-registry", "docker-registry"),
    ("gzip", "gzip"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("openssl", "openssl"),
    ("skopeo", "skopeo"),
    ("python3", "python3-venv"),
    ("strace", "strace"),
    ("tar", "tar"),
    ("umoci", "umoci"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
];

/// What the demo calls.
pub(crate) const FOR_DEMO: &[Tool] =
    &[("docker-registry", "docker-registry"), ("skopeo", "skopeo"), ("umoci", "umoci")];

/// What the table of conformance compares with.
pub(crate) const FOR_CONFORMANCE: &[Tool] = &[
    ("bsdtar", "libarchive-tools"),
    ("containerd", "containerd"),
    ("tar", "tar"),
    ("umoci", "umoci"),
    ("zstd", "zstd"),
];

/// What the benchmark compares with.
pub(crate) const FOR_BENCH: &[Tool] = &[
    ("bsdtar", "libarchive-tools"),
    ("igzip", "isal"),
    ("pigz", "pigz"),
    ("tar", "tar"),
    ("umoci", "umoci"),
    ("zstd", "zstd"),
];

/// Adds the Rust targets that are missing.
pub(crate) fn targets() -> Result<()> {
    let missing: Vec<_> = TARGETS.into_iter().filter(|target| !has_target(target)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if find("rustup").is_none() {
        bail!("this Rust lacks the targets {}: install them (with rustup: rustup target add …)", missing.join(", "));
    }
    sh::run(sh::words("rustup target add").args(&missing))
}

/// Whether the standard library is there for a target, with or without rustup.
fn has_target(target: &str) -> bool {
    let dir = sh::output(sh::words("rustc --print target-libdir --target").arg(target)).unwrap_or_default();
    let files = fs::read_dir(dir.trim()).into_iter().flatten().flatten();
    files.into_iter().any(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
}

/// Builds the `wasmtime` command that the tests run the command guest by, unless one of its major version is there. No package
/// has it. What it shares with the host is compiled once: the target directory and the profile are the host's.
pub(crate) fn wasmtime() -> Result<()> {
    if let Some(found) = wasi::wasmtime() {
        eprintln!("{} will do", found.display());
        return Ok(());
    }
    let manifest = paths::workspace().join("tests/wasmtime/Cargo.toml");
    let mut build = sh::cargo(["build", "--quiet", "--locked", "--manifest-path"]);
    sh::run(build.arg(manifest).env("CARGO_TARGET_DIR", paths::target()))?;
    ensure!(wasi::wasmtime().is_some(), "it is built, and still not found in {}", paths::target().display());
    Ok(())
}

/// Equips a Python of the tests' own: with what makes a component of the plugin in Python, and with the schema that bills of
/// materials are held to.
pub(crate) fn python() -> Result<()> {
    const PACKAGES: [&str; 2] = ["componentize-py==0.25.1", "cyclonedx-python-lib[json-validation]==11.12.0"];
    let venv = plugins::venv();
    let (complete, wanted) = (venv.join("complete"), PACKAGES.join("\n"));
    if fs::read_to_string(&complete).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    sh::run(sh::words("python3 -m venv").arg(&venv))?;
    let mut install = std::process::Command::new(venv.join("bin/pip"));
    sh::run(install.args(["--quiet", "--disable-pip-version-check", "install"]).args(PACKAGES))?;
    Ok(fs::write(complete, wanted)?)
}

/// Installs those of the tools that are missing, where that is possible. Returns the names of those still missing.
pub(crate) fn tools(wanted: &[Tool]) -> Result<Vec<&'static str>> {
    let missing = || wanted.iter().filter(|(tool, _)| find(tool).is_none());
    if missing().next().is_some() && is_root() && find("apt-get").is_some() {
        let mut packages: Vec<_> = missing().map(|(_, package)| *package).collect();
        packages.sort_unstable();
        packages.dedup();
        let apt = || {
            let mut apt = sh::words("apt-get -q -y -o DPkg::Lock::Timeout=120");
            apt.env("DEBIAN_FRONTEND", "noninteractive");
            apt
        };
        sh::run(apt().arg("update")).context("cannot update the lists of packages")?;
        sh::run(apt().args(["install", "--no-install-recommends"]).args(&packages))
            .with_context(|| format!("cannot install {}", packages.join(" ")))?;
    }
    Ok(missing().map(|(tool, _)| *tool).collect())
}
