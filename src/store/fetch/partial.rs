//! What has arrived of a download: a file of its own, kept until it is whole, whoever goes on with it.
//!
//! Invariants: `partial/<digest>` is written only by who holds its lock. What it holds may be wrong (a machine that
//! lost power, a mirror that changed): only the digest of all of it decides.

use std::fs::File;
use std::io::{self, Read, Seek, Write};

use super::super::lock_file::LockFile;
use super::super::{Store, StoreError};
use crate::digest::{Digest, Hasher};

/// The file of a download in the making, locked.
pub(super) struct Partial {
    lock: LockFile,
    hasher: Hasher,
    digest: Digest,
    size: u64,
}

/// Who has the download.
pub(super) enum Claim {
    /// We have.
    Mine(Box<Partial>),
    /// Another thread or process has.
    Busy,
    /// It is done.
    Done,
}

impl Partial {
    /// Tries to take over the download of a file, with what has arrived of it earlier.
    pub(super) fn claim(store: &Store, digest: Digest, size: u64) -> Result<Claim, StoreError> {
        let path = store.layout().partial().join(digest.to_string());
        let Some(lock) = LockFile::try_exclusive(&path).map_err(StoreError::write(&path))? else {
            return Ok(Claim::Busy);
        };
        if store.contains(&digest, size)? {
            let _ = lock.remove(); // made just now, by the claim itself
            return Ok(Claim::Done);
        }
        let mut partial = Self { lock, hasher: Hasher::new(), digest, size };
        partial.take_stock().map_err(StoreError::read(&path))?;
        Ok(Claim::Mine(Box::new(partial)))
    }

    /// Digests what is there. More than the file's size cannot be of use.
    fn take_stock(&mut self) -> io::Result<()> {
        let mut file = self.lock.file();
        let mut buffer = vec![0; 128 * 1024];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => self.hasher.update(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.hasher.length() > self.size {
                return self.empty();
            }
        }
        Ok(())
    }

    /// Bytes that have arrived.
    pub(super) fn length(&self) -> u64 {
        self.hasher.length()
    }

    /// The digest of what has arrived.
    pub(super) fn found(&self) -> Digest {
        self.hasher.digest()
    }

    /// Adds the next bytes.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file().write_all(bytes).map_err(StoreError::write(self.lock.path()))?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// Throws away what has arrived.
    pub(super) fn restart(&mut self) -> Result<(), StoreError> {
        self.empty().map_err(StoreError::write(self.lock.path()))
    }

    /// Throws the download away, file and all.
    pub(super) fn abandon(self) -> Result<(), StoreError> {
        let path = self.lock.path().to_owned();
        self.lock.remove().map_err(StoreError::write(&path))
    }

    /// Makes an object of it. The caller has compared the digest.
    pub(super) fn publish(self, store: &Store) -> Result<(), StoreError> {
        debug_assert_eq!(self.found(), self.digest);
        store.publish_object(self.lock.file(), self.lock.path(), &self.digest)
    }

    fn empty(&mut self) -> io::Result<()> {
        self.hasher = Hasher::new();
        self.file().set_len(0)?;
        self.file().rewind()
    }

    fn file(&self) -> &File {
        self.lock.file()
    }
}
