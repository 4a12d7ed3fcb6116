//! The conformance corpus: scenarios as data, built into archives byte for byte, run through every way of extracting.
//!
//! `tests/conformance/README.md` describes the scenario files. [`Scenario`] is one of them, [`Lab`] the place where it is
//! run, [`Way`] how; [`Verdict`] says what came of it. Other implementations are ways too: that is what the table of
//! `cargo xtask conformance` is made of.

pub mod archive;
pub mod containerd;
pub mod expect;
pub mod lab;
pub mod member;
pub mod ordinary;
pub mod peers;
pub mod scenario;
pub mod stream;
pub mod wasi;
pub mod words;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

pub use lab::{Lab, Verdict, Way};
pub use scenario::Scenario;

use crate::paths;

/// Where the scenarios are.
pub fn directory() -> PathBuf {
    paths::workspace().join("tests/conformance")
}

/// The names of all scenarios, `THEME/NAME`, in order.
pub fn names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for theme in list(&directory())? {
        if theme.is_dir() {
            names.extend(list(&theme)?.iter().filter_map(|file| name(file)));
        }
    }
    Ok(names)
}

fn name(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?.strip_suffix(".scenario")?;
    Some(format!("{}/{name}", file.parent()?.file_name()?.to_str()?))
}

fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut found = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    found.sort();
    Ok(found)
}
