//! From a guest's end to a typed error.

use std::io;

use cofferdam_core::error::{Error, Escaped, GuestFailure, Result};
use cofferdam_core::limits::{Limit, Limits};

use super::bindings::Failure;

/// Judges how a guest's export returned: the host's own error first, then the trap, then what the guest says.
pub(crate) fn judge<T>(
    guest: &str,
    failure: Option<Error>,
    outcome: wasmtime::Result<std::result::Result<T, Failure>>,
    limits: &Limits,
) -> Result<T> {
    match (failure, outcome) {
        (Some(error), _) => Err(error),
        (None, Ok(Ok(said))) => Ok(said),
        (None, Ok(Err(said))) => Err(said_by(guest, said, limits)),
        (None, Err(trap)) => Err(stopped_by(guest, &trap)),
    }
}

/// The failure of the machine that an error of the engine's comes from, if it does: no memory, no address space, no files.
/// No guest can bring one about: what it does wrong has types of its own.
pub(crate) fn machine(error: &wasmtime::Error) -> Option<io::Error> {
    if error.is::<wasmtime::error::OutOfMemory>() {
        return Some(io::ErrorKind::OutOfMemory.into());
    }
    error.chain().find_map(|cause| {
        if let Some(errno) = cause.downcast_ref::<rustix::io::Errno>() {
            return Some((*errno).into());
        }
        let error = cause.downcast_ref::<io::Error>()?;
        Some(
            error
                .raw_os_error()
                .map_or_else(|| io::Error::new(error.kind(), error.to_string()), io::Error::from_raw_os_error),
        )
    })
}

/// The error of a guest that trapped or could not be instantiated.
pub(crate) fn stopped_by(guest: &str, error: &wasmtime::Error) -> Error {
    if let Some(source) = machine(error) {
        return Error::Io { action: format!("run the guest `{guest}`"), source };
    }
    let failure = match (error.downcast_ref::<wasmtime::Trap>(), error.downcast_ref::<wasmtime_wasi::I32Exit>()) {
        (Some(trap), _) => GuestFailure::Trap(trap.to_string()),
        (None, Some(exit)) => GuestFailure::Misuse(format!("it exited, with code {}, and gave no answer", exit.0)),
        (None, None) => GuestFailure::Misuse(one_line(&error.root_cause().to_string())),
    };
    Error::Guest { guest: guest.to_owned(), failure }
}

fn said_by(guest: &str, said: Failure, limits: &Limits) -> Error {
    let subject = "the layer".to_owned();
    match said {
        Failure::Corrupt(reason) => Error::Corrupt { subject, reason: format!("{guest}: {}", one_line(&reason)) },
        Failure::Limit(reason) => match limit_in(&reason) {
            Some((limit, what)) => Error::Limit { subject, what, limit: limits.value(limit) },
            None => Error::Refused { subject, reason: format!("{guest}: {}", one_line(&reason)) },
        },
        Failure::Refused(refusal) => Error::Refused {
            subject: if refusal.path.is_empty() { subject } else { format!("`{}`", Escaped(&refusal.path)) },
            reason: one_line(&refusal.reason),
        },
    }
}

/// The limit that a guest says was crossed, if it is one of the host's: it ends with the words that the host has for it.
/// Only which one it is comes from the guest.
fn limit_in(reason: &str) -> Option<(&'static Limit, &'static str)> {
    let (_, words) = reason.split_once("more than ")?;
    let (_, what) = words.split_once(' ')?;
    Limits::meant(what)
}

/// A guest's text is untrusted: one line of at most 300 characters reaches people.
pub(crate) fn one_line(text: &str) -> String {
    let obeyed = |c: char| {
        // Controls, and what reorders or hides text.
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().take(300).map(|c| if obeyed(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_guest_stays_one_short_line() {
        let text = one_line(&format!("a\n\u{1b}[31m\u{202e}{}", "x".repeat(1000)));
        assert_eq!(text.chars().count(), 300);
        assert!(!text.contains(char::is_control) && !text.contains('\u{202e}'));
    }
}
