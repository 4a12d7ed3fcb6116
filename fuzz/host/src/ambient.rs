//! What the names of layouts need of the host's module of this name, without its handles.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The path from the root on, without looking at any file.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|source| Error::Io { action: "find the working directory".into(), source })
}
