//! What the command does about a machine that is short of something, before it does anything else: it ends with an error that
//! says what, and by no signal.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

use cofferdam::Error;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Stack that the main thread needs, in bytes: as much as every other one has, since guests run on it too.
const STACK: u64 = 2 << 20;

/// Open files that the process may have, if its hard limit is not lower.
const FILES: u64 = 16 << 10;

/// Whether errors are told as JSON.
static JSON: AtomicBool = AtomicBool::new(false);

/// Whether it was said that there is no memory.
static SAID: AtomicBool = AtomicBool::new(false);

#[global_allocator]
static MEMORY: Memory = Memory;

/// The system's memory. Where there is no more of it, the command ends as it does after other failures of the machine; Rust
/// alone would abort it. What it leaves is what a crash leaves, and is swept as that is.
struct Memory;

#[expect(unsafe_code, reason = "an allocator is")]
// SAFETY: every call is the system allocator's, with the same arguments and the same result; but for one that fails, which does
// not return.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        there(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        there(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        there(unsafe { System.realloc(place, layout, size) })
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }
}

fn there(place: *mut u8) -> *mut u8 {
    if place.is_null() {
        out_of_memory()
    }
    place
}

/// Says that there is no memory, without any, and ends.
#[cold]
fn out_of_memory() -> ! {
    const TEXT: &str = "error: out of memory\nhint: allow the process more memory or address space: ulimit -v, and the memory \
limit of the control group\n";
    const OBJECT: &str = concat!(
        r#"{"schema":"cofferdam/error/v1","error":"out of memory","kind":"failed","code":1,"#,
        r#""hint":"allow the process more memory or address space: ulimit -v, and the memory limit of the control group"}"#,
        "\n"
    );
    // Of several threads that find out, the first one says it and ends all.
    while SAID.swap(true, Ordering::Relaxed) {
        #[expect(unsafe_code, reason = "std waits by what it may have to allocate")]
        // SAFETY: waits for a signal, or for the end.
        unsafe {
            libc::pause();
        }
    }
    let text = if JSON.load(Ordering::Relaxed) { OBJECT } else { TEXT };
    let _ = rustix::io::write(io::stderr(), text.as_bytes());
    #[expect(unsafe_code, reason = "what runs at a regular exit may want memory")]
    // SAFETY: ends the process, at any time.
    unsafe {
        libc::_exit(1)
    }
}

/// Has errors told as JSON, also those that nobody returns.
pub(crate) fn tell_as_json(json: bool) {
    JSON.store(json, Ordering::Relaxed);
}

/// Prepares for limits of the system, as long as there is one thread and nothing was read.
pub(crate) fn prepare() -> Result<(), Error> {
    // A file that grows beyond the limit of the process is then an error of the call that writes, and no signal.
    #[expect(unsafe_code, reason = "neither std nor rustix ignores signals")]
    // SAFETY: sets no handler, and no other thread or library has one for this signal.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
    let stack = getrlimit(Resource::Stack);
    if stack.current.is_some_and(|bytes| bytes < STACK) {
        let enough = Rlimit { current: Some(STACK), ..stack };
        setrlimit(Resource::Stack, enough).map_err(|_| Error::Io {
            action: "get a stack of 2 MiB, which `ulimit -Hs` forbids".into(),
            source: io::ErrorKind::OutOfMemory.into(),
        })?;
    }
    // Layers may go to and fro between thousands of directories, which the writers of trees keep open as far as this lets them.
    // A limit that cannot be raised costs time only.
    let files = getrlimit(Resource::Nofile);
    if files.current.is_some_and(|files| files < FILES) {
        let more = files.maximum.map_or(FILES, |most| most.min(FILES));
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(more), ..files });
    }
    // The main thread's stack grows when it is used, and where it cannot the kernel kills the program. Where address space is
    // limited, it grows now.
    if getrlimit(Resource::As).current.is_some() {
        room(usize::try_from(STACK).unwrap_or(usize::MAX));
        grow_stack();
    }
    Ok(())
}

/// Ends the command unless it can have so many bytes more.
pub(crate) fn room(bytes: usize) {
    drop(black_box(Vec::<u8>::with_capacity(bytes)));
}

/// Touches each page of a good part of the stack.
#[inline(never)]
#[expect(clippy::large_stack_arrays, reason = "that is what it is for")]
fn grow_stack() {
    black_box(&[MaybeUninit::<u8>::uninit(); 3 << 19]);
}
