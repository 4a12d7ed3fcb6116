//! Running the `cofferdam` binary as a user would: by its command line, seen through its output and exit code.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::denied;
use crate::others;
use crate::usage::{self, Usage};
use crate::{Scratch, paths};

/// Exit codes, as the command documents them.
pub mod exit {
    /// It worked.
    pub const OK: i32 = 0;
    /// Something outside of the image failed.
    pub const FAILED: i32 = 1;
    /// The request makes no sense.
    pub const USAGE: i32 = 2;
    /// What was asked for does not exist.
    pub const NOT_FOUND: i32 = 3;
    /// The registry wants other credentials.
    pub const AUTHENTICATION: i32 = 4;
    /// The network or the registry did not deliver.
    pub const NETWORK: i32 = 5;
    /// Bytes are not what their digest, size or checksum says.
    pub const INTEGRITY: i32 = 6;
    /// Content is hostile, invalid, unsupported or over a limit.
    pub const REFUSED: i32 = 7;
    /// Another process is at work on the same thing.
    pub const BUSY: i32 = 8;
    /// A signal asked it to stop.
    pub const INTERRUPTED: i32 = 130;
}

/// The binary, with a store of its own.
#[derive(Debug)]
pub struct Cofferdam {
    program: PathBuf,
    store: PathBuf,
    output: Scratch,
    wrapper: Vec<String>,
    settings: Vec<(String, String)>,
    denied: Vec<(libc::c_long, i32)>,
}

impl Cofferdam {
    /// Uses the store at this path, which need not exist yet.
    pub fn new(store: impl Into<PathBuf>) -> Result<Self> {
        let (program, store) = (binary()?.to_owned(), store.into());
        Ok(Self {
            program,
            store,
            output: Scratch::new()?,
            wrapper: Vec::new(),
            settings: Vec::new(),
            denied: Vec::new(),
        })
    }

    /// Runs a binary that every user of the machine can reach, wherever this checkout is.
    pub fn for_others(mut self) -> Result<Self> {
        others::binary()?.clone_into(&mut self.program);
        let nothing = others::base()?.join("no-configuration").display().to_string();
        Ok(self.setting("XDG_CONFIG_HOME", &nothing))
    }

    /// Runs it by another program, which is given the command as its last arguments: `setpriv`, `unshare`.
    #[must_use]
    pub fn by(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Has a system call fail with this error.
    #[must_use]
    pub fn denied(mut self, call: libc::c_long, errno: rustix::io::Errno) -> Self {
        self.denied.push((call, errno.raw_os_error()));
        self
    }

    /// Where its store is.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// The command with its store and these arguments; input and output are the caller's to set.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Command> {
        let mut command = match self.wrapper.split_first() {
            Some((program, words)) => {
                let mut command = Command::new(program);
                command.args(words).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        // What the developer has set for daily use must not reach the tests, nor what tests compile the developer's cache.
        for (name, _) in env::vars_os() {
            let upper = name.to_string_lossy().to_ascii_uppercase();
            if upper.starts_with("COFFERDAM_") || upper.ends_with("_PROXY") {
                command.env_remove(name);
            }
        }
        let user = rustix::process::geteuid().as_raw();
        command.env("COFFERDAM_CACHE", paths::target().join(format!("guest-cache-{user}")));
        command.env("XDG_CONFIG_HOME", paths::target().join("no-configuration"));
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.arg("--store").arg(&self.store).args(args);
        if !self.denied.is_empty() {
            denied::deny(&mut command, &self.denied);
        }
        Ok(command)
    }

    /// Starts it.
    pub fn spawn<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Running> {
        self.spawn_with(args, |_| {})
    }

    /// Starts it after a last change to the command: an environment variable, a working directory.
    pub fn spawn_with<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        change: impl FnOnce(&mut Command),
    ) -> Result<Running> {
        // Files, not pipes: nothing can block on them, whoever waits for what.
        let dir = tempfile::tempdir_in(self.output.path())?.keep();
        let (stdout, stderr) = (dir.join("stdout"), dir.join("stderr"));
        let mut command = self.command(args)?;
        command.stdin(Stdio::null()).stdout(File::create(&stdout)?).stderr(File::create(&stderr)?);
        change(&mut command);
        let line = format!("{command:?}");
        let start = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot start {line}"))?;
        Ok(Running { line, child, start, stdout, stderr })
    }

    /// Runs it to its end, whatever that is.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Run> {
        self.spawn(args)?.wait()
    }

    /// Runs it and fails unless it succeeds.
    pub fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Run> {
        self.run(args)?.expect(exit::OK)
    }

    /// Runs it and fails unless it ends with this exit code.
    pub fn fails<S: AsRef<OsStr>>(&self, code: i32, args: impl IntoIterator<Item = S>) -> Result<Run> {
        self.run(args)?.expect(code)
    }
}

/// A process at work.
#[derive(Debug)]
pub struct Running {
    line: String,
    child: Child,
    start: Instant,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    /// Sends a signal. One that has ended already is no error.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("process id 0")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.line))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended. Do not call [`Running::signal`] after it has.
    pub fn has_ended(&mut self) -> Result<bool> {
        // `try_wait` reaps, and `wait4` would find nothing: look without waiting.
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("process id 0")?;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(pid), options)?.is_some())
    }

    /// Waits for the end.
    pub fn wait(self) -> Result<Run> {
        let usage = usage::wait(self.child, self.start)?;
        Ok(Run { line: self.line, usage, stdout: fs::read(&self.stdout)?, stderr: fs::read(&self.stderr)? })
    }
}

/// A process that has ended.
#[derive(Debug)]
pub struct Run {
    /// The command, for people.
    pub line: String,
    /// How it ended and what it used.
    pub usage: Usage,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

impl Run {
    /// Standard output as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Its exit code; nothing after a signal.
    pub fn code(&self) -> Option<i32> {
        self.usage.status.code()
    }

    /// Fails unless it ended with this exit code.
    pub fn expect(self, code: i32) -> Result<Self> {
        self.expect_one_of(&[code])
    }

    /// Fails unless it ended with one of these exit codes.
    pub fn expect_one_of(self, codes: &[i32]) -> Result<Self> {
        if self.code().is_none_or(|code| !codes.contains(&code)) {
            bail!("ended with {}, not with {codes:?}: {}\nstderr:\n{}", self.usage.status, self.line, self.err());
        }
        Ok(self)
    }

    /// Standard output as one JSON document.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.stdout)
            .with_context(|| format!("not one JSON document on stdout: {}\n{}", self.line, self.out()))
    }

    /// Fails unless the message on standard error says what to do next.
    pub fn has_hint(self) -> Result<Self> {
        ensure!(self.err().contains("hint:"), "no `hint:` from {}\n{}", self.line, self.err());
        Ok(self)
    }
}

/// The binary under test: `COFFERDAM_BIN`, or else built now, so that nobody tests yesterday's by accident.
pub fn binary() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match BINARY.get_or_init(|| find_binary().map_err(|error| format!("{error:#}"))) {
        Ok(path) => Ok(path),
        Err(error) => bail!("there is no binary to test: {error}"),
    }
}

fn find_binary() -> Result<PathBuf> {
    if let Some(given) = env::var_os("COFFERDAM_BIN").filter(|value| !value.is_empty()) {
        let path = paths::workspace().join(given);
        ensure!(path.is_file(), "COFFERDAM_BIN names no file: {}", path.display());
        return Ok(path);
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let guests = env::var_os("COFFERDAM_GUESTS_TARGET").unwrap_or_else(|| paths::guests().into());
    let built = Command::new(cargo)
        .env("COFFERDAM_GUESTS_TARGET", guests)
        .args(["build", "--quiet", "--workspace", "--bins"])
        .current_dir(paths::workspace())
        .status()?;
    ensure!(built.success(), "`cargo build` failed");
    Ok(paths::target().join("debug/cofferdam"))
}
