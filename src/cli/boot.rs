//! `adamant boot`: run an image in a virtual machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::lock::now;
use super::{CacheArguments, Failure, FetchArguments, Kind, Output, fetch};
use crate::build::tools::{self, ToolsError};
use crate::manifest::{self, Manifest};
use crate::recipe::{CheckKind, State};
use crate::store::{Store, Workspace};
use crate::telemetry::Progress;
use crate::verify;
use crate::vm::{self, Check, CheckResult, Disk, Machine, Outcome, Probe, Tools, VmError};

/// Room for the partition that a persistent machine makes: its disk is that much larger than the image.
const FREE_SPACE: u64 = 4 << 30;
/// Longest boot that is waited for: a slow machine without KVM, under load.
const BOOT_PATIENCE: Duration = Duration::from_secs(600);
/// Longest shutdown that is waited for.
/// The first systemd that takes the credential `systemd.extra-unit.*`: systemd.system-credentials(7).
const UNITS_SINCE: u32 = 256;
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(60);

/// Boot an image in QEMU, its console on this terminal. The image itself is never altered.
///
/// With `--test`, the recipe's checks run inside the machine; exit code 0 if all of them hold, 5 if not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  adamant boot out/web_1              # its console; Ctrl-a x ends it
  adamant boot out/web_1 --shell      # a root shell on the console, by a credential given at boot
  adamant boot out/web_1 --test")]
pub struct Arguments {
    /// A folder that `build` made.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Run the recipe's checks and exit.
    #[arg(long)]
    pub test: bool,
    /// Give a root shell on the console.
    #[arg(long, conflicts_with = "test")]
    pub shell: bool,
    /// Keep what the machine writes in this file (qcow2), and go on from there if it exists. Without it everything
    /// written is gone when the machine ends.
    #[arg(long, value_name = "FILE")]
    pub disk: Option<PathBuf>,
    /// Where `--test` records what the console said: `<PATH>.console.log` unless told otherwise.
    #[arg(long, value_name = "FILE", requires = "test")]
    pub console: Option<PathBuf>,
    /// Where the tools that it needs (QEMU, firmware) come from.
    #[command(flatten)]
    pub fetch: FetchArguments,
    /// What machines share.
    #[command(flatten)]
    pub cache: CacheArguments,
}

/// Boots the image, for a person or for its checks.
pub fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let manifest = read_manifest(&arguments.path)?;
    verify::file_name(&manifest)?;
    if arguments.test || arguments.shell {
        takes_units(&manifest)?;
    }
    let store = arguments.fetch.open_store()?;
    let progress: Arc<dyn Progress> = fetch::progress(output).into();
    arguments.cache.attach(&store, arguments.fetch.offline, &progress)?;
    let result = attend(arguments, output, &manifest, &store, progress.as_ref());
    CacheArguments::finish(&store);
    result
}

fn attend(
    arguments: &Arguments,
    output: &Output,
    manifest: &Manifest,
    store: &Store,
    progress: &dyn Progress,
) -> Result<(), Failure> {
    let workspace = store.workspace()?;
    let fetcher = arguments.fetch.fetcher(store.clone(), arguments.fetch.mirrors()?);
    let tools = Tools::at(&tools::tree(&tools::VM, &fetcher, progress, now())?)?;
    let machine = machine(arguments, manifest, &workspace)?;
    if arguments.test {
        return test(arguments, manifest, machine, &tools, &workspace, output);
    }
    let mut guest = machine.start(&tools, &workspace.path(), None)?;
    output.talk("Ctrl-a x ends the machine.");
    match vm::attend(&mut guest)? {
        Outcome::Refused(why) => Err(Failure::new(Kind::Verification, RefusedError { why })),
        Outcome::Panicked => Err(Failure::new(Kind::Verification, PanickedError)),
        _ => Ok(()),
    }
}

/// Checks and the shell are units that the machine is given by credentials when it boots.
fn takes_units(manifest: &Manifest) -> Result<(), Failure> {
    let Some(systemd) = manifest.packages.iter().find(|package| package.name == "systemd") else { return Ok(()) };
    let number = systemd.version.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    let major: Option<u32> = number.parse().ok();
    match major {
        Some(major) if major < UNITS_SINCE => {
            let error = OldSystemdError { version: systemd.version.clone() };
            let hint = "without --test and --shell it boots to its login prompt; Debian 13 has a newer systemd";
            Err(Failure::new(Kind::Environment, error).hint(hint))
        }
        _ => Ok(()),
    }
}

fn read_manifest(directory: &Path) -> Result<Manifest, Failure> {
    let path = directory.join(manifest::FILE_NAME);
    let text = fs::read(&path)
        .map_err(|source| Failure::new(Kind::Environment, ReadError { path: path.clone(), source }))
        .map_err(|failure| failure.hint("PATH is a folder that `adamant build` made"))?;
    Manifest::parse(&text).map_err(|source| Failure::new(Kind::Verification, ManifestError { path, source }))
}

fn machine(arguments: &Arguments, manifest: &Manifest, workspace: &Workspace) -> Result<Machine, Failure> {
    // A manifest may come from anywhere: it names the image beside it and no other file, and the image has the size
    // that it has.
    let image = arguments.path.join(verify::file_name(manifest)?);
    let unreadable = |source| Failure::new(Kind::Environment, ReadError { path: image.clone(), source });
    let found = image.canonicalize().and_then(|path| Ok((fs::metadata(&path)?.len(), path)));
    let (disk_size, path) = found.map_err(unreadable)?;
    let mut machine = Machine::new(path);
    let size = match manifest.state {
        State::Volatile => disk_size,
        State::Persistent => disk_size.saturating_add(FREE_SPACE),
    };
    machine.disk = match (&arguments.disk, manifest.state) {
        (Some(path), _) => Disk::Overlay { path: path.clone(), size },
        (None, State::Volatile) => Disk::Snapshot,
        (None, State::Persistent) => Disk::Overlay { path: workspace.path().join("disk.qcow2"), size },
    };
    if arguments.shell {
        machine.credentials.extend(vm::shell());
    }
    Ok(machine)
}

fn test(
    arguments: &Arguments,
    manifest: &Manifest,
    mut machine: Machine,
    tools: &Tools,
    workspace: &Workspace,
    output: &Output,
) -> Result<(), Failure> {
    let checks: Vec<Check> = manifest.checks.iter().map(check).collect();
    let forwards = vm::forwards(&checks).map_err(VmError::Talk)?;
    machine.forwards = forwards.clone();
    machine.agent = true;
    let record = match &arguments.console {
        Some(path) => path.clone(),
        None => {
            let name = arguments.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            arguments.path.with_file_name(format!("{name}.console.log"))
        }
    };
    let mut guest = machine.start(tools, &workspace.path(), None)?;
    let log = guest.console_log().to_owned();
    let results = run_checks(&mut guest, &checks, &forwards, output);
    // The checks have their results; a guest that does not turn itself off is killed.
    let _ = guest.power_off(SHUTDOWN_PATIENCE);
    fs::copy(&log, &record)
        .map_err(|source| Failure::new(Kind::Environment, WriteError { path: record.clone(), source }))?;
    let results =
        results.map_err(|failure| failure.hint(format!("what the console said is in {}", record.display())))?;
    let failed = results.iter().filter(|result| result.verdict.is_err()).count();
    let text = format!("{} of {} checks hold; console: {}\n", results.len() - failed, results.len(), record.display());
    output.result(&text, || {
        let row = |result: &CheckResult| {
            json!({
                "name": result.name,
                "holds": result.verdict.is_ok(),
                "found": result.verdict.as_ref().err(),
                "seconds": result.elapsed.as_secs_f64(),
            })
        };
        json!({
            "schema": "adamant.boot-test/1",
            "checks": results.iter().map(row).collect::<Vec<_>>(),
            "failed": failed,
            "console": record,
        })
    })?;
    if failed > 0 { Err(Failure::new(Kind::Verification, ChecksError { failed }).after_result()) } else { Ok(()) }
}

fn run_checks(
    guest: &mut vm::Guest,
    checks: &[Check],
    forwards: &[vm::Forward],
    output: &Output,
) -> Result<Vec<CheckResult>, Failure> {
    match guest.wait(BOOT_PATIENCE)? {
        Outcome::Ready => {}
        Outcome::Refused(why) => return Err(Failure::new(Kind::Verification, RefusedError { why })),
        Outcome::Panicked => return Err(Failure::new(Kind::Verification, PanickedError)),
        outcome => return Err(Failure::new(Kind::Verification, NotReadyError { outcome: format!("{outcome:?}") })),
    }
    let mut results = Vec::new();
    for check in checks {
        let result = check.run(guest, forwards)?;
        match &result.verdict {
            Ok(()) => output.talk(&format!("holds: {}", result.name)),
            Err(found) => output.talk(&format!("fails: {}: {}", result.name, found.trim_end())),
        }
        results.push(result);
    }
    Ok(results)
}

fn check(check: &crate::recipe::Check) -> Check {
    Check {
        name: check.name.clone(),
        probe: match &check.kind {
            CheckKind::Unit(unit) => Probe::Unit(unit.clone()),
            CheckKind::Command(command) => Probe::Command(command.clone()),
            CheckKind::Http { port, path, status, contains } => {
                Probe::Http { port: *port, path: path.clone(), status: *status, contains: contains.clone() }
            }
        },
        timeout: Duration::from_secs(check.timeout_s.into()),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", .path.display())]
struct ReadError {
    path: PathBuf,
    source: io::Error,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", .path.display())]
struct WriteError {
    path: PathBuf,
    source: io::Error,
}

#[derive(Debug, thiserror::Error)]
#[error("{} is no manifest", .path.display())]
struct ManifestError {
    path: PathBuf,
    source: manifest::ParseError,
}

#[derive(Debug, thiserror::Error)]
#[error("the machine refused to boot: {why}")]
struct RefusedError {
    why: String,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "the image has systemd {version}; --test and --shell give the machine a unit by a credential, which systemd takes \
     since {UNITS_SINCE}"
)]
struct OldSystemdError {
    version: String,
}

#[derive(Debug, thiserror::Error)]
#[error("the machine's kernel panicked")]
struct PanickedError;

#[derive(Debug, thiserror::Error)]
#[error("the machine did not come up: {outcome}")]
struct NotReadyError {
    outcome: String,
}

#[derive(Debug, thiserror::Error)]
#[error("{failed} of the checks do not hold")]
struct ChecksError {
    failed: usize,
}

impl From<VmError> for Failure {
    fn from(error: VmError) -> Self {
        Self::new(Kind::Environment, error)
    }
}

impl From<ToolsError> for Failure {
    fn from(error: ToolsError) -> Self {
        match error {
            ToolsError::Packages(error) => error.into(),
            ToolsError::Store(error) => error.into(),
            ToolsError::Lock(error) => error.into(),
            error => Self::new(Kind::Environment, error),
        }
    }
}
