//! The threads of a run, each looked at when it is made and when it ends.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use libc::pid_t;

use super::{available, ptrace};
use crate::Run;
use crate::usage::Usage;

/// A run, and what its threads were allowed.
#[derive(Debug)]
pub struct Threads {
    /// How it ended and what it said.
    pub run: Run,
    /// How many threads it had beside the first one.
    pub started: usize,
    /// Those that could gain privileges when they began, and whether the first one could when it ended: what is confined by
    /// Landlock has given that up.
    pub unconfined: Vec<String>,
}

/// Runs a program and looks at each of its threads before it executes its first instruction.
pub(super) fn follow(command: Command) -> Result<Threads> {
    if !available() {
        bail!("programs cannot be traced here");
    }
    // What a thread traces reports to that thread alone.
    std::thread::scope(|scope| scope.spawn(|| traced(command)).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn traced(mut command: Command) -> Result<Threads> {
    let dir = tempfile::tempdir()?;
    let (stdout, stderr) = (dir.path().join("stdout"), dir.path().join("stderr"));
    command.stdin(Stdio::null()).stdout(fs::File::create(&stdout)?).stderr(fs::File::create(&stderr)?);
    let line = format!("{command:?}");
    ptrace::prepare_alone(&mut command);
    let start = Instant::now();
    let child = command.spawn().with_context(|| format!("cannot start {line}"))?;
    let pid = pid_t::try_from(child.id())?;
    let (mut started, mut unconfined) = (0, Vec::new());
    let mut ready = false;
    let told = loop {
        let told = ptrace::wait().context("waiting for a traced program")?;
        if !libc::WIFSTOPPED(told.status) {
            if told.tid == pid {
                break told;
            }
            continue;
        }
        let (event, signal) = (told.status >> 16, libc::WSTOPSIG(told.status));
        if !ready {
            // Behind `exec`.
            ptrace::follow_to_end(pid).context("tracing")?;
            ready = true;
        } else if event == libc::PTRACE_EVENT_CLONE {
            started += 1;
            let new = ptrace::message(told.tid)?;
            if !gave_up(pid, new)? {
                unconfined.push(format!("thread {started} ({})", name(pid, told.tid)));
            }
        } else if event == libc::PTRACE_EVENT_EXIT && told.tid == pid && !gave_up(pid, u64::try_from(pid)?)? {
            unconfined.push("the first thread, at its end".into());
        }
        // A stop that is no signal's: of an event, of a new thread, of `exec`.
        let none = event != 0 || signal == libc::SIGSTOP || signal == libc::SIGTRAP;
        ptrace::go_on(told.tid, if none { 0 } else { signal });
    };
    let usage = Usage::new(ExitStatus::from_raw(told.status), start.elapsed(), &told.usage);
    let run = Run { line, usage, stdout: fs::read(&stdout)?, stderr: fs::read(&stderr)? };
    Ok(Threads { run, started, unconfined })
}

/// Whether a thread has given up new privileges.
fn gave_up(pid: pid_t, tid: u64) -> Result<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status"))?;
    Ok(status.lines().any(|line| line == "NoNewPrivs:\t1"))
}

/// What the thread that made it is called.
fn name(pid: pid_t, maker: pid_t) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/task/{maker}/comm")).unwrap_or_default();
    format!("made by `{}`", name.trim_end())
}
