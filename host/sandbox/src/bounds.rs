//! The bounds that a guest may ask for. They are the host's own limits, which it keeps whatever the guest does with them.

use cofferdam_core::limits::Limits;
use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use super::bindings::{EntryBounds, interface};
use super::confine::Confined;

/// What one stream and one entry may cost.
#[derive(Clone, Copy)]
pub struct Bounds {
    entry: EntryBounds,
    window: u64,
}

impl Bounds {
    pub fn of(limits: &Limits) -> Self {
        let narrow = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Self {
            entry: EntryBounds {
                metadata: narrow(limits.entry_metadata_bytes),
                path: narrow(limits.path_bytes),
                component: narrow(limits.component_bytes),
                depth: narrow(limits.depth),
                attribute_bytes: narrow(limits.xattr_bytes),
                attributes: narrow(limits.xattrs),
                extents: narrow(limits.sparse_extents),
            },
            window: limits.zstd_window,
        }
    }
}

/// Links the bounds. To ask for them is a call that moves nothing.
pub(crate) fn link<H: 'static>(linker: &mut Linker<Confined<H>>) -> wasmtime::Result<()> {
    let mut instance = linker.instance(interface::BOUNDS)?;
    instance.func_wrap("entry", |mut store: StoreContextMut<'_, Confined<H>>, (): ()| {
        store.data_mut().serve(|state| state.moved(0).map(|()| (state.bounds.entry,)))
    })?;
    instance.func_wrap("window", |mut store: StoreContextMut<'_, Confined<H>>, (): ()| {
        store.data_mut().serve(|state| state.moved(0).map(|()| (state.bounds.window,)))
    })
}
