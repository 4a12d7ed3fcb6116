//! The least that a download must bring: one that sends a byte a minute is never silent, and never done.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::client::network;
use super::retry::RetryPolicy;
use crate::image_source::{Blob, Failure};

/// How fast one attempt at a blob is. Only time that is spent waiting for the source counts: a slow disk is not its fault.
pub(super) struct Pace<'a> {
    policy: &'a RetryPolicy,
    waited: Duration,
    brought: u64,
}

impl<'a> Pace<'a> {
    pub(super) fn new(policy: &'a RetryPolicy) -> Self {
        Self { policy, waited: Duration::ZERO, brought: 0 }
    }

    /// The blob's next bytes. A failure, after which another attempt may do better, when too few come in a window of time.
    pub(super) async fn next(&mut self, blob: &mut Blob) -> Result<Option<Bytes>, Failure> {
        let RetryPolicy { window, window_bytes: least, .. } = *self.policy;
        loop {
            if self.waited >= window {
                if self.brought < least {
                    let reason = format!("less than {least} bytes arrived within {} s", window.as_secs_f32());
                    return Err(Failure::passing(network(&blob.to_string(), reason)));
                }
                (self.waited, self.brought) = (Duration::ZERO, 0);
            }
            let begun = Instant::now();
            // A stream can be left waiting and asked again: nothing of it is lost.
            let next = timeout(window.saturating_sub(self.waited), blob.next()).await;
            let Ok(next) = next else {
                self.waited = window;
                continue;
            };
            self.waited += begun.elapsed();
            let next = next?;
            self.brought += next.as_ref().map_or(0, |bytes| bytes.len() as u64);
            return Ok(next);
        }
    }
}
