//! One traced run: the loop that hears of every stop and lets threads go on.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use libc::pid_t;

use super::calls::{self, Call, Class, Place};
use super::ptrace::{self, Told};
use super::{Action, Point, Traced, available, filter};
use crate::Run;
use crate::usage::Usage;

pub(super) fn traced(
    command: Command,
    roots: &[PathBuf],
    decide: impl FnMut(&Point) -> Action + Send,
) -> Result<Traced> {
    if !available() {
        bail!("programs cannot be traced here");
    }
    // What a thread traces reports to that thread alone: so it has one of its own, with no other children.
    std::thread::scope(|scope| scope.spawn(|| follow(command, roots, decide)).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn follow(mut command: Command, roots: &[PathBuf], decide: impl FnMut(&Point) -> Action) -> Result<Traced> {
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let line = format!("{command:?}");
    ptrace::prepare(&mut command, filter::program());
    let start = Instant::now();
    let child = command.spawn().with_context(|| format!("cannot start {line}"))?;
    let pid = pid_t::try_from(child.id())?;
    let mut tracer = Tracer {
        pid,
        roots,
        decide,
        points: Vec::new(),
        known: HashSet::from([pid]),
        ready: false,
        memory: None,
        at_call: None,
        waiting: VecDeque::new(),
        killed: false,
    };
    let told = loop {
        let told = ptrace::wait().context("waiting for a traced program")?;
        if told.tid == pid && !libc::WIFSTOPPED(told.status) {
            break told;
        }
        if let Err(error) = tracer.stopped(&told)
            && !tracer.killed
        {
            ptrace::kill(pid);
            return Err(error.context(line));
        }
    };
    let usage = Usage::new(ExitStatus::from_raw(told.status), start.elapsed(), &told.usage);
    let mut run = Run { line, usage, stdout: Vec::new(), stderr: Vec::new() };
    for (file, bytes) in [(&mut stdout, &mut run.stdout), (&mut stderr, &mut run.stderr)] {
        file.rewind()?;
        file.read_to_end(bytes)?;
    }
    Ok(Traced { run, points: tracer.points })
}

struct Tracer<'a, D> {
    pid: pid_t,
    roots: &'a [PathBuf],
    decide: D,
    points: Vec<Point>,
    /// Threads that have stopped at least once.
    known: HashSet<pid_t>,
    ready: bool,
    memory: Option<File>,
    /// The thread that is making a counted call, and whether it is to be killed behind it.
    at_call: Option<(pid_t, bool)>,
    /// Threads that want to make one next.
    waiting: VecDeque<(pid_t, &'static Call, PathBuf)>,
    killed: bool,
}

impl<D: FnMut(&Point) -> Action> Tracer<'_, D> {
    fn stopped(&mut self, told: &Told) -> Result<()> {
        let &Told { tid, status, .. } = told;
        if !libc::WIFSTOPPED(status) {
            // A thread has ended; if it was killed in the middle of a call, everything was.
            return Ok(());
        }
        if self.killed {
            return Ok(());
        }
        let signal = libc::WSTOPSIG(status);
        let new = self.known.insert(tid);
        if !self.ready {
            // The first stop is behind `exec`.
            ptrace::follow(self.pid).context("tracing")?;
            self.memory = Some(File::open(format!("/proc/{}/mem", self.pid))?);
            self.ready = true;
            ptrace::go_on(tid, 0);
        } else if status >> 8 == libc::SIGTRAP | (libc::PTRACE_EVENT_SECCOMP << 8) {
            self.before_call(tid)?;
        } else if status >> 16 != 0 || (new && signal == libc::SIGSTOP) {
            // A thread was made, and begins with a stop that is no signal.
            ptrace::go_on(tid, 0);
        } else if signal == libc::SIGTRAP | 0x80 {
            self.behind_call(tid)?;
        } else {
            ptrace::go_on(tid, signal);
        }
        Ok(())
    }

    fn before_call(&mut self, tid: pid_t) -> Result<()> {
        let entry = ptrace::entry(tid)?;
        let found = calls::of(entry.number).zip(self.place(tid, &entry).transpose()?);
        let Some((call, path)) = found.filter(|(_, path)| self.roots.iter().any(|root| path.starts_with(root))) else {
            ptrace::go_on(tid, 0);
            return Ok(());
        };
        self.waiting.push_back((tid, call, path));
        self.next()
    }

    /// Lets the next waiting call be made, if none is under way.
    fn next(&mut self) -> Result<()> {
        while self.at_call.is_none()
            && !self.killed
            && let Some((tid, call, path)) = self.waiting.pop_front()
        {
            let path = calls::shown(&path, self.roots).unwrap_or_default();
            let point = Point { number: self.points.len(), call: call.name, class: call.class, path };
            let action = (self.decide)(&point);
            self.points.push(point);
            match action {
                // It may wait for another thread's.
                Action::Pass if call.class == Class::Lock => ptrace::go_on(tid, 0),
                Action::Pass | Action::KillAfter => {
                    self.at_call = Some((tid, action == Action::KillAfter));
                    ptrace::make_call(tid);
                }
                Action::KillBefore => self.kill(),
                Action::Fail(errno) => {
                    ptrace::refuse(tid, errno.raw_os_error())?;
                    ptrace::go_on(tid, 0);
                }
            }
        }
        Ok(())
    }

    fn behind_call(&mut self, tid: pid_t) -> Result<()> {
        if let Some((at_call, kill)) = self.at_call.filter(|(at_call, _)| *at_call == tid) {
            debug_assert_eq!(at_call, tid);
            self.at_call = None;
            if kill {
                self.kill();
                return Ok(());
            }
        }
        ptrace::go_on(tid, 0);
        self.next()
    }

    fn kill(&mut self) {
        self.killed = true;
        ptrace::kill(self.pid);
    }

    /// What a call changes, as a path.
    fn place(&self, tid: pid_t, entry: &ptrace::Entry) -> Option<Result<PathBuf>> {
        let call = calls::of(entry.number)?;
        let argument = |index: usize| entry.arguments.get(index).copied().unwrap_or_default();
        let path = match call.place {
            Place::Fd(fd) => open_file(tid, argument(fd)),
            Place::Path(path) => self.path(tid, None, argument(path)),
            Place::At(dir, path) => self.path(tid, Some(argument(dir)), argument(path)),
        };
        Some(path)
    }

    fn path(&self, tid: pid_t, dir: Option<u64>, at: u64) -> Result<PathBuf> {
        let text = self.text(at)?;
        let path = Path::new(std::ffi::OsStr::from_bytes(&text));
        if let Ok(fd) = path.strip_prefix("/proc/self/fd") {
            let fd = fd.to_str().and_then(|fd| fd.parse().ok()).unwrap_or(u64::MAX);
            return open_file(tid, fd);
        }
        let here = libc::AT_FDCWD.cast_unsigned();
        Ok(open_file(tid, dir.unwrap_or(here.into()))?.join(path))
    }

    /// The text at an address of the program.
    fn text(&self, at: u64) -> Result<Vec<u8>> {
        let memory = self.memory.as_ref().context("no memory to read")?;
        let mut text = Vec::new();
        let mut piece = [0; 256];
        // No further than the page at a time: what lies behind may not be there.
        while at != 0 && text.len() < 4096 {
            let from = at + text.len() as u64;
            let most = usize::try_from(4096 - from % 4096)?.min(piece.len());
            let count = memory.read_at(&mut piece[..most], from)?;
            let end = piece[..count].iter().position(|&b| b == 0);
            text.extend_from_slice(&piece[..end.unwrap_or(count)]);
            if end.is_some() || count == 0 {
                break;
            }
        }
        Ok(text)
    }
}

/// What an open file is called.
fn open_file(tid: pid_t, fd: u64) -> Result<PathBuf> {
    // A descriptor is an `int`, whatever the upper half of its register holds.
    let fd = (fd & 0xffff_ffff) as u32;
    if fd.cast_signed() == libc::AT_FDCWD {
        return Ok(fs::read_link(format!("/proc/{tid}/cwd"))?);
    }
    // One that is not open makes the call fail, and is under no directory.
    Ok(fs::read_link(format!("/proc/{tid}/fd/{fd}")).unwrap_or_default())
}
