//! Runs a program and stops before each system call that changes one of some directories, so that a test can let it
//! through, let it fail, or kill the program: before the call, or just behind it.
//!
//! The program is traced with `ptrace`; a seccomp filter picks the calls, so that all others run at full speed. Calls are
//! counted over all threads, in one order: until one has ended no other one begins (but for locks, which wait for each
//! other). What the disk holds behind the N-th call is therefore what N calls have made of it.
//!
//! Works on x86-64 only: elsewhere [`available`] says no.

mod calls;
mod filter;
mod ptrace;
mod run;
mod threads;

use std::ffi::OsStr;
use std::path::PathBuf;

use anyhow::Result;
use rustix::io::Errno;

pub use calls::Class;
pub use threads::Threads;

use crate::{Cofferdam, Run};

/// One system call that is about to change something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Which one it is, from 0.
    pub number: usize,
    /// The call's name: `renameat2`.
    pub call: &'static str,
    /// What it does.
    pub class: Class,
    /// What it does it to, from the watched directory on, with digests and other long numbers as `#`. Of two paths, the
    /// new one.
    pub path: String,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is made.
    Pass,
    /// The program is killed instead.
    KillBefore,
    /// It is made, and the program is killed before it learns of that.
    KillAfter,
    /// It is not made, and fails with this error.
    Fail(Errno),
}

/// A traced run that has ended.
#[derive(Debug)]
pub struct Traced {
    /// How it ended and what it said.
    pub run: Run,
    /// The calls that it came to.
    pub points: Vec<Point>,
}

impl Traced {
    /// Whether it was killed.
    pub fn was_killed(&self) -> bool {
        std::os::unix::process::ExitStatusExt::signal(&self.run.usage.status) == Some(libc::SIGKILL)
    }
}

/// Whether programs can be traced here.
pub fn available() -> bool {
    cfg!(target_arch = "x86_64")
}

impl Cofferdam {
    /// Runs the command and looks at each of its threads as it is made.
    pub fn threads<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Threads> {
        threads::follow(self.command(args)?)
    }

    /// Runs the command and asks `decide` about each call that changes something under one of `roots`, which are absolute
    /// paths without links.
    pub fn traced<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        roots: &[PathBuf],
        decide: impl FnMut(&Point) -> Action + Send,
    ) -> Result<Traced> {
        run::traced(self.command(args)?, roots, decide)
    }
}
