//! Process 1 of the sandbox: unpacks, runs scripts, reads the tree back, cleans up.
//!
//! ```text
//! base: unpack ─ preinst ─ dpkg --configure          Essential and what it needs
//! each phase: preinst ─ unpack ─ dpkg --configure    diversions and overrides of the scripts are honoured
//! dpkg --audit ─ every process ended ─ read back ─ remove the tree
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use rayon::prelude::*;

use super::dpkg::Dpkg;
use super::scan::Scanner;
use super::wire::{CHANGES, Event, Failure, LOG, PACK, Plan, RESULT, SeedRow, TREE, Task, TreePlace};
use super::{mounts, say};
use crate::rootfs::deb;
use crate::rootfs::disk::Root;

/// The stage `init`.
pub(super) fn main(program: &Path, plan: Plan) -> Result<(), Failure> {
    super::enter::die_with_parent()?;
    // A parent in another pid namespace has no number here by which its death before that could be seen.
    if super::enter::is_abandoned()? {
        return Ok(());
    }
    umask(Mode::from_bits_truncate(0o022));
    mounts::detach_from_host()?;
    nix::unistd::sethostname("localhost").map_err(Failure::errno("set the host name"))?;
    limit_resources()?;
    // A nested user namespace would give back what scripts have given up.
    mounts::set_kernel_setting("/proc/sys/user/max_user_namespaces", "0")?;
    let workspace = plan.workspace;
    match plan.task {
        Task::Remove => remove_contents(&workspace),
        Task::Configure { packages, place, epoch, files, debconf } => {
            let tree = workspace.join(TREE);
            fs::create_dir(&tree).map_err(Failure::system("make the directory of the tree"))?;
            match &place {
                TreePlace::Workspace => {}
                TreePlace::Memory => mounts::in_memory(&tree)?,
                TreePlace::Directory(directory) => mounts::elsewhere(directory, &tree)?,
            }
            let result = configure(program, &workspace, &packages, epoch, &files, &debconf);
            end_all_processes();
            let result =
                result.and_then(|done| done.write_result(&workspace, epoch, matches!(place, TreePlace::Directory(_))));
            say(&Event::Stage("removing the sandbox".to_owned()));
            if place != TreePlace::Workspace {
                mounts::unmount(&tree)?;
            }
            if let TreePlace::Directory(directory) = &place {
                remove_contents(directory)?;
            }
            result.and(remove(&tree))
        }
    }
}

/// Limits that do not depend on the host's.
fn limit_resources() -> Result<(), Failure> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    for (resource, wanted) in [(Resource::RLIMIT_CORE, 0), (Resource::RLIMIT_NOFILE, 1024)] {
        let (_, hard) = getrlimit(resource).map_err(Failure::errno("read resource limits"))?;
        setrlimit(resource, wanted.min(hard), hard).map_err(Failure::errno("set resource limits"))?;
    }
    Ok(())
}

/// What is left to do when all scripts have run.
struct Configured {
    packages: Vec<deb::UnpackedPackage>,
    placed: Vec<super::place::Placed>,
    started: (i64, i64),
    tree: PathBuf,
}

fn configure(
    program: &Path,
    workspace: &Path,
    packages: &[PathBuf],
    epoch: i64,
    files: &[SeedRow],
    debconf: &[u8],
) -> Result<Configured, Failure> {
    say(&Event::Stage("reading packages".to_owned()));
    let open = |path: &PathBuf| deb::reopen(path).map_err(|error| packages_failure(&error));
    let packages: Vec<_> = packages.par_iter().map(open).collect::<Result<_, _>>()?;
    let tree = workspace.join(TREE);
    let root = Root::open(&tree).map_err(Failure::system("open the directory of the tree"))?;
    let started = file_system_time(&tree)?;
    let log = fs::OpenOptions::new().append(true).open(workspace.join(LOG));
    let log = log.map_err(Failure::system("open the log of the scripts"))?;

    let mut dpkg = Dpkg::new(&packages, &root);
    let base = dpkg.unpack_base()?;
    for file in files {
        let written = root.write(&file.path, &file.bytes, file.mode);
        written.map_err(Failure::system(format!("write {}", crate::tree::show(&file.path))))?;
    }
    for directory in [&b"dev"[..], b"proc", b"sys", b"run", b"tmp"] {
        let made = root.make_directories(directory);
        made.map_err(Failure::system(format!("make {}", crate::tree::show(directory))))?;
    }
    let namespace = mounts::prepare(&tree)?;
    let runner = super::run::Runner { program, namespace: &namespace, log: &log, epoch };
    let log_path = workspace.join(LOG);
    dpkg.forbid_services()?;
    mounts::mask(&namespace)?;
    dpkg.configure_base(&base, &runner, &log_path)?;
    if !debconf.is_empty() {
        dpkg.preseed(&runner, &log_path, debconf)?;
    }
    while dpkg.unpack_next(&runner, &log_path)? {
        mounts::mask(&namespace)?;
        dpkg.configure(&runner, &log_path)?;
    }
    dpkg.check(&runner, &log_path)?;
    dpkg.allow_services()?;
    let placed = dpkg.into_placed();
    Ok(Configured { packages, placed, started, tree })
}

pub(super) fn packages_failure(error: &dyn std::error::Error) -> Failure {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        message.push_str(": ");
        message.push_str(&error.to_string());
        source = error.source();
    }
    Failure::Packages { message }
}

impl Configured {
    fn write_result(self, workspace: &Path, epoch: i64, tells_changes: bool) -> Result<(), Failure> {
        say(&Event::Stage("reading the configured tree back".to_owned()));
        let scanner = Scanner::new(&self.packages, self.placed, self.started, epoch, &workspace.join(PACK));
        let scanner = scanner.map_err(Failure::system("make the pack of changed files"))?;
        let root = Root::open(&self.tree).map_err(Failure::system("open the directory of the tree"))?;
        let (rows, changes) = scanner.scan(&root)?;
        write_rows(&workspace.join(RESULT), &rows)?;
        if tells_changes {
            write_rows(&workspace.join(CHANGES), &changes)?;
        }
        Ok(())
    }
}

fn write_rows(path: &Path, rows: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_vec(rows).map_err(std::io::Error::from);
    let written = text.and_then(|text| fs::write(path, text));
    written.map_err(Failure::system("write the list of the tree"))
}

/// Now, as the file system of the tree tells it: it may lag behind the clock.
fn file_system_time(tree: &Path) -> Result<(i64, i64), Failure> {
    use std::os::unix::fs::MetadataExt;
    let probe = || {
        let path = tree.join("probe");
        fs::write(&path, "")?;
        let status = fs::metadata(&path)?;
        fs::remove_file(&path)?;
        Ok((status.mtime(), status.mtime_nsec()))
    };
    probe().map_err(Failure::system("write to the directory of the tree"))
}

/// Ends what scripts left running, so that nothing changes the tree any more.
fn end_all_processes() {
    // As process 1 of its namespace, "all" is all but itself.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    while !matches!(waitpid(None, None), Err(Errno::ECHILD)) {}
}

fn remove_contents(directory: &Path) -> Result<(), Failure> {
    let fail = || Failure::system(format!("remove what is in {}", directory.display()));
    for entry in fs::read_dir(directory).map_err(fail())? {
        remove(&entry.map_err(fail())?.path())?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), Failure> {
    let is_directory = fs::symlink_metadata(path).is_ok_and(|status| status.is_dir());
    let removed = if is_directory { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::system(format!("remove {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}
