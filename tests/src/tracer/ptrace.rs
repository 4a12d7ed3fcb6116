//! The raw calls of `ptrace`, `seccomp` and `wait4`, which neither std nor rustix offers.
#![expect(unsafe_code, reason = "see above")]

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::ptr;

use libc::{c_int, c_long, c_uint, c_void, pid_t, sock_filter};

/// What `wait4` told: which thread, its status, and what it used if it has ended.
pub(super) struct Told {
    pub(super) tid: pid_t,
    pub(super) status: c_int,
    pub(super) usage: libc::rusage,
}

/// A call as it stands before its execution: number and arguments.
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) arguments: [u64; 6],
}

/// Makes the program stop at its start, under the calling thread's eyes, and at each call that the filter picks.
pub(super) fn prepare(command: &mut Command, filter: Vec<sock_filter>) {
    let install = move || -> io::Result<()> {
        let length = u16::try_from(filter.len()).map_err(io::Error::other)?;
        let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
        // SAFETY: all three calls take numbers but for the last one, whose pointer is to a filter of the stated length
        // that outlives the call.
        unsafe {
            checked(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0))?;
            checked(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
            let program: *const libc::sock_fprog = &raw const program;
            checked(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, program).into())?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec this makes three system calls and allocates nothing.
    unsafe { command.pre_exec(install) };
}

/// Makes the program stop at its start, under the calling thread's eyes.
pub(super) fn prepare_alone(command: &mut Command) {
    let install = || -> io::Result<()> {
        // SAFETY: takes numbers only.
        unsafe { checked(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0)) }.map(drop)
    };
    // SAFETY: between fork and exec this makes one system call and allocates nothing.
    unsafe { command.pre_exec(install) };
}

fn checked(returned: c_long) -> io::Result<c_long> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

/// Waits for the next thing that happens to what this thread traces.
pub(super) fn wait() -> io::Result<Told> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are to live, writable values of the types that wait4(2) fills in.
        let tid = unsafe { libc::wait4(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD, usage.as_mut_ptr()) };
        if tid > 0 {
            // SAFETY: zeroed memory is a valid `rusage`, and the call above may have filled it in.
            return Ok(Told { tid, status, usage: unsafe { usage.assume_init() } });
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Follows threads and children, and dies with us.
pub(super) fn follow(tid: pid_t) -> io::Result<()> {
    let options = libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACESECCOMP
        | libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_EXITKILL;
    // SAFETY: takes numbers only.
    unsafe { checked(libc::ptrace(libc::PTRACE_SETOPTIONS, tid, 0, options)) }.map(drop)
}

/// Follows threads, hears of the end of each before it comes, and dies with us.
pub(super) fn follow_to_end(tid: pid_t) -> io::Result<()> {
    let options = libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACEEXIT | libc::PTRACE_O_EXITKILL;
    // SAFETY: takes numbers only.
    unsafe { checked(libc::ptrace(libc::PTRACE_SETOPTIONS, tid, 0, options)) }.map(drop)
}

/// What a stop is about: the new thread, of one that has made one.
pub(super) fn message(tid: pid_t) -> io::Result<u64> {
    let mut message: libc::c_ulong = 0;
    // SAFETY: the pointer is to a live, writable value of the type that the request fills in.
    unsafe { checked(libc::ptrace(libc::PTRACE_GETEVENTMSG, tid, 0, &raw mut message)) }?;
    Ok(message)
}

/// Lets a stopped thread go on, and gives it a signal.
pub(super) fn go_on(tid: pid_t, signal: c_int) {
    resume(libc::PTRACE_CONT, tid, signal);
}

/// Lets a thread that is stopped before a call make the call, and stop behind it.
pub(super) fn make_call(tid: pid_t) {
    resume(libc::PTRACE_SYSCALL, tid, 0);
}

fn resume(request: c_uint, tid: pid_t, signal: c_int) {
    // It fails only if the thread was killed meanwhile, which `wait` will tell.
    // SAFETY: takes numbers only.
    unsafe { libc::ptrace(request, tid, 0, signal) };
}

/// The call before which a thread is stopped.
pub(super) fn entry(tid: pid_t) -> io::Result<Entry> {
    let registers = registers(tid)?;
    #[cfg(target_arch = "x86_64")]
    return Ok(Entry {
        number: registers.orig_rax,
        arguments: [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9],
    });
    #[cfg(not(target_arch = "x86_64"))]
    Err(io::Error::other("unknown registers"))
}

/// Makes the call before which a thread is stopped fail, without making it.
pub(super) fn refuse(tid: pid_t, errno: i32) -> io::Result<()> {
    let mut registers = registers(tid)?;
    #[cfg(target_arch = "x86_64")]
    {
        // No call has this number; what is in the other register is what the program sees as the result.
        registers.orig_rax = u64::MAX;
        registers.rax = i64::from(-errno).cast_unsigned();
    }
    // SAFETY: the pointer is to a whole `user_regs_struct`.
    unsafe { checked(libc::ptrace(libc::PTRACE_SETREGS, tid, 0, (&raw mut registers).cast::<c_void>())) }.map(drop)
}

fn registers(tid: pid_t) -> io::Result<libc::user_regs_struct> {
    let mut registers = MaybeUninit::<libc::user_regs_struct>::zeroed();
    // SAFETY: the pointer is to memory for a whole `user_regs_struct`, for which zeros are valid.
    unsafe {
        checked(libc::ptrace(libc::PTRACE_GETREGS, tid, ptr::null_mut::<c_void>(), registers.as_mut_ptr()))?;
        Ok(registers.assume_init())
    }
}

/// Kills a process, all of its threads.
pub(super) fn kill(pid: pid_t) {
    // SAFETY: takes numbers only. The process is a child that nobody has waited for, so the number is still its.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}
