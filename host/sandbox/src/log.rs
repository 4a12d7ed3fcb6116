//! Guests' messages, on their way to `tracing`.

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use super::bindings::{Level, interface};
use super::confine::Confined;
use super::failure::one_line;

/// Links the log. Messages beyond the budget are dropped; each is cut to one short line.
pub(crate) fn link<H: 'static>(linker: &mut Linker<Confined<H>>) -> wasmtime::Result<()> {
    linker.instance(interface::LOG)?.func_wrap(
        "message",
        |mut store: StoreContextMut<'_, Confined<H>>, (level, text): (Level, String)| {
            store.data_mut().serve(|state| {
                state.asked()?;
                if !state.message() {
                    return Ok(());
                }
                let (guest, text) = (state.program().name(), one_line(&text));
                match level {
                    Level::Debug => tracing::debug!(guest, "{text}"),
                    Level::Info => tracing::info!(guest, "{text}"),
                    Level::Warn => tracing::warn!(guest, "{text}"),
                }
                Ok(())
            })
        },
    )
}
