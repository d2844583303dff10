//! `adamant store`: what takes the room, and whether it is whole.

use std::env;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::fetch::store_directory;
use super::gc::amount;
use super::lock::table;
use super::{Failure, Kind, Output};
use crate::build::roots::{self, DamagedResult, Kept};
use crate::build::segments;
use crate::store::{Amount, Damage, Store, Usage};
use crate::telemetry::human_bytes;

/// Which store.
#[derive(Debug, Clone, Args)]
pub struct StoreArguments {
    /// Folder that keeps packages and results of earlier builds.
    #[arg(long, value_name = "DIR", global = true)]
    pub store: Option<PathBuf>,
}

impl StoreArguments {
    /// The store of `--store`, else the user's.
    pub fn open(&self) -> Result<Store, Failure> {
        let variables = (env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"));
        Ok(Store::open(&store_directory(self.store.as_deref(), variables)?)?)
    }
}

/// Show what takes the room in the store, or check that it is whole.
///
/// The store keeps packages and indexes by their digests (objects), and results of stages: unpacked packages,
/// configured trees, initrds, compressed file data, images. `adamant gc` makes room.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  adamant store
  adamant store --json | jq .stages
  adamant store verify                   # exit code 5 if anything was damaged; it is fetched or built again")]
pub struct Arguments {
    /// What to do with it: shows what takes the room unless told otherwise.
    #[command(subcommand)]
    pub action: Option<Action>,
    /// Which store.
    #[command(flatten)]
    pub store: StoreArguments,
}

/// What to do with a store.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Action {
    /// Read every object, every unpacked package and all compressed data, and check them by their digests. What is damaged is named and taken
    /// out, so that it is fetched or built again.
    Verify,
}

/// Shows or checks the store.
pub fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let store = arguments.store.open()?;
    match arguments.action {
        Some(Action::Verify) => verify(&store, output),
        None => show(&store, output),
    }
}

fn show(store: &Store, output: &Output) -> Result<(), Failure> {
    let (usage, kept) = (store.usage()?, roots::kept(store)?);
    output.result(&usage_text(store, &usage, &kept), || usage_json(store, &usage, &kept))
}

fn usage_text(store: &Store, usage: &Usage, kept: &Kept) -> String {
    let row = |name: &str, amount: &Amount| [name.to_owned(), amount.count.to_string(), human_bytes(amount.bytes)];
    let mut rows = vec![row("objects", &usage.objects), row("  of these packages", &usage.packages)];
    rows.extend(usage.stages.iter().map(|(stage, amount)| row(&format!("stage {stage}"), amount)));
    let rest = [
        ("workspaces", &usage.workspaces),
        ("downloads broken off", &usage.partial),
        ("damaged objects", &usage.quarantine),
        ("trash", &usage.trash),
    ];
    rows.extend(rest.iter().filter(|(_, amount)| amount.count > 0).map(|(name, amount)| row(name, amount)));
    let mut lines = vec![store.directory().display().to_string()];
    lines.extend(table(&rows).iter().map(|line| format!("  {line}")));
    lines.extend(
        kept.locks.iter().map(|lock| format!("  {} keeps {} packages", lock.path.display(), lock.digests.len())),
    );
    lines.join("\n") + "\n"
}

fn usage_json(store: &Store, usage: &Usage, kept: &Kept) -> Value {
    json!({
        "schema": "adamant.store/1",
        "store": store.directory(),
        "bytes": usage.kept_bytes(),
        "objects": amount(&usage.objects),
        "packages": amount(&usage.packages),
        "stages": usage.stages.iter().map(|(stage, used)| (stage.clone(), amount(used)))
            .collect::<serde_json::Map<_, _>>(),
        "workspaces": amount(&usage.workspaces),
        "partial": amount(&usage.partial),
        "quarantine": amount(&usage.quarantine),
        "trash": amount(&usage.trash),
        "locks": kept.locks.iter().map(|lock| json!({ "path": lock.path, "packages": lock.digests.len() }))
            .collect::<Vec<_>>(),
    })
}

fn verify(store: &Store, output: &Output) -> Result<(), Failure> {
    let kept = roots::kept(store)?;
    let objects = store.objects()?.len();
    let damages = store.verify()?;
    let mut results = roots::verify_unpacked(store)?;
    results.extend(segments::verify(store)?);
    let name = |damage: &Damage| kept.name(&damage.digest).map(str::to_owned);
    let mut lines: Vec<String> = damages
        .iter()
        .map(|damage| {
            let name = name(damage).map(|name| format!(" ({name})")).unwrap_or_default();
            format!("object {}{name}: moved to {}", damage.digest, damage.quarantine.display())
        })
        .collect();
    lines.extend(results.iter().map(|result| {
        format!("{} of {}: removed", result.stage, result.name.clone().unwrap_or(result.key.to_string()))
    }));
    let damaged = lines.len();
    lines.push(match damaged {
        0 => format!("{objects} objects, all whole"),
        _ => format!("{objects} objects, {damaged} damaged"),
    });
    output.result(&(lines.join("\n") + "\n"), || {
        let object = |damage: &Damage| {
            json!({
                "digest": damage.digest, "found": damage.found, "name": name(damage), "moved_to": damage.quarantine,
            })
        };
        let result = |one: &DamagedResult| json!({ "stage": one.stage, "key": one.key, "name": one.name });
        json!({
            "schema": "adamant.store-verify/1",
            "objects": objects,
            "damaged": damages.iter().map(object).collect::<Vec<_>>(),
            "damaged_results": results.iter().map(result).collect::<Vec<_>>(),
        })
    })?;
    if damaged == 0 {
        return Ok(());
    }
    let failure = Failure::new(Kind::Verification, DamagedError { count: damaged });
    Err(failure.hint("the next build fetches or builds them again; look after this disk").after_result())
}

/// Something was not what its name says.
#[derive(Debug, thiserror::Error)]
#[error("{count} damaged in the store, taken out of it")]
struct DamagedError {
    count: usize,
}
