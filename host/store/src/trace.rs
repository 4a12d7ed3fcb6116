//! What was done to the disk, in its order: for the tests that say which sync comes before which name. Not in a build that
//! is not for tests.

#[cfg(not(test))]
pub(super) fn step(_what: &str, _handle: impl std::os::fd::AsFd, _name: &str) {}

#[cfg(test)]
pub(super) use recorder::{record, step};

#[cfg(test)]
mod recorder {
    use std::cell::RefCell;
    use std::os::fd::{AsFd, AsRawFd as _};
    use std::path::PathBuf;

    thread_local! {
        static STEPS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
    }

    /// Notes a step: what was done to a handle, or to a name in a directory's handle.
    #[expect(clippy::disallowed_methods, reason = "a test looks up what a handle is")]
    pub(crate) fn step(what: &str, handle: impl AsFd, name: &str) {
        STEPS.with_borrow_mut(|steps| {
            let Some(steps) = steps else { return };
            let path = PathBuf::from(format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd()));
            let path = std::fs::read_link(path).unwrap().join(name);
            steps.push(format!("{what} {}", path.display().to_string().trim_end_matches('/')));
        });
    }

    /// What this thread does to the disk while `work` runs.
    pub(crate) fn record<T>(work: impl FnOnce() -> T) -> (T, Vec<String>) {
        STEPS.set(Some(Vec::new()));
        let done = work();
        (done, STEPS.take().unwrap_or_default())
    }
}
