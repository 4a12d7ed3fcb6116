//! Runs a decoder guest: bytes in, bytes out.

use cofferdam_core::error::Result;
use cofferdam_core::limits::Limits;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, WasmList};

use super::bindings::{Failure, interface};
use super::bounds;
use super::confine::{Confined, MAX_TRANSFER};
use super::engine::Sandbox;
use super::input::{self, InputHost};
use super::log;
use super::program::Program;
use super::run::Run;

/// Serves a decoder.
pub trait DecoderHost: InputHost {
    /// An empty buffer for the next decoded bytes.
    fn buffer(&mut self) -> Vec<u8>;

    /// Takes decoded bytes, in a buffer that [`DecoderHost::buffer`] gave.
    fn write(&mut self, bytes: Vec<u8>) -> Result<()>;
}

impl Sandbox {
    /// Runs a decoder to its end, and gives the host back.
    ///
    /// # Errors
    ///
    /// Those of the host's calls; [`cofferdam_core::Error::Guest`] for a guest that was stopped; [`cofferdam_core::Error::Corrupt`] and
    /// [`cofferdam_core::Error::Refused`] for what the guest says of the stream.
    pub fn decode<H: DecoderHost>(&self, program: &Program, limits: &Limits, host: H) -> (Result<()>, H) {
        let limits = &program.limits(limits);
        let _clocks = self.clocks();
        let mut run = match Run::new(self, program, limits.decoder_memory, limits, program.context(), host) {
            Ok(run) => run,
            Err((error, host)) => return (Err(error), host),
        };
        let outcome = run.instantiate(self, link::<H>).and_then(|instance| {
            let decode = run.export::<(), (std::result::Result<(), Failure>,)>(&instance, None, "decode")?;
            run.call(decode, ()).map(|(outcome,)| outcome)
        });
        run.end(outcome, limits)
    }
}

/// Links what a decoder imports.
fn link<H: DecoderHost>(linker: &mut Linker<Confined<H>>) -> wasmtime::Result<()> {
    input::link(linker)?;
    linker.instance(interface::OUTPUT)?.func_wrap(
        "write",
        |mut store: StoreContextMut<'_, Confined<H>>, (list,): (WasmList<u8>,)| {
            // Out of the guest's memory into a buffer of the host's: the one copy that decoded bytes make on their way.
            let mut buffer = store.data_mut().serve(|state| {
                if list.len() > MAX_TRANSFER {
                    return Err(state.misuse("a write of more than 1 MiB"));
                }
                state.moved(list.len() as u64)?;
                Ok(state.host.buffer())
            })?;
            buffer.extend_from_slice(list.as_le_slice(&store));
            store.data_mut().serve(|state| state.host.write(buffer))
        },
    )?;
    log::link(linker)?;
    bounds::link(linker)
}
