//! A system that refuses some system calls, as containers and older kernels do.
#![expect(unsafe_code, reason = "neither std nor rustix installs filters")]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use libc::{c_long, sock_filter};

/// Has these calls of a program fail with these errors.
pub(crate) fn deny(command: &mut Command, calls: &[(c_long, i32)]) {
    let op =
        |code: u32, k: u32, jt: u8, jf: u8| sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt, jf, k };
    // The number of the call is the first thing that the filter is shown.
    let mut filter = vec![op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for &(call, errno) in calls {
        filter.extend([
            op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, u32::try_from(call).unwrap_or(u32::MAX), 0, 1),
            op(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno.unsigned_abs(), 0, 0),
        ]);
    }
    filter.push(op(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0));
    let install = move || -> io::Result<()> {
        let length = u16::try_from(filter.len()).map_err(io::Error::other)?;
        let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
        let program: *const libc::sock_fprog = &raw const program;
        // SAFETY: both calls take numbers but for the last argument, which points to a filter of the stated length that outlives
        // the call.
        let failed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, program) != 0
        };
        if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: between fork and exec this makes two system calls and allocates nothing.
    unsafe { command.pre_exec(install) };
}
