//! The seccomp filter that stops a program before each call of the table, and at no other.

use libc::sock_filter;

use super::calls::CALLS;

/// Where the kernel shows a call to the filter: its number, and the lower half of an argument (little-endian).
const NUMBER: u32 = 0;
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// `FICLONE`, as `ioctl` takes it.
const FICLONE: u32 = 0x4004_9409;

fn op(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt, jf, k }
}

/// The filter's program.
pub(super) fn program() -> Vec<sock_filter> {
    let stop = op(RETURN, libc::SECCOMP_RET_TRACE, 0, 0);
    let pass = op(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0);
    let mut program = vec![op(LOAD, NUMBER, 0, 0)];
    for call in CALLS {
        let number = u32::try_from(call.number).unwrap_or(u32::MAX);
        // Each test is followed by what is done if it holds.
        match call.number {
            libc::SYS_openat => program.extend([
                op(IF_EQUAL, number, 0, 4),
                op(LOAD, argument(2), 0, 0),
                op(IF_ANY_BIT, libc::O_CREAT.unsigned_abs(), 0, 1),
                stop,
                pass,
            ]),
            libc::SYS_ioctl => program.extend([
                op(IF_EQUAL, number, 0, 4),
                op(LOAD, argument(1), 0, 0),
                op(IF_EQUAL, FICLONE, 0, 1),
                stop,
                pass,
            ]),
            _ => program.extend([op(IF_EQUAL, number, 0, 1), stop]),
        }
    }
    program.push(pass);
    program
}
