//! Runs an extractor guest: a stream in, claimed entries out.

use cofferdam_core::error::Result;
use cofferdam_core::limits::Limits;
use cofferdam_tree::claim;
use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use super::bindings::{Failure, interface, tree};
use super::bounds;
use super::confine::Confined;
use super::engine::Sandbox;
use super::entry::declared;
use super::input::{self, InputHost};
use super::log;
use super::program::Program;
use super::run::Run;

/// Serves an extractor.
pub trait ExtractorHost: InputHost {
    /// Checks a claimed entry and makes it; moves a file's content out of the stream. Says how many bytes that were.
    fn put(&mut self, entry: claim::Entry) -> Result<u64>;
}

impl Sandbox {
    /// Runs an extractor to its end, and gives the host back.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::decode`].
    pub fn extract<H: ExtractorHost>(&self, program: &Program, limits: &Limits, host: H) -> (Result<()>, H) {
        let limits = &program.limits(limits);
        let _clocks = self.clocks();
        let mut run = match Run::new(self, program, limits.guest_memory, limits, program.context(), host) {
            Ok(run) => run,
            Err((error, host)) => return (Err(error), host),
        };
        let outcome = run.instantiate(self, link::<H>).and_then(|instance| {
            let extract = run.export::<(), (std::result::Result<(), Failure>,)>(&instance, None, "extract")?;
            run.call(extract, ()).map(|(outcome,)| outcome)
        });
        run.end(outcome, limits)
    }
}

/// Links what an extractor imports.
fn link<H: ExtractorHost>(linker: &mut Linker<Confined<H>>) -> wasmtime::Result<()> {
    input::link(linker)?;
    linker.instance(interface::TREE)?.func_wrap(
        "put",
        |mut store: StoreContextMut<'_, Confined<H>>, (entry,): (tree::Entry,)| {
            store.data_mut().serve(|state| {
                // An entry is progress of its own: how many there may be is the caller's limit.
                let content = state.host.put(declared(entry))?;
                state.moved(content.max(1))
            })
        },
    )?;
    log::link(linker)?;
    bounds::link(linker)
}
