//! `cargo xtask images`: the real images that tests and benchmarks use.

use anyhow::{Result, bail};
use cofferdam_tests::{paths, require};

use crate::setup::{self, Tool};
use crate::sh;

/// The stages that the tests use. The large layers are left out: they take minutes, and are for measuring.
pub(crate) const FOR_TESTS: &[&str] = &["small", "framings", "quirk", "opq"];

/// Tools of the image maker by set or stage, what each stands on included.
fn tools_for(stage: &str) -> Vec<Tool> {
    const BASE: &[Tool] = &[
        ("umoci", "umoci"),
        ("jq", "jq"),
        ("setfattr", "attr"),
        ("mmdebstrap", "mmdebstrap"),
        ("unshare", "util-linux"),
        ("setcap", "libcap2-bin"),
        ("skopeo", "skopeo"),
    ];
    const FRAMINGS: &[Tool] =
        &[("pigz", "pigz"), ("bgzip", "tabix"), ("igzip", "isal"), ("zstd", "zstd"), ("pzstd", "zstd")];
    const NODE: &[Tool] = &[("npm", "npm")];
    const OVERLAY: &[Tool] = &[("buildah", "buildah")];
    let more: &[&[Tool]] = match stage {
        "framings" => &[FRAMINGS],
        "node" | "big" => &[NODE],
        "full" => &[FRAMINGS, NODE],
        "overlay" => &[OVERLAY],
        _ => &[],
    };
    BASE.iter().chain(more.iter().copied().flatten()).copied().collect()
}

/// The verb.
pub(crate) fn run(stages: &[&str]) -> Result<()> {
    let stages = if stages.is_empty() { FOR_TESTS } else { stages };
    if let Some(why) = obstacle() {
        bail!("{why}");
    }
    make(stages)
}

/// Why images cannot be made here at all, if so.
pub(crate) fn obstacle() -> Option<String> {
    if !require::is_root() {
        return Some("making images needs root: it makes device nodes, sets owners and enters a chroot".into());
    }
    if require::find("apt-get").is_none() || require::find("dpkg").is_none() {
        return Some("making images needs a Debian system: they are made of its packages".into());
    }
    None
}

/// Makes these sets or stages; what is up to date is skipped.
pub(crate) fn make(stages: &[&str]) -> Result<()> {
    let mut tools: Vec<_> = stages.iter().flat_map(|stage| tools_for(stage)).collect();
    tools.sort_unstable();
    tools.dedup();
    let missing = setup::tools(&tools)?;
    if !missing.is_empty() {
        bail!("missing: {}", missing.join(", "));
    }
    sh::run(sh::words("tests/images/make-images.sh -o").arg(paths::images()).args(stages))
}
