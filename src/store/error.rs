//! What can go wrong with the store's own files.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;

/// A failed operation of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory could not be made, read or locked.
    #[error("cannot open the store in {}: give another directory with --store", directory.display())]
    Open {
        /// The store's directory.
        directory: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The directory holds something that this version of adamant does not know.
    #[error(
        "{} is not a store of this version of adamant (its format file says {found:?}): give another directory with --store",
        directory.display()
    )]
    Format {
        /// The store's directory.
        directory: PathBuf,
        /// The first line of its format file.
        found: String,
    },
    /// A file of the store could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file of the store could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file system of the store is full (or a quota is reached).
    #[error(
        "no space left for {}: free some room, or give a directory on another file system with --store; what is \
         in the store stays good, and the build goes on from there",
        path.display()
    )]
    Full {
        /// The file that did not fit.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Bytes that were to be put into the store are not those that were announced.
    #[error("bytes with the SHA-256 {found} were given for an object that is named {expected}")]
    Mismatch {
        /// The digest that names the object.
        expected: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// The store has no such object.
    #[error("the store has no object {digest}")]
    Absent {
        /// The object's name.
        digest: Digest,
    },
    /// An object's bytes changed on disk. It has been moved aside, so that the next fetch brings it anew.
    #[error(
        "the object {digest} in the store is corrupt (its bytes have the SHA-256 {found}); it was moved to {}: \
         run the command again and it will be fetched anew, and look after this disk",
        quarantine.display()
    )]
    Corrupt {
        /// The object's name.
        digest: Digest,
        /// The digest of what the file holds.
        found: Digest,
        /// Where the file is now.
        quarantine: PathBuf,
    },
}

impl StoreError {
    pub(super) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }

    pub(super) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path, source },
            _ => Self::Write { path, source },
        }
    }
}
