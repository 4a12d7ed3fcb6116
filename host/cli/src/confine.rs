//! The kernel's wall around each verb: what it may reach, enforced before it reads the first byte that it does not trust.

use std::path::Path;

use cap_std::fs::Dir;
use cofferdam::ambient;
use cofferdam::confine::{Confinement, Enforced};
use cofferdam::{Error, ErrorKind};

use crate::args::Confine;
use crate::environment;
use crate::failure::Failure;

/// What the C library, the runtime and the store want to know of the machine.
const MACHINE: &[&str] =
    &["/proc/self/cgroup", "/proc/self/mountinfo", "/proc/sys/kernel/random/boot_id", "/sys/fs/cgroup"];

/// What it takes to find a host by its name, and to know whom it may be.
const NETWORK: &[&str] = &[
    "/dev/urandom",
    "/etc/ca-certificates",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/nsswitch.conf",
    "/etc/pki",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/share/ca-certificates",
    "/usr/share/ca-certificates",
    "/var/lib/ca-certificates",
];

/// Fails if a confinement is required that the kernel cannot enforce. To be asked before anything is made: a wall has to be told
/// which directories it is around.
pub(crate) fn check(mode: Confine) -> Result<(), Failure> {
    match (mode, Confinement::support()) {
        (Confine::Require, lesser @ (Enforced::Partly | Enforced::Nothing)) => Err(lacking(lesser)),
        _ => Ok(()),
    }
}

fn lacking(enforced: Enforced) -> Failure {
    Error::Unsupported { what: format!("the confinement (enforced {enforced})") }.into()
}

/// The wall of a verb, as far as it is decided.
#[derive(Debug)]
pub(crate) struct Wall {
    confinement: Confinement,
    mode: Confine,
}

impl Wall {
    /// Allows what every verb needs.
    pub(crate) fn new(mode: Confine, cache: Option<&Dir>) -> Result<Self, Failure> {
        let wall = Self { confinement: Confinement::new(), mode }.read_all(MACHINE)?;
        match cache {
            Some(cache) => wall.write(cache),
            None => Ok(wall),
        }
    }

    /// Allows to write below a directory, and to read what is there.
    pub(crate) fn write(self, dir: impl std::os::fd::AsFd) -> Result<Self, Failure> {
        Ok(Self { confinement: self.confinement.write(dir)?, ..self })
    }

    /// Allows to write what is about to be made at a path: below the innermost directory that is there.
    pub(crate) fn make(self, path: &Path) -> Result<Self, Failure> {
        let whole = ambient::absolute(path)?;
        match whole.ancestors().find_map(|path| ambient::open_dir(path).ok()) {
            Some(dir) => self.write(dir),
            None => Ok(self),
        }
    }

    /// Allows to read a file, or what is below a directory. If there is none, whoever wants it will say so.
    pub(crate) fn read(self, path: &Path) -> Result<Self, Failure> {
        match ambient::hold(path) {
            Ok(handle) => Ok(Self { confinement: self.confinement.read(handle)?, ..self }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(self),
            Err(error) => {
                tracing::debug!("{error}");
                Ok(self)
            }
        }
    }

    /// Allows to reach registries.
    pub(crate) fn network(self) -> Result<Self, Failure> {
        let mut wall = self.read_all(NETWORK)?;
        for path in environment::certificates() {
            wall = wall.read(&path)?;
        }
        Ok(Self { confinement: wall.confinement.connect(), ..wall })
    }

    fn read_all(self, paths: &[&str]) -> Result<Self, Failure> {
        paths.iter().try_fold(self, |wall, path| wall.read(Path::new(path)))
    }

    /// Closes it: from now on nothing else can be reached.
    pub(crate) fn enforce(self) -> Result<(), Failure> {
        if self.mode == Confine::Off {
            return Ok(());
        }
        match (self.confinement.enforce(), self.mode) {
            (Ok(enforced @ (Enforced::Partly | Enforced::Nothing)), Confine::Require) => Err(lacking(enforced)),
            (Ok(enforced), _) => {
                tracing::info!("confined by Landlock: {enforced}");
                Ok(())
            }
            (Err(error), Confine::Require) => Err(error.into()),
            (Err(error), _) => {
                tracing::info!("not confined: {error}");
                Ok(())
            }
        }
    }
}
