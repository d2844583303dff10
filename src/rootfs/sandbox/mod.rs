//! Maintainer scripts, run inside the tree that they configure.
//!
//! Flows in: unpacked packages and [`Settings`]. Flows out: the configured [`Tree`], whose contents lie in the
//! packages' data files and, for what scripts made, in one file of the workspace.
//!
//! ```text
//! builder ── plan.json ──> enter ─────────> init ────────────────> run ──> script, dpkg
//!    ^                     user namespace   process 1: unpack,     mount namespace with the tree as /,
//!    └── events, result    + mnt pid net    read back              fewer capabilities, seccomp
//!                          ipc uts cgroup
//! ```
//!
//! Every stage is this program started again ([`entry`]), so that nothing but `exec` follows a `fork`. The namespaces
//! are the same for root and for an ordinary user, and so are the bits that come out: owners, modes, attributes and
//! times are read back inside the user namespace.
//!
//! Scripts see no network, no host, a `/dev` of six devices, empty `/run` and `/tmp`, an empty `/sys`; services are not
//! started (`policy-rc.d`), and nothing they start outlives them. They can gain no privilege: `no_new_privs` is set,
//! what reaches beyond files is dropped from the capability bounding set, further user namespaces are forbidden.

mod dpkg;
mod enter;
mod idmap;
mod init;
mod memory;
mod mounts;
mod place;
mod run;
mod scan;
mod wire;

pub use idmap::{EnvironmentError, ID_COUNT, map_others};
pub use memory::{Storage, available_memory};
pub use wire::{CHANGES, ChangeRow};

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use self::wire::{Event, Failure, KindRow, LOG, NodeRow, PACK, PLAN, Plan, RESULT, SeedRow, Task};
use super::deb::UnpackedPackage;
use crate::tree::{Content, DeviceNumber, FileAt, Kind, Metadata, Node, NodeId, ReadAt, Timestamp, Tree, TreeError};

/// The first argument that makes this program a part of a sandbox.
const MARKER: &str = "--adamant-sandbox";

/// A file that is in the tree before the first script runs.
#[derive(Debug, Clone)]
pub struct SeedFile {
    /// Within the root.
    pub path: Vec<u8>,
    /// Permission bits; it belongs to root.
    pub mode: u16,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// How to configure packages.
pub struct Settings<'a> {
    /// An empty directory on a file system with extended attributes. The tree that comes back reads from the file
    /// `pack` in it; what scripts printed is in `log`. After an error it may hold more: see [`remove_workspace`].
    pub workspace: &'a Path,
    /// The program that calls [`entry`] first; `None`: the one that runs now.
    pub program: Option<&'a Path>,
    /// `SOURCE_DATE_EPOCH` for scripts, and the time of everything that they make.
    pub epoch: i64,
    /// Files that must exist before the first script, like `/etc/locale.gen`.
    pub files: Vec<SeedFile>,
    /// Answers in the form that `debconf-set-selections` reads; may be empty.
    pub debconf: Vec<u8>,
    /// Where the tree is while scripts run; the result is the same.
    pub storage: Storage,
    /// Told what is being done, one line each.
    pub progress: &'a (dyn Fn(&str) + Sync),
}

/// Why a tree could not be configured.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// The machine lacks something.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The workspace cannot be used.
    #[error("cannot use {}", .path.display())]
    Workspace {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The sandbox did not start.
    #[error("cannot start the sandbox")]
    Start(#[source] io::Error),
    /// A system call inside the sandbox failed.
    #[error("the sandbox cannot {what}")]
    System {
        /// What it tried.
        what: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The packages do not fit together, or one is damaged.
    #[error("{message}")]
    Packages {
        /// Which ones and why.
        message: String,
    },
    /// A maintainer script failed.
    #[error("{script} of package {package} {outcome}; it printed:\n{log}")]
    Script {
        /// Whose script.
        package: String,
        /// Which one.
        script: String,
        /// How it ended.
        outcome: String,
        /// The last lines of its output.
        log: String,
    },
    /// dpkg could not configure a package.
    #[error("cannot configure package {message}; the last output was:\n{log}")]
    Dpkg {
        /// Package, script and exit status in dpkg's words.
        message: String,
        /// The last lines of output.
        log: String,
    },
    /// dpkg ended well and left something undone.
    #[error("dpkg ended without an error, but not all is well:\n{report}")]
    Unfinished {
        /// What `dpkg --audit` said.
        report: String,
    },
    /// The sandbox was killed, or died of a fault of its own.
    #[error("the sandbox ended before its work was done ({outcome}); it printed:\n{log}")]
    Died {
        /// How it ended.
        outcome: String,
        /// The last lines of output.
        log: String,
    },
    /// What came back is no tree.
    #[error("the sandbox described a tree that cannot be")]
    Result(#[source] TreeError),
}

/// Becomes a part of a sandbox and never returns, if this process was started as one; else does nothing. To be called
/// first in `main`, while the process has one thread.
pub fn entry() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|argument| argument != MARKER) {
        return;
    }
    let program = Path::new("/proc/self/exe");
    let stage = arguments.next().unwrap_or_default();
    let result = match stage.to_str() {
        Some("enter") => enter::main(program, Path::new(&arguments.next().unwrap_or_default())),
        Some("init") => {
            let plan = arguments.next().unwrap_or_default();
            read_plan(Path::new(&plan)).and_then(|plan| init::main(program, plan)).map(|()| 0)
        }
        // Its messages belong in the log: standard output is the script's.
        Some("run") => {
            let failure = run::become_program(arguments);
            let _ = writeln!(io::stderr(), "{failure:?}");
            std::process::exit(127);
        }
        _ => std::process::exit(2),
    };
    let code = result.unwrap_or_else(|failure| {
        say(&Event::Failed(failure));
        1
    });
    std::process::exit(code);
}

fn read_plan(path: &Path) -> Result<Plan, Failure> {
    let bytes = fs::read(path).map_err(Failure::system("read the plan"))?;
    serde_json::from_slice(&bytes).map_err(io::Error::from).map_err(Failure::system("read the plan"))
}

/// Tells the builder. If it is gone, so will this process be.
fn say(event: &Event) {
    if let Ok(mut line) = serde_json::to_vec(event) {
        line.push(b'\n');
        let _ = io::stdout().write_all(&line);
    }
}

/// Unpacks `packages`, runs their scripts and gives back the configured tree.
///
/// The result depends on the packages, the epoch, the files and the answers, not on who runs it or where; what scripts
/// themselves make at random is for `normalise`.
pub fn configure(packages: &[UnpackedPackage], settings: &Settings<'_>) -> Result<Tree, ConfigureError> {
    let workspace_error = |source| ConfigureError::Workspace { path: settings.workspace.to_owned(), source };
    let workspace = settings.workspace.canonicalize().map_err(workspace_error)?;
    let seed = |file: &SeedFile| SeedRow { path: file.path.clone(), mode: file.mode, bytes: file.bytes.clone() };
    let data_path = |package: &UnpackedPackage| package.data_path().canonicalize().map_err(workspace_error);
    let task = Task::Configure {
        packages: packages.iter().map(data_path).collect::<Result<_, _>>()?,
        place: settings.storage.place(packages),
        epoch: settings.epoch,
        files: settings.files.iter().map(seed).collect(),
        debconf: settings.debconf.clone(),
    };
    run_sandbox(settings.program, Plan { workspace: workspace.clone(), task }, settings.progress)?;
    let plan = workspace.join(PLAN);
    fs::remove_file(&plan).map_err(|source| ConfigureError::Workspace { path: plan.clone(), source })?;
    reopen(packages, &workspace)
}

/// The tree that [`configure`] made of the same packages in `workspace`, wherever that lies now.
pub fn reopen(packages: &[UnpackedPackage], workspace: &Path) -> Result<Tree, ConfigureError> {
    let at = |name: &str| {
        let path = workspace.join(name);
        move |source| ConfigureError::Workspace { path, source }
    };
    let rows = fs::read(workspace.join(RESULT)).map_err(at(RESULT))?;
    let rows: Vec<NodeRow> = serde_json::from_slice(&rows).map_err(io::Error::from).map_err(at(RESULT))?;
    build_tree(rows, packages, &workspace.join(PACK)).map_err(ConfigureError::Result)
}

/// Removes everything in `workspace`, also what belongs to subordinate ids after an interrupted build; the directory
/// itself stays.
pub fn remove_workspace(workspace: &Path, program: Option<&Path>) -> Result<(), ConfigureError> {
    // For root nothing is out of reach, and where there is no tree there is nothing of other ids.
    if nix::unistd::geteuid().is_root() || !workspace.join(wire::TREE).exists() {
        return remove_plainly(workspace)
            .map_err(|source| ConfigureError::Workspace { path: workspace.to_owned(), source });
    }
    let path = workspace.canonicalize();
    let path = path.map_err(|source| ConfigureError::Workspace { path: workspace.to_owned(), source })?;
    run_sandbox(program, Plan { workspace: path, task: Task::Remove }, &|_| {})
}

fn remove_plainly(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// Starts the sandbox, gives it its ids, and listens until it ends.
fn run_sandbox(program: Option<&Path>, plan: Plan, progress: &dyn Fn(&str)) -> Result<(), ConfigureError> {
    let at = |name: &str| {
        let path = plan.workspace.join(name);
        move |source| ConfigureError::Workspace { path, source }
    };
    let plan_path = plan.workspace.join(PLAN);
    let text = serde_json::to_vec(&plan).map_err(io::Error::from).map_err(at(PLAN))?;
    fs::write(&plan_path, text).map_err(at(PLAN))?;
    let log = File::create(plan.workspace.join(LOG)).map_err(at(LOG))?;
    let mut command = Command::new(program.unwrap_or(Path::new("/proc/self/exe")));
    command.args([MARKER, "enter"]).arg(&plan_path).env_clear();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().map_err(ConfigureError::Start)?;
    let result = listen(&mut child, progress);
    if result.is_err() {
        // It may still wait for its ids.
        let _ = child.kill();
    }
    let status = child.wait().map_err(ConfigureError::Start)?;
    match result? {
        Some(failure) => Err(failure_error(failure)),
        None if status.success() => Ok(()),
        None => {
            let log = fs::read(plan.workspace.join(LOG)).unwrap_or_default();
            let log = String::from_utf8_lossy(&log[log.len().saturating_sub(2000)..]).into_owned();
            Err(ConfigureError::Died { outcome: status.to_string(), log })
        }
    }
}

/// Follows the events to their end; the first failure is the one that counts.
fn listen(child: &mut Child, progress: &dyn Fn(&str)) -> Result<Option<Failure>, ConfigureError> {
    let mut failure = None;
    let Some(events) = child.stdout.take() else { return Ok(None) };
    for line in BufReader::new(events).lines() {
        let line = line.map_err(ConfigureError::Start)?;
        match serde_json::from_str(&line) {
            Ok(Event::Ready) => {
                idmap::map(child.id())?;
                let go = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(b"\n"));
                go.map_err(ConfigureError::Start)?;
            }
            Ok(Event::Stage(text)) => progress(&text),
            Ok(Event::Failed(found)) => drop(failure.get_or_insert(found)),
            Err(_) => {}
        }
    }
    Ok(failure)
}

fn failure_error(failure: Failure) -> ConfigureError {
    match failure {
        Failure::Namespaces { code } => idmap::refused(code).into(),
        Failure::System { what, code, message } => {
            let source = code.map_or_else(|| io::Error::other(message), io::Error::from_raw_os_error);
            ConfigureError::System { what, source }
        }
        Failure::Packages { message } => ConfigureError::Packages { message },
        Failure::Script { package, script, outcome, log } => ConfigureError::Script { package, script, outcome, log },
        Failure::Dpkg { message, log } => ConfigureError::Dpkg { message, log },
        Failure::Unfinished { report } => ConfigureError::Unfinished { report },
    }
}

/// The rows as a tree over the packages' data files and the pack.
fn build_tree(rows: Vec<NodeRow>, packages: &[UnpackedPackage], pack: &Path) -> Result<Tree, TreeError> {
    let pack: Arc<dyn ReadAt> = Arc::new(FileAt(pack.to_owned()));
    let mut tree = Tree::default();
    for row in rows {
        let (seconds, nanoseconds) = row.mtime;
        let xattrs = row.xattrs.into_iter().map(|attribute| (attribute.0, attribute.1)).collect();
        let mtime = Timestamp { seconds, nanoseconds };
        let metadata = Metadata { mode: row.mode, uid: row.uid, gid: row.gid, mtime, xattrs };
        let kind = match row.kind {
            KindRow::Directory if row.path.is_empty() => {
                tree.node_mut(NodeId::ROOT).metadata = metadata;
                continue;
            }
            KindRow::Link(first) => {
                tree.link(&first, &row.path)?;
                continue;
            }
            KindRow::Shipped { package, entry } => {
                let shipped = packages.get(package).and_then(|from| Some(from.node(from.entries().get(entry)?).kind));
                shipped.ok_or(TreeError::NotFound(row.path.clone()))?
            }
            KindRow::Packed { offset, size, digest, extents } => {
                let content = Content::new(size, pack.clone(), offset).with_digest(digest);
                Kind::File(match extents {
                    Some(extents) => content.with_extents(extents.iter().map(|(a, b)| *a..*b).collect::<Vec<_>>()),
                    None => content,
                })
            }
            KindRow::Directory => Kind::directory(),
            KindRow::Symlink(target) => Kind::Symlink(target),
            KindRow::CharacterDevice(major, minor) => Kind::CharacterDevice(DeviceNumber { major, minor }),
            KindRow::BlockDevice(major, minor) => Kind::BlockDevice(DeviceNumber { major, minor }),
            KindRow::Fifo => Kind::Fifo,
            KindRow::Socket => Kind::Socket,
        };
        tree.insert(&row.path, Node { metadata, kind })?;
    }
    Ok(tree)
}
