//! Disks: an image with a file system, mounted as it is, or so that all that it is told is logged.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::fuse;
use super::log::Log;
use crate::registry::run;

/// A kind of file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// With a journal of whole blocks, `data=ordered`.
    Ext4,
    /// With a log of changes, and delayed allocation.
    Xfs,
}

impl FileSystem {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    /// Makes one in a new sparse file.
    pub fn make(self, image: &Path) -> Result<()> {
        let file = File::create_new(image).with_context(|| format!("cannot create {}", image.display()))?;
        match self {
            Self::Ext4 => {
                file.set_len(128 << 20)?;
                // All is written now: the kernel need not do it later, among what we look at.
                let options = "-q -F -b 4096 -m 0 -J size=8 -E lazy_itable_init=0,lazy_journal_init=0";
                run(Command::new("mkfs.ext4").args(options.split(' ')).arg(image))
            }
            Self::Xfs => {
                // The smallest that there is.
                file.set_len(300 << 20)?;
                run(Command::new("mkfs.xfs").args(["-q", "-f"]).arg(image))
            }
        }
    }

    /// Mounts an image by a loop device, which goes when the mount does.
    pub fn mount(self, image: &Path, dir: &Path) -> Result<Mount> {
        let options = match self {
            Self::Ext4 => "loop,errors=remount-ro",
            // Copies of one image are mounted at once.
            Self::Xfs => "loop,nouuid",
        };
        run(Command::new("mount").args(["-t", self.name(), "-o", options]).arg(image).arg(dir))?;
        Ok(Mount { dir: dir.to_path_buf(), mounted: true })
    }
}

/// The longest that a process takes between `fork` and `exec`, on a machine that has much else to do.
const STARTING: Duration = Duration::from_secs(10);

/// A mounted file system.
#[derive(Debug)]
pub struct Mount {
    dir: PathBuf,
    mounted: bool,
}

impl Mount {
    /// Where.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Unmounts it; fails if something in it stays in use.
    ///
    /// Each process that another thread starts holds all open files for a moment, between `fork` and `exec`, and so may hold some here.
    pub fn end(mut self) -> Result<()> {
        self.mounted = false;
        let begin = Instant::now();
        loop {
            let ended = run(Command::new("umount").arg(&self.dir));
            if ended.is_ok() || begin.elapsed() > STARTING {
                return ended;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted {
            let _ = run(Command::new("umount").arg("--lazy").arg(&self.dir));
        }
    }
}

/// A disk that logs what it is told.
#[derive(Debug)]
pub struct Disk {
    process: Child,
    file: PathBuf,
    log: PathBuf,
    mounted: bool,
}

impl Disk {
    /// Starts one in `dir` with the content of `base`. `program` is `power-disk`.
    pub fn start(program: &Path, base: &Path, dir: &Path) -> Result<Self> {
        let (image, file, log) = (dir.join("image"), dir.join("disk"), dir.join("log"));
        copy(base, &image)?;
        File::create_new(&file)?;
        let device = fuse::mount(&file)?;
        let process = Command::new("unshare")
            .args(["--mount", "--"])
            .arg(program)
            .args([&image, &log])
            .stdin(device)
            .stdout(Stdio::piped())
            .spawn();
        let mut process = process.with_context(|| format!("cannot start {}", program.display()))?;
        let stdout = process.stdout.take().context("no standard output")?;
        let disk = Self { process, file, log, mounted: true };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line == "ready\n", "the disk did not start");
        Ok(disk)
    }

    /// The file that is the disk.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// This moment: how long the log is.
    pub fn moment(&self) -> Result<u64> {
        Ok(fs::metadata(&self.log)?.len())
    }

    /// Ends it, when nothing uses it any more, and returns what it was told.
    pub fn end(mut self) -> Result<Log> {
        fuse::unmount(&self.file)?;
        self.mounted = false;
        let status = self.process.wait()?;
        ensure!(status.success(), "the disk ended with {status}");
        Log::read(&self.log)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            // The kernel fails all that still waits for it.
            let _ = self.process.kill();
            let _ = self.process.wait();
            let _ = run(Command::new("umount").arg("--lazy").arg(&self.file));
        }
    }
}

const PIECE: usize = 16 << 10;
static ZEROS: [u8; PIECE] = [0; PIECE];

/// Copies an image, holes and zeros as holes.
pub(super) fn copy(from: &Path, to: &Path) -> Result<File> {
    match fs::remove_file(to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let from = File::open(from).with_context(|| format!("cannot open {}", from.display()))?;
    let to = File::options().read(true).write(true).create_new(true).open(to)?;
    to.set_len(from.metadata()?.len())?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let data = match rustix::fs::seek(&from, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => return Ok(to),
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(&from, SeekFrom::Hole(data))?;
        at = data;
        while at < end {
            let part = usize::try_from(end - at)?.min(buffer.len());
            let part = &mut buffer[..part];
            from.read_exact_at(part, at)?;
            // What was cleared by writing zeros takes no memory here.
            for (index, piece) in part.chunks(PIECE).enumerate().filter(|(_, piece)| *piece != &ZEROS[..piece.len()]) {
                to.write_all_at(piece, at + (index * PIECE) as u64)?;
            }
            at += part.len() as u64;
        }
    }
}
