//! The neighbour: a process that swaps directories of the destination for links to the victim, as fast as it can.
//!
//! It is this test binary again, told by the environment where to work. It works while its standard input is open, and
//! keeps the number of its swaps in a file. It reaches into the destination without following links itself: what it harms,
//! the writer has harmed.

use std::env;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, ResolveFlags};

const SCENE: &str = "COFFERDAM_HOSTILE_SCENE";

/// What is swapped, if it is there: the directories that the attacks and the layers of the races use.
const NAMES: [&str; 12] =
    ["a", "a/b", "a/b/c", "deep", "deep/0", "deep/0/1", "wide", "gone", "etc", "out", "d", "gone/deep"];

/// A neighbour at work in a scene.
#[derive(Debug)]
pub struct Attacker {
    child: Child,
    count: File,
}

impl Attacker {
    /// Starts one, and waits until it works.
    pub fn start(scene: &Path) -> Result<Self> {
        let count = scene.join("attic/count");
        fs::write(&count, [0; 8])?;
        let mut child = Command::new(env::current_exe()?)
            .args(["--exact", "attacker::the_neighbour", "--ignored", "--nocapture"])
            .env(SCENE, scene)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the attacker")?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line.ends_with("ready"));
        ensure!(ready, "the attacker ended before it began");
        // Whatever else it has to say must not block it.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, count: File::open(count)? })
    }

    /// How many swaps it has made so far.
    pub fn swaps(&self) -> Result<u64> {
        let mut number = [0; 8];
        self.count.read_exact_at(&mut number, 0)?;
        Ok(u64::from_le_bytes(number))
    }

    /// Ends it; it must not have failed.
    pub fn stop(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "the attacker ended with {status}");
        Ok(())
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        // Also when a test fails. One that was stopped is no more.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "the other side of the races, which start it"]
fn the_neighbour() -> Result<()> {
    let Some(scene) = env::var_os(SCENE).map(PathBuf::from) else { return Ok(()) };
    let over = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&over);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        told.store(true, Ordering::Relaxed);
    });
    let attic = open(CWD.as_fd(), &scene.join("attic"))?;
    let count = File::options().write(true).open(scene.join("attic/count"))?;
    println!("ready");
    let mut swaps = 0_u64;
    let mut old = 0_u64;
    while !over.load(Ordering::Relaxed) {
        for (index, name) in NAMES.iter().enumerate() {
            if swap(&scene, &attic, index, name, &mut old).unwrap_or(false) {
                swaps += 1;
                count.write_all_at(&swaps.to_le_bytes(), 0)?;
            }
        }
    }
    Ok(())
}

/// Swaps a name of the destination with the one in the attic: a link there for a directory here, or back. Whether it did.
fn swap(scene: &Path, attic: &OwnedFd, index: usize, name: &str, old: &mut u64) -> Result<bool> {
    let hidden = format!("{index}");
    let dest = open(CWD.as_fd(), &scene.join("dest"))?;
    let (parent, leaf) = name.rsplit_once('/').unwrap_or((".", name));
    let parent = rustix::fs::openat2(
        &dest,
        parent,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    )?;
    let kind = |dir: &OwnedFd, name: &str| {
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(FileType::from_raw_mode(stat.st_mode))
    };
    let here = kind(&parent, leaf);
    let there = kind(attic, &hidden);
    if there != Some(FileType::Symlink) && here != Some(FileType::Symlink) {
        // The link went away with a destination before this one.
        if there.is_some() {
            *old += 1;
            rustix::fs::renameat(attic, &*hidden, attic, format!("old{old}"))?;
        }
        let up = "../".repeat(name.split('/').count());
        let target = if index.is_multiple_of(2) {
            format!("{up}victim/{name}")
        } else {
            scene.join("victim").join(name).display().to_string()
        };
        symlink(target, scene.join("attic").join(&hidden))?;
    }
    here.context("not there")?;
    rustix::fs::renameat_with(&parent, leaf, attic, &*hidden, RenameFlags::EXCHANGE)?;
    Ok(true)
}

fn open(at: std::os::fd::BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, path, flags, Mode::empty())?)
}
