//! The unpacker of callers who bring none: one for the process, since guests take a fifth of a second to compile.

use std::sync::{Arc, OnceLock};

use cofferdam_core::error::Result;
use cofferdam_core::limits::Limits;
use cofferdam_sandbox::{Sandbox, SandboxOptions};

use super::Unpacker;

/// The process's own unpacker, with the default limits. Compiled guests are kept in memory only: where they could be kept on
/// disk is the caller's to say, with [`SandboxOptions::with_cache`].
pub(super) fn shared() -> Result<Unpacker> {
    static SHARED: OnceLock<Unpacker> = OnceLock::new();
    if let Some(unpacker) = SHARED.get() {
        return Ok(unpacker.clone());
    }
    let sandbox = Sandbox::new(&SandboxOptions::default())?;
    Ok(SHARED.get_or_init(|| Unpacker::new(Arc::new(sandbox), Limits::default())).clone())
}
