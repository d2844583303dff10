//! What an image was made from, as far as a manifest says it: the lock whole, the recipe field by field.
//!
//! Both can be computed again from what is said: [`Manifest::locked`] gives the lock's text with the digest
//! `lock_sha256`, the fields of the recipe have the digest `recipe_sha256`. So neither can say something else than
//! what the image was made from, if the two digests are right.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Manifest, Package};
use crate::digest::Digest;
use crate::lock::{Lock, LockedIndex, LockedPackage};

/// The lock, but for its packages, which stand in `packages`, and its indexes, in `indexes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockRecord {
    /// Digest of what was asked for: another one means that the recipe asked for something else.
    #[schemars(with = "String")]
    pub request: Digest,
    /// The date of the newest index, in seconds since 1970-01-01 00:00 UTC.
    pub epoch: u64,
    /// The names of its sets.
    pub sets: Vec<String>,
}

/// Where a package was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The repository's name.
    pub repository: String,
    /// Size of the .deb in bytes.
    pub size: u64,
    /// Of the .deb, relative to the repository's root.
    pub path: String,
}

/// The parts of a lock that do not stand with its packages.
pub(super) fn record(lock: &Lock) -> (LockRecord, Vec<LockedIndex>) {
    let sets = lock.sets.keys().cloned().collect();
    (LockRecord { request: lock.request, epoch: lock.epoch, sets }, lock.indexes.clone())
}

/// The packages of a lock.
pub fn locked_packages(lock: &Lock) -> Vec<Package> {
    let package = |set: &str, locked: &LockedPackage| Package {
        set: set.to_owned(),
        name: locked.name.clone(),
        architecture: locked.architecture.clone(),
        version: locked.version.clone(),
        sha256: locked.digest,
        from: Some(Place { repository: locked.repository.clone(), size: locked.size, path: locked.path.clone() }),
    };
    lock.sets.iter().flat_map(|(set, packages)| packages.iter().map(move |locked| package(set, locked))).collect()
}

impl Manifest {
    /// The lock that the image was made from; `None` if the manifest does not say all of it.
    pub fn locked(&self) -> Option<Lock> {
        let LockRecord { request, epoch, sets } = self.lock.clone()?;
        let mut sets: std::collections::BTreeMap<String, Vec<LockedPackage>> =
            sets.into_iter().map(|set| (set, Vec::new())).collect();
        for package in self.packages.iter().cloned() {
            let Place { repository, size, path } = package.from?;
            let Package { set, name, architecture, version, sha256: digest, .. } = package;
            sets.get_mut(&set)?.push(LockedPackage { name, version, architecture, repository, size, digest, path });
        }
        sets.values_mut().for_each(|packages| packages.sort());
        let indexes = self.indexes.clone();
        Some(Lock { request, architecture: self.architecture.to_string(), epoch, indexes, sets })
    }
}
