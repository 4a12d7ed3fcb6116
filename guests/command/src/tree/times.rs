//! Times of modification. Those of directories are set when the layer is done, since what is made in one changes it.
//!
//! A directory that the layer lists gets the time that the layer says; one that it does not mention keeps the time that it
//! had before.

use std::ffi::CString;
use std::fs::{File, FileTimes};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use cofferdam_layer::Timestamp;

use super::Tree;
use crate::problem::Problem;

/// The time of what no layer lists: directories that are only implied, and markers.
pub(super) const UNLISTED: Timestamp = Timestamp { seconds: 0, nanoseconds: 0 };

impl Tree {
    /// Says which time a directory is to have.
    pub(super) fn set_due(&mut self, place: &str, time: Timestamp) -> Result<(), Problem> {
        if self.times.insert(place.to_owned(), time).is_none() {
            self.keep(place)?;
        }
        Ok(())
    }

    /// Says that something in a directory is about to change. Remembers its time unless another is due already.
    pub(super) fn note(&mut self, place: &str) -> Result<(), Problem> {
        if self.times.contains_key(place) {
            return Ok(());
        }
        let time = self.time_of(place)?;
        self.set_due(place, time)
    }

    /// When what lies at a place was modified.
    pub(super) fn time_of(&self, place: &str) -> Result<Timestamp, Problem> {
        let Some(found) = self.look(place)? else { return Ok(UNLISTED) };
        let modified = found.modified().map_err(|error| self.failed("examine", place, error))?;
        // What is older than 1970 cannot be told by WASI either.
        let since = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        Ok(Timestamp { seconds, nanoseconds: since.subsec_nanos() })
    }

    pub(super) fn set_file_time(&mut self, place: &str, file: &File, time: Timestamp) -> Result<(), Problem> {
        let time = self.clamped(time);
        let since = Duration::new(time.seconds.unsigned_abs(), time.nanoseconds);
        // Beyond what the system can count: the time of the extraction stays.
        let Some(time) = SystemTime::UNIX_EPOCH.checked_add(since) else { return Ok(()) };
        let times = FileTimes::new().set_modified(time);
        file.set_times(times).map_err(|error| self.failed("set the time of", place, error))
    }

    /// Sets the time of what lies at a place: a link's own, not that of what it leads to.
    pub(super) fn set_time(&mut self, place: &str, time: Timestamp) -> Result<(), Problem> {
        let time = self.clamped(time);
        set_own_time(&self.at(place), time).map_err(|error| self.failed("set the time of", place, error))
    }

    pub(super) fn settle_times(&mut self) -> Result<(), Problem> {
        for (place, time) in std::mem::take(&mut self.times) {
            self.set_time(&place, time)?;
        }
        Ok(())
    }

    /// WASI counts from 1970.
    fn clamped(&mut self, time: Timestamp) -> Timestamp {
        if time.seconds >= 0 {
            return time;
        }
        self.made.early += 1;
        UNLISTED
    }
}

/// `utimensat`, since the standard library has no way to the time of a link.
#[expect(unsafe_code, reason = "a call of the C library")]
fn set_own_time(path: &Path, time: Timestamp) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    let time_of = |seconds, nanoseconds| libc::timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    // Below 10⁹, which the field holds, whatever its size is here.
    #[allow(clippy::cast_lossless, clippy::cast_possible_wrap, reason = "32 bits under WASI, 64 elsewhere")]
    let nanoseconds = time.nanoseconds as libc::c_long;
    let times = [time_of(0, libc::UTIME_OMIT), time_of(time.seconds, nanoseconds)];
    // SAFETY: the path is a C string, and the times are the two that the call reads; both outlive it.
    let result = unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
