//! The world `inspector`: looks at each entry of a layer while it is extracted.

use crate::entry::Entry;
use crate::failure::Failure;

/// Looks at a layer. The macro `inspector!` makes a component of it.
///
/// One value sees one layer, and sees what the layer holds, not what a container would see: a later entry of the same path
/// replaces an earlier one, and a removal concerns *lower* layers. A failure refuses the layer, which is then not kept.
pub trait Inspector: Sized {
    /// Begins, with the settings of this run at hand. Nothing about the layer is verified yet.
    fn begin(layer: Layer) -> Result<Self, Failure>;

    /// Sees an entry that the host has checked, before it is made.
    fn see(&mut self, entry: Entry) -> Result<Interest, Failure>;

    /// Takes the next bytes of the content that [`Interest::Content`] asked for: at least one, at most 1 MiB. Of a sparse
    /// file these are the extents, one after another. That there is no more is known when something else is called.
    fn content(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let _ = bytes;
        Ok(())
    }

    /// Gives the report that is kept beside the layer's tree: any bytes, best JSON, empty for none. The layer is whole and
    /// verified. Reports of the same layer ought to be the same: take no time and no chance into them.
    fn finish(self) -> Result<Vec<u8>, Failure>;
}

/// Which layer it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// The blob's digest, such as `sha256:…`; empty where nobody knows it yet.
    pub digest: String,
    /// The blob's media type; empty where nobody knows it.
    pub media_type: String,
}

/// What to do with an entry's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// The plugin does not see it. The cheap answer.
    None,
    /// [`Inspector::content`] is called with it, before the next entry. What is no file has none.
    Content,
}

/// What an exported inspector keeps between two calls.
#[cfg(all(target_family = "wasm", feature = "inspector"))]
#[doc(hidden)]
pub use slot::Slot;

#[cfg(all(target_family = "wasm", feature = "inspector"))]
mod slot {
    #![allow(missing_docs, reason = "of the macro only")]

    use std::cell::RefCell;

    use super::{Entry, Failure, Inspector, Interest, Layer};

    #[derive(Debug)]
    pub struct Slot<T>(RefCell<Option<T>>);

    impl<T> Slot<T> {
        #[expect(clippy::new_without_default, reason = "it must be const, for a static")]
        pub const fn new() -> Self {
            Self(RefCell::new(None))
        }
    }

    impl<T: Inspector> Slot<T> {
        pub fn begin(&self, layer: Layer) -> Result<(), Failure> {
            *self.0.borrow_mut() = Some(T::begin(layer)?);
            Ok(())
        }

        pub fn see(&self, entry: Entry) -> Result<Interest, Failure> {
            self.0.borrow_mut().as_mut().ok_or_else(out_of_order)?.see(entry)
        }

        pub fn content(&self, bytes: &[u8]) -> Result<(), Failure> {
            self.0.borrow_mut().as_mut().ok_or_else(out_of_order)?.content(bytes)
        }

        pub fn finish(&self) -> Result<Vec<u8>, Failure> {
            self.0.borrow_mut().take().ok_or_else(out_of_order)?.finish()
        }
    }

    fn out_of_order() -> Failure {
        Failure::refused("the host called out of order")
    }
}
