//! Everything that locks need, in a directory that is a store of its own: for a machine without a network.
//!
//! Flows in: packages, the store at hand, the directory. Flows out: the directory, which `--offline --store` takes
//! elsewhere. It holds packages by their digests and nothing else: a build from a lock reads no index and needs no key,
//! because the lock was checked against them when it was made; results of stages are computed again.
//!
//! Invariants: an object appears whole and under the digest of the bytes that were written. What the directory holds
//! already is read again and checked, so a vendor run that was broken off goes on, and one that is repeated verifies.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::packages;
use crate::digest::Digest;
use crate::lock::LockedPackage;
use crate::store::fetch::{FetchError, Fetcher, Request};
use crate::store::{Amount, Store, StoreError};
use crate::telemetry::Progress;

/// What the directory got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vendored {
    /// Was there, and is good.
    pub present: Amount,
    /// From the store at hand.
    pub copied: Amount,
    /// From mirrors.
    pub fetched: Amount,
}

/// Why not everything could be written.
#[derive(Debug, thiserror::Error)]
pub enum VendorError {
    /// The directory holds something else.
    #[error("{} is not empty and no store", .0.display())]
    Occupied(PathBuf),
    /// The directory cannot be looked at.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What neither has.
    #[error("cannot fetch packages")]
    Fetch(#[from] FetchError),
}

/// The store in `directory`, made if there is none. A directory of other things is refused.
pub fn open(directory: &Path) -> Result<Store, VendorError> {
    let read = |source| VendorError::Read { path: directory.to_owned(), source };
    let occupied = match fs::read_dir(directory) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(read(error)),
    };
    if occupied && !directory.join("format").exists() {
        return Err(VendorError::Occupied(directory.to_owned()));
    }
    Ok(Store::open(directory)?)
}

/// Writes the packages into the fetcher's store: copies of what `from` has, the rest from the mirrors.
pub fn vendor(
    wanted: &[LockedPackage],
    from: &Store,
    into: &Fetcher,
    progress: &dyn Progress,
) -> Result<Vendored, VendorError> {
    let mut vendored = Vendored::default();
    let mut absent: Vec<Request> = Vec::new();
    let distinct: BTreeMap<Digest, &LockedPackage> = wanted.iter().map(|one| (one.digest, one)).collect();
    for (digest, package) in distinct {
        if has_whole(into.store(), &digest, package.size)? {
            vendored.present.add(package.size);
        } else if copy(from, into.store(), package)? {
            vendored.copied.add(package.size);
        } else {
            vendored.fetched.add(package.size);
            absent.push(packages::request(package));
        }
    }
    into.fetch(&absent, progress)?;
    Ok(vendored)
}

/// Whether the store has the object, all its bytes read. A damaged one is moved aside.
fn has_whole(store: &Store, digest: &Digest, size: u64) -> Result<bool, StoreError> {
    if !store.contains(digest, size)? {
        return Ok(false);
    }
    match store.verify_object(digest) {
        Ok(()) => Ok(true),
        Err(StoreError::Corrupt { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Copies a package if `from` has it in good order.
fn copy(from: &Store, into: &Store, package: &LockedPackage) -> Result<bool, StoreError> {
    if !from.contains(&package.digest, package.size)? {
        return Ok(false);
    }
    match into.insert(&mut from.open_object(&package.digest)?, Some(package.digest)) {
        Ok(_) => Ok(true),
        // Damaged where it comes from: moved aside there, and fetched.
        Err(StoreError::Mismatch { .. }) => {
            let _ = from.verify_object(&package.digest);
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
