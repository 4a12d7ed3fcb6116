//! The stream that a guest reads.

use cofferdam_core::error::Result;
use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use super::bindings::interface;
use super::confine::Confined;

/// Serves a guest's one stream.
pub trait InputHost: Send + 'static {
    /// Drops exactly `skip` bytes of the stream, then gives the next: at most `max`. None at its end, whatever `skip` is.
    fn read(&mut self, skip: u64, max: usize) -> Result<Vec<u8>>;
}

/// Links the stream.
pub(crate) fn link<H: InputHost>(linker: &mut Linker<Confined<H>>) -> wasmtime::Result<()> {
    linker.instance(interface::INPUT)?.func_wrap(
        "read",
        |mut store: StoreContextMut<'_, Confined<H>>, (skip, max): (u64, u32)| {
            let bytes = store.data_mut().serve(|state| {
                let max = state.transfer(max)?;
                let bytes = state.host.read(skip, max)?;
                state.moved(bytes.len() as u64)?;
                Ok(bytes)
            })?;
            Ok((bytes,))
        },
    )
}
