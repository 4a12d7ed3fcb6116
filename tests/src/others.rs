//! What other users of the machine can reach: a checkout below a directory of one user's own (`mktemp -d`, a home) is none of it.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, Result};

use crate::{cofferdam, layers, paths};

/// A directory that everybody can enter.
pub fn base() -> Result<PathBuf> {
    let base = PathBuf::from("/var/tmp/cofferdam-tests");
    fs::create_dir_all(&base)?;
    fs::set_permissions(&base, fs::Permissions::from_mode(0o755))?;
    Ok(base)
}

/// The binary under test, where everybody can run it: itself, or a copy.
pub fn binary() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARY.get_or_init(|| find().map_err(|error| format!("{error:#}"))).as_deref().map_err(anyhow::Error::msg)
}

fn find() -> Result<PathBuf> {
    let binary = cofferdam::binary()?;
    if is_reachable(&binary.canonicalize()?)? {
        return Ok(binary.to_owned());
    }
    // One for each checkout, and again when the binary is another: tests are processes, and one copy does for all of them.
    let checkout = layers::digest(paths::workspace().as_os_str().as_encoded_bytes());
    let copy = base()?.join(checkout.replace(':', "-"));
    let of = |path: &Path| fs::metadata(path).and_then(|found| Ok((found.len(), found.modified()?)));
    let wanted = of(binary)?;
    if of(&copy).is_ok_and(|found| found == wanted) {
        return Ok(copy);
    }
    let new = copy.with_extension(std::process::id().to_string());
    fs::copy(binary, &new).with_context(|| format!("cannot copy {}", binary.display()))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    File::options().write(true).open(&new)?.set_modified(wanted.1)?;
    fs::rename(&new, &copy)?;
    Ok(copy)
}

/// Whether those who own nothing of it may run a program.
fn is_reachable(program: &Path) -> Result<bool> {
    let may = |path: &Path, bits: u32| -> Result<bool> { Ok(fs::metadata(path)?.permissions().mode() & bits == bits) };
    for directory in program.ancestors().skip(1) {
        if !may(directory, 0o001)? {
            return Ok(false);
        }
    }
    may(program, 0o005)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_somebodys_own_directory_is_not_reachable() -> Result<()> {
        let temp = tempfile::tempdir_in(base()?)?;
        let program = temp.path().join("program");
        File::create(&program)?;
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        for (directory, file, reachable) in [(0o755, 0o755, true), (0o700, 0o755, false), (0o755, 0o700, false)] {
            set(temp.path(), directory)?;
            set(&program, file)?;
            assert_eq!(is_reachable(&program)?, reachable, "{directory:o} {file:o}");
        }
        Ok(())
    }
}
