//! Where things lie in a checkout.

use std::env;
use std::path::{Path, PathBuf};

/// The root of the checkout.
pub fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_path_buf()
}

/// Cargo's target directory: `CARGO_TARGET_DIR`, else `target` in the checkout.
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) if !dir.is_empty() => workspace().join(dir),
        _ => workspace().join("target"),
    }
}

/// Where the guests are built: one directory for all builds of the host, which would else each make their own.
pub fn guests() -> PathBuf {
    target().join("guests")
}

/// The directory in which tests make their scratch directories: `COFFERDAM_SCRATCH`, else `tmp` in the target directory.
pub fn scratch() -> PathBuf {
    match env::var_os("COFFERDAM_SCRATCH") {
        Some(dir) if !dir.is_empty() => workspace().join(dir),
        _ => target().join("tmp"),
    }
}

/// Where `tests/images/make-images.sh` leaves its images: `COFFERDAM_IMAGES`, else `images` in the target directory.
pub fn images() -> PathBuf {
    match env::var_os("COFFERDAM_IMAGES") {
        Some(dir) if !dir.is_empty() => workspace().join(dir),
        _ => target().join("images"),
    }
}

/// The committed OCI layout of a few kilobytes.
pub fn hello_layout() -> PathBuf {
    workspace().join("tests/fixtures/hello-oci")
}
