//! The system calls that neither `std` nor `nix` wraps. The one file with `unsafe`.
//!
//! Everything here is a thin call with Rust types on both sides; policy lives with the callers.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use nix::libc;

use crate::verity::{self, lanes};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal};

/// `llistxattr(2)`: the names, each ended by NUL. A symlink is not followed.
pub fn list_xattrs(path: &CStr) -> io::Result<Vec<u8>> {
    // SAFETY: `path` is NUL-terminated; the kernel writes at most `size` bytes to a buffer of that size.
    grow(|buffer, size| unsafe { libc::llistxattr(path.as_ptr(), buffer.cast(), size) })
}

/// `lgetxattr(2)`: the value. A symlink is not followed.
pub fn get_xattr(path: &CStr, name: &CStr) -> io::Result<Vec<u8>> {
    // SAFETY: both strings are NUL-terminated; the kernel writes at most `size` bytes to a buffer of that size.
    grow(|buffer, size| unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.cast(), size) })
}

/// `lsetxattr(2)`. A symlink is not followed.
pub fn set_xattr(path: &CStr, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: both strings are NUL-terminated; `value` is valid for its length.
    let result = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `fsetxattr(2)`.
pub fn set_file_xattr(file: &File, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: the descriptor is open, `name` is NUL-terminated, `value` is valid for its length.
    let result = unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `prctl(PR_CAPBSET_DROP)`: no program that this process starts can have the capability (`capabilities(7)`).
/// False where the kernel does not know that number.
pub fn drop_bounding_capability(capability: u8) -> io::Result<bool> {
    // SAFETY: this operation takes one number and touches no memory.
    let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
    match io::Error::last_os_error() {
        _ if result == 0 => Ok(true),
        error if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        error => Err(error),
    }
}

/// SHA-256(salt, block) of four blocks at a time; `None` where the processor has no instructions for it.
pub fn sha256_lanes(
    salt: &[u8; lanes::SALT_SIZE],
    blocks: [&[u8; verity::BLOCK_SIZE]; lanes::LANES],
) -> Option<[[u8; 32]; lanes::LANES]> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1") && is_x86_feature_detected!("ssse3") {
        // SAFETY: the function is safe but for the instructions that it needs, and the processor has them.
        return Some(unsafe { lanes::x86_64_digests(salt, blocks) });
    }
    let _ = (salt, blocks);
    None
}

/// Asks for the size, then for the bytes, again while they grow in between.
fn grow(call: impl Fn(*mut u8, usize) -> isize) -> io::Result<Vec<u8>> {
    let mut buffer: Vec<u8> = Vec::new();
    loop {
        let size = call(std::ptr::null_mut(), 0);
        if size <= 0 {
            return if size < 0 { Err(io::Error::last_os_error()) } else { Ok(Vec::new()) };
        }
        buffer.resize(size as usize, 0);
        let size = call(buffer.as_mut_ptr(), buffer.len());
        if size >= 0 {
            buffer.truncate(size as usize);
            return Ok(buffer);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) {
            return Err(error);
        }
    }
}

/// Where the first interrupt is told; -1: nowhere (any more).
static INTERRUPTS: AtomicI32 = AtomicI32::new(-1);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Lets the first SIGINT, SIGTERM or SIGHUP that is not ignored (`nohup`, jobs in the background) write its number, one byte, to the pipe `writer`, which stays open; a further one, or
/// one that cannot be told, ends the process with 128 + its number, as shells count. Programs that are started do not
/// inherit this.
pub fn tell_interrupts(writer: RawFd) {
    extern "C" fn tell(signal: libc::c_int) {
        INTERRUPTED.store(true, Ordering::SeqCst);
        let (writer, byte) = (INTERRUPTS.swap(-1, Ordering::SeqCst), signal as u8);
        // SAFETY: `write` and `_exit` are async-signal-safe (signal-safety(7)); the byte lives on this stack.
        unsafe {
            if writer < 0 || libc::write(writer, std::ptr::from_ref(&byte).cast(), 1) != 1 {
                libc::_exit(128 + signal);
            }
        }
    }
    INTERRUPTS.store(writer, Ordering::SeqCst);
    let action = SigAction::new(SigHandler::Handler(tell), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler makes nothing but the calls above. It changes errno only when they fail, and then the
        // process ends. What is set back is what was there before.
        let result = unsafe {
            nix::sys::signal::sigaction(signal, &action).and_then(|before| match before.handler() {
                SigHandler::SigIgn => nix::sys::signal::sigaction(signal, &before),
                _ => Ok(before),
            })
        };
        debug_assert!(result.is_ok(), "these signals can be caught");
    }
}

/// Whether such a signal has come since [`tell_interrupts`].
pub fn was_interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Lets the calling thread run only where no other wants to: `setpriority(2)`, which on Linux is of one thread.
pub fn yield_to_others() {
    // SAFETY: takes three numbers; it fails where it is forbidden, and then nothing has changed.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
}

/// Ends the process with this code at once: no destructor runs, no thread is waited for.
pub fn end(code: i32) -> ! {
    // SAFETY: `_exit` takes any status and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Lets the kernel kill the program when the thread that starts it ends (`prctl(2)`, `PR_SET_PDEATHSIG`): nothing
/// that is killed itself leaves it running.
pub fn end_with_this_thread(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec only one system call is made, which is async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

/// `waitpid(-1, __WALL)`: which child or traced process changed its state, and its status, to be taken apart by `libc`'s
/// `WIFSTOPPED` and its kin. (`nix` gives real-time signals up as an error, and with it the process that is stopped.)
pub fn wait_for_any() -> io::Result<(nix::unistd::Pid, libc::c_int)> {
    let mut status = 0;
    loop {
        // SAFETY: the kernel writes one integer to `status`.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
        match io::Error::last_os_error() {
            _ if pid > 0 => return Ok((nix::unistd::Pid::from_raw(pid), status)),
            error if error.kind() == io::ErrorKind::Interrupted => {}
            error => return Err(error),
        }
    }
}

/// How a traced process goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// Runs, and takes this signal if it is not 0.
    Run(libc::c_int),
    /// Runs until the system call that it is in ends.
    UntilSystemCall,
    /// Stays stopped, as job control wants it.
    Stopped,
}

/// Lets a stopped traced process go on. One that was killed meanwhile is none.
pub fn resume(pid: nix::unistd::Pid, how: Resume) -> io::Result<()> {
    let (request, signal) = match how {
        Resume::Run(signal) => (libc::PTRACE_CONT, signal),
        Resume::UntilSystemCall => (libc::PTRACE_SYSCALL, 0),
        Resume::Stopped => (libc::PTRACE_LISTEN, 0),
    };
    // SAFETY: these requests take a number for data and touch no memory of this process.
    let result = unsafe {
        libc::ptrace(request, pid.as_raw(), std::ptr::null_mut::<libc::c_void>(), libc::c_long::from(signal))
    };
    match io::Error::last_os_error() {
        _ if result == 0 => Ok(()),
        error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        error => Err(error),
    }
}
