//! What a test needs of the machine. A test that cannot have it is skipped loudly, or fails where nothing may be skipped.
//!
//! With `COFFERDAM_REQUIRE_ALL=1` (set by `cargo xtask test` in CI) a skip is a failure. With `COFFERDAM_SKIPS=FILE` each
//! skip is also appended to that file, since test runners hide the output of tests that pass.

use std::env;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

/// Returns from the test unless everything named is there: tools by name, `"root"` for the privileges of root.
#[macro_export]
macro_rules! require {
    ($($what:literal),+ $(,)?) => {
        if !$crate::require::all(&[$($what),+]) {
            return Ok(());
        }
    };
}

/// Whether every requirement is met; says which one is not.
pub fn all(requirements: &[&str]) -> bool {
    let missing: Vec<_> = requirements
        .iter()
        .filter(|what| if **what == "root" { !is_root() } else { find(what).is_none() })
        .copied()
        .collect();
    if missing.is_empty() {
        return true;
    }
    skip(&format!("missing: {} (as root on Debian, `cargo xtask test` installs tools)", missing.join(", ")));
    false
}

/// Notes that the current test cannot run here.
///
/// # Panics
///
/// Where nothing may be skipped.
pub fn skip(why: &str) {
    let test = name();
    assert!(!nothing_may_be_skipped(), "{test} cannot run, and COFFERDAM_REQUIRE_ALL forbids to skip it: {why}");
    note(&test, why);
}

fn name() -> String {
    let name = env::var("NEXTEST_TEST_NAME").ok().or_else(|| std::thread::current().name().map(str::to_owned));
    name.unwrap_or_else(|| "a test".into())
}

fn note(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
    if let Some(file) = env::var_os("COFFERDAM_SKIPS") {
        // Appending one line is atomic enough; without the file the message above has to do.
        let line = format!("{test}: {why}\n");
        let _ = OpenOptions::new().create(true).append(true).open(file).and_then(|mut f| f.write_all(line.as_bytes()));
    }
}

/// Whether a skip is a failure.
pub fn nothing_may_be_skipped() -> bool {
    env::var_os("COFFERDAM_REQUIRE_ALL").is_some_and(|value| !value.is_empty() && value != "0")
}

/// Whether this process has the privileges of root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The program of this name on the path, or in the directories of system tools.
pub fn find(tool: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(tool))
        .find(|file| rustix::fs::access(file.as_path(), rustix::fs::Access::EXEC_OK).is_ok() && file.is_file())
}

/// The first of these programs that exists, else the last one.
pub fn first_of<'a>(tools: &[&'a str]) -> &'a OsStr {
    let found = tools.iter().find(|tool| find(tool).is_some()).or(tools.last());
    OsStr::new(found.copied().unwrap_or_default())
}
