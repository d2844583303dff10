//! `adamant lock`: which packages exactly.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::{Failure, FetchArguments, Kind, Output, fetch};
use crate::apt::openpgp::OpenPgpError;
use crate::apt::release::ReleaseError;
use crate::apt::source::SourceProblem;
use crate::apt::update::Renewal;
use crate::apt::{self, LockError, LockRequest};
use crate::build::lock::{self, MakeLockError};
use crate::build::packages::PackagesError;
use crate::build::roots;
use crate::build::update::{self, Change, RenewError, Report};
use crate::digest::Digest;
use crate::lock::Lock;
use crate::recipe::{self, Overrides};
use crate::store::fetch::{FetchError, Fetcher};

/// More are unreadable at a terminal's width.
const CVES_PER_LINE: usize = 4;

/// Pin a recipe's packages, each with version and digest, in the lock beside it; renew what is pinned.
///
/// Builds use the lock as it is. Without `--update`, a lock that is there already keeps every version: only what
/// the recipe has since asked for otherwise changes. With `--update` all packages become the archive's newest, or
/// only those named (and of what they need, what must change with them), or with `--security` only those of which
/// the security archive has a newer version. A lock whose packages do not change is left as it is, its date too.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  adamant lock web.toml                                # writes web.lock, or adapts it to the recipe
  adamant lock web.toml --update                       # everything to what the archive has now
  adamant lock web.toml --update --security            # only what the security archive fixes
  adamant lock web.toml --update nginx openssl         # only these, and what they need for it
  adamant lock web.toml --update --security --dry-run --json | jq '.changes[].cves'")]
pub struct Arguments {
    /// The recipe.
    #[arg(value_name = "RECIPE")]
    pub recipe: PathBuf,
    /// With `--update`: only these packages.
    #[arg(value_name = "PACKAGE", requires = "update")]
    pub packages: Vec<String>,
    /// Take newer versions.
    #[arg(long)]
    pub update: bool,
    /// With `--update`: what the security archive has newer, and packages that are named; nothing else.
    #[arg(long, requires = "update")]
    pub security: bool,
    /// Show what would change, and leave the lock as it is. (Packages are fetched into the store all the same.)
    #[arg(long)]
    pub dry_run: bool,
    /// Where packages come from.
    #[command(flatten)]
    pub fetch: FetchArguments,
}

impl Arguments {
    fn renewal(&self) -> Renewal {
        match self.update && !self.security && self.packages.is_empty() {
            true => Renewal::Everything,
            false => Renewal::Only { security: self.security, packages: self.packages.iter().cloned().collect() },
        }
    }
}

/// Resolves and writes the lock.
pub fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let recipe = recipe::load(&arguments.recipe, &Overrides::default())?;
    let sources = recipe.read_sources()?;
    let request = lock::request(&recipe, &sources)?;
    let path = lock::path(&arguments.recipe);
    let before = earlier(arguments, &path, output)?;
    let fetcher = arguments.fetch.fetcher(arguments.fetch.open_store()?, arguments.fetch.mirrors()?);
    let (next, report) = next(arguments, &request, before.as_ref(), &fetcher, output)?;
    let changed = before.as_ref() != Some(&next);
    if changed && !arguments.dry_run {
        lock::write(&path, &next)?;
        roots::register(fetcher.store(), &path, &next)?;
    }
    if before.is_some() {
        talk(&report, arguments.security, output);
    }
    let outcome = Outcome { path: &path, lock: &next, report: &report, is_new: before.is_none(), changed };
    output.result(&outcome.text(arguments), || outcome.json(arguments))
}

/// The lock so far. One that cannot be read is made anew, unless only a part of it is to change.
fn earlier(arguments: &Arguments, path: &Path, output: &Output) -> Result<Option<Lock>, Failure> {
    let partly = arguments.security || !arguments.packages.is_empty();
    match lock::read_any(path) {
        Ok(None) if partly => Err(Failure::new(Kind::Recipe, NoLockError { path: path.to_owned() })),
        Err(error @ MakeLockError::Parse { .. }) if !partly => {
            output.talk(&format!("{error}: made anew"));
            Ok(None)
        }
        result => Ok(result?),
    }
}

/// The lock that comes next, and what it changes.
fn next(
    arguments: &Arguments,
    request: &LockRequest,
    before: Option<&Lock>,
    fetcher: &Fetcher,
    output: &Output,
) -> Result<(Lock, Report), Failure> {
    let Some(before) = before else { return Ok((lock::make(request, fetcher, now())?, Report::default())) };
    let renewal = arguments.renewal();
    let whole = request.sets.iter().all(|set| before.sets.contains_key(&set.name));
    let fits = before.request == request.digest() && whole;
    if fits && renewal == Renewal::nothing() {
        return Ok((before.clone(), Report::default()));
    }
    let progress = fetch::progress(output);
    let (next, report) = update::renew(request, before, &renewal, fetcher, progress.as_ref(), now())?;
    // The same packages: another date alone would make another image of each.
    let same = fits && report.changes.is_empty();
    Ok((if same { before.clone() } else { next }, report))
}

/// There is nothing to renew.
#[derive(Debug, thiserror::Error)]
#[error("there is no lock {}: `adamant lock` makes it", .path.display())]
struct NoLockError {
    path: PathBuf,
}

/// What was done.
struct Outcome<'a> {
    path: &'a Path,
    lock: &'a Lock,
    report: &'a Report,
    is_new: bool,
    changed: bool,
}

impl Outcome<'_> {
    fn text(&self, arguments: &Arguments) -> String {
        let total: usize = self.lock.sets.values().map(Vec::len).sum();
        let what = match (self.is_new, self.report.changes.len()) {
            (true, _) => String::new(),
            (false, 0) if !self.changed && !arguments.update => ", as before; --update renews them".to_owned(),
            (false, 0) => ", as before".to_owned(),
            (false, count) => format!(", {count} changed"),
        };
        let note = if arguments.dry_run && self.changed { " (not written)" } else { "" };
        format!("{}: {total} packages{what}{note}\n", self.path.display())
    }

    fn json(&self, arguments: &Arguments) -> Value {
        let sets: BTreeMap<&String, usize> =
            self.lock.sets.iter().map(|(set, packages)| (set, packages.len())).collect();
        let unfixed =
            |one: &apt::update::Unfixed| json!({ "package": one.name, "locked": one.locked, "fixed": one.fixed });
        json!({
            "schema": "adamant.lock/1",
            "lock": self.path,
            "digest": Digest::of(self.lock.to_text().as_bytes()),
            "epoch": self.lock.epoch,
            "sets": sets,
            "changed": self.changed,
            "written": self.changed && !arguments.dry_run,
            "changes": self.report.changes.iter().map(change_json).collect::<Vec<_>>(),
            "unfixed": self.report.unfixed.iter().map(unfixed).collect::<Vec<_>>(),
        })
    }
}

fn change_json(change: &Change) -> Value {
    json!({
        "package": change.package,
        "sets": change.sets,
        "before": change.before,
        "after": change.after,
        "repository": change.repository,
        "suites": change.suites,
        "cves": change.cves,
    })
}

/// The changes as a table, and what they leave open.
fn talk(report: &Report, security: bool, output: &Output) {
    let none = "-".to_owned();
    let mut rows = vec![["package", "old", "new", "from", "CVE"].map(str::to_owned)];
    rows.extend(report.changes.iter().flat_map(|change| {
        let from = match change.suites.as_slice() {
            _ if change.after.is_none() => none.clone(),
            [] => change.repository.clone(),
            suites => format!("{} {}", change.repository, suites.join(",")),
        };
        let version = |version: &Option<String>| version.clone().unwrap_or_else(|| none.clone());
        let mut cves = change.cves.chunks(CVES_PER_LINE).map(|line| line.join(" "));
        let first = [&change.package, &version(&change.before), &version(&change.after), &from].map(String::clone);
        let [package, before, after, from] = first;
        let mut lines = vec![[package, before, after, from, cves.next().unwrap_or_default()]];
        lines.extend(cves.map(|cves| [String::new(), String::new(), String::new(), String::new(), cves]));
        lines
    }));
    if rows.len() > 1 {
        table(&rows).iter().for_each(|line| output.talk(line));
    }
    if security {
        for one in &report.unfixed {
            output.talk(&format!(
                "warning: {} stays at {}, older than {} of the security archive",
                one.name, one.locked, one.fixed
            ));
        }
    } else if !report.unfixed.is_empty() {
        output.talk(&format!(
            "warning: the security archive has newer versions of {} packages: `adamant lock --update --security`",
            report.unfixed.len()
        ));
    }
}

/// Lines with aligned columns.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Seconds since 1970, by this machine's clock.
pub(super) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

impl From<MakeLockError> for Failure {
    fn from(error: MakeLockError) -> Self {
        let kind = match &error {
            MakeLockError::Resolve(error) => lock_kind(error),
            MakeLockError::Write { .. } => Kind::Environment,
            _ => Kind::Recipe,
        };
        let hint = match &error {
            MakeLockError::Resolve(LockError::Source(error)) => source_hint(&error.problem).map(str::to_owned),
            MakeLockError::Resolve(LockError::Controls { packages, .. }) => {
                let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
                Some(format!(
                    "update them too, by naming them after --update: {}; or name a snapshot archive that still has \
                     them (ADAMANT_SNAPSHOT)",
                    names.join(" ")
                ))
            }
            MakeLockError::Resolve(LockError::NoSecurity) => {
                Some("add \"security\" to `pockets` in `[debian]`".to_owned())
            }
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

impl From<RenewError> for Failure {
    fn from(error: RenewError) -> Self {
        match error {
            RenewError::Lock(error) => error.into(),
            RenewError::Packages(error) => error.into(),
        }
    }
}

/// Which kind of failure a failed resolution is.
pub(super) fn lock_kind(error: &LockError) -> Kind {
    match error {
        LockError::Source(error) => source_kind(&error.problem),
        LockError::NotLocked { .. } => Kind::Usage,
        LockError::Controls { source: apt::FetchError::Failed(error), .. } => match error.downcast_ref() {
            Some(PackagesError::Fetch(error)) => fetch::fetch_kind(error),
            _ => Kind::Environment,
        },
        LockError::Controls { .. } => Kind::Remote,
        _ => Kind::Recipe,
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
