//! Advisory locks on files: how several builds share a store.
//!
//! A lock is `flock(2)` on an open file. The kernel releases it when its holder dies, however it dies, so nothing is
//! ever left locked. Two opens of a file exclude one another also within a process.
//!
//! Invariant: whoever holds a [`LockFile`] holds the file that the path names at that moment. A lock that was waited
//! for while its holder renamed or removed the file is of no use: it is given back and the path opened again.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A file, open for reading and writing, and the lock on it. Dropping it releases the lock and leaves the file.
#[derive(Debug)]
pub(super) struct LockFile {
    file: File,
    path: PathBuf,
}

impl LockFile {
    /// Makes the file if there is none, and waits until nobody else holds it.
    pub(super) fn exclusive(path: &Path) -> io::Result<Self> {
        loop {
            let file = open(path)?;
            wait(|| file.lock())?;
            if still_named(&file, path)? {
                return Ok(Self { file, path: path.to_owned() });
            }
        }
    }

    /// Makes the file if there is none; `None` if somebody else holds it.
    pub(super) fn try_exclusive(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let file = open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            if still_named(&file, path)? {
                return Ok(Some(Self { file, path: path.to_owned() }));
            }
        }
    }

    /// Makes the file if there is none, and waits until nobody holds it exclusively. Others may share it.
    pub(super) fn shared(path: &Path) -> io::Result<Self> {
        loop {
            let file = open(path)?;
            wait(|| file.lock_shared())?;
            if still_named(&file, path)? {
                return Ok(Self { file, path: path.to_owned() });
            }
        }
    }

    /// The locked file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Where the locked file lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file and releases the lock. Who waits for it makes a new file. Only for an exclusive lock.
    pub(super) fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let permissions = file.metadata()?.permissions();
    if permissions.mode() & 0o7777 != 0o644 {
        file.set_permissions(Permissions::from_mode(0o644))?; // a umask may have made a file that not even we can open
    }
    Ok(file)
}

/// A signal that interrupts the wait is no reason to go on without the lock.
fn wait(lock: impl Fn() -> io::Result<()>) -> io::Result<()> {
    loop {
        match lock() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn still_named(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excludes_a_second_holder_until_the_first_lets_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let first = LockFile::exclusive(&path).unwrap();
        assert!(LockFile::try_exclusive(&path).unwrap().is_none());
        drop(first);
        assert!(LockFile::try_exclusive(&path).unwrap().is_some());
    }

    #[test]
    fn shares_with_other_sharers_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let _first = LockFile::shared(&path).unwrap();
        let _second = LockFile::shared(&path).unwrap();
        assert!(LockFile::try_exclusive(&path).unwrap().is_none());
    }

    #[test]
    fn a_waiter_never_gets_the_lock_of_a_file_that_was_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let first = LockFile::exclusive(&path).unwrap();
        let waiter = std::thread::spawn({
            let path = path.clone();
            move || LockFile::exclusive(&path).unwrap()
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        first.remove().unwrap();
        let second = waiter.join().unwrap();
        assert!(path.exists());
        assert!(LockFile::try_exclusive(&path).unwrap().is_none());
        drop(second);
    }
}
