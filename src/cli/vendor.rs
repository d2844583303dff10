//! `adamant vendor`: everything that a build needs, to be taken where there is no network.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::{CacheArguments, Failure, FetchArguments, Kind, Output, fetch};
use crate::build::vendor::{self, VendorError};
use crate::build::{lock, tools};
use crate::lock::{Lock, LockedPackage};
use crate::recipe::{self, Overrides};
use crate::store::Amount;
use crate::telemetry::{Progress, human_bytes};

/// Write all packages that locks name into a folder, for builds without a network.
///
/// The folder is a store: `build --offline --store DIR` makes the same bits from it elsewhere. Every package is
/// checked as it is written; run again, the verb checks what is there and adds what is missing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  adamant vendor usb/store web.toml                       # where there is a network
  adamant build web.toml --offline --store usb/store      # where there is none
  adamant vendor usb/store --tools                        # what `boot` needs: QEMU, firmware, a TPM")]
pub struct Arguments {
    /// The folder: new, empty, or of an earlier run.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Recipes with their locks, or locks.
    #[arg(value_name = "RECIPE|LOCK", required_unless_present = "tools")]
    pub paths: Vec<PathBuf>,
    /// Also the tools that `adamant boot` runs.
    #[arg(long)]
    pub tools: bool,
    /// Where packages come from.
    #[command(flatten)]
    pub fetch: FetchArguments,
    /// What machines share.
    #[command(flatten)]
    pub cache: CacheArguments,
}

/// Writes the folder.
pub fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let mut locks = arguments.paths.iter().map(|path| read(path)).collect::<Result<Vec<Lock>, Failure>>()?;
    if arguments.tools {
        locks.push(tools::VM.lock()?);
    }
    let wanted: Vec<LockedPackage> = locks.iter().flat_map(|lock| lock.sets.values().flatten().cloned()).collect();
    let from = arguments.fetch.open_store()?;
    let progress: Arc<dyn Progress> = fetch::progress(output).into();
    let into = arguments.fetch.fetcher(vendor::open(&arguments.directory)?, arguments.fetch.mirrors()?);
    arguments.cache.attach(into.store(), arguments.fetch.offline, &progress)?;
    let vendored = vendor::vendor(&wanted, &from, &into, progress.as_ref())?;
    let parts = [vendored.present, vendored.copied, vendored.fetched];
    let count: u64 = parts.iter().map(|part| part.count).sum();
    let bytes: u64 = parts.iter().map(|part| part.bytes).sum();
    let text = format!("{}: {count} packages, {}\n", arguments.directory.display(), human_bytes(bytes));
    output.result(&text, || {
        let amount = |amount: Amount| json!({ "packages": amount.count, "bytes": amount.bytes });
        json!({
            "schema": "adamant.vendor/1",
            "directory": arguments.directory,
            "packages": count,
            "bytes": bytes,
            "present": amount(vendored.present),
            "copied": amount(vendored.copied),
            "fetched": amount(vendored.fetched),
        })
    })?;
    CacheArguments::finish(into.store());
    Ok(())
}

/// The lock at `path`, or the one of the recipe there, which must fit it.
fn read(path: &Path) -> Result<Lock, Failure> {
    let missing = |path: PathBuf| Failure::new(Kind::Recipe, NoLockError { path });
    if path.extension().is_some_and(|extension| extension == "lock") {
        return lock::read_any(path)?.ok_or_else(|| missing(path.to_owned()));
    }
    let recipe = recipe::load(path, &Overrides::default())?;
    let sources = recipe.read_sources()?;
    let beside = lock::path(path);
    lock::read(&beside, &lock::request(&recipe, &sources)?)?.ok_or_else(|| missing(beside))
}

/// A recipe that was never locked.
#[derive(Debug, thiserror::Error)]
#[error("there is no lock {}: `adamant lock` makes it", .path.display())]
struct NoLockError {
    path: PathBuf,
}

impl From<VendorError> for Failure {
    fn from(error: VendorError) -> Self {
        match error {
            VendorError::Store(error) => error.into(),
            VendorError::Fetch(error) => error.into(),
            error @ (VendorError::Occupied(_) | VendorError::Read { .. }) => {
                Self::new(Kind::Environment, error).hint("give a folder that is new, empty, or of an earlier run")
            }
        }
    }
}
