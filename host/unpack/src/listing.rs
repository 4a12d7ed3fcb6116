//! A sink that makes nothing: it shows entries and drops their content.

use cofferdam_core::error::Result;
use cofferdam_tree::entry::{Content, Entry, Node, Sink};

/// Hands each entry to a function, in the layer's order.
#[derive(Debug)]
pub struct Listing<F>(F);

impl<F: FnMut(Entry) -> Result<()>> Listing<F> {
    /// Shows entries to `show`; its error ends the reading.
    pub fn new(show: F) -> Self {
        Self(show)
    }
}

impl<F: FnMut(Entry) -> Result<()> + Send> Sink for Listing<F> {
    fn put(&mut self, entry: Entry, content: &mut dyn Content) -> Result<()> {
        let mut left = match &entry.node {
            Node::File { size } => *size,
            Node::Sparse { extents, .. } => extents.iter().map(|extent| extent.length).sum(),
            _ => 0,
        };
        while left > 0 {
            let at_hand = content.chunk()?.len();
            let count = usize::try_from(left).map_or(at_hand, |left| at_hand.min(left));
            content.advance(count);
            left -= count as u64;
        }
        (self.0)(entry)
    }
}
