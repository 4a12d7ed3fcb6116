//! What a program used: time and memory, of itself and of the children that it waited for.

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// What a program used from its start to its end.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// How it ended.
    pub status: ExitStatus,
    /// Time on the clock.
    pub wall: Duration,
    /// Processor time in user mode, its waited-for children included.
    pub user: Duration,
    /// Processor time in the kernel, its waited-for children included.
    pub system: Duration,
    /// Most memory resident at once, in bytes: of the largest one of its processes, not of their sum. The kernel counts
    /// the moment before `exec` too, so this is never less than the memory of the process that started it.
    pub peak_rss: u64,
}

impl Usage {
    pub(crate) fn new(status: ExitStatus, wall: Duration, usage: &libc::rusage) -> Self {
        let time = |time: libc::timeval| {
            Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
        };
        let (user, system) = (time(usage.ru_utime), time(usage.ru_stime));
        Self { status, wall, user, system, peak_rss: usage.ru_maxrss.unsigned_abs() * 1024 }
    }

    /// Processor time in all.
    pub fn cpu(&self) -> Duration {
        self.user + self.system
    }
}

/// Runs a command to its end. Its output must not go to a pipe, which nobody would read.
pub fn measure(command: &mut Command) -> Result<Usage> {
    let start = Instant::now();
    let child = command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    wait(child, start)
}

/// Waits for a child that was started at `start`.
pub fn wait(child: Child, start: Instant) -> Result<Usage> {
    let pid = i32::try_from(child.id()).context("a process id out of range")?;
    let (status, usage) = wait4(pid).with_context(|| format!("cannot wait for process {pid}"))?;
    Ok(Usage::new(ExitStatus::from_raw(status), start.elapsed(), &usage))
}

#[expect(unsafe_code, reason = "neither std nor rustix offers wait4, the only call that gives one child's memory")]
fn wait4(pid: i32) -> io::Result<(i32, libc::rusage)> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are to live, writable values of the types that wait4(2) fills in.
        let waited = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
        if waited == pid {
            // SAFETY: zeroed memory is a valid `rusage`, and the call above has filled it in.
            return Ok((status, unsafe { usage.assume_init() }));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_and_memory_of_a_child_are_its_own() -> Result<()> {
        let idle = measure(Command::new("sh").args(["-c", "exit 3"]))?;
        assert_eq!(idle.status.code(), Some(3));
        let busy =
            measure(Command::new("sh").args(["-c", "x=$(head -c 40000000 /dev/zero | tr '\\0' a); test -n \"$x\""]))?;
        assert_eq!(busy.status.code(), Some(0));
        assert!(busy.peak_rss > idle.peak_rss + 30_000_000, "{} and {}", busy.peak_rss, idle.peak_rss);
        assert!(busy.cpu() > idle.cpu());
        Ok(())
    }

    #[test]
    fn a_signal_is_reported() -> Result<()> {
        let killed = measure(Command::new("sh").args(["-c", "kill -9 $$"]))?;
        assert_eq!(killed.status.signal(), Some(9));
        Ok(())
    }
}
