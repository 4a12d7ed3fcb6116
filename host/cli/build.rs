//! Lists the files that `plugin new` writes.

#![allow(clippy::disallowed_methods, reason = "a build script works with paths and the environment")]

use std::env;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Err(reason) = scaffold() {
        println!("cargo::error=the files of scaffolds: {reason}");
    }
}

/// Lists the files that `plugin new` writes, each with its path from the root of the repository and its content, in
/// `$OUT_DIR/scaffold.rs`.
fn scaffold() -> Result<(), String> {
    const TEMPLATE: &str = "guests/sdk/template";
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo sets CARGO_MANIFEST_DIR")?).join("../..");
    let vendored = root.join(TEMPLATE).join("vendored.txt");
    let vendored = std::fs::read_to_string(&vendored).map_err(|e| format!("{}: {e}", vendored.display()))?;
    let mut files = Vec::new();
    for path in vendored.lines().chain([TEMPLATE]) {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
        collect(&root, path, &mut files)?;
    }
    let mut table = String::from("[\n");
    for path in files {
        let whole = root.join(&path).canonicalize().map_err(|e| format!("{path}: {e}"))?;
        let _ = writeln!(table, "    ({path:?}, include_bytes!({:?}) as &[u8]),", whole.display().to_string());
    }
    table += "]\n";
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?).join("scaffold.rs");
    std::fs::write(&out, table).map_err(|e| format!("{}: {e}", out.display()))
}

/// The files at a path, or below it, in order.
fn collect(root: &Path, path: &str, files: &mut Vec<String>) -> Result<(), String> {
    let whole = root.join(path);
    if whole.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    let entries = std::fs::read_dir(&whole).map_err(|e| format!("{}: {e}", whole.display()))?;
    let mut names: Vec<_> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names.iter().filter(|name| *name != "target").try_for_each(|name| collect(root, &format!("{path}/{name}"), files))
}
