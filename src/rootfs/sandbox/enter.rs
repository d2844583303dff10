//! The first process of the sandbox: makes the namespaces, waits for its ids, starts process 1.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, getppid, setgroups, setresgid, setresuid};

use super::wire::{Event, Failure};
use super::{MARKER, say};

/// The stage `enter`. The exit status of process 1 is the result.
pub(super) fn main(program: &Path, plan: &Path) -> Result<i32, Failure> {
    let builder = getppid();
    // As root, too: then root outside is as much out of reach as for an ordinary user, and the bits are the same.
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| Failure::Namespaces { code: errno as i32 })?;
    say(&Event::Ready);
    let mut go = [0];
    std::io::stdin().read_exact(&mut go).map_err(Failure::system("wait for ids"))?;
    setgroups(&[]).map_err(Failure::errno("leave the groups of the host"))?;
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(gid, gid, gid).map_err(Failure::errno("become root of the sandbox"))?;
    setresuid(uid, uid, uid).map_err(Failure::errno("become root of the sandbox"))?;
    die_with_parent()?;
    // It lived when it gave the ids; if it has died since, nobody was told.
    if getppid() != builder {
        return Ok(1);
    }
    prctl::set_no_new_privs().map_err(Failure::errno("give up new privileges"))?;
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(namespaces).map_err(|errno| Failure::Namespaces { code: errno as i32 })?;
    let mut init = Command::new(program);
    init.args([MARKER, "init"]).arg(plan).stdin(Stdio::piped());
    let mut init = init.spawn().map_err(Failure::system("start the sandbox"))?;
    // Nothing is ever written there: process 1 sees by it that this one lives.
    let alive = init.stdin.take();
    let status = init.wait().map_err(Failure::system("wait for the sandbox"))?;
    drop(alive);
    Ok(status.code().unwrap_or(1))
}

/// Whether the process that holds the other end of standard input is gone.
pub(super) fn is_abandoned() -> Result<bool, Failure> {
    let stdin = std::io::stdin();
    let mut descriptors = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    poll(&mut descriptors, PollTimeout::ZERO).map_err(Failure::errno("look for the builder"))?;
    Ok(descriptors[0].any().unwrap_or(false))
}

/// Whatever ends the parent (`kill -9` of a build, too) ends this process. Has to be asked for after every change of
/// ids, which clears it.
pub(super) fn die_with_parent() -> Result<(), Failure> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(Failure::errno("ask to end with the builder"))
}
