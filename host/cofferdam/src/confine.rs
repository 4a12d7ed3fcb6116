//! The second wall: the kernel confines the process to a few directories, so that even code which runs wild in it (a bug in
//! the WebAssembly engine, a broken tree writer) reaches nothing else. It is Landlock, where the kernel has it.
//!
//! **Does**: deny opening, making, removing, renaming and linking files anywhere but below the handles that it was given;
//! binding TCP ports, and connecting unless that was asked for; signals and abstract sockets of other programs; new
//! privileges from set-uid programs. It cannot be undone, and holds for the calling thread and those started later: call
//! it first, before anything untrusted is read and before threads are.
//!
//! **Does not**, because Landlock does not (up to its version 7): deny changing the mode, owner, times or attributes of
//! what a path leads to, `stat`, `readlink`, UDP, or sockets with a path. What was open before stays usable.
//!
//! ```no_run
//! use cofferdam::{ambient, confine::Confinement};
//!
//! let rootfs = ambient::open_dir("/run/my-runtime/rootfs".as_ref())?;
//! let wall = Confinement::new().write(&rootfs)?.enforce()?;
//! println!("confined: {wall}");
//! # Ok::<(), cofferdam::Error>(())
//! ```

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use rustix::fs::FileType;

use crate::error::{Error, Result};

/// The newest version whose rights are asked for; of older kernels, what they have.
const VERSION: ABI = ABI::V7;

/// What a process needs; everything else will be denied.
#[derive(Debug, Default)]
#[must_use = "nothing is denied before `enforce`"]
pub struct Confinement {
    rules: Vec<(OwnedFd, BitFlags<AccessFs>)>,
    connects: bool,
}

/// How much of a confinement the kernel enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Enforced {
    /// All of it.
    Fully,
    /// Paths, but not all else: the kernel's Landlock is an older one.
    Partly,
    /// Nothing: the kernel has no Landlock, or one that forbids all links between directories (before Linux 5.19).
    Nothing,
}

impl fmt::Display for Enforced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fully => "fully",
            Self::Partly => "partly, as far as this kernel can",
            Self::Nothing => "not at all: this kernel cannot",
        })
    }
}

impl Confinement {
    /// Denies everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows to read this file, or everything below this directory.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] of a handle that cannot be examined.
    pub fn read(self, handle: impl AsFd) -> Result<Self> {
        self.allow(handle, AccessFs::ReadFile | AccessFs::ReadDir)
    }

    /// Allows to read, write, make, remove and link everything below this directory; not to run programs, make sockets or
    /// command devices.
    ///
    /// # Errors
    ///
    /// As [`Confinement::read`].
    pub fn write(self, handle: impl AsFd) -> Result<Self> {
        let never = AccessFs::Execute | AccessFs::MakeSock | AccessFs::IoctlDev;
        self.allow(handle, AccessFs::from_all(VERSION) & !never)
    }

    /// Allows TCP connections to anywhere: which registries and mirrors there are is not known beforehand.
    pub fn connect(mut self) -> Self {
        self.connects = true;
        self
    }

    fn allow(mut self, handle: impl AsFd, mut access: BitFlags<AccessFs>) -> Result<Self> {
        let handle = handle.as_fd().try_clone_to_owned().map_err(failed)?;
        let stat = rustix::fs::fstat(&handle).map_err(|errno| failed(errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            access &= AccessFs::from_file(VERSION);
        }
        self.rules.push((handle, access));
        Ok(self)
    }

    /// How much of a confinement this kernel enforces. Confines nothing.
    pub fn support() -> Enforced {
        let strict = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        // The first version denies every link and rename between directories, whatever the rules say.
        if strict().handle_access(AccessFs::Refer).is_err() {
            return Enforced::Nothing;
        }
        let all = strict()
            .handle_access(AccessFs::from_all(VERSION))
            .and_then(|all| all.handle_access(AccessNet::from_all(VERSION)))
            .and_then(|all| all.scope(Scope::from_all(VERSION)));
        if all.is_ok() { Enforced::Fully } else { Enforced::Partly }
    }

    /// Denies everything else from now on, to this thread and to all that it starts. New privileges are given up on every kernel.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the kernel refuses what it should know, such as below 16 confinements already.
    pub fn enforce(self) -> Result<Enforced> {
        rustix::thread::set_no_new_privs(true).map_err(|errno| failed(errno.into()))?;
        if Self::support() == Enforced::Nothing {
            return Ok(Enforced::Nothing);
        }
        let net = if self.connects { AccessNet::BindTcp.into() } else { AccessNet::from_all(VERSION) };
        let mut wall = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(VERSION))
            .and_then(|wall| wall.handle_access(net))
            .and_then(|wall| wall.scope(Scope::from_all(VERSION)))
            .and_then(Ruleset::create)
            .map_err(|error| failed(io::Error::other(error)))?;
        for (handle, access) in self.rules {
            wall = wall.add_rule(PathBeneath::new(handle, access)).map_err(|error| failed(io::Error::other(error)))?;
        }
        let status = wall.restrict_self().map_err(|error| failed(io::Error::other(error)))?;
        Ok(match status.ruleset {
            RulesetStatus::FullyEnforced => Enforced::Fully,
            RulesetStatus::PartiallyEnforced => Enforced::Partly,
            RulesetStatus::NotEnforced => Enforced::Nothing,
        })
    }
}

fn failed(source: io::Error) -> Error {
    Error::Io { action: "confine this process".into(), source }
}
