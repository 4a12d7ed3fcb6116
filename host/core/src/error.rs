//! What can go wrong, once for the whole library.
//!
//! Each variant is a sentence: what was being done to what, what was found, what was expected. [`Error::kind`] sorts
//! errors into the few classes that a caller acts on (the command turns them into exit codes) and [`Error::hint`] says
//! what to do about one. Context is added from outside in with [`Error::context`], so that the innermost error keeps its type.

use std::fmt;
use std::io;

use crate::digest::Digest;
use crate::limits::Limits;

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The class of an error: what a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Something outside of the image failed: a system call, a full disk.
    Failed,
    /// The caller asked for something that makes no sense.
    Usage,
    /// What was asked for does not exist.
    NotFound,
    /// The registry wants other credentials.
    Authentication,
    /// The network or the registry did not deliver.
    Network,
    /// Bytes are not what their digest, size or checksum says.
    Integrity,
    /// Content is hostile, invalid, unsupported or over a limit.
    Refused,
    /// Another process is at work on the same thing.
    Busy,
    /// The caller gave up.
    Interrupted,
}

/// Why a guest was ended by the host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GuestFailure {
    /// It trapped: a panic, a wild access, a stack overflow. Holds the trap's name.
    Trap(String),
    /// It used more processor time than its input allows.
    TimeOut,
    /// It asked for more memory than the limit, in bytes.
    Memory(u64),
    /// It broke the contract; holds the rule.
    Misuse(String),
    /// Its component cannot be loaded or linked; holds the reason.
    Load(String),
    /// It waited for the clock or the network for longer than it may.
    Waited,
}

impl fmt::Display for GuestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trap(trap) => write!(f, "it trapped: {trap}"),
            Self::TimeOut => f.write_str("it used up its processor time"),
            Self::Memory(limit) => write!(f, "it asked for more than {limit} bytes of memory"),
            Self::Misuse(rule) => write!(f, "it broke its contract: {rule}"),
            Self::Load(reason) => write!(f, "it cannot be loaded: {reason}"),
            Self::Waited => f.write_str("it waited for too long"),
        }
    }
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Text that should be a digest is not.
    #[error("{text:?} is not a digest: {reason}")]
    InvalidDigest {
        /// The text, cut to 200 characters.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Text that should name an image does not.
    #[error("{text:?} does not name an image: {reason}")]
    InvalidReference {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Bytes hash to something else than their name.
    #[error("{subject} hashes to {actual}, not to {expected}")]
    DigestMismatch {
        /// Which bytes.
        subject: String,
        /// What they should hash to.
        expected: Digest,
        /// What they do hash to.
        actual: Digest,
    },
    /// There are more or fewer bytes than declared.
    #[error("{subject} has {actual} bytes, not {expected}")]
    SizeMismatch {
        /// Which bytes.
        subject: String,
        /// The declared number.
        expected: u64,
        /// The number found (or the number at which reading stopped).
        actual: u64,
    },
    /// A stream is broken: cut short, a wrong checksum, garbage behind its end.
    #[error("{subject} is corrupt: {reason}")]
    Corrupt {
        /// Which stream.
        subject: String,
        /// What was found.
        reason: String,
    },
    /// A file in which the store keeps account is not what the store wrote.
    #[error("{subject} is damaged: {reason}")]
    Damaged {
        /// Which file.
        subject: String,
        /// What was found.
        reason: String,
        /// What would help.
        hint: String,
    },
    /// An entry or a document breaks a rule.
    #[error("refused {subject}: {reason}")]
    Refused {
        /// The entry (escaped) or document.
        subject: String,
        /// The rule.
        reason: String,
    },
    /// Something is mounted inside of what was to be changed, removed or merged: that is outside.
    #[error("{mount} is a mount point: what is mounted inside of {what} is not touched")]
    Mounted {
        /// What it is inside of, escaped.
        what: String,
        /// Where something is mounted, escaped.
        mount: String,
    },
    /// A limit was crossed.
    #[error("{subject} crosses the limit of {limit} {what}")]
    Limit {
        /// Which entry, layer or document.
        subject: String,
        /// What is counted, with its unit: `bytes in a path`, `entries`. The table of [`Limits`] knows these words.
        what: &'static str,
        /// The most that is allowed.
        limit: u64,
    },
    /// A guest was ended.
    #[error("the guest `{guest}` was stopped: {failure}")]
    Guest {
        /// Which guest.
        guest: String,
        /// Why.
        failure: GuestFailure,
    },
    /// A plugin needs what it was not granted.
    #[error("the plugin `{plugin}` lacks {what}")]
    Denied {
        /// Which plugin.
        plugin: String,
        /// What it lacks.
        what: String,
        /// The command that would grant it; nothing where no command would.
        grant: Option<String>,
    },
    /// A media type, algorithm or feature that is not known here.
    #[error("{what} is not supported")]
    Unsupported {
        /// What it is.
        what: String,
    },
    /// The store was changed by a version that does things which this one does not know.
    #[error("the store at {path} needs the feature `{feature}`, which this version does not know")]
    StoreFeature {
        /// The store's directory, escaped.
        path: String,
        /// The feature, as `meta.json` names it.
        feature: String,
    },
    /// The thing asked for does not exist.
    #[error("{what} was not found")]
    NotFound {
        /// What it is.
        what: String,
        /// What would help.
        hint: Option<String>,
    },
    /// The registry refused the credentials, or wants some.
    #[error("{host} refused access to {what}: {reason}")]
    Authentication {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// What it said.
        reason: String,
    },
    /// The network or the registry failed.
    #[error("cannot get {what}: {reason}")]
    Network {
        /// What was asked for.
        what: String,
        /// What happened.
        reason: String,
    },
    /// A directory or file of the store is another user's, or others may write to it.
    #[error("cannot trust `{path}`: {}", distrust(*owner, *mode, *user))]
    Untrusted {
        /// The path, escaped.
        path: String,
        /// The owner's user id.
        owner: u32,
        /// The permissions, without the type of the file.
        mode: u32,
        /// The effective user id of this process.
        user: u32,
    },
    /// There is not enough room for what is about to be fetched.
    #[error("{what} needs {needed} bytes, and {path} has room for {available}")]
    NoSpace {
        /// What is to be fetched.
        what: String,
        /// The store's directory, escaped.
        path: String,
        /// Bytes that it needs.
        needed: u64,
        /// Bytes that the file system gives to this user.
        available: u64,
    },
    /// Somebody else holds it.
    #[error("{what} is in use by another process")]
    Busy {
        /// What is held.
        what: String,
    },
    /// A request that makes no sense.
    #[error("{reason}")]
    Usage {
        /// What is wrong with it.
        reason: String,
        /// What would be right.
        hint: Option<String>,
    },
    /// The file system or the process cannot hold an attribute that must not be lost without a word.
    #[error("cannot set the extended attribute `{name}` of `{subject}`, which must not be lost")]
    CannotHold {
        /// The path (escaped).
        subject: String,
        /// The attribute: `security.capability` or `user.containers.override_stat`.
        name: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot {action}")]
    Io {
        /// What was being done to which path: `create usr/bin/id`.
        action: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The caller gave up.
    #[error("interrupted")]
    Interrupted,
    /// An error with what was being done when it happened.
    #[error("{context}")]
    Context {
        /// What was being done: `extracting layer sha256:…`.
        context: String,
        /// What happened.
        #[source]
        source: Box<Error>,
    },
}

impl Error {
    /// A refusal of an entry, whose raw name is escaped for people.
    pub fn refused(path: &[u8], reason: impl Into<String>) -> Self {
        Self::Refused { subject: format!("`{}`", Escaped(path)), reason: reason.into() }
    }

    /// A failed system call on a path, which is escaped for people.
    pub fn io(action: &str, path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Io { action: format!("{action} `{}`", Escaped(path)), source: source.into() }
    }

    /// Says what was being done when this error happened.
    #[must_use]
    pub fn context(self, context: impl Into<String>) -> Self {
        Self::Context { context: context.into(), source: Box::new(self) }
    }

    /// A digest that is none is the user's mistake where the user wrote it, and not content to be refused.
    #[must_use]
    pub fn in_reference(self, text: &str) -> Self {
        match self {
            Self::InvalidDigest { reason, .. } => Self::InvalidReference {
                text: text.chars().take(200).collect(),
                reason: format!("what stands behind `@` is not a digest: {reason}"),
            },
            other => other,
        }
    }

    /// The error without its contexts.
    pub fn root(&self) -> &Self {
        match self {
            Self::Context { source, .. } => source.root(),
            other => other,
        }
    }

    /// Whether the caller gave up, whatever was being done then.
    pub fn is_interrupted(&self) -> bool {
        matches!(self.root(), Self::Interrupted)
    }

    /// The error's class.
    pub fn kind(&self) -> ErrorKind {
        match self.root() {
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } | Self::Corrupt { .. } | Self::Damaged { .. } => {
                ErrorKind::Integrity
            }
            Self::InvalidDigest { .. }
            | Self::Refused { .. }
            | Self::Mounted { .. }
            | Self::Limit { .. }
            | Self::Guest { .. }
            | Self::Denied { .. }
            | Self::StoreFeature { .. }
            | Self::Untrusted { .. }
            | Self::Unsupported { .. } => ErrorKind::Refused,
            Self::InvalidReference { .. } | Self::Usage { .. } => ErrorKind::Usage,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Authentication { .. } => ErrorKind::Authentication,
            Self::Network { .. } => ErrorKind::Network,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::Interrupted => ErrorKind::Interrupted,
            Self::CannotHold { .. } | Self::Io { .. } | Self::NoSpace { .. } | Self::Context { .. } => {
                ErrorKind::Failed
            }
        }
    }

    /// What to do about it, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self.root() {
            Self::NotFound { hint, .. } | Self::Usage { hint, .. } => hint.clone(),
            Self::Damaged { hint, .. } => Some(hint.clone()),
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } | Self::Corrupt { .. } => {
                Some("fetch it again, and if that fails too, ask whoever published it".into())
            }
            Self::StoreFeature { .. } => {
                Some("use the newer cofferdam that wrote this store, or choose another directory".into())
            }
            Self::CannotHold { name, .. } => {
                Some(format!("use a file system and a user that can hold it, or allow losing it with --lossy {name}"))
            }
            Self::Untrusted { path, owner, user, .. } => Some(if matches!(*owner, 0) || owner == user {
                format!("choose another directory, or, if all who could write to it are trusted: chmod go-w {path}")
            } else {
                format!("run as user {owner}, or choose a directory that is this user's own")
            }),
            Self::Limit { what, .. } => Some(match Limits::meant(what) {
                Some((limit, _)) => raise(limit.name),
                None => "this limit cannot be raised".into(),
            }),
            Self::Denied { grant, .. } => grant.as_ref().map(|grant| format!("if you trust it: {grant}")),
            Self::Guest { guest, failure } => match failure {
                GuestFailure::Memory(_) if matches!(&**guest, "gunzip" | "unzstd") => Some(raise("decoder-memory")),
                GuestFailure::Memory(_) if guest == "untar" => Some(raise("guest-memory")),
                GuestFailure::Memory(_) => Some(
                    "the `memory` of its manifest is what it may have, up to --limit plugin-memory=… (a decoder: \
                     --limit decoder-memory=…)"
                        .into(),
                ),
                GuestFailure::TimeOut if !matches!(&**guest, "gunzip" | "unzstd" | "untar") => Some(format!(
                    "{}; the `time` of its manifest is what it may have, if that is less",
                    raise("guest-time")
                )),
                GuestFailure::TimeOut => Some(format!("{}, or --limit guest-time-per-mib=…", raise("guest-time"))),
                GuestFailure::Waited => Some(raise("plugin-wait")),
                _ => None,
            },
            Self::Authentication { host, .. } => Some(format!("give a user name and a password that {host} accepts")),
            Self::Network { .. } => Some("check the network and the name, then try again".into()),
            Self::Mounted { .. } => Some("unmount it, then try again".into()),
            Self::Busy { .. } => Some("wait for the other process, or stop it".into()),
            Self::NoSpace { .. } => Some(ROOM.into()),
            Self::Io { source, .. } => hint_of_system(source).map(str::to_owned),
            _ => None,
        }
    }
}

/// The reason why a file or directory of this owner and mode is not trusted.
fn distrust(owner: u32, mode: u32, user: u32) -> String {
    let reason = if matches!(owner, 0) || owner == user { "others may write to it" } else { "it is another user's" };
    format!("{reason} (owner {owner}, mode {mode:04o}; this process is user {user})")
}

const ROOM: &str = "free some space (`cofferdam gc` frees what no image needs), then try again";

/// What to do about what the system said.
fn hint_of_system(error: &io::Error) -> Option<&'static str> {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error).or_else(|| match error.kind() {
        // As allocations that failed say it.
        io::ErrorKind::OutOfMemory => Some(Errno::NOMEM),
        _ => None,
    });
    Some(match errno? {
        Errno::NOSPC | Errno::DQUOT => ROOM,
        Errno::ACCESS | Errno::PERM => "run as a user who may do this, or choose another directory",
        Errno::ROFS => "make the file system writable, or choose another directory",
        Errno::MFILE => "allow the process more open files: ulimit -n",
        Errno::NFILE => "allow the machine more open files: sysctl fs.file-max",
        Errno::AGAIN => "allow more threads: ulimit -u, and the pids limit of the control group",
        Errno::NOMEM => {
            "allow the process more memory or address space: ulimit -v, and the memory limit of the control group"
        }
        Errno::FBIG => "allow larger files: ulimit -f",
        Errno::IO => "look at the kernel's log: the disk may be failing",
        _ => return None,
    })
}

fn raise(limit: &str) -> String {
    format!("if you trust this image, raise the limit: --limit {limit}=…")
}

/// Shows bytes of an image to people: printable ASCII as it is, everything else as `\xNN`, so that a name can neither
/// move the cursor nor pass for another line. Cut after 256 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a [u8]);

impl Escaped<'_> {
    /// The whole of it, however long.
    pub fn uncut(self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(self.0.len()), |mut text, &byte| {
            let _ = match byte {
                b'\\' => text.write_str("\\\\"),
                b' '..=b'~' => text.write_char(char::from(byte)),
                _ => write!(text, "\\x{byte:02x}"),
            };
            text
        })
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get(..256) {
            Some(start) if self.0.len() > 256 => write!(f, "{}… ({} bytes)", Escaped(start).uncut(), self.0.len()),
            _ => f.write_str(&self.uncut()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_has_a_hint() {
        let hint = |errno: rustix::io::Errno| Error::io("write", b"x", errno).context("pulling").hint();
        for (errno, word) in [
            (rustix::io::Errno::NOSPC, "cofferdam gc"),
            (rustix::io::Errno::DQUOT, "cofferdam gc"),
            (rustix::io::Errno::ROFS, "writable"),
            (rustix::io::Errno::MFILE, "ulimit"),
            (rustix::io::Errno::ACCESS, "user"),
            (rustix::io::Errno::IO, "disk"),
            (rustix::io::Errno::AGAIN, "threads"),
            (rustix::io::Errno::NOMEM, "memory"),
            (rustix::io::Errno::FBIG, "larger files"),
        ] {
            assert!(hint(errno).is_some_and(|hint| hint.contains(word)), "{errno}");
        }
        assert_eq!(hint(rustix::io::Errno::NOENT), None);
    }

    #[test]
    fn context_keeps_the_kind() {
        let error = Error::refused(b"a\n\xff", "why").context("extracting").context("pulling");
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert_eq!(error.root().to_string(), "refused `a\\x0a\\xff`: why");
    }
}
