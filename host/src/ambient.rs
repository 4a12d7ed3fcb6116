//! Ambient authority: the one module that turns a path into a handle, or asks the system who and when it is.
//!
//! Everything else in the library works on handles that came from here or from the caller. A search for `ambient::` is
//! the audit. The network belongs to the registry room; the environment and the terminal to nobody in the library.

use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use cap_std::fs::Dir;
use rustix::fs::{CWD, Mode, OFlags};

use crate::error::{Error, Result};

/// Opens the directory at `path`, following links as the shell would: the path is the caller's own word.
pub(crate) fn open_dir(path: &Path) -> Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map_err(|error| Error::io("open", path.as_os_str().as_bytes(), error))?;
    Ok(Dir::from_std_file(File::from(handle)))
}
