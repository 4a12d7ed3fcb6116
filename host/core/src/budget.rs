//! What the layers of one image may decode to in all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::limits::Limits;

/// The decoded bytes of an image: each of its layers counts once, whether it is decoded now or was before. Cheap to clone; layers that
/// are unpacked at once share it.
#[derive(Clone, Debug)]
pub struct ImageBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: u64,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    total: u64,
    layers: HashMap<Digest, u64>,
}

impl ImageBudget {
    /// A budget of `limits.image_bytes`.
    pub fn new(limits: &Limits) -> Self {
        Self(Arc::new(Shared { limit: limits.image_bytes, used: Mutex::default() }))
    }

    /// Counts a layer that was decoded before.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if all layers are more than the image may have.
    pub fn count(&self, layer: &Digest, bytes: u64) -> Result<()> {
        self.set(Some(layer), 0, bytes)
    }

    /// Begins to decode a layer. One that was counted before is counted anew.
    pub fn begin(&self, layer: Option<Digest>) -> Share {
        if let Some(layer) = &layer {
            // Nothing is no more than before.
            let _ = self.set(Some(layer), 0, 0);
        }
        Share { budget: self.clone(), layer, bytes: 0 }
    }

    /// Sets what a layer has so far; of one without a name, `before` is what it had.
    fn set(&self, layer: Option<&Digest>, before: u64, bytes: u64) -> Result<()> {
        let mut used = self.0.used.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match layer {
            Some(layer) => used.layers.insert(layer.clone(), bytes).unwrap_or_default(),
            None => before,
        };
        used.total = used.total.saturating_sub(before).saturating_add(bytes);
        if used.total <= self.0.limit {
            return Ok(());
        }
        let what = "decoded bytes in the layers of an image";
        Err(Error::Limit { subject: "the image".into(), what, limit: self.0.limit })
    }
}

/// What one layer takes of a budget while it is decoded.
#[derive(Debug)]
pub struct Share {
    budget: ImageBudget,
    layer: Option<Digest>,
    bytes: u64,
}

impl Share {
    /// Notes that this many bytes of the layer are decoded by now.
    pub fn decoded(&mut self, bytes: u64) -> Result<()> {
        let before = std::mem::replace(&mut self.bytes, bytes);
        self.budget.set(self.layer.as_ref(), before, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_layers_share_one_budget_and_each_counts_once() {
        let budget = ImageBudget::new(&Limits::default().with(|limits| limits.image_bytes = 10));
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        budget.count(&one, 6).unwrap();
        budget.count(&one, 6).unwrap();
        let mut share = budget.begin(Some(two.clone()));
        share.decoded(3).unwrap();
        share.decoded(4).unwrap();
        let error = share.decoded(5).unwrap_err();
        assert!(matches!(error, Error::Limit { limit: 10, .. }), "{error}");
        assert!(error.hint().unwrap().contains("image-bytes"), "{:?}", error.hint());
        // Tried again, from the beginning.
        let mut again = budget.begin(Some(two.clone()));
        again.decoded(4).unwrap();
        budget.count(&two, 4).unwrap();
        budget.begin(None).decoded(1).unwrap_err();
        budget.begin(Some(one)).decoded(5).unwrap();
    }
}
