//! The host's functions: the real ones in a component, those of `testing` natively.

#[cfg(not(target_family = "wasm"))]
pub(crate) use crate::testing::host::{entry_bounds, log, put, read, setting, window, write};

#[cfg(target_family = "wasm")]
pub(crate) use component::{entry_bounds, log, put, read, setting, window, write};

#[cfg(target_family = "wasm")]
mod component {
    use crate::bindings::imports::{bounds, input, log, output, settings, tree};
    use crate::bounds::EntryBounds;
    use crate::entry::Entry;
    use crate::log::Level;

    pub(crate) fn read(skip: u64, max: u32) -> Vec<u8> {
        input::read(skip, max)
    }

    pub(crate) fn write(bytes: &[u8]) {
        output::write(bytes);
    }

    pub(crate) fn put(entry: Entry) {
        tree::put(&entry.into());
    }

    pub(crate) fn log(level: Level, text: &str) {
        let level = match level {
            Level::Debug => log::Level::Debug,
            Level::Info => log::Level::Info,
            Level::Warn => log::Level::Warn,
        };
        log::message(level, text);
    }

    pub(crate) fn setting(key: &str) -> Option<String> {
        settings::get(key)
    }

    pub(crate) fn entry_bounds() -> EntryBounds {
        let bounds = bounds::entry();
        EntryBounds {
            metadata: bounds.metadata,
            path: bounds.path,
            component: bounds.component,
            depth: bounds.depth,
            attribute_bytes: bounds.attribute_bytes,
            attributes: bounds.attributes,
            extents: bounds.extents,
        }
    }

    pub(crate) fn window() -> u64 {
        bounds::window()
    }
}
