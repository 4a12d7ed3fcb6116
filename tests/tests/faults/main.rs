//! What the system refuses: full disks, broken disks, too few files, directories that may not be written to. Each is an
//! error that says what failed and what helps, nothing that was committed is damaged, nothing is left half made, and the
//! next try works when the fault is gone.

mod injected;
mod real;
