//! Another date for a traced process: what the kernel tells of the clock is moved before the process sees it.
//!
//! ```text
//! exec              the vDSO, which tells the time without the kernel, is taken out of the auxiliary vector
//! system call       a filter (seccomp(2), SECCOMP_RET_TRACE) stops those that read the wall clock, and no others
//! its end           the seconds in the process's memory, or its result, are moved by [`SHIFT`]
//! ```
//!
//! No library has to be loaded, so it holds for static programs and for those with an empty environment. Forward, for a
//! build never happens before its epoch. Times of files are the kernel's own and stay.

use std::collections::BTreeMap;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
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
/// Clocks of `clock_gettime(2)` that tell the date: realtime, realtime coarse, TAI.
const CLOCKS: [u64; 3] = [0, 5, 11];

/// A system call that tells the date; the number is what the filter gives to the tracer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    ClockGettime = 1,
    Gettimeofday = 2,
    #[cfg(target_arch = "x86_64")]
    Time = 3,
}

/// The filters, for a process that is traced already.
pub(super) fn filters() -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let clock = |clock: u64| {
        SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, clock)?])
    };
    let clocks = CLOCKS.into_iter().map(clock).collect::<Result<Vec<_>, _>>()?;
    let calls = [
        (libc::SYS_clock_gettime, clocks, Call::ClockGettime),
        (libc::SYS_gettimeofday, Vec::new(), Call::Gettimeofday),
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
    arguments: [u64; 2],
}

/// What the process asks for, by the filter's number; to be called when the filter has stopped it.
pub(super) fn begun(pid: Pid) -> Result<Option<Begun>, Errno> {
    let call = match ptrace::getevent(pid)? {
        1 => Call::ClockGettime,
        2 => Call::Gettimeofday,
        #[cfg(target_arch = "x86_64")]
        3 => Call::Time,
        _ => return Ok(None),
    };
    Ok(Some(Begun { call, arguments: registers(pid)?.0 }))
}

/// Moves what the kernel has told; to be called when the system call has ended.
pub(super) fn ended(pid: Pid, begun: Begun) -> Result<(), Errno> {
    let (_, result) = registers(pid)?;
    if result < 0 {
        return Ok(());
    }
    let place = match begun.call {
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

fn read(pid: Pid, at: u64) -> Result<i64, Errno> {
    ptrace::read(pid, at as *mut _)
}

fn write(pid: Pid, at: u64, word: i64) -> Result<(), Errno> {
    ptrace::write(pid, at as *mut _, word)
}

/// The first two arguments of a system call, and its result.
#[cfg(target_arch = "x86_64")]
fn registers(pid: Pid) -> Result<([u64; 2], i64), Errno> {
    let registers = ptrace::getregs(pid)?;
    Ok(([registers.rdi, registers.rsi], registers.rax.cast_signed()))
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
fn registers(pid: Pid) -> Result<([u64; 2], i64), Errno> {
    let registers = ptrace::getregs(pid)?;
    Ok(([registers.regs[0], registers.regs[1]], registers.regs[0].cast_signed()))
}

#[cfg(target_arch = "aarch64")]
fn stack(pid: Pid) -> Result<u64, Errno> {
    Ok(ptrace::getregs(pid)?.sp)
}
