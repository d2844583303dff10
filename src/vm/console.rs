//! A person at the guest's serial console.

use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use super::{Guest, Outcome, VmError};

/// Ctrl-a, as in screen and QEMU's own console: `x` after it leaves, `a` sends it.
const ESCAPE: u8 = 1;

/// The terminal in raw mode, restored when dropped.
struct Raw {
    before: Termios,
}

impl Raw {
    fn new() -> Result<Self, VmError> {
        let refuse = |error: nix::Error| VmError::Terminal(error.into());
        let stdin = io::stdin();
        let before = tcgetattr(stdin.as_fd()).map_err(refuse)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw).map_err(refuse)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &self.before);
    }
}

/// Connects standard input and output to the guest's console until it ends or the person leaves (Ctrl-a x), which
/// gives [`Outcome::TimedOut`]. Standard input need not be a terminal; its end does not end the guest.
pub fn attend(guest: &mut Guest) -> Result<Outcome, VmError> {
    let _raw = if io::stdin().is_terminal() { Some(Raw::new()?) } else { None };
    let leave = Arc::new(AtomicBool::new(false));
    let over = Arc::new(AtomicBool::new(false));
    let mut console = guest.console().try_clone().map_err(VmError::Terminal)?;
    let typing = {
        let (leave, over) = (leave.clone(), over.clone());
        std::thread::spawn(move || type_into(&mut console, &leave, &over))
    };
    let mut stdout = io::stdout();
    let outcome = guest.attend(|bytes| {
        let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
        !leave.load(Ordering::Relaxed)
    });
    over.store(true, Ordering::Relaxed);
    let _ = typing.join();
    outcome
}

/// Passes on what is typed until told that it is over.
fn type_into(console: &mut impl Write, leave: &AtomicBool, over: &AtomicBool) {
    let stdin = io::stdin();
    let mut keys = Keys::default();
    let mut buffer = [0; 256];
    while !over.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::from(100_u8)) {
            Ok(0) => continue,
            Ok(_) => {}
            Err(_) => return,
        }
        let Ok(count @ 1..) = stdin.lock().read(&mut buffer) else { return };
        let (bytes, left) = keys.take(&buffer[..count]);
        if console.write_all(&bytes).is_err() {
            return;
        }
        if left {
            leave.store(true, Ordering::Relaxed);
            return;
        }
    }
}

/// What has been typed, with the escape character looked after.
#[derive(Default)]
struct Keys {
    escaped: bool,
}

impl Keys {
    /// The bytes to pass on, and whether the person leaves.
    fn take(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        for byte in typed {
            match (std::mem::replace(&mut self.escaped, false), *byte) {
                (false, ESCAPE) => self.escaped = true,
                (true, b'x' | b'X') => return (bytes, true),
                (true, b'a' | ESCAPE) => bytes.push(ESCAPE),
                (_, byte) => bytes.push(byte),
            }
        }
        (bytes, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_a_x_leaves_wherever_the_reads_are_cut() {
        let mut keys = Keys::default();
        assert_eq!(keys.take(b"ls\x01"), (b"ls".to_vec(), false));
        assert_eq!(keys.take(b"xrest"), (b"".to_vec(), true));
    }

    #[test]
    fn ctrl_a_a_sends_it() {
        let mut keys = Keys::default();
        assert_eq!(keys.take(b"\x01a\x01bc"), (b"\x01bc".to_vec(), false));
    }
}
