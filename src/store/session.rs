//! A process's place in the store while it works: everything unfinished lies in it and vanishes with it.
//!
//! ```text
//! sessions.lock           held while a session begins or what dead ones left is cleared away
//! sessions/<pid>-<n>/     one per opened store
//!     lock                held while the process lives; its mtime is when the session began
//!     <n>/                a workspace: content/ is the caller's, seal is added when it becomes a stage result
//!     <n>                 a file being written
//! trash/<name>            what is to be deleted
//! ```
//!
//! Invariants: a session whose `lock` can be taken belongs to a process that is gone (killed, say): whoever opens the
//! store next moves it to `trash/` and deletes it there. Moving is one rename, so also what is being deleted
//! is never seen half-deleted at its old place. What cannot be deleted (a directory of another user id, left by a
//! sandbox) stays in the trash, does no harm, and is offered to [`Store::empty_trash`](super::Store::empty_trash).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::layout::{Layout, make_directory};
use super::lock_file::LockFile;

/// The session of one opened store.
#[derive(Debug)]
pub(super) struct Session {
    directory: PathBuf,
    lock: LockFile,
    started: SystemTime,
    trash: PathBuf,
    next: AtomicU64,
}

impl Session {
    /// Clears away the sessions and locks of dead processes and begins one.
    pub(super) fn begin(layout: &Layout) -> io::Result<Self> {
        let guard = LockFile::exclusive(&layout.sessions_lock())?;
        for session in entries(&layout.sessions())? {
            if !alive(&session)? {
                move_to_trash(&session, &layout.trash())?;
            }
        }
        // Of who was killed between finishing a stage and giving its lock back: nobody locks a finished stage again.
        for path in entries(&layout.stage_locks())? {
            if let Ok(Some(unheld)) = LockFile::try_exclusive(&path) {
                let _ = unheld.remove();
            }
        }
        let directory = make_unique(&layout.sessions())?;
        let lock = LockFile::exclusive(&directory.join("lock"))?;
        drop(guard);
        let started = lock.file().metadata()?.modified()?;
        for dead in entries(&layout.trash())? {
            let _ = delete(&dead); // what resists is offered to `empty_trash`
        }
        Ok(Self { directory, lock, started, trash: layout.trash(), next: AtomicU64::new(0) })
    }

    /// When the session began, by the clock of the store's file system.
    pub(super) fn started(&self) -> SystemTime {
        self.started
    }

    /// A path in the session that nothing has yet.
    pub(super) fn fresh_path(&self) -> PathBuf {
        self.directory.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // By a rename first, for the same reason as above: the lock is released when `self.lock` is dropped, after this.
        debug_assert!(self.lock.path().starts_with(&self.directory));
        if let Ok(dead) = move_to_trash(&self.directory, &self.trash) {
            let _ = delete(&dead);
        }
    }
}

/// When the oldest session that still lives began.
pub(super) fn oldest_living(layout: &Layout) -> io::Result<Option<SystemTime>> {
    let _guard = LockFile::exclusive(&layout.sessions_lock())?;
    let mut oldest = None;
    for session in entries(&layout.sessions())? {
        if alive(&session)? {
            let began = fs::metadata(session.join("lock"))?.modified()?;
            oldest = Some(oldest.map_or(began, |other: SystemTime| other.min(began)));
        }
    }
    Ok(oldest)
}

/// Whether the process of this session lives. The caller holds `sessions.lock`.
fn alive(session: &Path) -> io::Result<bool> {
    // Not `LockFile`: it would make a lock file where there is none.
    match File::open(session.join("lock")) {
        Ok(file) => match file.try_lock() {
            Ok(()) => Ok(false),
            Err(fs::TryLockError::WouldBlock) => Ok(true),
            Err(fs::TryLockError::Error(error)) => Err(error),
        },
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Moves a file or directory of the store into the trash; gives its place there.
pub(super) fn move_to_trash(path: &Path, trash: &Path) -> io::Result<PathBuf> {
    use io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, IsADirectory, NotADirectory};
    let pid = std::process::id();
    let mut number = 0_u64;
    loop {
        let target = trash.join(format!("{pid}-{number}"));
        match fs::rename(path, &target) {
            // The name is taken. (A file or an empty directory in the trash is replaced, which is as well.)
            Err(error) if matches!(error.kind(), AlreadyExists | DirectoryNotEmpty | IsADirectory | NotADirectory) => {
                number += 1;
            }
            result => return result.map(|()| target),
        }
    }
}

/// Deletes a file or directory, symlinks not followed. What another process deletes meanwhile is no error.
pub(super) fn delete(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The entries of a directory.
pub(super) fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
}

/// Makes a directory with a name that nothing else in `parent` has. The process id alone does not do: containers
/// that share a store have the same ones.
fn make_unique(parent: &Path) -> io::Result<PathBuf> {
    let pid = std::process::id();
    let mut number = 0_u64;
    loop {
        let path = parent.join(format!("{pid}-{number}"));
        match make_directory(&path, 0o700) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
            Ok(()) => return Ok(path),
        }
    }
}
