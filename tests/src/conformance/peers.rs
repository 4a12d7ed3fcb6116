//! Other implementations as ways of extracting.

use std::ffi::OsStr;
use std::fs;
use std::process::{Command, Output};

use anyhow::{Context as _, Result};

use super::expect::Lens;
use super::lab::{Lab, Verdict};
use crate::oracle::umoci_name;
use crate::require;

/// Another implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// `umoci raw unpack`.
    Umoci,
    /// containerd, by `ctr images mount`.
    Containerd,
    /// GNU tar, which knows no whiteouts.
    Tar,
    /// libarchive's tar, which knows none either.
    Bsdtar,
}

impl Peer {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Umoci, Self::Containerd, Self::Tar, Self::Bsdtar];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Umoci => "umoci",
            Self::Containerd => "containerd",
            Self::Tar => "GNU tar",
            Self::Bsdtar => "bsdtar",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Umoci => "umoci",
            Self::Containerd => "ctr",
            Self::Tar => "tar",
            Self::Bsdtar => "bsdtar",
        }
    }

    /// What it says of its version; nothing where it is not installed.
    pub fn version(self) -> Option<String> {
        require::find(self.program())?;
        let output = Command::new(self.program()).arg("--version").output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned())
    }
}

/// Runs a scenario by another implementation.
pub(super) fn run(lab: &Lab, peer: Peer) -> Result<Verdict> {
    let dest = lab.dest();
    let expected = &lab.scenario.root;
    let output = match peer {
        Peer::Umoci => {
            let image = umoci_name(lab.layout()?.dir(), "t");
            command("umoci", ["raw".as_ref(), "unpack".as_ref(), "--image".as_ref(), image.as_ref(), dest.as_os_str()])?
        }
        Peer::Containerd => return super::containerd::run(lab),
        Peer::Tar | Peer::Bsdtar => {
            if lab.scenario.layers.iter().any(|layer| layer.markers) {
                return Ok(Verdict::NotApplicable("no whiteouts".into()));
            }
            fs::create_dir(&dest)?;
            let options: &[&str] = match peer {
                Peer::Tar => {
                    &["--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-owner", "--delay-directory-restore"]
                }
                _ => &["--numeric-owner", "--same-owner", "--xattrs", "-S"],
            };
            let mut output = None;
            for layer in &lab.layers {
                let words = ["-p", "-x", "-f"].iter().chain([]).map(OsStr::new);
                let words = options.iter().map(OsStr::new).chain(words).chain([
                    layer.as_os_str(),
                    "-C".as_ref(),
                    dest.as_os_str(),
                ]);
                let result = command(peer.program(), words)?;
                let failed = !result.status.success();
                output = Some(result);
                if failed {
                    break;
                }
            }
            output.context("no layers")?
        }
    };
    Ok(judge(lab, &output, expected.refused.is_empty()))
}

/// Whether a peer did what must be done. How it says no is its own affair.
pub(super) fn judge(lab: &Lab, output: &Output, must_succeed: bool) -> Verdict {
    match (output.status.success(), must_succeed) {
        (true, true) => match &lab.scenario.root.tree {
            // A tree that cannot be read is nothing that could be held against anybody.
            Some(tree) => lab.compare(tree, Lens::CLEAR).unwrap_or_else(|e| Verdict::NotApplicable(format!("{e:#}"))),
            None => Verdict::Passed,
        },
        (true, false) => Verdict::Failed("took it".into()),
        (false, false) => Verdict::Passed,
        (false, true) => {
            let text = String::from_utf8_lossy(&output.stderr);
            Verdict::Failed(format!("refused: {}", text.lines().last().unwrap_or_default()))
        }
    }
}

/// Runs a program that must not take long, whatever it is given.
pub(super) fn command<S: AsRef<OsStr>>(program: &str, words: impl IntoIterator<Item = S>) -> Result<Output> {
    Command::new("timeout")
        .args(["30", "sh", "-c", "umask 022; exec \"$0\" \"$@\"", program])
        .args(words)
        .env("LC_ALL", "C")
        .output()
        .with_context(|| format!("cannot start {program}"))
}
