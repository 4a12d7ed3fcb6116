//! Giving up: a flag that long work looks at between two steps, or waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::error::{Error, Result};

/// Lets one side ask and the other side stop. Clones share the flag; there is no way back.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    asked: AtomicBool,
    changed: Notify,
}

impl Cancel {
    /// Nobody has asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the work to stop. It ends with [`Error::Interrupted`] and leaves nothing behind.
    pub fn cancel(&self) {
        self.0.asked.store(true, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }

    /// Ends work that was asked to stop.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`].
    pub fn check(&self) -> Result<()> {
        if self.0.asked.load(Ordering::SeqCst) { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Waits until somebody asks.
    pub async fn cancelled(&self) {
        // Made before the flag is looked at: from here on it hears of every change.
        let changed = self.0.changed.notified();
        if self.check().is_ok() {
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_is_told() {
        let cancel = Cancel::new();
        let waiting = tokio::spawn({
            let cancel = cancel.clone();
            async move { cancel.cancelled().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        cancel.check().unwrap();
        cancel.cancel();
        waiting.await.unwrap();
        cancel.cancelled().await;
        assert!(matches!(cancel.check(), Err(Error::Interrupted)));
    }
}
