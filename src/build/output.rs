//! The directory that a build leaves behind: whole, or not there.
//!
//! ```text
//! out/.web_1.partial-4711-0/   files are written here, under a lock that dies with the process
//! out/web_1/                   appears by one rename(2); an older build there is exchanged in the same step
//! ```
//!
//! A build that was killed leaves only a `.partial-` directory; the next build into the same place removes it. One
//! that was interrupted leaves nothing. What
//! is replaced must be a former output (it holds a `manifest.json`) or empty: no other directory is ever removed.
//! Files are not synced: a crash of the machine may lose them, and `adamant verify` says so.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2};

use crate::interrupt::Leftover;

/// The file by which a former output is known.
const MARK: &str = "manifest.json";
/// Held locked while a build writes.
const LOCK: &str = ".lock";

/// Why an output directory could not be made.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The path ends in nothing that can be a directory's name.
    #[error("{} cannot be an output directory: it has no name", .0.display())]
    NoName(PathBuf),
    /// Something else is there.
    #[error("{} exists and was not written by adamant; name another directory with --out, or remove it", .0.display())]
    NotOurs(PathBuf),
    /// The host's file system refused.
    #[error("cannot {operation} {}", .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OutputError {
    let path = path.to_owned();
    move |source| OutputError::Io { operation, path, source }
}

/// An output in the making. Dropped without [`Output::publish`], it leaves nothing.
pub struct Output {
    target: PathBuf,
    partial: PathBuf,
    lock: Option<Flock<File>>,
    leftover: Leftover,
}

impl Output {
    /// Opens an empty partial directory beside `target`.
    pub fn create(target: &Path) -> Result<Self, OutputError> {
        let name = target.file_name().ok_or_else(|| OutputError::NoName(target.to_owned()))?;
        check(target)?;
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(io_error("create", parent))?;
        let prefix = format!(".{}.partial-", name.to_string_lossy());
        remove_abandoned(parent, &prefix)?;
        let mut numbers = 0_u32..;
        loop {
            // Not by the process id alone: containers have the same ones.
            let number = numbers.next().unwrap_or_default();
            let partial = parent.join(format!("{prefix}{}-{number}", std::process::id()));
            let leftover = Leftover::new(partial.clone());
            match fs::create_dir(&partial) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                result => result.map_err(io_error("create", &partial))?,
            }
            // Another build may take it for abandoned before it is locked; then it is gone.
            match lock(&partial) {
                Ok(Some(lock)) if is_named(&lock, &partial) => {
                    return Ok(Self { target: target.to_owned(), partial, lock: Some(lock), leftover });
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    let _ = fs::remove_dir_all(&partial);
                    return Err(io_error("lock", &partial)(error));
                }
                _ => {}
            }
        }
    }

    /// Where to write the files.
    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Puts the directory in its place, in one step.
    pub fn publish(mut self) -> Result<(), OutputError> {
        check(&self.target)?;
        let lock = self.partial.join(LOCK);
        fs::remove_file(&lock).map_err(io_error("remove", &lock))?;
        let rename = |flags| renameat2(AT_FDCWD, &self.partial, AT_FDCWD, &self.target, flags);
        let exchange = self
            .leftover
            .keep_while(|| {
                loop {
                    // Another build may put its output there, or take it away, at any moment.
                    match rename(RenameFlags::RENAME_NOREPLACE) {
                        Err(Errno::EEXIST) => {}
                        result => break result.map(|()| false),
                    }
                    match rename(RenameFlags::RENAME_EXCHANGE) {
                        Err(Errno::ENOENT) => {}
                        result => break result.map(|()| true),
                    }
                }
            })
            .map_err(|error| io_error("put in place", &self.target)(error.into()))?;
        self.lock = None;
        if exchange {
            fs::remove_dir_all(&self.partial).map_err(io_error("remove the former output from", &self.partial))?;
        }
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.lock.is_some() {
            // Nothing can be done about a failure here, and the next build tries again.
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}

/// Whether an output may take this place: nothing is there, or a former output.
pub fn check(target: &Path) -> Result<(), OutputError> {
    let mut entries = match fs::read_dir(target) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            if fs::symlink_metadata(target).is_err() {
                // Not itself, but something on the way to it.
                return Err(io_error("create", target)(error));
            }
            return Err(OutputError::NotOurs(target.to_owned()));
        }
        Err(error) => return Err(io_error("read", target)(error)),
    };
    if entries.next().is_none() || target.join(MARK).is_file() {
        return Ok(());
    }
    Err(OutputError::NotOurs(target.to_owned()))
}

fn lock(partial: &Path) -> io::Result<Option<Flock<File>>> {
    let file = File::create(partial.join(LOCK))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error.into()),
    }
}

/// Whether the locked file is the one in `partial`, and not one that was removed meanwhile.
fn is_named(lock: &Flock<File>, partial: &Path) -> bool {
    let of = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let named = fs::symlink_metadata(partial.join(LOCK)).map(of);
    matches!((lock.metadata().map(of), named), (Ok(held), Ok(named)) if held == named)
}

fn remove_abandoned(parent: &Path, prefix: &str) -> Result<(), OutputError> {
    for entry in fs::read_dir(parent).map_err(io_error("read", parent))? {
        let entry = entry.map_err(io_error("read", parent))?;
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        let path = entry.path();
        if lock(&path).ok().flatten().is_some() {
            match fs::remove_dir_all(&path) {
                // It was just being made, or another build removes it, too.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {}
                result => result.map_err(io_error("remove the abandoned", &path))?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn appears_whole_and_replaces_a_former_output() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("web_1");
        for text in ["one", "two"] {
            let output = Output::create(&target).unwrap();
            fs::write(output.path().join(MARK), text).unwrap();
            output.publish().unwrap();
            assert_eq!(names(directory.path()), ["web_1"]);
            assert_eq!(names(&target), [MARK]);
            assert_eq!(fs::read_to_string(target.join(MARK)).unwrap(), text);
        }
    }

    #[test]
    fn a_build_that_fails_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let output = Output::create(&directory.path().join("web_1")).unwrap();
        fs::write(output.path().join("image.raw"), "half").unwrap();
        drop(output);
        assert!(names(directory.path()).is_empty());
    }

    #[test]
    fn removes_what_a_killed_build_left_but_not_a_living_one() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("web_1");
        let killed = directory.path().join(".web_1.partial-1");
        fs::create_dir(&killed).unwrap();
        fs::write(killed.join(LOCK), "").unwrap();
        let living = directory.path().join(".web_1.partial-2");
        fs::create_dir(&living).unwrap();
        let held = lock(&living).unwrap();
        let output = Output::create(&target).unwrap();
        assert!(!killed.exists());
        assert!(living.exists());
        drop((output, held));
    }

    #[test]
    fn never_replaces_what_adamant_did_not_write() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("home");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("thesis.tex"), "").unwrap();
        assert!(matches!(Output::create(&target), Err(OutputError::NotOurs(path)) if path == target));
        assert_eq!(names(&target), ["thesis.tex"]);
    }
}
