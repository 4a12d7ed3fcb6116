//! How a caller follows long work, and ends it.

use crate::budget::ImageBudget;
use crate::cancel::Cancel;
use crate::progress::Progress;

/// How the caller of long work follows and ends it. By default there is no progress, no cancellation and no budget.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Receives events.
    pub progress: Progress,
    /// Ends the work with [`crate::Error::Interrupted`].
    pub cancel: Cancel,
    /// Bounds the bytes that the layers of the image decode to, all together.
    pub budget: Option<ImageBudget>,
}
