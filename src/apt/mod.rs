//! Debian archives: signed indexes, packages, versions, dependency resolution. Pure: bytes in, values out.
//!
//! Flows in: a [`LockRequest`], an [`IndexSource`] that fetches, the time. Flows out: a [`Lock`].
//!
//! ```text
//! repositories ─fetch─> InRelease ─verify─> Packages ─parse─> Universe ─resolve, set by set─> Lock
//! [distribution]  [source, openpgp, release]  [packages]    [universe]     [resolve]       [crate::lock]
//! ```
//!
//! [`update`] does the same beside an earlier lock, of which everything stays that need not change; [`outdated`] says
//! what the archives have that a lock or an image has not. `control`, `relation`, `version` and `changelog` are for
//! everybody who reads packages.

pub mod changelog;
pub mod control;
pub mod distribution;
pub mod openpgp;
pub mod outdated;
pub mod packages;
pub mod relation;
pub mod release;
pub mod resolve;
pub mod source;
pub mod universe;
pub mod update;
pub mod version;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::digest::Digest;
use crate::lock::{Lock, LockedIndex, LockedPackage};
pub use openpgp::Keyring;
pub use release::FileIdentity;
use resolve::Kept;
pub use resolve::{PackageRequest, ResolveError, Selector, SetRequest};
pub use source::{FetchError, IndexSource, Repository, SourceError};
use universe::{SourceIndex, Universe, UniverseError, VersionId};

/// Everything that a lock is made from, besides the archives.
#[derive(Debug, Clone)]
pub struct LockRequest {
    /// Debian's name, e.g. `amd64`.
    pub architecture: String,
    /// In the order in which they are considered: of the same version in two, the first one's file is taken.
    pub repositories: Vec<Repository>,
    /// The sets, each resolved on its own.
    pub sets: Vec<SetRequest>,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// An index could not be had or believed.
    #[error(transparent)]
    Source(#[from] Box<SourceError>),
    /// An index contradicts the format.
    #[error(transparent)]
    Universe(#[from] UniverseError),
    /// What is to be updated is not in the earlier lock.
    #[error("the lock has no package {package}{}", if .near.is_empty() { String::new() } else { format!("; did you mean {}?", .near.join(" or ")) })]
    NotLocked {
        /// As asked for.
        package: String,
        /// Names of the lock that hold it, or are held by it.
        near: Vec<String>,
    },
    /// Security updates are wanted from none.
    #[error("none of the recipe's repositories is Debian's security archive")]
    NoSecurity,
    /// The control files of kept packages that the archives no longer list.
    #[error(
        "cannot keep {}: the archives no longer list {}, and the store does not have it",
        names(.packages), if .packages.len() == 1 { "this version" } else { "these versions" }
    )]
    Controls {
        /// What cannot be had.
        packages: Vec<LockedPackage>,
        /// Why it cannot be fetched either.
        #[source]
        source: FetchError,
    },
    /// The same, unreadable.
    #[error("cannot read the control files of kept packages")]
    Kept {
        /// Why.
        #[source]
        source: packages::PackagesError,
    },
    /// The system gives no thread to resolve in.
    #[error("cannot start a thread")]
    Thread {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A set cannot be had.
    #[error("cannot resolve the packages of {set}")]
    Resolve {
        /// The set's name.
        set: String,
        /// Why.
        #[source]
        source: Box<ResolveError>,
    },
}

fn names(packages: &[LockedPackage]) -> String {
    packages.iter().map(|package| format!("{} {}", package.name, package.version)).collect::<Vec<_>>().join(", ")
}

impl LockRequest {
    /// What identifies the request: two with the same digest have the same answer from the same archives. The keys do
    /// not count, because they decide who is believed and not what is asked for.
    pub fn digest(&self) -> Digest {
        let mut text = format!("adamant lock request 1\narchitecture {}\n", self.architecture);
        // Writing to a String cannot fail.
        for repository in &self.repositories {
            let _ = writeln!(
                text,
                "repository {} suites {} components {} priority {:?}",
                repository.name,
                repository.suites.join(","),
                repository.components.join(","),
                repository.priority
            );
        }
        let mut sets: Vec<&SetRequest> = self.sets.iter().collect();
        sets.sort_by(|a, b| a.name.cmp(&b.name));
        for set in sets {
            let _ = writeln!(text, "set {} essential {} recommends {}", set.name, set.essential, set.recommends);
            for (kind, mut lines) in [
                ("package", set.packages.iter().map(ToString::to_string).collect::<Vec<_>>()),
                ("exclude", set.excluded.clone()),
                ("pin", set.pins.iter().map(ToString::to_string).collect()),
            ] {
                lines.sort();
                lines.dedup();
                lines.iter().for_each(|line| text.extend([kind, " ", line, "\n"]));
            }
        }
        Digest::of(text.as_bytes())
    }
}

/// Resolves the request against the archives as they are at `now` (Unix seconds).
pub fn lock(request: &LockRequest, source: &dyn IndexSource, now: u64) -> Result<Lock, LockError> {
    let loaded = source::load(&request.repositories, &request.architecture, source, now).map_err(Box::new)?;
    let (sources, indexes): (Vec<SourceIndex>, Vec<_>) = loaded.into_iter().unzip();
    let universe = Universe::new(&sources, &request.architecture)?;
    let sets = resolve_in(&universe, &request.sets, &BTreeMap::new())?;
    Ok(assemble(request, indexes, sets))
}

fn assemble(request: &LockRequest, indexes: Vec<LockedIndex>, sets: BTreeMap<String, Vec<LockedPackage>>) -> Lock {
    Lock {
        request: request.digest(),
        architecture: request.architecture.clone(),
        epoch: indexes.iter().map(|index| index.date).max().unwrap_or(0),
        indexes,
        sets,
    }
}

/// Resolves the sets from indexes that are believed already.
pub fn resolve_sets(
    sources: &[SourceIndex],
    architecture: &str,
    sets: &[SetRequest],
) -> Result<BTreeMap<String, Vec<LockedPackage>>, LockError> {
    resolve_in(&Universe::new(sources, architecture)?, sets, &BTreeMap::new())
}

/// Resolves the sets side by side, each on a stack as deep as the resolver may go.
fn resolve_in(
    universe: &Universe<'_>,
    sets: &[SetRequest],
    kept: &BTreeMap<String, Kept>,
) -> Result<BTreeMap<String, Vec<LockedPackage>>, LockError> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = sets
            .iter()
            .map(|set| {
                let kept = kept.get(&set.name).cloned().unwrap_or_default();
                let resolve = || resolve::resolve(universe, set, kept).map(|versions| locked(universe, versions));
                let thread = std::thread::Builder::new().stack_size(resolve::STACK_BYTES);
                (set, thread.spawn_scoped(scope, resolve))
            })
            .collect();
        let finish = |(set, thread): (&SetRequest, std::io::Result<std::thread::ScopedJoinHandle<'_, _>>)| {
            let thread = thread.map_err(|source| LockError::Thread { source })?;
            let resolved = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            match resolved {
                Ok(packages) => Ok((set.name.clone(), packages)),
                Err(source) => Err(LockError::Resolve { set: set.name.clone(), source: Box::new(source) }),
            }
        };
        threads.into_iter().map(finish).collect()
    })
}

fn locked(universe: &Universe<'_>, versions: Vec<VersionId>) -> Vec<LockedPackage> {
    let mut packages: Vec<LockedPackage> = versions
        .into_iter()
        .map(|version| {
            let (index, known) = (universe.index(version), universe.version(version));
            LockedPackage {
                name: universe.name(known.package).to_owned(),
                version: known.text.to_owned(),
                architecture: index.architecture(known.record).to_owned(),
                repository: universe.origins(version).next().map_or_else(String::new, |one| one.repository.clone()),
                size: known.record.size,
                digest: known.record.digest,
                path: index.path(known.record).to_owned(),
            }
        })
        .collect();
    packages.sort();
    packages
}
