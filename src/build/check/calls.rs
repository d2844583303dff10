//! Another date and another order of names for a traced process: what the kernel tells of the clock and of directories is
//! altered before the process sees it.
//!
//! ```text
//! exec              the vDSO, which tells the time without the kernel, is taken out of the auxiliary vector
//! system call       a filter (seccomp(2), SECCOMP_RET_TRACE) stops those that read the wall clock or a directory
//! its end           the seconds in the process's memory, or its result, are moved by [`SHIFT`]; the entries of a
//!                   directory are put in the reverse order
//! ```
//!
//! No library has to be loaded, so it holds for static programs and for those with an empty environment. Forward, for a
//! build never happens before its epoch. Times of files are the kernel's own and stay. A directory's cookies
//! (`d_off`, for `telldir(3)`) stay at their places, so reading on finds what has not been read.

use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// Three years, and some days, hours, minutes and seconds: another year, month, weekday and hour, and before 2038 for
/// some years to come.
pub(super) const SHIFT: i64 = 3 * 365 * 86_400 + 102 * 86_400 + 5 * 3_600 + 37 * 60 + 11;

/// `getauxval(3)`: where the vDSO is.
const AT_SYSINFO_EHDR: i64 = 33;
/// An entry that means nothing.
const AT_IGNORE: i64 = 1;
const AT_NULL: i64 = 0;
/// Words on a new program's stack before the auxiliary vector: `ARG_MAX` has no more pointers.
const WORDS_MAX: u64 = 1 << 20;
const WORD: u64 = 8;
/// Flag of `futex(2)`: the timeout is a time of the wall clock.
const FUTEX_CLOCK_REALTIME: u64 = 256;
/// Flag of `clock_nanosleep(2)`.
const TIMER_ABSTIME: u64 = 1;
/// Clocks of `clock_gettime(2)` that tell the date: realtime, realtime coarse, TAI.
const CLOCKS: [u64; 3] = [0, 5, 11];

/// A system call whose result is altered; the number is what the filter gives to the tracer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    ClockGettime = 1,
    Gettimeofday = 2,
    #[cfg(target_arch = "x86_64")]
    Time = 3,
    Getdents = 4,
    /// With a time at which to give up, by the wall clock.
    Futex = 5,
    /// Until a time of the wall clock.
    Sleep = 6,
}

/// The filters, for a process that is traced already.
pub(super) fn filters() -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let clock = |clock: u64| {
        SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, clock)?])
    };
    let clocks = CLOCKS.into_iter().map(clock).collect::<Result<Vec<_>, _>>()?;
    let equal = |argument, mask: u64, value| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)
    };
    let waits = SeccompRule::new(vec![equal(1, FUTEX_CLOCK_REALTIME, FUTEX_CLOCK_REALTIME)?])?;
    let sleeps = SeccompRule::new(vec![equal(0, 0xffff_ffff, 0)?, equal(1, TIMER_ABSTIME, TIMER_ABSTIME)?])?;
    let calls = [
        (libc::SYS_clock_gettime, clocks, Call::ClockGettime),
        (libc::SYS_gettimeofday, Vec::new(), Call::Gettimeofday),
        (libc::SYS_getdents64, Vec::new(), Call::Getdents),
        (libc::SYS_futex, vec![waits], Call::Futex),
        (libc::SYS_clock_nanosleep, vec![sleeps], Call::Sleep),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_time, Vec::new(), Call::Time),
    ];
    let program = |(number, rules, call): (i64, Vec<SeccompRule>, Call)| {
        let architecture = std::env::consts::ARCH.try_into()?;
        let rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::from([(number, rules)]);
        let action = SeccompAction::Trace(call as u32);
        SeccompFilter::new(rules, SeccompAction::Allow, action, architecture)?.try_into()
    };
    calls.into_iter().map(program).collect()
}

/// A system call that has begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    call: Call,
    arguments: [u64; 4],
}

/// What the process asks for, by the filter's number; to be called when the filter has stopped it.
pub(super) fn begun(pid: Pid) -> Result<Option<Begun>, Errno> {
    let call = match ptrace::getevent(pid)? {
        1 => Call::ClockGettime,
        2 => Call::Gettimeofday,
        #[cfg(target_arch = "x86_64")]
        3 => Call::Time,
        4 => Call::Getdents,
        5 => Call::Futex,
        6 => Call::Sleep,
        _ => return Ok(None),
    };
    let begun = Begun { call, arguments: registers(pid)?.0 };
    move_deadline(pid, begun, -SHIFT)?;
    Ok(Some(begun))
}

/// Alters what the kernel has told; to be called when the system call has ended.
pub(super) fn ended(pid: Pid, begun: Begun) -> Result<(), Errno> {
    move_deadline(pid, begun, SHIFT)?;
    let (_, result) = registers(pid)?;
    if result < 0 {
        return Ok(());
    }
    let place = match begun.call {
        Call::Futex | Call::Sleep => return Ok(()),
        Call::Getdents => return reverse_directory(pid, begun.arguments[1], result.cast_unsigned()),
        Call::ClockGettime => begun.arguments[1],
        Call::Gettimeofday => begun.arguments[0],
        #[cfg(target_arch = "x86_64")]
        Call::Time => {
            set_result(pid, result + SHIFT)?;
            begun.arguments[0]
        }
    };
    // Nobody has to take it.
    if place == 0 {
        return Ok(());
    }
    write(pid, place, read(pid, place)?.wrapping_add(SHIFT))
}

/// Moves the time until which a process wants to wait, as long as the kernel looks at it: the process reckons from the date
/// that it was told, and would wait for years.
fn move_deadline(pid: Pid, begun: Begun, by: i64) -> Result<(), Errno> {
    let place = match begun.call {
        Call::Futex => begun.arguments[3],
        Call::Sleep => begun.arguments[2],
        _ => 0,
    };
    if place == 0 {
        return Ok(());
    }
    write(pid, place, read(pid, place)?.wrapping_add(by))
}

/// Takes the vDSO away from a program that has just been loaded.
pub(super) fn hide_vdso(pid: Pid) -> Result<(), Errno> {
    let mut at = stack(pid)?;
    let end = at.saturating_add(WORDS_MAX * WORD);
    // argc, arguments, NULL
    at += (read(pid, at)?.unsigned_abs().min(WORDS_MAX) + 2) * WORD;
    while at < end && read(pid, at)? != 0 {
        at += WORD; // environment
    }
    at += WORD;
    while at < end {
        match read(pid, at)? {
            AT_NULL => break,
            AT_SYSINFO_EHDR => write(pid, at, AT_IGNORE)?,
            _ => {}
        }
        at += 2 * WORD;
    }
    Ok(())
}

/// Bytes of directory entries that are altered at a time: the C library asks for 32 kB, large directories for 1 MB.
const ENTRIES_MAX: u64 = 16 << 20;
/// `struct linux_dirent64`: inode, cookie, length of the entry.
const COOKIE: std::ops::Range<usize> = 8..16;
const LENGTH: std::ops::Range<usize> = 16..18;

fn reverse_directory(pid: Pid, at: u64, size: u64) -> Result<(), Errno> {
    if size == 0 || size > ENTRIES_MAX {
        return Ok(());
    }
    let mut bytes = vec![0; size as usize];
    let remote = [RemoteIoVec { base: at as usize, len: bytes.len() }];
    process_vm_readv(pid, &mut [IoSliceMut::new(&mut bytes)], &remote)?;
    if let Some(reversed) = reversed(&bytes) {
        process_vm_writev(pid, &[IoSlice::new(&reversed)], &remote)?;
    }
    Ok(())
}

/// Directory entries in the reverse order, each with the cookie of the place that it is at; `None`: these are none.
fn reversed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut entries: Vec<&[u8]> = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let length = u16::from_le_bytes(rest.get(LENGTH)?.try_into().ok()?);
        let (entry, behind) = rest.split_at_checked(usize::from(length))?;
        if entry.len() < LENGTH.end {
            return None;
        }
        entries.push(entry);
        rest = behind;
    }
    let mut reversed = Vec::with_capacity(bytes.len());
    for (entry, place) in entries.iter().rev().zip(&entries) {
        let start = reversed.len();
        reversed.extend_from_slice(entry);
        reversed[start..][COOKIE].copy_from_slice(&place[COOKIE]);
    }
    Some(reversed)
}

fn read(pid: Pid, at: u64) -> Result<i64, Errno> {
    ptrace::read(pid, at as *mut _)
}

fn write(pid: Pid, at: u64, word: i64) -> Result<(), Errno> {
    ptrace::write(pid, at as *mut _, word)
}

/// The first four arguments of a system call, and its result.
#[cfg(target_arch = "x86_64")]
fn registers(pid: Pid) -> Result<([u64; 4], i64), Errno> {
    let registers = ptrace::getregs(pid)?;
    Ok(([registers.rdi, registers.rsi, registers.rdx, registers.r10], registers.rax.cast_signed()))
}

#[cfg(target_arch = "x86_64")]
fn stack(pid: Pid) -> Result<u64, Errno> {
    Ok(ptrace::getregs(pid)?.rsp)
}

#[cfg(target_arch = "x86_64")]
fn set_result(pid: Pid, result: i64) -> Result<(), Errno> {
    let mut registers = ptrace::getregs(pid)?;
    registers.rax = result.cast_unsigned();
    ptrace::setregs(pid, registers)
}

#[cfg(target_arch = "aarch64")]
fn registers(pid: Pid) -> Result<([u64; 4], i64), Errno> {
    let registers = ptrace::getregs(pid)?;
    let [a, b, c, d, ..] = registers.regs;
    Ok(([a, b, c, d], registers.regs[0].cast_signed()))
}

#[cfg(target_arch = "aarch64")]
fn stack(pid: Pid) -> Result<u64, Errno> {
    Ok(ptrace::getregs(pid)?.sp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, cookie: u64) -> Vec<u8> {
        let mut entry = 1_u64.to_le_bytes().to_vec();
        entry.extend(cookie.to_le_bytes());
        let length = (19 + name.len() + 1).next_multiple_of(8);
        entry.extend((length as u16).to_le_bytes());
        entry.push(8);
        entry.extend(name.as_bytes());
        entry.resize(length, 0);
        entry
    }

    #[test]
    fn names_are_reversed_and_cookies_stay() {
        let before = [entry(".", 5), entry("a-long-name", 9), entry("b", 11)].concat();
        let after = [entry("b", 5), entry("a-long-name", 9), entry(".", 11)].concat();
        assert_eq!(reversed(&before), Some(after));
        assert_eq!(reversed(b""), Some(Vec::new()));
        for broken in [&before[..before.len() - 1], &before[..17], &[0; 24]] {
            assert_eq!(reversed(broken), None);
        }
    }
}
