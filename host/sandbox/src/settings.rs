//! What a plugin was told.

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use super::bindings::interface;
use super::confine::Confined;

/// Links the settings. To ask for one is a call that moves nothing.
pub(crate) fn link<H: 'static>(linker: &mut Linker<Confined<H>>) -> wasmtime::Result<()> {
    linker.instance(interface::SETTINGS)?.func_wrap(
        "get",
        |mut store: StoreContextMut<'_, Confined<H>>, (key,): (String,)| {
            store.data_mut().serve(|state| {
                state.moved(0)?;
                Ok((state.program().setting(&key).map(str::to_owned),))
            })
        },
    )
}
