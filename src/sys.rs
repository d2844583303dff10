//! The system calls that neither `std` nor `nix` wraps. The one file with `unsafe`.
//!
//! Everything here is a thin call with Rust types on both sides; policy lives with the callers.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;

use nix::libc;

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
