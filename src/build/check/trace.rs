//! The second build, followed process by process: another date and order for all of them ([`calls`]), and which maintainer script
//! ran when.
//!
//! dpkg runs one script at a time and names it in the script's environment, which all that the script starts inherit. So
//! when a program is loaded that has another script's name, that script has begun. It waits there until the
//! kernel's clock of file times has moved on: every file that it changes is then younger than any of the script before.
//! The time of a file's last change, which nobody can set, thus says who made it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::time::Duration;

use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::calls::{self, Begun};
use crate::sys::{self, Resume};

/// Variables that dpkg gives to maintainer scripts (dpkg(1)).
const PACKAGE: &[u8] = b"DPKG_MAINTSCRIPT_PACKAGE=";
const SCRIPT: &[u8] = b"DPKG_MAINTSCRIPT_NAME=";

/// A maintainer script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Script {
    pub package: String,
    /// `preinst`, `postinst`, ...
    pub name: String,
}

/// From when on a script ran; `None`: dpkg itself, or what unpacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Turn {
    /// By the clock of file times: seconds, nanoseconds.
    pub time: (i64, i64),
    pub script: Option<Script>,
}

/// Makes `child`, which waits, and all that it starts traced by this thread. They end with it.
pub(super) fn seize(child: Pid) -> nix::Result<()> {
    ptrace::seize(
        child,
        Options::PTRACE_O_EXITKILL
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACEEXIT
            | Options::PTRACE_O_TRACESECCOMP
            | Options::PTRACE_O_TRACESYSGOOD,
    )
}

/// Follows the traced processes until `child` ends; its exit code, and whose turn it was when.
pub(super) fn follow(child: Pid) -> io::Result<(i32, Vec<Turn>)> {
    let mut tracer = Tracer::default();
    loop {
        let (pid, status) = sys::wait_for_any()?;
        if libc::WIFSTOPPED(status) {
            let resume = tracer.stopped(pid, libc::WSTOPSIG(status), status >> 16);
            sys::resume(pid, resume)?;
        } else if pid == child {
            let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) };
            return Ok((code, tracer.turns));
        } else {
            tracer.begun.remove(&pid);
        }
    }
}

#[derive(Default)]
struct Tracer {
    /// Processes in a system call whose result is altered.
    begun: HashMap<Pid, Begun>,
    turns: Vec<Turn>,
    /// The script whose turn it is, and its process.
    current: Option<(Script, Pid)>,
}

impl Tracer {
    /// What to do with a process that has stopped. A failed look at it is no matter: it was killed just now.
    fn stopped(&mut self, pid: Pid, signal: i32, event: i32) -> Resume {
        match event {
            libc::PTRACE_EVENT_SECCOMP => {
                let Ok(Some(begun)) = calls::begun(pid) else { return Resume::Run(0) };
                self.begun.insert(pid, begun);
                return Resume::UntilSystemCall;
            }
            libc::PTRACE_EVENT_EXEC => {
                let _ = calls::hide_vdso(pid);
                self.loaded(pid);
            }
            libc::PTRACE_EVENT_EXIT => self.exits(pid),
            libc::PTRACE_EVENT_STOP
                if [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&signal) =>
            {
                return Resume::Stopped;
            }
            0 if signal == libc::SIGTRAP | 0x80 => {
                if let Some(begun) = self.begun.remove(&pid) {
                    let _ = calls::ended(pid, begun);
                }
            }
            0 => return Resume::Run(signal),
            _ => {}
        }
        Resume::Run(0)
    }

    fn loaded(&mut self, pid: Pid) {
        let Some(script) = script_of(&fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()) else { return };
        if self.current.as_ref().is_none_or(|(current, _)| *current != script) {
            self.turn(Some(script.clone()));
            self.current = Some((script, pid));
        }
    }

    fn exits(&mut self, pid: Pid) {
        if self.current.as_ref().is_some_and(|(_, process)| *process == pid) {
            self.current = None;
            self.turn(None);
        }
    }

    fn turn(&mut self, script: Option<Script>) {
        self.turns.push(Turn { time: next_tick(), script });
    }
}

/// The script that a process belongs to, by its environment.
fn script_of(environment: &[u8]) -> Option<Script> {
    let value = |name: &[u8]| {
        let value = environment.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(name))?;
        (!value.is_empty()).then(|| String::from_utf8_lossy(value).into_owned())
    };
    Some(Script { package: value(PACKAGE)?, name: value(SCRIPT)? })
}

/// Waits until the clock of file times has moved on (at most 10 ms), and gives the new time.
fn next_tick() -> (i64, i64) {
    let now = || clock_gettime(ClockId::CLOCK_REALTIME_COARSE).map_or((0, 0), |time| (time.tv_sec(), time.tv_nsec()));
    let before = now();
    for _ in 0..100 {
        if now() != before {
            break;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    now()
}

/// Whose turn it was at `time`.
pub(super) fn whose(turns: &[Turn], time: (i64, i64)) -> Option<&Script> {
    let index = turns.partition_point(|turn| turn.time <= time).checked_sub(1)?;
    turns[index].script.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_belongs_to_the_script_that_its_environment_names() {
        let environment = b"A=1\0DPKG_MAINTSCRIPT_PACKAGE=ssl-cert\0DPKG_MAINTSCRIPT_NAME=postinst\0";
        let script = Script { package: "ssl-cert".to_owned(), name: "postinst".to_owned() };
        assert_eq!(script_of(environment), Some(script.clone()));
        assert_eq!(script_of(b"DPKG_MAINTSCRIPT_PACKAGE=x\0"), None);
        assert_eq!(script_of(b""), None);
        let turns = [Turn { time: (5, 0), script: Some(script.clone()) }, Turn { time: (7, 5), script: None }];
        assert_eq!(whose(&turns, (4, 9)), None);
        assert_eq!(whose(&turns, (5, 0)), Some(&script));
        assert_eq!(whose(&turns, (7, 4)), Some(&script));
        assert_eq!(whose(&turns, (7, 5)), None);
    }
}
