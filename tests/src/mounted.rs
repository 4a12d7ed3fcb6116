//! Mounts of overlayfs, taken away again.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

/// An overlay of trees, read-only, unmounted at the end.
#[derive(Debug)]
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts trees, topmost first, at an empty directory. Nothing where mounting is not allowed.
    pub fn new(trees: &[PathBuf], at: PathBuf) -> Result<Option<Self>> {
        if !crate::require::is_root() {
            return Ok(None);
        }
        let lower: Vec<_> = trees.iter().map(|tree| tree.to_string_lossy()).collect();
        let options = format!("lowerdir={}", lower.join(":"));
        let output = Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&at).output()?;
        if !output.status.success() {
            bail!("cannot mount the overlay: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(Some(Self(at)))
    }

    /// Mounts what `mount-spec` printed, with `mount(8)` from the directory that it names.
    pub fn by(spec: &serde_json::Value, at: PathBuf) -> Result<Option<Self>> {
        if !crate::require::is_root() {
            return Ok(None);
        }
        let (options, chdir) = (text(&spec["options"])?, text(&spec["chdir"])?);
        let mut command = Command::new("mount");
        command.args(["-t", "overlay", "overlay", "-o", options]).arg(&at).current_dir(chdir);
        let output = command.output()?;
        if !output.status.success() {
            bail!("cannot mount the overlay: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(Some(Self(at)))
    }

    /// Mounts what `mount-spec` printed, with the options as they are given to `mount(2)`. The thread's working directory becomes the
    /// one that it names: to be called after [`own_namespace`].
    pub fn by_mount(spec: &serde_json::Value, at: PathBuf) -> Result<Self> {
        std::env::set_current_dir(text(&spec["chdir"])?)?;
        let options = CString::new(text(&spec["options"])?)?;
        ensure!(options.as_bytes_with_nul().len() <= 4096, "more than a page of options");
        let (target, overlay) = (CString::new(at.as_os_str().as_bytes())?, c"overlay");
        // SAFETY: all four strings end with NUL and outlive the call.
        #[expect(unsafe_code, reason = "rustix is built without it here")]
        let mounted = unsafe {
            libc::mount(overlay.as_ptr(), target.as_ptr(), overlay.as_ptr(), libc::MS_RDONLY, options.as_ptr().cast())
        };
        ensure!(mounted == 0, "mount(2): {}", io::Error::last_os_error());
        Ok(Self(at))
    }

    /// Mounts what `mount-spec` printed, each lower directory as a value of its own (`lowerdir+`). Nothing where the kernel
    /// does not know that.
    pub fn by_fsconfig(spec: &serde_json::Value, at: PathBuf) -> Result<Option<Self>> {
        const SET_STRING: libc::c_long = 1;
        const CREATE: libc::c_long = 6;
        std::env::set_current_dir(text(&spec["chdir"])?)?;
        let overlay = c"overlay";
        let context = call(libc::SYS_fsopen, [overlay.as_ptr() as libc::c_long, 0, 0, 0, 0])?;
        for name in spec["names"].as_array().context("no names")? {
            let (key, value) = (c"lowerdir+", CString::new(text(name)?)?);
            let words = [context, SET_STRING, key.as_ptr() as libc::c_long, value.as_ptr() as libc::c_long, 0];
            match call(libc::SYS_fsconfig, words) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(None),
                other => other.with_context(|| format!("lowerdir+={name}"))?,
            };
        }
        call(libc::SYS_fsconfig, [context, CREATE, 0, 0, 0]).context("FSCONFIG_CMD_CREATE")?;
        let mount = call(libc::SYS_fsmount, [context, 0, libc::MS_RDONLY.cast_signed(), 0, 0]).context("fsmount")?;
        let target = CString::new(at.as_os_str().as_bytes())?;
        let words = [mount, c"".as_ptr() as libc::c_long, libc::AT_FDCWD.into(), target.as_ptr() as libc::c_long, 4];
        call(libc::SYS_move_mount, words).context("move_mount")?;
        for handle in [context, mount] {
            call(libc::SYS_close, [handle, 0, 0, 0, 0])?;
        }
        Ok(Some(Self(at)))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: whoever looks at all mounts of the machine may hold it for a moment.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Gives the calling thread mounts and a working directory of its own, which end with it.
pub fn own_namespace() -> Result<()> {
    // SAFETY: takes flags only; other threads keep what they have.
    #[expect(unsafe_code, reason = "rustix is built without it here")]
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_FS) };
    ensure!(unshared == 0, "unshare: {}", io::Error::last_os_error());
    let status = Command::new("mount").args(["--make-rprivate", "/"]).status()?;
    ensure!(status.success(), "cannot keep mounts from others");
    Ok(())
}

fn text(value: &serde_json::Value) -> Result<&str> {
    value.as_str().with_context(|| format!("no text: {value}"))
}

/// A system call by its number. Pointers among the words lead to strings that end with NUL and outlive the call.
fn call(number: libc::c_long, words: [libc::c_long; 5]) -> io::Result<libc::c_long> {
    let [first, second, third, fourth, fifth] = words;
    // SAFETY: see above; each caller in this file keeps to it.
    #[expect(unsafe_code, reason = "there is no other way to these calls")]
    let result = unsafe { libc::syscall(number, first, second, third, fourth, fifth) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
