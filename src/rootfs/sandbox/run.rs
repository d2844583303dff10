//! Programs of the tree, run inside it.
//!
//! [`Runner::run`] starts this very program again in the stage `run`, which enters the mount namespace of the
//! scripts, gives up what they do not need and becomes the program ([`become_program`]): between `fork` and `exec`
//! nothing but the standard library happens.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::unistd::pipe2;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use super::MARKER;
use super::wire::Failure;

/// The environment of scripts: the same on every host. dpkg adds its own variables.
const ENVIRONMENT: [(&str, &str); 11] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("LC_ALL", "C.UTF-8"),
    ("TERM", "dumb"),
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
    // Read by the kernel's hooks: no initrd is wanted.
    ("INITRD", "No"),
    // systemctl and its kin change files only and talk to no manager.
    ("SYSTEMD_OFFLINE", "1"),
    // Python's own cache of a module depends on what else it has loaded; packages compile theirs explicitly.
    ("PYTHONDONTWRITEBYTECODE", "1"),
    // Output goes to a file: no pager, no colours.
    ("PAGER", "cat"),
    ("DPKG_COLORS", "never"),
];

/// Capabilities that scripts keep (numbers of `linux/capability.h`): owners, modes, file capabilities, ids, chroot.
/// None of them reaches beyond the user namespace; the rest only opens more of the kernel to mistakes.
const CAPABILITIES: [u8; 13] = [
    0,  // CHOWN
    1,  // DAC_OVERRIDE
    2,  // DAC_READ_SEARCH
    3,  // FOWNER
    4,  // FSETID
    5,  // KILL
    6,  // SETGID
    7,  // SETUID
    8,  // SETPCAP
    18, // SYS_CHROOT
    27, // MKNOD
    29, // AUDIT_WRITE
    31, // SETFCAP
];

/// The last capability a kernel may know; those it does not know end the loop before.
const CAPABILITY_MAX: u8 = 63;

/// Starts programs in the tree.
pub(super) struct Runner<'a> {
    /// This program.
    pub program: &'a Path,
    /// Of the scripts.
    pub namespace: &'a OwnedFd,
    pub log: &'a File,
    pub epoch: i64,
}

impl Runner<'_> {
    /// Runs `arguments` and waits for its end; `input` is its standard input.
    pub(super) fn run(
        &self,
        arguments: &[&str],
        variables: &[(&str, &str)],
        input: Option<&str>,
    ) -> io::Result<ExitStatus> {
        self.command(arguments, variables, input)?.status()
    }

    /// Runs dpkg, which reports what it does: each line of its `--status-fd` goes to `report`.
    pub(super) fn run_dpkg(&self, arguments: &[&str], mut report: impl FnMut(&str)) -> io::Result<ExitStatus> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&writer, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let status_fd = format!("--status-fd={}", writer.as_raw_fd());
        let mut all = vec!["dpkg", status_fd.as_str()];
        all.extend(arguments);
        let mut child = self.command(&all, &[], None)?.spawn()?;
        drop(writer);
        for line in BufReader::new(File::from(reader)).split(b'\n') {
            report(&String::from_utf8_lossy(&line?));
        }
        child.wait()
    }

    fn command(&self, arguments: &[&str], variables: &[(&str, &str)], input: Option<&str>) -> io::Result<Command> {
        let mut command = Command::new(self.program);
        command.args([MARKER, "run", input.unwrap_or("/dev/null")]).args(arguments);
        command.env_clear().envs(ENVIRONMENT).env("SOURCE_DATE_EPOCH", self.epoch.to_string());
        command.envs(variables.iter().copied());
        command.stdin(Stdio::from(self.namespace.try_clone()?));
        command.stdout(self.log.try_clone()?).stderr(self.log.try_clone()?);
        Ok(command)
    }
}

/// The stage `run`: `input program arguments...`, with the mount namespace as standard input. Returns only with a
/// failure.
pub(super) fn become_program(mut arguments: impl Iterator<Item = OsString>) -> Failure {
    let prepare = || -> Result<(), Failure> {
        setns(io::stdin().as_fd(), CloneFlags::CLONE_NEWNS).map_err(Failure::errno("enter the mount namespace"))?;
        nix::unistd::chdir("/").map_err(Failure::errno("enter the tree"))?;
        nix::unistd::setsid().map_err(Failure::errno("leave the session"))?;
        for capability in (0..=CAPABILITY_MAX).filter(|number| !CAPABILITIES.contains(number)) {
            let dropped = crate::sys::drop_bounding_capability(capability);
            if !dropped.map_err(Failure::system("drop capabilities"))? {
                break;
            }
        }
        for filter in filters().map_err(|error| seccomp_failure(&error.to_string()))? {
            seccompiler::apply_filter(&filter).map_err(|error| seccomp_failure(&error.to_string()))?;
        }
        Ok(())
    };
    if let Err(failure) = prepare() {
        return failure;
    }
    let (input, program) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default());
    let input = match File::open(&input) {
        Ok(input) => input,
        Err(error) => return Failure::system(format!("open {}", input.display()))(error),
    };
    let error = Command::new(&program).args(arguments).stdin(input).exec();
    Failure::system(format!("run {}", program.display()))(error)
}

fn seccomp_failure(message: &str) -> Failure {
    Failure::System { what: "install the system call filter".to_owned(), code: None, message: message.to_owned() }
}

/// System calls that scripts make believe or do without.
fn filters() -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    // The tree is thrown away or read back at once, so waiting for the disk protects nothing. dpkg waits for it
    // several times per package, whatever its options say.
    let sync = [libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_sync, libc::SYS_syncfs, libc::SYS_sync_file_range];
    // Parts of the kernel that no maintainer script needs and that have often been a way out of namespaces.
    let refused = [
        libc::SYS_add_key,
        libc::SYS_keyctl,
        libc::SYS_request_key,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_open_by_handle_at,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_kexec_load,
    ];
    let program = |calls: &[i64], errno: u32| -> Result<BpfProgram, seccompiler::BackendError> {
        let rules: BTreeMap<i64, Vec<_>> = calls.iter().map(|call| (*call, Vec::new())).collect();
        let architecture = std::env::consts::ARCH.try_into()?;
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), architecture)?.try_into()
    };
    Ok([program(&sync, 0)?, program(&refused, libc::EPERM as u32)?])
}
