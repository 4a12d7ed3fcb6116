//! A cell: where power is cut, so that nothing of it is ever left behind.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};

use crate::Scratch;
use crate::power::disk::FileSystem;
use crate::registry::run;

/// Set within a cell, to its directory.
const WITHIN: &str = "COFFERDAM_POWER_CELL";
/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Namespaces of its own for processes and mounts, and a file system in memory.
#[derive(Debug)]
pub struct Cell {
    dir: PathBuf,
    boots: AtomicU32,
}

/// What is missing on this machine for a cell with disks of this kind, beside tools.
pub fn obstacle(system: FileSystem) -> Option<String> {
    if let Some(device) = ["/dev/fuse", "/dev/loop-control", BOOT_ID].into_iter().find(|path| !Path::new(path).exists())
    {
        return Some(format!("there is no {device}"));
    }
    if let Err(error) = run(Command::new("unshare").args(["--mount", "--pid", "--fork", "--mount-proc", "true"])) {
        return Some(format!("there may be no namespaces of our own: {error:#}"));
    }
    // Where it is a module, this loads it.
    let _ = run(Command::new("modprobe").arg(system.name()));
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let known = known.lines().any(|line| line.trim() == system.name());
    (!known).then(|| format!("the kernel has no {}", system.name()))
}

/// Does a test's work within a cell: in a second process of the same test binary, which runs this test only.
///
/// That is the first process of its namespace: when it is gone, the kernel ends all others in it, and takes its mounts away.
/// It is killed when the thread that waits for it dies.
pub fn within(test: &str, work: impl FnOnce(&Cell) -> Result<()>) -> Result<()> {
    if let Some(dir) = env::var_os(WITHIN) {
        return work(&Cell::enter(PathBuf::from(dir))?);
    }
    let scratch = Scratch::new()?;
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"])
        .arg(env::current_exe()?)
        .args([test, "--exact", "--nocapture"])
        .env(WITHIN, scratch.path())
        .stdin(Stdio::null())
        .status()
        .context("cannot start setpriv")?;
    ensure!(status.success(), "the cell ended with {status}; its output says why");
    Ok(())
}

impl Cell {
    fn enter(dir: PathBuf) -> Result<Self> {
        // A mount namespace keeps what it shares with the world, and we must not share.
        ensure!(std::process::id() == 1, "not the first process of a cell");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=0755,size=16g", "cofferdam-power"]).arg(&dir))?;
        let cell = Self { dir, boots: AtomicU32::new(0) };
        cell.reboot()?;
        run(Command::new("mount").arg("--bind").arg(cell.dir.join("boot_id")).arg(BOOT_ID))?;
        Ok(cell)
    }

    /// Its file system in memory. What is left there goes with it.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// From now on the machine was started once more, as far as anybody can see by its boot id.
    pub fn reboot(&self) -> Result<()> {
        let boot = self.boots.fetch_add(1, Ordering::Relaxed);
        Ok(fs::write(self.dir.join("boot_id"), format!("c0ffe4da-0000-4000-8000-{boot:012x}\n"))?)
    }
}
