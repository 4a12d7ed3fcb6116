//! A file system in memory for what tests make and remove.
//!
//! The tests write and delete millions of small files. On a disk that discards freed blocks at once that takes longer than all
//! else that they do. ext4 on a loop device whose file lies in a tmpfs behaves as ext4 on a disk does (attributes, limits, times, order of
//! directory entries), without the waiting. Both mounts belong to a mount namespace that only the tests see: the kernel removes them with
//! the last process, however that ends.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use cofferdam_tests::paths;
use cofferdam_tests::require::{find, is_root};

/// The size of the file system. Memory is only taken for what is written.
const SIZE: &str = "8G";

/// Available memory below which the disk is used, in KiB: the file system, and as much again for the tests themselves.
const ENOUGH: u64 = 16 << 20;

/// Mounts the file system at `$0/fs` and replaces itself by the rest of its arguments.
const SCRIPT: &str = r#"mount -t tmpfs -o "size=$SIZE,mode=755" cofferdam-tests "$0"; truncate -s "$SIZE" "$0/disk"; \
mkfs.ext4 -q -F -i 8192 -m 0 "$0/disk"; mkdir "$0/fs"; mount -o loop "$0/disk" "$0/fs"; chmod 755 "$0/fs"; \
COFFERDAM_SCRATCH="$0/fs" exec "$@""#;

/// Returns the command, wrapped so that it runs with `COFFERDAM_SCRATCH` in memory where the machine allows it.
pub(crate) fn wrap(command: Command) -> Command {
    match obstacle() {
        None => within(&command),
        Some(why) => {
            eprintln!("the tests write to {}: {why}", paths::scratch().display());
            command
        }
    }
}

/// Returns the reason for which the disk is used.
fn obstacle() -> Option<String> {
    if std::env::var_os("COFFERDAM_SCRATCH").is_some() {
        return Some("COFFERDAM_SCRATCH names it".into());
    }
    if !is_root() {
        return Some("a file system in memory needs root".into());
    }
    if let Some(tool) = ["unshare", "mount", "mkfs.ext4", "truncate"].into_iter().find(|tool| find(tool).is_none()) {
        return Some(format!("a file system in memory needs {tool}"));
    }
    match available() {
        Ok(kib) if kib < ENOUGH => return Some(format!("{} MiB of memory are too few to spare", kib >> 10)),
        Err(error) => return Some(format!("{error:#}")),
        Ok(_) => {}
    }
    // Mounts and loop devices are often not to be had in a container: one trial answers for all the reasons.
    let tried = within(&Command::new("true")).stdin(Stdio::null()).output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// Returns the kernel's estimate of available memory, in KiB.
fn available() -> Result<u64> {
    let table = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let line = table.lines().find_map(|line| line.strip_prefix("MemAvailable:")).context("no MemAvailable")?;
    line.trim().trim_end_matches(" kB").parse().context("MemAvailable is not a number")
}

/// Wraps a command into the script.
fn within(command: &Command) -> Command {
    let base = paths::target().join("scratch");
    let mut wrapped = Command::new("unshare");
    wrapped.args(["--mount", "--propagation", "private", "sh", "-euc", SCRIPT]).arg(&base);
    wrapped.arg(command.get_program()).args(command.get_args()).env("SIZE", SIZE);
    if let Some(dir) = command.get_current_dir() {
        wrapped.current_dir(dir);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    // An error shows itself when the script mounts there.
    let _ = fs::create_dir_all(&base);
    wrapped
}
