//! The surroundings of the second build: everything that must not matter is another.
//!
//! ```text
//! <a directory of every host>/<a long name>/      a file system in memory, seen by the second build alone
//!     program        a copy of this program
//!     recipe/...     copies of what the recipe reads, at their paths
//!     store/         an empty store: objects/sha256 is the host's, read-only
//!     disk/          the directory on disk: `out` for the image, `tree` for the sandbox
//!     work/ home/    working directory, HOME
//! ```
//!
//! This process keeps the invoking user's id, which is 65535 in its user namespace: it reads what that user may read. The
//! build itself is the namespace's 0, nobody on the host.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare};
use nix::sys::stat::{Mode, umask};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{Pid, sethostname};

use super::wire::{self, CHANGES, Event, OUTPUT, Plan, Second, TREE, say};
use super::{MARKER, Variation, calls, copy, second, trace};
use crate::rootfs::{self, ID_COUNT};

/// This stage.
pub(super) const STAGE: &str = "vary";
/// Directories that hosts have. One of them is hidden by the second build's own, in its mount namespace.
const PLACES: [&str; 5] = ["/tmp", "/var/tmp", "/mnt", "/srv", "/media"];
/// Longer than the paths that people build in.
const NAME_LENGTH: usize = 120;
const HOST_NAME: &str = "checked-again.example";
const UMASK: u32 = 0o077;

/// What the second build finds in its environment, beside its own HOME and TMPDIR. Turkish has another lower case of I,
/// Kiritimati another day than most.
const VARIABLES: [(&str, &str); 14] = [
    ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
    ("TZ", "Pacific/Kiritimati"),
    ("LANG", "tr_TR.UTF-8"),
    ("LC_ALL", "tr_TR.UTF-8"),
    ("LANGUAGE", "tr"),
    ("USER", "nobody-in-particular"),
    ("LOGNAME", "nobody-in-particular"),
    ("SOURCE_DATE_EPOCH", "1"),
    ("TERM", "vt52"),
    ("COLUMNS", "23"),
    ("POSIXLY_CORRECT", "1"),
    ("DEBIAN_FRONTEND", "readline"),
    ("DPKG_FORCE", "all"),
    // Memory that was not written to has other bytes.
    ("MALLOC_PERTURB_", "165"),
];

/// What could not be prepared.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}")]
struct PrepareError {
    what: String,
    source: io::Error,
}

fn cannot<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> PrepareError {
    move |error| PrepareError { what: what.into(), source: error.into() }
}

/// Prepares, and waits for the end of the build.
pub(super) fn main(plan: &Path) -> i32 {
    match run(plan) {
        Ok(code) => code,
        Err(error) => {
            say(&Event::Failed(error.to_string()));
            1
        }
    }
}

fn run(plan: &Path) -> Result<i32, PrepareError> {
    let text = fs::read(plan).map_err(cannot("read the plan"))?;
    let plan: Plan = serde_json::from_slice(&text).map_err(cannot("read the plan"))?;
    unshare(CloneFlags::CLONE_NEWUSER).map_err(cannot("make a user namespace"))?;
    say(&Event::Ready);
    io::stdin().read_exact(&mut [0]).map_err(cannot("wait for ids"))?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)
        .map_err(cannot("make namespaces"))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(cannot("make mounts private"))?;
    host_name()?;
    let place = prepare_place(&plan)?;
    let result = start(&plan, &place).and_then(|child| follow(child, &place.join("disk")));
    keep_changes(&place);
    // Whoever started this reads the image, and removes all.
    copy::give(&place.join("disk"), ID_COUNT - 1).map_err(cannot("give back the output"))?;
    result
}

fn varied(what: &str, how: impl Into<String>) {
    say(&Event::Varied(Variation { what: what.to_owned(), how: how.into(), varied: true }));
}

fn unvaried(what: &str, why: impl Into<String>) {
    say(&Event::Varied(Variation { what: what.to_owned(), how: why.into(), varied: false }));
}

fn host_name() -> Result<(), PrepareError> {
    let before = nix::unistd::gethostname().map_err(cannot("read the host name"))?;
    sethostname(HOST_NAME).map_err(cannot("set the host name"))?;
    varied("host name", format!("{HOST_NAME}, in place of {}", before.display()));
    Ok(())
}

/// A descriptor outlasts whatever is mounted on the way to it.
fn hold(path: &Path) -> Result<OwnedFd, PrepareError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty()).map_err(cannot(format!("open {}", path.display())))
}

fn bind(from: &OwnedFd, to: &Path) -> Result<(), PrepareError> {
    let from = PathBuf::from(format!("/proc/self/fd/{}", from.as_raw_fd()));
    mount(Some(&from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(cannot(format!("bind {}", to.display())))
}

/// Makes the mount at `path` read-only and leaves its other flags, which may be locked, as they are.
fn read_only(path: &Path) -> Result<(), PrepareError> {
    let flags = statvfs(path).map_err(cannot("read the flags of a mount"))?.flags();
    let mut wanted = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    for (found, flag) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ] {
        wanted.set(flag, flags.contains(found));
    }
    mount(None::<&str>, path, None::<&str>, wanted, None::<&str>).map_err(cannot("make the objects read-only"))
}

/// Makes the place of the second build; gives its path.
fn prepare_place(plan: &Plan) -> Result<PathBuf, PrepareError> {
    let (objects, disk) = (hold(&plan.objects)?, hold(&plan.disk)?);
    // Read before anything hides them.
    let staged = stage_in_memory(plan)?;
    let above = PLACES.iter().map(Path::new).find(|path| path.is_dir() && !path.is_symlink());
    let above = above.ok_or(io::ErrorKind::NotFound).map_err(cannot("find a place to build in"))?;
    bind(&staged, above)?;
    let place = above.join(name());
    varied("workspace path", format!("{} bytes long", place.as_os_str().len()));
    bind_parts(&place, &objects, &disk)?;
    vary_file_system(plan, &place);
    Ok(place)
}

/// Of the place.
fn name() -> String {
    "check-".chars().chain(std::iter::repeat('x')).take(NAME_LENGTH).collect()
}

/// The place while it is made: on `disk`, or in memory, mounted on a directory there.
fn stage_in_memory(plan: &Plan) -> Result<OwnedFd, PrepareError> {
    let stage = plan.disk.join("place");
    fs::create_dir(&stage).map_err(cannot("make a directory"))?;
    if plan.memory {
        mount(Some("tmpfs"), &stage, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
            .map_err(cannot("mount a file system in memory"))?;
    }
    let place = stage.join(name());
    for directory in ["recipe", "store/objects/sha256", "disk", "work", "home"] {
        copy::make_directories(&place.join(directory)).map_err(cannot("make a directory"))?;
    }
    copy::copy_all(&plan.sources, &place.join("recipe")).map_err(cannot("copy what the recipe reads"))?;
    let program = place.join("program");
    fs::copy("/proc/self/exe", &program).map_err(cannot("copy the program"))?;
    hold(&stage)
}

fn bind_parts(place: &Path, objects: &OwnedFd, disk: &OwnedFd) -> Result<(), PrepareError> {
    let sha256 = place.join("store/objects/sha256");
    bind(objects, &sha256)?;
    read_only(&sha256)?;
    let inside = place.join("disk");
    bind(disk, &inside)?;
    for directory in [OUTPUT, TREE] {
        copy::give(&inside.join(directory), 0).map_err(cannot("give a directory to the other user"))?;
    }
    Ok(())
}

fn vary_file_system(plan: &Plan, place: &Path) {
    let on_tmpfs = statfs(&place.join("disk")).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC);
    match (plan.memory, on_tmpfs) {
        (true, false) => varied("file system", "the workspace is in memory, the tree of the scripts on disk"),
        (false, _) => unvaried("file system", "there is too little memory for the workspace"),
        (true, true) => unvaried("file system", "the store is in memory, too"),
    }
}

/// Starts the build.
fn start(plan: &Plan, place: &Path) -> Result<Child, PrepareError> {
    let disk = place.join("disk");
    let recipe = place.join("recipe").join(plan.recipe.strip_prefix("/").unwrap_or(&plan.recipe));
    let second = Second {
        recipe,
        version: plan.version.clone(),
        store: place.join("store"),
        output: disk.join(OUTPUT),
        tree: disk.join(TREE),
    };
    let path = place.join("plan.json");
    let text = serde_json::to_vec(&second).map_err(cannot("write the plan"))?;
    fs::write(&path, text).map_err(cannot("write the plan"))?;
    one_core();
    let before = umask(Mode::from_bits_truncate(UMASK)).bits();
    if before == UMASK {
        umask(Mode::empty());
    }
    varied("umask", format!("{:04o}, in place of {before:04o}", if before == UMASK { 0 } else { UMASK }));
    for (what, name) in [("time zone", "TZ"), ("locale", "LC_ALL")] {
        let value = VARIABLES.iter().find(|(variable, _)| *variable == name).map_or("", |(_, value)| value);
        varied(what, value);
    }
    varied("environment", format!("{} other variables and nothing else", VARIABLES.len()));
    varied("working directory", "another one");
    let mut command = Command::new(place.join("program"));
    command.args([MARKER, second::BECOME]).arg(&path).env_clear().envs(VARIABLES);
    command.env("HOME", place.join("home")).env("TMPDIR", place.join("home")).current_dir(place.join("work"));
    // Set before the program starts, which would lose its capabilities otherwise.
    command.stdin(Stdio::piped()).uid(0).gid(0);
    crate::sys::end_with_this_thread(&mut command);
    command.spawn().map_err(cannot("start the build"))
}

/// Lets the build begin, with the clock moved where that can be done, and waits for its end.
fn follow(mut child: Child, disk: &Path) -> Result<i32, PrepareError> {
    let pid = Pid::from_raw(child.id().cast_signed());
    let word = match trace::seize(pid) {
        Ok(()) => {
            let days = calls::SHIFT / 86_400;
            varied("directory order", "every directory is read in the reverse order");
            varied(
                "clock",
                format!("{days} days and some hours later, for the build and for what runs in the sandbox"),
            );
            wire::TRACED
        }
        Err(error) => {
            let why = format!("this kernel does not let a process be traced: {}", error.desc());
            unvaried("directory order", &why);
            unvaried("clock", &why);
            wire::ALONE
        }
    };
    let told = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(&[word]));
    told.map_err(cannot("start the build"))?;
    if word == wire::ALONE {
        let status = child.wait().map_err(cannot("wait for the build"))?;
        return Ok(status.code().unwrap_or(1));
    }
    let (code, turns) = trace::follow(pid).map_err(cannot("follow the build"))?;
    let text = serde_json::to_vec(&turns).map_err(cannot("write whose turn it was"))?;
    fs::write(disk.join(wire::TURNS), text).map_err(cannot("write whose turn it was"))?;
    Ok(code)
}

/// Leaves the build one of the processors that this process may use.
fn one_core() {
    let (this, what) = (Pid::from_raw(0), "processors");
    let Ok(allowed) = sched_getaffinity(this) else { return unvaried(what, "the kernel does not tell them") };
    let all: Vec<usize> = (0..CpuSet::count()).filter(|number| allowed.is_set(*number).unwrap_or(false)).collect();
    let mut one = CpuSet::new();
    let [.., last] = all[..] else { return unvaried(what, "the kernel does not tell them") };
    match all.len() {
        1 => unvaried(what, "this machine has one"),
        count if one.set(last).is_ok() && sched_setaffinity(this, &one).is_ok() => {
            varied(what, format!("1, in place of {count}"));
        }
        _ => unvaried(what, "the kernel does not let them be chosen"),
    }
}

/// Puts the list of changed files, which is in the second build's store, to the output. There may be none.
fn keep_changes(place: &Path) {
    let results = fs::read_dir(place.join("store/stages/configure")).into_iter().flatten().flatten();
    for result in results {
        let list = result.path().join("content").join(crate::build::system::SANDBOX).join(rootfs::CHANGES);
        // Without it nobody can be named; the check holds all the same.
        let _ = fs::copy(list, place.join("disk").join(CHANGES));
    }
}
