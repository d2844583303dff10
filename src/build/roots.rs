//! What the store must keep: the packages of every lock that an image was built from, as long as the lock exists.
//!
//! Flows in: locks as they are used. Flows out: the digests to spare when room is made, and whose they are. Results of
//! stages are not kept like this: all of them can be computed again from the packages.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::lock;
use super::packages;
use crate::digest::Digest;
use crate::lock::{Lock, LockedPackage};
use crate::rootfs::deb::{self, EntryKind, UnpackedPackage};
use crate::store::{Store, StoreError};

/// A lock that keeps its packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptLock {
    /// Where it lies.
    pub path: PathBuf,
    /// What it keeps.
    pub digests: BTreeSet<Digest>,
    /// Names and versions of the packages; none if the lock cannot be read.
    pub names: BTreeMap<Digest, String>,
}

/// What is kept, and what no longer is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// The locks, by path.
    pub locks: Vec<KeptLock>,
    /// Locks that are gone: they keep nothing.
    pub gone: Vec<PathBuf>,
}

impl Kept {
    /// Everything that is kept.
    pub fn digests(&self) -> BTreeSet<Digest> {
        self.locks.iter().flat_map(|lock| lock.digests.iter().copied()).collect()
    }

    /// What an object is called in the locks.
    pub fn name(&self, digest: &Digest) -> Option<&str> {
        self.locks.iter().find_map(|lock| lock.names.get(digest)).map(String::as_str)
    }
}

/// From now on the packages of the lock at `path` are kept.
pub fn register(store: &Store, path: &Path, lock: &Lock) -> Result<(), StoreError> {
    // Without an absolute path nobody could find it again: then it was removed meanwhile, or nobody may look.
    let Ok(path) = path.canonicalize() else { return Ok(()) };
    store.add_root(&path, &lock.sets.values().flatten().map(|package| package.digest).collect())
}

/// What the store must keep now. A lock that is there but cannot be read keeps what it named when it was last used.
pub fn kept(store: &Store) -> Result<Kept, StoreError> {
    let mut kept = Kept::default();
    for root in store.roots()? {
        let name = |package: &LockedPackage| (package.digest, format!("{} {}", package.name, package.version));
        match lock::read_any(&root.path) {
            Ok(Some(lock)) => {
                let names: BTreeMap<Digest, String> = lock.sets.values().flatten().map(name).collect();
                kept.locks.push(KeptLock { path: root.path, digests: names.keys().copied().collect(), names });
            }
            Ok(None) => kept.gone.push(root.path),
            Err(_) => kept.locks.push(KeptLock { path: root.path, digests: root.digests, names: BTreeMap::new() }),
        }
    }
    Ok(kept)
}

/// A result that was found damaged and removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedResult {
    /// Its stage.
    pub stage: String,
    /// Its key.
    pub key: Digest,
    /// What it holds, as far as that can be told.
    pub name: Option<String>,
}

/// Reads every unpacked package and compares its files with the digests in its index. The damaged ones are removed, so
/// that they are unpacked again.
pub fn verify_unpacked(store: &Store) -> Result<Vec<DamagedResult>, StoreError> {
    let check = |(key, content): &(Digest, PathBuf)| {
        let package = match deb::reopen(&content.join(packages::DATA)) {
            Ok(package) => Some(package),
            Err(_) if !content.exists() => return Ok(None), // collected meanwhile
            Err(_) => None,
        };
        if package.as_ref().is_some_and(is_whole) {
            return Ok(None);
        }
        store.discard_stage(packages::UNPACK, key)?;
        let name = package.map(|package| format!("{} {}", package.name(), package.version()));
        Ok(Some(DamagedResult { stage: packages::UNPACK.to_owned(), key: *key, name }))
    };
    let damaged: Vec<Option<DamagedResult>> =
        store.stage_results(packages::UNPACK)?.par_iter().map(check).collect::<Result<_, StoreError>>()?;
    Ok(damaged.into_iter().flatten().collect())
}

fn is_whole(package: &UnpackedPackage) -> bool {
    package.entries().iter().all(|entry| match (&entry.kind, package.content(entry)) {
        (EntryKind::File { digest, .. }, Some(content)) => is(&content, digest).unwrap_or(false),
        _ => true,
    })
}

fn is(content: &crate::tree::Content, digest: &Digest) -> io::Result<bool> {
    let (found, _) = Digest::of_reader(&mut content.reader())?;
    Ok(found == *digest)
}
