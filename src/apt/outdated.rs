//! What the archives have that a machine has not: newer versions, fixes, packages that are gone.
//!
//! Flows in: packages by name and version, repositories, the archives. Flows out: a [`Survey`]. As in apt, a version is
//! newer if its repositories' priority would have it installed, or, for a package that itself comes from a repository of
//! lower priority (backports, say), if it is from one of at least 100; nothing is ever to be downgraded.

use std::collections::BTreeSet;

use super::distribution::DEBIAN_SECURITY_REPOSITORY;
use super::resolve::{best, newest_of};
use super::source::{self, IndexSource, Repository};
use super::universe::{SourceIndex, Universe, VersionId};
use super::{LockError, version};
use crate::lock::LockedIndex;

/// apt's priority of what is installed: repositories below it never upgrade anything.
const INSTALLED_PRIORITY: i32 = 100;

/// A package on a machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Installed {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// A package of which there is a newer version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newer {
    /// What the machine has.
    pub installed: Installed,
    /// The version that it would be updated to.
    pub newest: String,
    /// The repository that has it.
    pub repository: String,
    /// The suites that have it.
    pub suites: Vec<String>,
    /// The version of the security archive, if that is newer than what the machine has.
    pub fixed: Option<String>,
}

/// What the archives have that a machine has not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// What was compared with.
    pub indexes: Vec<LockedIndex>,
    /// By name.
    pub newer: Vec<Newer>,
    /// Packages that no repository has in any version.
    pub removed: Vec<Installed>,
}

/// Compares `installed` with the repositories as they are at `now` (Unix seconds).
pub fn survey(
    repositories: &[Repository],
    architecture: &str,
    installed: &BTreeSet<Installed>,
    source: &dyn IndexSource,
    now: u64,
) -> Result<Survey, LockError> {
    let loaded = source::load(repositories, architecture, source, now).map_err(Box::new)?;
    let (sources, indexes): (Vec<SourceIndex>, Vec<_>) = loaded.into_iter().unzip();
    let universe = Universe::new(&sources, architecture)?;
    let mut survey = Survey { indexes, ..Survey::default() };
    for package in installed {
        let id = universe.find(&package.name).filter(|&id| !universe.package(id).versions.is_empty());
        let Some(id) = id else {
            survey.removed.push(package.clone());
            continue;
        };
        let is_newer =
            |candidate: &VersionId| version::compare(universe.version(*candidate).text, &package.version).is_gt();
        let fixed = newest_of(&universe, id, DEBIAN_SECURITY_REPOSITORY).filter(is_newer);
        let is_older =
            |candidate: VersionId| version::compare(universe.version(candidate).text, &package.version).is_lt();
        let newest = match best(&universe, id) {
            Some(best) if is_older(best) => universe
                .package(id)
                .versions
                .iter()
                .copied()
                .find(|version| universe.version(*version).pin >= INSTALLED_PRIORITY && is_newer(version)),
            best => best.filter(is_newer),
        };
        let Some(newest) = newest.or(fixed) else { continue };
        let origins: Vec<_> = universe.origins(newest).collect();
        survey.newer.push(Newer {
            installed: package.clone(),
            newest: universe.version(newest).text.to_owned(),
            repository: origins.first().map_or_else(String::new, |origin| origin.repository.clone()),
            suites: origins.iter().map(|origin| origin.suite.clone()).collect(),
            fixed: fixed.map(|fixed| universe.version(fixed).text.to_owned()),
        });
    }
    Ok(survey)
}
