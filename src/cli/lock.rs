//! `adamant lock`: which packages exactly.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{Failure, FetchArguments, Kind, Output};
use crate::apt::openpgp::OpenPgpError;
use crate::apt::release::ReleaseError;
use crate::apt::source::SourceProblem;
use crate::apt::{self, LockError};
use crate::build::lock::{self, MakeLockError};
use crate::digest::Digest;
use crate::lock::{Difference, difference};
use crate::recipe::{self, Overrides};
use crate::store::fetch::FetchError;

/// Resolve a recipe's packages and pin them, each with version and digest, in the lock beside it.
///
/// Builds use the lock as it is until this verb renews it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  adamant lock web.toml            # writes web.lock
  git diff web.lock                # what the renewal changed: one line per package")]
pub struct Arguments {
    /// The recipe.
    #[arg(value_name = "RECIPE")]
    pub recipe: PathBuf,
    /// Where packages come from.
    #[command(flatten)]
    pub fetch: FetchArguments,
}

/// Resolves and writes the lock.
pub fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let recipe = recipe::load(&arguments.recipe, &Overrides::default())?;
    let sources = recipe.read_sources()?;
    let request = lock::request(&recipe, &sources)?;
    let fetcher = arguments.fetch.fetcher(arguments.fetch.open_store()?, arguments.fetch.mirrors()?);
    let made = lock::make(&request, &fetcher, now())?;
    let path = lock::path(&arguments.recipe);
    // A lock of an older form is replaced all the same; what changed cannot be told then.
    let before = std::fs::read_to_string(&path).ok().and_then(|text| lock::parse(&path, &text).ok());
    lock::write(&path, &made)?;
    let change = before.as_ref().map(|before| difference(before, &made));
    let counts: Vec<_> = made.sets.iter().map(|(set, packages)| (set.clone(), packages.len())).collect();
    let total: usize = counts.iter().map(|(_, count)| count).sum();
    let text = format!("{}: {total} packages{}\n", path.display(), change.as_ref().map(changes).unwrap_or_default());
    output.result(&text, || {
        json!({
            "schema": "adamant.lock/1",
            "lock": path,
            "digest": Digest::of(made.to_text().as_bytes()),
            "epoch": made.epoch,
            "sets": counts.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            "changed": change.as_ref().is_none_or(|change| !change.is_empty()),
        })
    })
}

/// Seconds since 1970, by this machine's clock.
pub(super) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn changes(change: &Difference) -> String {
    let mut lines = Vec::new();
    for (name, set) in &change.sets {
        lines.extend(set.added.iter().map(|package| format!("  + {} {} ({name})", package.name, package.version)));
        lines.extend(set.removed.iter().map(|package| format!("  - {} {} ({name})", package.name, package.version)));
        lines.extend(set.changed.iter().map(|change| {
            format!("    {} {} -> {} ({name})", change.after.name, change.before.version, change.after.version)
        }));
    }
    if lines.is_empty() { ", as before".to_owned() } else { format!("\n{}", lines.join("\n")) }
}

impl From<MakeLockError> for Failure {
    fn from(error: MakeLockError) -> Self {
        let kind = match &error {
            MakeLockError::Resolve(LockError::Source(error)) => source_kind(&error.problem),
            MakeLockError::Write { .. } => Kind::Environment,
            _ => Kind::Recipe,
        };
        let hint = match &error {
            MakeLockError::Resolve(LockError::Source(error)) => source_hint(&error.problem),
            _ => None,
        };
        let failure = Self::new(kind, error);
        hint.into_iter().fold(failure, Self::hint)
    }
}

/// What to do about an index that could not be had or be believed.
fn source_hint(problem: &SourceProblem) -> Option<&'static str> {
    let altered = "the mirror, or something between it and this machine (a login page?), altered the file, or the mirror \
                   is being updated: try again in a few minutes, or try another mirror with --mirror";
    match problem {
        SourceProblem::Fetch { source: apt::FetchError::NotFound } => Some(
            "is this the address of the folder that holds `dists` and `pool`, and does the mirror keep this suite? Try \
             another mirror with --mirror",
        ),
        SourceProblem::Signature { source: OpenPgpError::NoGoodSignature { .. } } => Some(
            "trusted are Debian's own keys of the suite, or those that `key` names in [debian] or [[repository]]: is this \
             a mirror of that archive?",
        ),
        SourceProblem::Release { source: ReleaseError::Expired { .. } } => {
            Some("try another mirror with --mirror; if all are said to be stale, check this machine's clock")
        }
        SourceProblem::Fetch { .. } | SourceProblem::NoComponent { .. } | SourceProblem::NoArchitecture { .. } => None,
        SourceProblem::Release { source: ReleaseError::FromTheFuture { .. } } => None,
        _ => Some(altered),
    }
}

/// Of an index that could not be had (the mirror's fault, or this machine's) or not be believed.
fn source_kind(problem: &SourceProblem) -> Kind {
    match problem {
        SourceProblem::Fetch { source: apt::FetchError::Failed(error) } => {
            error.downcast_ref::<FetchError>().map_or(Kind::Remote, super::fetch::fetch_kind)
        }
        SourceProblem::Fetch { .. } => Kind::Remote,
        SourceProblem::NoComponent { .. } | SourceProblem::NoArchitecture { .. } => Kind::Recipe,
        _ => Kind::Verification,
    }
}
