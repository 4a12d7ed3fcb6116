//! containerd as a way of extracting: a daemon for one table, a namespace for each scenario.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::lab::{Lab, Verdict};
use super::peers::{command, judge};
use crate::{Scratch, require};

/// A daemon that ends with its value.
#[derive(Debug)]
struct Daemon {
    child: Child,
    socket: PathBuf,
    _scratch: Scratch,
}

impl Daemon {
    fn start() -> Result<Self> {
        let scratch = Scratch::new()?;
        // A socket's path has room for a hundred bytes only, and a scratch directory may lie deep.
        let socket = PathBuf::from(format!("/tmp/cofferdam-containerd-{}.sock", std::process::id()));
        let config = scratch.join("config.toml");
        let (root, state) = (scratch.join("root"), scratch.join("state"));
        let plugins = "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]";
        let (at_root, at_state, at_socket) = (root.display(), state.display(), socket.display());
        let text = format!(
            "version = 2\nroot = \"{at_root}\"\nstate = \"{at_state}\"\n{plugins}\n[grpc]\naddress = \"{at_socket}\"\n"
        );
        fs::write(&config, text)?;
        let log = fs::File::create(scratch.join("log"))?;
        let program = require::find("containerd").context("containerd is not installed")?;
        let child = Command::new(program).arg("--config").arg(&config).stdout(Stdio::null()).stderr(log).spawn()?;
        let daemon = Self { child, socket, _scratch: scratch };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !daemon.ctr("default", &["version"])?.status.success() {
            if Instant::now() > deadline {
                bail!("containerd does not answer");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(daemon)
    }

    fn ctr(&self, namespace: &str, words: &[&str]) -> Result<Output> {
        let socket = self.socket.to_string_lossy();
        command("ctr", [&["--address", &*socket, "--namespace", namespace], words].concat())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.socket);
        let _ = fs::remove_file(self.socket.with_extension("sock.ttrpc"));
    }
}

static DAEMON: Mutex<Option<Arc<Daemon>>> = Mutex::new(None);

/// The daemon that all scenarios share, started when it is first needed.
fn shared() -> Result<Arc<Daemon>> {
    let mut slot = DAEMON.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(daemon) = &*slot {
        return Ok(Arc::clone(daemon));
    }
    Ok(Arc::clone(slot.insert(Arc::new(Daemon::start()?))))
}

/// Ends the daemon, if one was started. What is static is not dropped at a program's end.
pub fn stop() {
    drop(DAEMON.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// Runs a scenario: the image is imported, and its layers are unpacked by containerd's `native` snapshotter, which copies.
pub(super) fn run(lab: &Lab) -> Result<Verdict> {
    let daemon = shared()?;
    let namespace = lab.scenario.name.replace(['/', '_'], "-");
    let archive = lab.scratch.join("image.tar");
    let layout = lab.layout()?;
    command("tar", ["-cf".as_ref(), archive.as_os_str(), "-C".as_ref(), layout.dir().as_os_str(), ".".as_ref()])?;
    let dest = lab.dest();
    fs::create_dir(&dest)?;
    let (archive, target) = (archive.to_string_lossy(), dest.to_string_lossy());
    let imported = daemon.ctr(&namespace, &["images", "import", "--no-unpack", "--base-name", "scenario", &archive])?;
    if !imported.status.success() {
        return Ok(judge(lab, &imported, lab.scenario.root.refused.is_empty()));
    }
    let mount = ["images", "mount", "--snapshotter", "native", "scenario:t", &target];
    let mounted = daemon.ctr(&namespace, &mount)?;
    let verdict = judge(lab, &mounted, lab.scenario.root.refused.is_empty());
    unmount(&dest);
    for words in [&["images", "rm", "scenario:t"][..], &["snapshots", "--snapshotter", "native", "rm", &target]] {
        daemon.ctr(&namespace, words)?;
    }
    Ok(verdict)
}

fn unmount(dest: &Path) {
    let _ = Command::new("umount").arg(dest).stderr(Stdio::null()).status();
}
