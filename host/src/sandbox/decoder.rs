//! Runs a decoder guest: bytes in, bytes out.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, WasmList};

use super::bindings::{Decoder, interface};
use super::bounds;
use super::confine::{Confined, MAX_TRANSFER};
use super::embedded::Guest;
use super::engine::Sandbox;
use super::failure::{judge, stopped_by};
use super::input::{self, InputHost};
use super::log;
use crate::error::Result;
use crate::limits::Limits;

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
    /// Those of the host's calls; [`crate::Error::Guest`] for a guest that was stopped; [`crate::Error::Corrupt`] and
    /// [`crate::Error::Refused`] for what the guest says of the stream.
    pub fn decode<H: DecoderHost>(&self, guest: Guest, limits: &Limits, host: H) -> (Result<()>, H) {
        let _clocks = self.clocks();
        let mut store = self.store(guest, limits.decoder_memory, limits, host);
        let outcome = self.component(guest).and_then(|component| {
            let linker = linker::<H>(self).map_err(|error| stopped_by(guest, &error))?;
            Ok(Decoder::instantiate(&mut store, component, &linker).and_then(|decoder| decoder.call_decode(&mut store)))
        });
        let (host, failure) = store.into_data().release();
        (outcome.and_then(|outcome| judge(guest, failure, outcome, limits)), host)
    }
}

fn linker<H: DecoderHost>(sandbox: &Sandbox) -> wasmtime::Result<Linker<Confined<H>>> {
    let mut linker = Linker::new(sandbox.engine());
    input::link(&mut linker)?;
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
    log::link(&mut linker)?;
    bounds::link(&mut linker)?;
    Ok(linker)
}
