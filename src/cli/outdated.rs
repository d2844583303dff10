//! `adamant outdated`: what does the archive have that an image has not?

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::lock::{now, table};
use super::{Failure, FetchArguments, Kind, Output};
use crate::apt::distribution::DEBIAN_SECURITY_REPOSITORY;
use crate::apt::outdated::{Installed, Newer};
use crate::build::outdated::{self, OutdatedError, Report};

/// Seconds of a day.
const DAY: u64 = 86_400;

/// Say how old an image is against the archive: newer versions, security fixes, packages that are gone.
///
/// Exits with 0 if it is up to date and with 7 if it is not: nothing failed, but a gate says no. Without `--recipe`,
/// an image is compared with the Debian suite that it was made from, with its updates and security archive, and a
/// lock with the archives of the recipe beside it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  adamant outdated out/web_1                 # an image, against its Debian suite
  adamant outdated web.toml --security       # in CI: exit code 7 if the security archive fixes any package
  adamant outdated out/web_1 --json | jq -r '.newer[] | select(.fixed) | .package'
  adamant outdated manifest.json --recipe web.toml")]
pub struct Arguments {
    /// A folder that `build` made, an image, a manifest, a lock, or a recipe with its lock.
    #[arg(value_name = "IMAGE|MANIFEST|LOCK|RECIPE")]
    pub path: PathBuf,
    /// Only what the security archive fixes counts.
    #[arg(long)]
    pub security: bool,
    /// The recipe that says which archives to compare with.
    #[arg(long, value_name = "RECIPE")]
    pub recipe: Option<PathBuf>,
    /// Where packages come from.
    #[command(flatten)]
    pub fetch: FetchArguments,
}

/// Compares, and tells by the exit code.
pub fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let fetcher = arguments.fetch.fetcher(arguments.fetch.open_store()?, arguments.fetch.mirrors()?);
    let now = now();
    let mut report = outdated::report(&arguments.path, arguments.recipe.as_deref(), &fetcher, now)?;
    let fixes = report.survey.indexes.iter().any(|index| index.repository == DEBIAN_SECURITY_REPOSITORY);
    if arguments.security {
        if !fixes {
            return Err(Failure::new(Kind::Recipe, NoSecurityError).hint("add \"security\" to `pockets` in `[debian]`"));
        }
        report.survey.newer.retain(|newer| newer.fixed.is_some());
        report.survey.removed.clear();
    }
    let age = report.date.map(|date| now.saturating_sub(date) / DAY);
    let survey = &report.survey;
    output.result(&text(&report, age, arguments.security), || json(&report, age))?;
    if survey.newer.is_empty() && survey.removed.is_empty() {
        return Ok(());
    }
    let counts = counts(&report);
    Err(Failure::new(Kind::Gate, IsOutdatedError { name: report.name, counts }).after_result())
}

/// It is not up to date.
#[derive(Debug, thiserror::Error)]
#[error("{name} is outdated: {counts}")]
struct IsOutdatedError {
    name: String,
    counts: String,
}

/// Nothing could be found.
#[derive(Debug, thiserror::Error)]
#[error("none of the archives to compare with is Debian's security archive")]
struct NoSecurityError;

fn fixed(report: &Report) -> usize {
    report.survey.newer.iter().filter(|newer| newer.fixed.is_some()).count()
}

fn counts(report: &Report) -> String {
    let (newer, fixed, removed) = (report.survey.newer.len(), fixed(report), report.survey.removed.len());
    format!(
        "{newer} of {} packages have newer versions, {fixed} of them fixes of the security archive; {removed} are gone",
        report.packages
    )
}

fn text(report: &Report, age: Option<u64>, security: bool) -> String {
    let survey = &report.survey;
    let mut rows = vec![["package", "has", "newest", "from", "fixed in"].map(str::to_owned)];
    rows.extend(survey.newer.iter().map(|newer| {
        let Newer { installed: Installed { name, version }, newest, repository, suites, fixed } = newer;
        let from = format!("{repository} {}", suites.join(","));
        [name.clone(), version.clone(), newest.clone(), from, fixed.clone().unwrap_or_default()]
    }));
    rows.extend(
        survey
            .removed
            .iter()
            .map(|gone| [gone.name.clone(), gone.version.clone(), "-".to_owned(), "(gone)".to_owned(), String::new()]),
    );
    let mut lines = if rows.len() > 1 { table(&rows) } else { Vec::new() };
    let age = match age {
        Some(1) => "index 1 day old".to_owned(),
        Some(days) => format!("index {days} days old"),
        None => "index of unknown age".to_owned(),
    };
    let state = match rows.len() > 1 {
        true => counts(report),
        false if security => format!("{} packages, none that the security archive fixes", report.packages),
        false => format!("{} packages, up to date", report.packages),
    };
    lines.push(format!("{}: {age}; {state}", report.name));
    lines.join("\n") + "\n"
}

fn json(report: &Report, age: Option<u64>) -> Value {
    let survey = &report.survey;
    let newer = |newer: &Newer| {
        json!({
            "package": newer.installed.name,
            "version": newer.installed.version,
            "newest": newer.newest,
            "repository": newer.repository,
            "suites": newer.suites,
            "fixed": newer.fixed,
        })
    };
    let removed = |gone: &Installed| json!({ "package": gone.name, "version": gone.version });
    let index = |index: &crate::lock::LockedIndex| {
        json!({
            "repository": index.repository, "suite": index.suite, "component": index.component, "date": index.date,
        })
    };
    json!({
        "schema": "adamant.outdated/1",
        "name": report.name,
        "outdated": !(survey.newer.is_empty() && survey.removed.is_empty()),
        "packages": report.packages,
        "date": report.date,
        "age_days": age,
        "newer": survey.newer.iter().map(newer).collect::<Vec<_>>(),
        "security": fixed(report),
        "removed": survey.removed.iter().map(removed).collect::<Vec<_>>(),
        "indexes": survey.indexes.iter().map(index).collect::<Vec<_>>(),
    })
}

impl From<OutdatedError> for Failure {
    fn from(error: OutdatedError) -> Self {
        match error {
            OutdatedError::Load(error) => error.into(),
            OutdatedError::Recipe(error) => error.into(),
            OutdatedError::Lock(error) => error.into(),
            OutdatedError::Image(failure) => (*failure).into(),
            error @ OutdatedError::NoLock(_) => Self::new(Kind::Recipe, error),
            error @ OutdatedError::NoArchives(_) => {
                Self::new(Kind::Usage, error).hint("name the recipe that does with --recipe")
            }
        }
    }
}
