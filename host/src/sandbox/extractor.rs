//! Runs an extractor guest: a stream in, claimed entries out.

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use super::bindings::{Extractor, claim, interface};
use super::bounds;
use super::confine::Confined;
use super::embedded::Guest;
use super::engine::Sandbox;
use super::failure::{judge, stopped_by};
use super::input::{self, InputHost};
use super::log;
use crate::error::Result;
use crate::limits::Limits;

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
    pub fn extract<H: ExtractorHost>(&self, guest: Guest, limits: &Limits, host: H) -> (Result<()>, H) {
        let _clocks = self.clocks();
        let mut store = self.store(guest, limits.guest_memory, limits, host);
        let outcome = self.component(guest).and_then(|component| {
            let linker = linker::<H>(self).map_err(|error| stopped_by(guest, &error))?;
            Ok(Extractor::instantiate(&mut store, component, &linker)
                .and_then(|extractor| extractor.call_extract(&mut store)))
        });
        let (host, failure) = store.into_data().release();
        (outcome.and_then(|outcome| judge(guest, failure, outcome, limits)), host)
    }
}

fn linker<H: ExtractorHost>(sandbox: &Sandbox) -> wasmtime::Result<Linker<Confined<H>>> {
    let mut linker = Linker::new(sandbox.engine());
    input::link(&mut linker)?;
    linker.instance(interface::TREE)?.func_wrap(
        "put",
        |mut store: StoreContextMut<'_, Confined<H>>, (entry,): (claim::Entry,)| {
            store.data_mut().serve(|state| {
                // An entry is progress of its own: how many there may be is the caller's limit.
                let content = state.host.put(entry)?;
                state.moved(content.max(1))
            })
        },
    )?;
    log::link(&mut linker)?;
    bounds::link(&mut linker)?;
    Ok(linker)
}
