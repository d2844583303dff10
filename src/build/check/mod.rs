//! `build --check`: the image built a second time, from nothing but lock and store, where everything else is different.
//!
//! ```text
//! check ── plan ──> vary ───────────────────────────> second ──> image
//!   ^               namespaces (user, mount, host      the same stages, packages from the store's objects,
//!   │               name), copies of the recipe,       no stage result read, none kept
//!   │               variables, umask, processors
//!   └── compare <── both outputs: partition, file, bytes
//! ```
//!
//! Flows in: the image of an ordinary build, its recipe and lock, the store. Flows out: a [`Report`]: what was varied, what
//! could not be and why, and in what the images differ. `vary` and `second` are this program started again ([`entry`]).
//!
//! Invariants: the store is only read (its objects are mounted read-only); what the second build makes lies in a workspace
//! of the store's session, or in memory that is gone with its mount namespace: nothing stays behind, however it ends. No
//! stage result of the second build can be taken for one of an ordinary build.

mod calls;
mod compare;
mod copy;
mod second;
mod trace;
mod vary;
mod wire;
mod writers;

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use self::wire::{Event, Plan};
use super::system::SANDBOX;
use crate::lock::Lock;
use crate::recipe::{At, Recipe, SourcePath};
use crate::rootfs::{self, EnvironmentError};
use crate::store::{Store, StoreError};
use crate::telemetry::{self, Progress};

pub use self::compare::{Bytes, Discrepancy, FileDiscrepancy, PartDiscrepancy};

/// The first argument that makes this program a part of a check.
const MARKER: &str = "--adamant-check";
/// The file in the workspace that the second build reads first.
const PLAN: &str = "plan.json";
/// The directory of a workspace that a sandbox's user ids may own, as `rootfs::remove_workspace` knows it.
const OWNED: &str = "tree";
/// The workspace takes this many times the packages: unpacked, as a file system, as a disk, copied to the output.
const MEMORY_MARGIN: u64 = 12;

/// What is to be built again.
pub struct Request<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// Where it is.
    pub recipe_path: &'a Path,
    /// Version of the image, in place of the recipe's.
    pub version: Option<&'a str>,
    /// The recipe's lock.
    pub lock: &'a Lock,
    /// Where it is.
    pub lock_path: &'a Path,
    /// What was built from it.
    pub output: &'a Path,
    /// Where its packages are.
    pub store: &'a Store,
}

/// Something that is other in the second build, or should have been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variation {
    /// What.
    pub what: String,
    /// In what way; if it could not be varied, why not.
    pub how: String,
    /// Whether it was varied.
    pub varied: bool,
}

/// What came out.
#[derive(Debug)]
pub struct Report {
    /// What was varied, and what could not be.
    pub variations: Vec<Variation>,
    /// In what the images differ; `None`: in nothing.
    pub discrepancy: Option<Discrepancy>,
}

/// Why it is not known whether the image can be built again.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The machine lacks something.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of the check.
    #[error("cannot use {}", .path.display())]
    Workspace {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The second build did not start.
    #[error("cannot start the second build")]
    Start(#[source] io::Error),
    /// Its surroundings could not be made.
    #[error("cannot prepare the second build: {message}")]
    Prepare {
        /// What failed and why.
        message: String,
    },
    /// It failed where the first one did not.
    #[error("the image was built, but not a second time under other circumstances: {message}")]
    SecondBuild {
        /// How it failed.
        message: String,
        /// What was varied.
        variations: Vec<Variation>,
    },
    /// It was killed, or died of a fault of its own.
    #[error("the second build ended before its work was done ({outcome})")]
    Died {
        /// How it ended.
        outcome: String,
    },
}

/// Becomes a part of a check and never returns, if this process was started as one; else does nothing. To be called in
/// `main`, while the process has one thread.
pub fn entry() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|argument| argument != MARKER) {
        return;
    }
    let (stage, plan) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default());
    let code = match stage.to_str() {
        Some(vary::STAGE) => vary::main(Path::new(&plan)),
        Some(second::BECOME) => second::become_other(Path::new(&plan)),
        Some(second::STAGE) => second::main(Path::new(&plan)),
        _ => 2,
    };
    std::process::exit(code);
}

/// Builds the image again and compares it with that in `request.output`.
pub fn check(request: &Request<'_>, progress: &dyn Progress) -> Result<Report, CheckError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| CheckError::Workspace { path, source }
    };
    let workspace = request.store.workspace()?;
    // Where `remove_abandoned` of a later command looks for what belongs to other ids.
    let disk = workspace.path().join(SANDBOX).join(OWNED);
    for directory in [wire::OUTPUT, wire::TREE] {
        let path = disk.join(directory);
        fs::create_dir_all(&path).map_err(at(&path))?;
    }
    let plan = plan(request, &disk).map_err(at(request.recipe_path))?;
    let path = workspace.path().join(PLAN);
    let text = serde_json::to_vec(&plan).map_err(io::Error::from);
    text.and_then(|text| fs::write(&path, text)).map_err(at(&path))?;
    let variations = run(&path, progress)?;
    let second = disk.join(wire::OUTPUT).join(second::IMAGE);
    progress.event(&telemetry::Event::StageStarted { name: "compare" });
    let discrepancy = compare::compare(request.output, &second).map_err(at(&second));
    let discrepancy = discrepancy.map(|found| found.map(|found| writers::name(found, request.output, &disk)));
    let removed = workspace.remove_with(&super::system::remove_abandoned);
    let discrepancy = discrepancy?;
    removed?;
    Ok(Report { variations, discrepancy })
}

/// Whoever looks from outside: absolute paths, so that they hold elsewhere.
fn plan(request: &Request<'_>, disk: &Path) -> io::Result<Plan> {
    let texts = request.recipe.sources.files().iter().map(|file| PathBuf::from(&file.name));
    let named = |path: &At<SourcePath>| path.folder.join(&path.text);
    let named = request.recipe.source_paths().into_iter().map(named);
    let all = texts.chain(named).chain([request.lock_path.to_owned()]);
    let packages = request.lock.sets.values().flatten().map(|package| package.size);
    let needed = packages.fold(0, u64::saturating_add).saturating_mul(MEMORY_MARGIN);
    Ok(Plan {
        recipe: absolute(request.recipe_path)?,
        sources: all.map(|path| absolute(&path)).collect::<io::Result<_>>()?,
        version: request.version.map(str::to_owned),
        objects: request.store.objects_directory(),
        disk: disk.to_owned(),
        memory: needed < rootfs::available_memory(),
    })
}

/// Absolute and without `..`: in the copy, where no directory is a symlink, that leads to the same file.
fn absolute(path: &Path) -> io::Result<PathBuf> {
    let mut normal = PathBuf::new();
    for component in std::path::absolute(path)?.components() {
        match component {
            Component::ParentDir => drop(normal.pop()),
            component => normal.push(component),
        }
    }
    Ok(normal)
}

/// Starts the second build, gives it its ids, and listens until it ends.
fn run(plan: &Path, progress: &dyn Progress) -> Result<Vec<Variation>, CheckError> {
    let mut command = Command::new("/proc/self/exe");
    command.args([MARKER, vary::STAGE]).arg(plan).stdin(Stdio::piped()).stdout(Stdio::piped());
    crate::sys::end_with_this_thread(&mut command);
    let mut child = command.spawn().map_err(CheckError::Start)?;
    let mut heard = Heard::default();
    let listened = listen(&mut child, &mut heard, progress);
    if listened.is_err() {
        // It may still wait for its ids.
        let _ = child.kill();
    }
    let status = child.wait().map_err(CheckError::Start)?;
    listened?;
    match heard.failure {
        Some(Event::BuildFailed(message)) => Err(CheckError::SecondBuild { message, variations: heard.variations }),
        Some(Event::Failed(message)) => Err(CheckError::Prepare { message }),
        _ if status.success() => Ok(heard.variations),
        _ => Err(CheckError::Died { outcome: status.to_string() }),
    }
}

/// What was told.
#[derive(Default)]
struct Heard {
    variations: Vec<Variation>,
    /// The first one is the one that counts.
    failure: Option<Event>,
}

fn listen(child: &mut Child, heard: &mut Heard, progress: &dyn Progress) -> Result<(), CheckError> {
    let Some(events) = child.stdout.take() else { return Ok(()) };
    for line in BufReader::new(events).lines() {
        match serde_json::from_str(&line.map_err(CheckError::Start)?) {
            Ok(Event::Ready) => {
                let first = rootfs::map_others(child.id())?;
                let how = format!("ids from {first}, in place of {}", nix::unistd::geteuid());
                heard.variations.push(Variation { what: "user".to_owned(), how, varied: true });
                let go = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(b"\n"));
                go.map_err(CheckError::Start)?;
            }
            Ok(Event::Varied(variation)) => heard.variations.push(variation),
            Ok(Event::Stage(name)) => progress.event(&telemetry::Event::StageStarted { name: &name }),
            Ok(failure) => drop(heard.failure.get_or_insert(failure)),
            Err(_) => {}
        }
    }
    Ok(())
}
