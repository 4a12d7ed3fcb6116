//! Messages for the host's log. The host drops what exceeds its budget.

use crate::host;

/// How much a message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For who looks for a fault.
    Debug,
    /// For who wants to follow.
    Info,
    /// For everybody.
    Warn,
}

/// Says something to who looks for a fault.
pub fn debug(text: impl AsRef<str>) {
    message(Level::Debug, text.as_ref());
}

/// Says something to who wants to follow.
pub fn info(text: impl AsRef<str>) {
    message(Level::Info, text.as_ref());
}

/// Says something to everybody.
pub fn warn(text: impl AsRef<str>) {
    message(Level::Warn, text.as_ref());
}

/// What the contract allows in one message.
const LIMIT: usize = 4096;

fn message(level: Level, text: &str) {
    host::log(level, &text[..text.floor_char_boundary(LIMIT)]);
}
