//! Builds the first-party guests and hands their paths to `embedded.rs`.
//!
//! `COFFERDAM_GUESTS` may name a directory with prebuilt components (`gunzip.wasm`, `untar.wasm`, `unzstd.wasm`), for
//! packagers who build them elsewhere.

#![allow(clippy::disallowed_methods, reason = "a build script works with paths, the environment and cargo")]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const GUESTS: [&str; 3] = ["gunzip", "untar", "unzstd"];
const TARGET: &str = "wasm32-unknown-unknown";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=COFFERDAM_GUESTS");
    let components = match env::var_os("COFFERDAM_GUESTS") {
        Some(directory) => prebuilt(Path::new(&directory)),
        None => build(),
    };
    match components {
        Ok(components) => {
            for (guest, path) in components {
                println!("cargo::rustc-env=COFFERDAM_GUEST_{}={}", guest.to_uppercase(), path.display());
            }
        }
        Err(reason) => {
            for line in reason.lines() {
                println!("cargo::error={line}");
            }
        }
    }
}

type Components = Vec<(&'static str, PathBuf)>;

fn prebuilt(directory: &Path) -> Result<Components, String> {
    println!("cargo::rerun-if-changed={}", directory.display());
    let directory = directory.canonicalize().map_err(|e| format!("COFFERDAM_GUESTS={}: {e}", directory.display()))?;
    let components: Components = GUESTS.iter().map(|&guest| (guest, directory.join(format!("{guest}.wasm")))).collect();
    match components.iter().find(|(_, path)| !path.is_file()) {
        Some((_, missing)) => Err(format!("COFFERDAM_GUESTS is set, but there is no {}", missing.display())),
        None => Ok(components),
    }
}

fn build() -> Result<Components, String> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo sets CARGO_MANIFEST_DIR")?).join("../..");
    let guests = root.join("guests");
    println!("cargo::rerun-if-changed={}", root.join("wit").display());
    for entry in std::fs::read_dir(&guests).map_err(|e| format!("{}: {e}", guests.display()))?.flatten() {
        // The command and the examples are built by who wants them, and not embedded.
        if !["target", "command", "examples"].iter().any(|other| entry.file_name() == *other) {
            println!("cargo::rerun-if-changed={}", entry.path().display());
        }
    }
    let linker_directory = component_linker()?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let search = env::join_paths(
        std::iter::once(linker_directory).chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())),
    )
    .map_err(|e| e.to_string())?;

    let mut cargo = Command::new(env::var_os("CARGO").ok_or("cargo sets CARGO")?);
    cargo.current_dir(&guests).args(["build", "--locked", "--release", "--target", TARGET]).env("PATH", search);
    // The guests have their own flags; those of the host's build must not reach them.
    for variable in
        ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"]
    {
        cargo.env_remove(variable);
    }
    // A directory of its own: the outer cargo holds the lock of the host's.
    let target = env::var_os("COFFERDAM_GUESTS_TARGET").map_or_else(|| out.join("guests"), PathBuf::from);
    cargo.arg("--target-dir").arg(&target);
    for guest in GUESTS {
        cargo.args(["--package", &format!("cofferdam-{guest}")]);
    }
    let output = cargo.output().map_err(|e| format!("cannot run cargo for the guests: {e}"))?;
    if !output.status.success() {
        let log = String::from_utf8_lossy(&output.stderr);
        if log.contains("target may not be installed") || log.contains("can't find crate for `core`") {
            return Err(format!("the guests need the target {TARGET}; add it with: rustup target add {TARGET}"));
        }
        return Err(format!("building the guests failed:\n{log}"));
    }
    let built = target.join(TARGET).join("release");
    // Copied, so that a guest of this build stays what it was when the shared directory moves on.
    GUESTS
        .iter()
        .map(|&guest| {
            let to = out.join(format!("{guest}.wasm"));
            std::fs::copy(built.join(format!("cofferdam_{guest}.wasm")), &to).map_err(|e| format!("{guest}: {e}"))?;
            Ok((guest, to))
        })
        .collect()
}

/// The directory of `wasm-component-ld`, which ships in the toolchain.
fn component_linker() -> Result<PathBuf, String> {
    let rustc = env::var_os("RUSTC").ok_or("cargo sets RUSTC")?;
    let host = env::var("HOST").map_err(|e| e.to_string())?;
    let output = Command::new(rustc).args(["--print", "sysroot"]).output().map_err(|e| e.to_string())?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let directory = sysroot.join("lib/rustlib").join(host).join("bin");
    if directory.join("wasm-component-ld").is_file() {
        return Ok(directory);
    }
    let on_path =
        env::split_paths(&env::var_os("PATH").unwrap_or_default()).find(|d| d.join("wasm-component-ld").is_file());
    on_path.ok_or_else(|| {
        format!(
            "the guests need wasm-component-ld, which is not in {}\ninstall it with: cargo install wasm-component-ld",
            directory.display()
        )
    })
}
