//! What a plugin holds beyond its world: parts of WASI, each behind a capability.

use wasmtime::component::Linker;

use super::confine::Confined;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::plugin::{Authority, Capabilities};

/// What a run is about, as far as capabilities depend on it.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The registry of the image that is being verified: what the rule `registry` means.
    pub registry: Option<Authority>,
}

/// The state of a plugin's capabilities.
pub(crate) struct Powers {}

impl Powers {
    pub(crate) fn new(_name: &str, _held: &Capabilities, _limits: &Limits, _context: &Context) -> Result<Self> {
        Err(Error::Unsupported { what: "a plugin with capabilities".into() })
    }
}

/// Links what `held` stands for, and nothing else.
pub(crate) fn link<H: Send + 'static>(_: &mut Linker<Confined<H>>, _: &Capabilities) -> wasmtime::Result<()> {
    Ok(())
}
