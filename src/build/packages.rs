//! Locked packages, from the mirror to unpacked ones: each fetched once and unpacked once, then kept in the store.

use std::path::PathBuf;

use rayon::prelude::*;

use super::stages::Stages;
use crate::lock::LockedPackage;
use crate::rootfs::deb::{self, DebError, UnpackedPackage};
use crate::store::fetch::{FetchError, Fetcher, Request};
use crate::store::{StageKey, StoreError};

/// The stage of unpacked packages.
pub(super) const UNPACK: &str = "unpack";
/// The file of a stage result that holds a package's contents.
pub(super) const DATA: &str = "data";

/// Why packages could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PackagesError {
    /// Not fetched.
    #[error("cannot fetch packages")]
    Fetch(#[from] FetchError),
    /// Not unpacked.
    #[error("cannot unpack {package}")]
    Unpack {
        /// Name and version.
        package: String,
        /// Why.
        #[source]
        source: DebError,
    },
    /// The store's own copy of what was in a package.
    #[error("{} in the store was damaged since it was made: remove it and run the command again", .directory.display())]
    Damaged {
        /// The stage's result.
        directory: PathBuf,
        /// What is wrong with it.
        #[source]
        source: DebError,
    },
    /// Another package than the lock says, in a file with the right digest.
    #[error("the package file that the lock names {locked} says that it is {found}; the archive contradicts itself")]
    Other {
        /// By the lock.
        locked: String,
        /// By its control file.
        found: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Sees to it that the store has the package files, or what was in them.
pub fn fetch(packages: &[LockedPackage], fetcher: &Fetcher, stages: &Stages<'_>) -> Result<(), PackagesError> {
    let store = fetcher.store();
    let keys: Vec<StageKey> = packages.iter().map(unpack_key).collect();
    store.bring_stages(&keys)?;
    let mut requests = Vec::new();
    for (package, key) in packages.iter().zip(&keys) {
        // Of what another machine has unpacked nobody needs the package.
        if store.shared().is_none() || store.stage(key)?.is_none() {
            requests.push(request(package));
        }
    }
    fetcher.fetch(&requests, stages.progress())?;
    Ok(())
}

/// How to fetch a package.
pub fn request(package: &LockedPackage) -> Request {
    Request {
        digest: package.digest,
        size: package.size,
        repository: package.repository.clone(),
        path: package.path.clone(),
        label: format!("{} {}", package.name, package.version),
    }
}

/// The key of an unpacked package.
fn unpack_key(package: &LockedPackage) -> StageKey {
    StageKey::new(UNPACK).with("deb", package.digest.as_bytes())
}

/// Unpacks packages that the store has, in parallel, in their order. The second value: whether all were there already.
pub fn unpack(packages: &[LockedPackage], fetcher: &Fetcher) -> Result<(Vec<UnpackedPackage>, bool), PackagesError> {
    // The biggest first, so that no worker is left with one at the end.
    let mut order: Vec<usize> = (0..packages.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(packages[*index].size));
    let mut unpacked: Vec<(usize, UnpackedPackage, bool)> = order
        .into_par_iter()
        .with_max_len(1)
        .map(|index| unpack_one(&packages[index], fetcher).map(|(package, cached)| (index, package, cached)))
        .collect::<Result<_, PackagesError>>()?;
    unpacked.sort_by_key(|(index, ..)| *index);
    let cached = unpacked.iter().all(|(_, _, cached)| *cached);
    Ok((unpacked.into_iter().map(|(_, package, _)| package).collect(), cached))
}

fn unpack_one(locked: &LockedPackage, fetcher: &Fetcher) -> Result<(UnpackedPackage, bool), PackagesError> {
    let store = fetcher.store();
    let name = format!("{} {}", locked.name, locked.version);
    let unpack_error = |source| PackagesError::Unpack { package: name.clone(), source };
    let result = store.build_stage(&unpack_key(locked), |directory| {
        // What lay in the store for long may have changed there, and not every compression would tell.
        store.verify_object(&locked.digest)?;
        deb::unpack(&store.object_path(&locked.digest), &directory.join(DATA)).map_err(unpack_error)?;
        Ok::<_, PackagesError>(())
    })?;
    let package = deb::reopen(&result.path.join(DATA)).map_err(|source| match result.cached {
        true => PackagesError::Damaged { directory: result.directory().to_owned(), source },
        false => unpack_error(source),
    })?;
    if (package.name(), package.version()) != (locked.name.as_str(), locked.version.as_str()) {
        let found = format!("{} {}", package.name(), package.version());
        return Err(PackagesError::Other { locked: name, found });
    }
    Ok((package, result.cached))
}
