//! When to try again, how often, and after how long.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use cofferdam_core::error::{Error, Result};

use crate::image_source::{Failure, Retry};

/// How patient to be with a registry in trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, at least one. For a blob: attempts in a row that bring less than [`RetryPolicy::progress`].
    pub attempts: u32,
    /// The pause after the first failure; it doubles each time.
    pub pause: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// The longest pause that a registry may ask for. One that asks for more has failed.
    pub patience: Duration,
    /// The bytes of a blob after which earlier failures are forgiven.
    pub progress: u64,
    /// How long a blob may arrive slowly: an attempt has failed when less than [`RetryPolicy::window_bytes`] come in such
    /// a time.
    pub window: Duration,
    /// The least of a blob that must come in a [`RetryPolicy::window`].
    pub window_bytes: u64,
    /// How long a blob that is read as a whole, such as an image configuration, may take in one attempt.
    pub document_timeout: Duration,
}

impl Default for RetryPolicy {
    /// Five attempts, pausing ½, 1, 2 and 4 seconds, or as long as the registry asks for up to a minute; 64 KiB a minute,
    /// two minutes for what is read as a whole.
    fn default() -> Self {
        Self {
            attempts: 5,
            pause: Duration::from_millis(500),
            longest: Duration::from_secs(10),
            patience: Duration::from_mins(1),
            progress: 16 << 20,
            window: Duration::from_mins(1),
            window_bytes: 64 << 10,
            document_timeout: Duration::from_mins(2),
        }
    }
}

impl RetryPolicy {
    /// The count of attempts at one thing, none made yet.
    pub fn attempts(&self) -> Attempts<'_> {
        Attempts { policy: self, failed: 0 }
    }
}

/// The attempts at one thing.
#[derive(Debug)]
pub struct Attempts<'a> {
    policy: &'a RetryPolicy,
    failed: u32,
}

impl Attempts<'_> {
    /// After a failed attempt: waits until it is time for the next one, or gives up with the failure's error.
    pub async fn after(&mut self, failure: Failure) -> Result<()> {
        let Some(pause) = self.pause(failure.retry) else { return Err(failure.error) };
        tracing::warn!(error = %Chain(&failure.error), pause = ?pause, attempt = self.failed, "trying again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Forgives the failures so far.
    pub fn forgive(&mut self) {
        self.failed = 0;
    }

    /// Counts a failure; the pause after it, if there is to be another attempt.
    fn pause(&mut self, retry: Retry) -> Option<Duration> {
        self.failed = self.failed.saturating_add(1);
        if self.failed >= self.policy.attempts {
            return None;
        }
        match retry {
            Retry::Never => None,
            // Never sooner than without being asked: "at once" would be hammering.
            Retry::After(pause) => (pause <= self.policy.patience).then(|| pause.max(self.backoff())),
            Retry::Soon => Some(self.backoff()),
        }
    }
}

impl Attempts<'_> {
    fn backoff(&self) -> Duration {
        let doubled = self.policy.pause.saturating_mul(1 << self.failed.saturating_sub(1).min(16));
        doubled.min(self.policy.longest).mul_f64(jitter())
    }
}

/// A factor from ¾ to 1, so that many clients that failed together do not come back together.
fn jitter() -> f64 {
    let random = u16::try_from(RandomState::new().hash_one(0) & 0xffff).unwrap_or(0);
    1.0 - f64::from(random) / f64::from(u16::MAX) / 4.0
}

/// An error with its causes, in one line.
struct Chain<'a>(&'a Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = std::error::Error::source(self.0);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_end() {
        let policy = RetryPolicy { longest: Duration::from_millis(1500), ..RetryPolicy::default() };
        let mut attempts = policy.attempts();
        for most in [500, 1000, 1500, 1500] {
            let pause = attempts.pause(Retry::Soon).unwrap();
            let most = Duration::from_millis(most);
            assert!(pause <= most && pause >= most * 3 / 4, "{pause:?} {most:?}");
        }
        assert_eq!(attempts.pause(Retry::Soon), None);
        attempts.forgive();
        assert!(attempts.pause(Retry::Soon).is_some());
    }

    #[test]
    fn a_registry_is_given_the_time_that_it_asks_for_within_reason() {
        let policy = RetryPolicy::default();
        let minute = Duration::from_mins(1);
        assert_eq!(policy.attempts().pause(Retry::After(minute)), Some(minute));
        assert_eq!(policy.attempts().pause(Retry::After(minute * 2)), None);
        assert_eq!(policy.attempts().pause(Retry::Never), None);
        assert!(policy.attempts().pause(Retry::After(Duration::ZERO)).unwrap() >= policy.pause * 3 / 4);
    }
}
