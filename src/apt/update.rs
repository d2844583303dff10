//! Renewing a lock: what is asked for changes, everything else stays as it was.
//!
//! Flows in: the request, the lock so far, what is to be renewed, the archives. Flows out: the next lock, and of which
//! suite each of its packages is. A package that stays may be one that the archives no longer list (a point release
//! replaced it, say): then its own control file tells what it needs, which [`ControlSource`] takes from the `.deb`.
//!
//! Invariant: a package that is not to be renewed changes, comes or goes only for the sake of one that is, or because
//! the request changed ([`super::resolve::Kept`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::distribution::DEBIAN_SECURITY_REPOSITORY;
use super::packages::PackagesIndex;
use super::resolve::{Kept, Selector, SetRequest, newest_of};
use super::source::{self, IndexSource};
use super::universe::{Origin, SourceIndex, Universe, VersionId};
use super::{LockError, LockRequest, assemble, resolve_in, version};
use crate::digest::Digest;
use crate::lock::{Lock, LockedPackage};

/// What is to be renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// Everything: the earlier lock does not count.
    Everything,
    /// What the security archive has newer, and these packages; nothing else.
    Only {
        /// Whether what is older than in the security archive is taken from there.
        security: bool,
        /// Packages by name, to the newest of their repositories.
        packages: BTreeSet<String>,
    },
}

impl Renewal {
    /// Nothing but what the request itself changed.
    pub fn nothing() -> Self {
        Self::Only { security: false, packages: BTreeSet::new() }
    }
}

/// Gives control files of packages that no index lists any more.
pub trait ControlSource {
    /// The control file of each package, as it stands in its `.deb`. Packages that cannot be had are named by
    /// [`LockError::Controls`].
    fn controls(&self, packages: &[LockedPackage]) -> Result<Vec<String>, LockError>;
}

/// A renewed lock.
#[derive(Debug, Clone)]
pub struct Renewed {
    /// The lock.
    pub lock: Lock,
    /// The suites that list a package, by the digest of its file; none for one that no index lists any more.
    pub suites: BTreeMap<Digest, Vec<String>>,
    /// Packages that are still older than what the security archive has.
    pub unfixed: Vec<Unfixed>,
}

/// A package that is older than what the security archive has, also in the next lock.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unfixed {
    /// Its name.
    pub name: String,
    /// The version that is locked.
    pub locked: String,
    /// The version that the security archive has.
    pub fixed: String,
}

/// Renews `before` for `request` from the archives as they are at `now` (Unix seconds).
pub fn update(
    request: &LockRequest,
    before: &Lock,
    renewal: &Renewal,
    controls: &dyn ControlSource,
    source: &dyn IndexSource,
    now: u64,
) -> Result<Renewed, LockError> {
    check(request, before, renewal)?;
    let loaded = source::load(&request.repositories, &request.architecture, source, now).map_err(Box::new)?;
    let (mut sources, indexes): (Vec<SourceIndex>, Vec<_>) = loaded.into_iter().unzip();
    let fixes = security_versions(&sources);
    let renews = |package: &LockedPackage| match renewal {
        Renewal::Everything => true,
        Renewal::Only { security, packages } => {
            packages.contains(&package.name) || *security && is_older(&fixes, &package.name, &package.version).is_some()
        }
    };
    let stays: Vec<&LockedPackage> = before.sets.values().flatten().filter(|package| !renews(package)).collect();
    sources.extend(unlisted(&stays, &sources, controls)?);
    let universe = Universe::new(&sources, &request.architecture)?;
    let mut kept = BTreeMap::new();
    if let Renewal::Only { packages, .. } = renewal {
        let same_request = before.request == request.digest();
        for set in &request.sets {
            let locked = before.sets.get(&set.name).map(Vec::as_slice).unwrap_or_default();
            let keep = |package: &LockedPackage| match (packages.contains(&package.name), renews(package)) {
                (true, _) => None,
                // Of a fixed package the fix, even if another suite has something still newer.
                (false, true) => newest_of(&universe, universe.find(&package.name)?, DEBIAN_SECURITY_REPOSITORY),
                (false, false) => find(&universe, package),
            };
            kept.insert(set.name.clone(), keep_set(&universe, set, locked, same_request, &keep));
        }
    }
    let sets = resolve_in(&universe, &request.sets, &kept)?;
    let lock = assemble(request, indexes, sets);
    let suites = suites(&universe, &lock);
    let mut unfixed: Vec<Unfixed> = (lock.sets.values().flatten())
        .filter_map(|package| {
            let fixed = is_older(&fixes, &package.name, &package.version)?.to_owned();
            Some(Unfixed { name: package.name.clone(), locked: package.version.clone(), fixed })
        })
        .collect();
    unfixed.sort();
    unfixed.dedup();
    Ok(Renewed { lock, suites, unfixed })
}

/// Refuses what could not be done.
fn check(request: &LockRequest, before: &Lock, renewal: &Renewal) -> Result<(), LockError> {
    let Renewal::Only { security, packages } = renewal else { return Ok(()) };
    if *security && !request.repositories.iter().any(|repository| repository.name == DEBIAN_SECURITY_REPOSITORY) {
        return Err(LockError::NoSecurity);
    }
    let locked: BTreeSet<&str> = before.sets.values().flatten().map(|package| package.name.as_str()).collect();
    match packages.iter().find(|package| !locked.contains(package.as_str())) {
        None => Ok(()),
        Some(package) => {
            let near = |other: &&&str| other.contains(package.as_str()) || package.contains(**other);
            let near = locked.iter().filter(near).take(5).map(|name| (*name).to_owned()).collect();
            Err(LockError::NotLocked { package: package.clone(), near })
        }
    }
}

/// The newest version of each package in the security archive.
pub(super) fn security_versions(sources: &[SourceIndex]) -> BTreeMap<String, String> {
    let mut newest: BTreeMap<&str, &str> = BTreeMap::new();
    for source in sources.iter().filter(|source| source.origin.repository == DEBIAN_SECURITY_REPOSITORY) {
        for record in source.packages.records() {
            let text = source.packages.version(record);
            let known = newest.entry(source.packages.name(record)).or_insert(text);
            if version::compare(text, known).is_gt() {
                *known = text;
            }
        }
    }
    newest.into_iter().map(|(name, version)| (name.to_owned(), version.to_owned())).collect()
}

/// The version of the security archive, if `text` is older.
pub(super) fn is_older<'a>(fixes: &'a BTreeMap<String, String>, name: &str, text: &str) -> Option<&'a str> {
    fixes.get(name).map(String::as_str).filter(|fixed| version::compare(text, fixed).is_lt())
}

/// The packages among `stays` that no index lists, as indexes of their own, one per repository. Their priority keeps them
/// from being anything but what is kept.
fn unlisted(
    stays: &[&LockedPackage],
    sources: &[SourceIndex],
    controls: &dyn ControlSource,
) -> Result<Vec<SourceIndex>, LockError> {
    let mut missing: BTreeMap<(&str, Digest), &LockedPackage> =
        stays.iter().map(|package| ((package.name.as_str(), package.digest), *package)).collect();
    for source in sources {
        for record in source.packages.records() {
            missing.remove(&(source.packages.name(record), record.digest));
        }
    }
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let missing: Vec<LockedPackage> = missing.into_values().cloned().collect();
    let texts = controls.controls(&missing)?;
    let mut by_repository: BTreeMap<&str, String> = BTreeMap::new();
    for (package, control) in missing.iter().zip(texts) {
        let text = by_repository.entry(&package.repository).or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", control.trim_end_matches('\n'));
        let (path, size, digest) = (&package.path, package.size, package.digest);
        let _ = writeln!(text, "Filename: {path}\nSize: {size}\nSHA256: {digest}\n");
    }
    let index = |(repository, text): (&str, String)| {
        let packages = PackagesIndex::parse(text.into_bytes()).map_err(|source| LockError::Kept { source })?;
        let (repository, suite, component) = (repository.to_owned(), String::new(), String::new());
        Ok(SourceIndex { origin: Origin { repository, suite, aliases: Vec::new(), component, priority: 0 }, packages })
    };
    by_repository.into_iter().map(index).collect()
}

/// The very file that is locked.
fn find(universe: &Universe<'_>, package: &LockedPackage) -> Option<VersionId> {
    let versions = &universe.package(universe.find(&package.name)?).versions;
    versions.iter().copied().find(|&version| universe.version(version).record.digest == package.digest)
}

/// What of a set is kept. What the recipe asks for in a certain version, or newly from a certain suite, it decides.
fn keep_set(
    universe: &Universe<'_>,
    set: &SetRequest,
    locked: &[LockedPackage],
    same_request: bool,
    keep: &dyn Fn(&LockedPackage) -> Option<VersionId>,
) -> Kept {
    let mut kept = Kept::default();
    kept.same_request = same_request;
    for package in locked {
        let Some(id) = universe.find(&package.name) else { continue };
        kept.prefer(id);
        let Some(version) = keep(package) else { continue };
        let decided =
            set.packages.iter().filter(|wanted| wanted.name == package.name).any(|wanted| match &wanted.selector {
                None => false,
                Some(Selector::Version(_)) => true,
                Some(Selector::Origin(origin)) => !same_request && !comes_from(universe, version, origin),
            });
        if !decided {
            kept.add(id, version);
        }
    }
    kept
}

fn comes_from(universe: &Universe<'_>, version: VersionId, origin: &str) -> bool {
    universe.origins(version).any(|one| one.is_called(origin))
}

fn suites(universe: &Universe<'_>, lock: &Lock) -> BTreeMap<Digest, Vec<String>> {
    let of = |package: &LockedPackage| {
        let mut suites: Vec<String> = find(universe, package)
            .into_iter()
            .flat_map(|version| universe.origins(version))
            .filter(|origin| !origin.suite.is_empty())
            .map(|origin| origin.suite.clone())
            .collect();
        suites.dedup();
        (package.digest, suites)
    };
    lock.sets.values().flatten().map(of).collect()
}
