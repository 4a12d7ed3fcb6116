//! Ambient authority: the one module that turns a path into a handle, or asks the system who and when it is.
//!
//! Everything else in the library works on handles that came from here or from the caller. A search for `ambient::` is
//! the audit. The network belongs to the registry room, and to the gate of plugins (`sandbox/powers`); the environment and
//! the terminal to nobody in the library.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cap_std::fs::Dir;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};

use crate::error::{Error, Result};
use crate::inherited;

/// Opens the directory at `path`, following links as the shell would: the path is the caller's own word.
pub fn open_dir(path: &Path) -> Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|e| failed("open", path, e))?;
    Ok(Dir::from_std_file(File::from(handle)))
}

/// Makes the directory at `path` and its parents where they are missing, each for its owner alone whatever the directory
/// around hands on, and opens it. Says whether the last one was made just now. What was made outlives a power cut, as what will be in it does.
pub fn create_private_dir(path: &Path) -> Result<(Dir, bool)> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut builder = std::fs::DirBuilder::new();
    builder.mode(0o700);
    let path = path.components().as_path();
    // From the inside out, until one is there.
    let mut missing = vec![path];
    // Whether the last one was made, and whether the directory around the innermost is known to be there.
    let (mut new, mut around) = (false, false);
    while let Some(&innermost) = missing.last() {
        let parent = innermost.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match builder.create(innermost) {
            Ok(()) => {
                let made = open_dir(innermost)?;
                let close = || inherited::disinherit(&made).map_err(|e| failed("close to others", innermost, e));
                let sync = || rustix::fs::fsync(open_dir(parent)?).map_err(|e| failed("sync", parent, e));
                close().and_then(|()| sync()).inspect_err(|_| {
                    // Later runs find it and take it for finished.
                    let _ = rustix::fs::unlinkat(CWD, innermost, AtFlags::REMOVEDIR);
                })?;
                (new, around) = (true, true);
                missing.pop();
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                (new, around) = (false, true);
                missing.pop();
            }
            // Not where it is there and leads nowhere: a link to what is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !around && parent != Path::new(".") => {
                missing.push(parent);
            }
            Err(error) => return Err(failed("create", innermost, error)),
        }
    }
    Ok((open_dir(path)?, new))
}

/// Holds on to what lies at `path`, a file or a directory, without opening it. Links are followed.
///
/// # Errors
///
/// [`Error::NotFound`], and [`Error::Io`].
pub fn hold(path: &Path) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|error| match error {
        rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => {
            Error::NotFound { what: format!("`{}`", show(path)), hint: None }
        }
        error => failed("hold", path, error),
    })
}

/// Opens the regular file at `path` for reading. Anything else is refused without waiting: opening a named pipe for
/// reading would block until somebody writes.
pub fn open_file(path: &Path) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let handle = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::NOENT) => {
            return Err(Error::NotFound { what: format!("the file `{}`", show(path)), hint: None });
        }
        Err(error) => return Err(failed("open", path, error)),
    };
    let file = File::from(handle);
    if !file.metadata().map_err(|e| failed("look at", path, e))?.is_file() {
        return Err(failed("read", path, io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")));
    }
    Ok(file)
}

/// The blob at `path`, and its size: a regular file, or whatever stream standard input is when the path is `-`.
///
/// # Errors
///
/// [`Error::NotFound`], and [`Error::Io`] for what cannot be opened or is not a regular file.
pub fn open_blob(path: &Path) -> Result<(Box<dyn io::Read + Send>, Option<u64>)> {
    if path.as_os_str() == "-" {
        return Ok((Box::new(io::stdin()), None));
    }
    let file = open_file(path)?;
    let size = file.metadata().map_err(|e| failed("look at", path, e))?.len();
    Ok((Box::new(file), Some(size)))
}

/// Opens the directory to unpack onto; makes it (mode 0755, whatever the umask and the directory around hand on) when it is
/// absent, but not its parents.
///
/// # Errors
///
/// [`Error::Io`].
pub fn open_dest(path: &Path) -> Result<OwnedFd> {
    let mode = Mode::from_raw_mode(0o755);
    // What cannot be made as `new/.` can be as `new`.
    let path = path.components().as_path();
    let new = match rustix::fs::mkdirat(CWD, path, Mode::RWXU) {
        Ok(()) => true,
        Err(rustix::io::Errno::EXIST) => false,
        Err(error) => return Err(failed("create", path, error)),
    };
    let dir: OwnedFd = open_dir(path)?.into_std_file().into();
    if new {
        inherited::disinherit(&dir).map_err(|e| failed("set the owner of", path, e))?;
        rustix::fs::fchmod(&dir, mode).map_err(|e| failed("set the mode of", path, e))?;
    }
    Ok(dir)
}

/// Opens the directory that holds `path`, and says what `path` is called in it. Links are followed, also one at `path`
/// itself; the last component need not exist.
///
/// # Errors
///
/// [`Error::Io`] when the parent is not there, [`Error::Usage`] for a path without a last component, such as `/`.
pub fn open_parent(path: &Path) -> Result<(Dir, OsString)> {
    let nameless = || Error::Usage {
        reason: format!("`{}` is not the name of a directory that can be made", show(path)),
        hint: Some("give a path that ends in a name".into()),
    };
    let resolved = match canonical(path) {
        Ok(resolved) => resolved,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            canonical(parent).map_err(|e| failed("open", parent, e))?.join(path.file_name().ok_or_else(nameless)?)
        }
        Err(error) => return Err(failed("open", path, error)),
    };
    let parent = resolved.parent().ok_or_else(nameless)?;
    Ok((open_dir(parent)?, resolved.file_name().ok_or_else(nameless)?.to_owned()))
}

/// Makes sure that `path` is a directory of this user's, made for this user alone if it is absent, to which nobody else can
/// write. Others may be able to read it.
///
/// # Errors
///
/// [`Error::Io`], also when the directory belongs to somebody else or others can write to it.
pub fn private_dir(path: &Path) -> Result<()> {
    let (dir, _) = create_private_dir(path)?;
    let stat = rustix::fs::fstat(&dir).map_err(|e| failed("look at", path, e))?;
    if stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_mode & 0o022 != 0 {
        let reason = io::Error::new(io::ErrorKind::PermissionDenied, "others may write to it");
        return Err(failed("trust", path, reason));
    }
    Ok(())
}

/// Opens the directory at `path` if nobody but this user and root can have put anything in it, or have led to it: it must be this
/// user's, it and each directory above it must belong to this user or to root, and none may be writable for others, but for
/// those above it that are sticky, as `/tmp` is. So must each link on the way. What is missing is made, for this user alone.
///
/// Each step is judged on the handle from which the next one is taken, so nothing can be exchanged behind the look at it.
///
/// # Errors
///
/// [`Error::Io`], also of a directory that is not to be trusted: nothing is made then.
pub fn trusted_dir(path: &Path) -> Result<Dir> {
    /// Links on the way.
    const LINKS: u32 = 40;
    let missing = || failed("open", path, io::Error::from(io::ErrorKind::NotADirectory));
    let whole = std::path::absolute(path).map_err(|e| failed("resolve", path, e))?;
    let root = || rustix::fs::openat(CWD, "/", SEARCH, Mode::empty()).map_err(|e| failed("open", Path::new("/"), e));
    // The directories from the root to here, and the names that are left, the next one last.
    let mut here = vec![(root()?, PathBuf::from("/"))];
    let mut left: Vec<OsString> = Vec::new();
    let push = |left: &mut Vec<OsString>, path: &Path| {
        left.extend(path.components().rev().map(|component| component.as_os_str().to_owned()));
    };
    push(&mut left, &whole);
    let mut links = 0;
    while let Some((dir, at)) = here.last() {
        is_arranged_by_owner(dir, at, left.is_empty())?;
        let Some(name) = left.pop() else { break };
        match name.as_bytes() {
            b"/" => {
                here.truncate(1);
                continue;
            }
            b"." => continue,
            b".." => {
                here.truncate(here.len().max(2) - 1);
                continue;
            }
            _ => {}
        }
        let next = at.join(&name);
        let handle = match rustix::fs::openat(dir, &name, SEARCH_LINK, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => {
                match rustix::fs::mkdirat(dir, &name, Mode::RWXU) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(error) => return Err(failed("create", &next, error)),
                }
                rustix::fs::openat(dir, &name, SEARCH_LINK, Mode::empty())
            }
            opened => opened,
        };
        let handle = handle.map_err(|e| failed("open", &next, e))?;
        let stat = rustix::fs::fstat(&handle).map_err(|e| failed("look at", &next, e))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => here.push((handle, next)),
            FileType::Symlink if links < LINKS => {
                is_own(stat.st_uid, &next)?;
                links += 1;
                let target = rustix::fs::readlinkat(&handle, "", Vec::new()).map_err(|e| failed("read", &next, e))?;
                push(&mut left, Path::new(std::ffi::OsStr::from_bytes(target.as_bytes())));
            }
            _ => return Err(missing()),
        }
    }
    let (dir, at) = here.pop().ok_or_else(missing)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(&dir, ".", flags, Mode::empty()).map_err(|e| failed("open", &at, e))?;
    Ok(Dir::from_std_file(File::from(dir)))
}

/// To look at a directory and below it, and no more.
const SEARCH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// To look at whatever has a name, a link itself rather than its target.
const SEARCH_LINK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Refuses a directory in which somebody else than its owner, this user or root, can arrange what is there. The last one must be
/// this user's.
fn is_arranged_by_owner(dir: &OwnedFd, at: &Path, last: bool) -> Result<()> {
    let stat = rustix::fs::fstat(dir).map_err(|e| failed("look at", at, e))?;
    if last && stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(untrusted(at, "it belongs to another user"));
    }
    is_own(stat.st_uid, at)?;
    let sticky = stat.st_mode & 0o1000 != 0 && !last;
    if stat.st_mode & 0o022 != 0 && !sticky {
        return Err(untrusted(at, "others may write to it"));
    }
    Ok(())
}

fn is_own(uid: u32, at: &Path) -> Result<()> {
    if uid == 0 || uid == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(untrusted(at, "it belongs to another user"))
}

fn untrusted(at: &Path, why: &str) -> Error {
    failed("trust", at, io::Error::new(io::ErrorKind::PermissionDenied, why))
}

/// Writes a file into a directory, which is made when it is absent; a file of that name is replaced.
///
/// # Errors
///
/// [`Error::Io`].
#[expect(clippy::disallowed_methods, reason = "this is the module that may")]
pub fn write_file(directory: &Path, name: &str, content: &[u8]) -> Result<()> {
    std::fs::create_dir_all(directory).map_err(|e| failed("create", directory, e))?;
    let path = directory.join(name);
    std::fs::write(&path, content).map_err(|e| failed("write", &path, e))
}

/// Lets everybody run a file.
///
/// # Errors
///
/// [`Error::Io`].
pub fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .map_err(|e| failed("set the mode of", path, e))
}

/// Whether nothing is at `path`, or a directory with nothing in it.
///
/// # Errors
///
/// [`Error::Io`].
#[expect(clippy::disallowed_methods, reason = "this is the module that may")]
pub fn is_absent_or_empty(path: &Path) -> Result<bool> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        Err(error) => Err(failed("list", path, error)),
    }
}

/// The path without links and relative parts as far as it is there; the rest of it as it was given.
///
/// # Errors
///
/// [`Error::Io`] for an empty path, and when there is no current directory for a relative one.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    let whole = std::path::absolute(path).map_err(|e| failed("resolve", path, e))?;
    for there in whole.ancestors() {
        if let (Ok(resolved), Ok(rest)) = (canonical(there), whole.strip_prefix(there)) {
            return Ok(if rest.as_os_str().is_empty() { resolved } else { resolved.join(rest) });
        }
    }
    Ok(whole)
}

/// The path without links and relative parts.
#[expect(clippy::disallowed_methods, reason = "this is the module that may")]
pub fn canonical(path: &Path) -> io::Result<PathBuf> {
    std::fs::canonicalize(path)
}

/// The id of this boot of the machine, if the system tells: it changes with every start of the kernel.
#[expect(clippy::disallowed_methods, reason = "this is the module that may")]
pub fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let id = text.trim();
    (!id.is_empty()).then(|| id.to_owned())
}

/// The mounts that this thread sees, as `proc_pid_mountinfo(5)` tells them, if the system does.
pub fn mount_table() -> Option<Vec<u8>> {
    // A thread may have a name space of its own. Where only the process's table may be read, that is the thread's too.
    ["/proc/thread-self/mountinfo", "/proc/self/mountinfo"].into_iter().find_map(|path| {
        let table = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let mut text = Vec::new();
        File::from(table).read_to_end(&mut text).ok()?;
        Some(text)
    })
}

/// The time of day.
pub fn now() -> SystemTime {
    SystemTime::now()
}

fn show(path: &Path) -> crate::error::Escaped<'_> {
    crate::error::Escaped(path.as_os_str().as_bytes())
}

fn failed(action: &str, path: &Path, source: impl Into<io::Error>) -> Error {
    Error::io(action, path.as_os_str().as_bytes(), source)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_new_directory_is_its_owners_alone() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        assert!(create_private_dir(&path).unwrap().1);
        assert!(!create_private_dir(&path).unwrap().1);
        for made in [temp.path().join("a"), path] {
            assert_eq!(made.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", made.display());
        }
    }

    #[test]
    fn a_link_to_what_is_gone_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        let dir = open_dir(temp.path()).unwrap();
        rustix::fs::symlinkat("gone/away", &dir, "link").unwrap();
        for below in ["link/a", "link/a/b"] {
            assert!(create_private_dir(&temp.path().join(below)).is_err(), "{below}");
        }
    }

    #[test]
    fn what_others_may_write_to_is_not_trusted() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b/c");
        for (mode, trusted) in [(0o700, true), (0o755, true), (0o775, false), (0o757, false)] {
            private_dir(&path).unwrap();
            path.metadata().unwrap();
            let dir = open_dir(&path).unwrap();
            rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode)).unwrap();
            assert_eq!(private_dir(&path).is_ok(), trusted, "{mode:o}");
            rustix::fs::fchmod(&dir, Mode::RWXU).unwrap();
        }
        let file = temp.path().join("file");
        drop(File::create_new(&file).unwrap());
        assert!(create_private_dir(&file).is_err() && create_private_dir(&file.join("x/y")).is_err());
    }

    #[test]
    fn a_directory_is_trusted_as_far_as_all_that_leads_to_it() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        let mode = |name: &str, mode| {
            rustix::fs::chmod(at(name), Mode::from_raw_mode(mode)).unwrap();
        };
        let same = |one: &Path, other: Dir| {
            let inode = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
            inode(rustix::fs::stat(one).unwrap()) == inode(rustix::fs::fstat(&other).unwrap())
        };
        assert!(same(&at("a/b/c"), trusted_dir(&at("a/b/c")).unwrap()));
        assert_eq!(at("a/b/c").metadata().unwrap().permissions().mode() & 0o777, 0o700);
        for (dir, bits, trusted) in [
            ("a/b/c", 0o755, true),
            ("a/b/c", 0o770, false),
            ("a/b/c", 0o1777, false),
            ("a/b/c", 0o700, true),
            ("a", 0o775, false),
            ("a", 0o757, false),
            ("a", 0o1777, true),
            ("a", 0o755, true),
        ] {
            mode(dir, bits);
            assert_eq!(trusted_dir(&at("a/b/c")).is_ok(), trusted, "{dir} {bits:o}");
            assert_eq!(
                trusted_dir(&at(&format!("a/new-{dir}-{bits}").replace("a/b/c", "c"))).is_ok(),
                trusted || dir != "a"
            );
        }
        // Links lead where they lead, and what they lead through counts.
        let link = |target: &str, name: &str| rustix::fs::symlink(target, at(name)).unwrap();
        link("a/b", "relative");
        link(at("a/b").to_str().unwrap(), "absolute");
        link("relative", "twice");
        link("gone/../a/b", "made");
        link("round", "round");
        for name in ["relative/c", "absolute/../b/./c", "twice/c", "made/c"] {
            assert!(same(&at("a/b/c"), trusted_dir(&at(name)).unwrap()), "{name}");
        }
        mode("a", 0o777);
        for name in ["relative/c", "absolute/c", "twice/new", "round", "round/c"] {
            assert!(trusted_dir(&at(name)).is_err(), "{name}");
        }
        assert!(!at("a/b/new").exists());
        drop(File::create_new(at("file")).unwrap());
        assert!(trusted_dir(&at("file")).is_err() && trusted_dir(&at("file/below")).is_err());
    }

    /// As root finds the home directory of a user: nothing that the user can arrange is gone through.
    #[test]
    fn what_another_user_can_arrange_is_not_trusted() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        for dir in ["home/root", "sticky", "own"] {
            create_private_dir(&at(dir)).unwrap();
        }
        rustix::fs::chmod(at("sticky"), Mode::from_raw_mode(0o1777)).unwrap();
        rustix::fs::symlink("../own", at("sticky/link")).unwrap();
        assert!(trusted_dir(&at("sticky/link")).is_ok());
        std::os::unix::fs::chown(at("home"), Some(1), Some(1)).unwrap();
        std::os::unix::fs::lchown(at("sticky/link"), Some(1), Some(1)).unwrap();
        for name in ["home", "home/root", "home/new", "home/new/below", "sticky/link"] {
            let error = trusted_dir(&at(name)).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Failed, "{name}");
            assert!(error.to_string().starts_with("cannot trust"), "{name}: {error}");
        }
        assert!(!at("home/new").exists());
        // Root's is not this user's, though root is trusted with what leads there.
        std::os::unix::fs::chown(at("own"), Some(1), Some(1)).unwrap();
        assert!(trusted_dir(&at("own")).is_err());
    }

    #[test]
    fn a_destination_is_made_for_everybody_and_kept_as_it_was() {
        let temp = tempfile::tempdir().unwrap();
        let mode = |name: &str| temp.path().join(name).metadata().unwrap().permissions().mode() & 0o7777;
        for (name, spelled) in [("new", "new/"), ("dotted", "./dotted//."), ("again", "again/./")] {
            drop(open_dest(&temp.path().join(spelled)).unwrap());
            assert_eq!(mode(name), 0o755);
            drop(create_private_dir(&temp.path().join(format!("p{name}/."))).unwrap());
        }
        create_private_dir(&temp.path().join("old")).unwrap();
        drop(open_dest(&temp.path().join("old")).unwrap());
        assert_eq!(mode("old"), 0o700);
        assert!(open_dest(&temp.path().join("none/below")).is_err());
    }

    #[test]
    fn a_named_pipe_is_refused_and_does_not_hang() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("pipe");
        let dir = open_dir(temp.path()).unwrap();
        rustix::fs::mknodat(&dir, "pipe", FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(open_file(&path).is_err());
    }

    #[test]
    fn the_boot_has_an_id() {
        assert_eq!(boot_id(), boot_id());
        assert!(boot_id().is_none_or(|id| id.len() >= 32));
    }
}
