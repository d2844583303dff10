//! Objects: files named by the SHA-256 of their bytes, never altered.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::layout::make_directories;
use super::lock_file::LockFile;
use super::{Store, StoreError, session};
use crate::digest::{Digest, Hasher};

/// An object that [`Store::verify`] found damaged and moved aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The object's name.
    pub digest: Digest,
    /// The digest of what its file holds.
    pub found: Digest,
    /// Where the file is now.
    pub quarantine: PathBuf,
}

impl Store {
    /// Keeps all bytes of `reader`, and gives their digest. If `expected` is given and differs, nothing is kept.
    pub fn insert(&self, reader: &mut dyn Read, expected: Option<Digest>) -> Result<Digest, StoreError> {
        let path = self.inner.session.fresh_path();
        let failed = || StoreError::write(&path);
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed())?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 128 * 1024];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    file.write_all(&buffer[..count]).map_err(failed())?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StoreError::read(&path)(error)),
            }
        }
        let found = hasher.digest();
        match expected.filter(|expected| *expected != found) {
            Some(expected) => {
                fs::remove_file(&path).map_err(failed())?;
                Err(StoreError::Mismatch { expected, found })
            }
            None => self.publish_object(&file, &path, &found).map(|()| found),
        }
    }

    /// Whether the store has the object, by name and size; its bytes are not read. An object of another size is
    /// damaged (a disk that was full, a machine that lost power): it is moved aside and counts as absent.
    pub fn contains(&self, digest: &Digest, size: u64) -> Result<bool, StoreError> {
        let path = self.layout().object(digest);
        let _guard = self.guard_use()?;
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() && metadata.len() == size => {
                self.note_use(&path, metadata.modified().ok());
                Ok(true)
            }
            Ok(_) => self.quarantine(digest, &path).map(|_| false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::read(&path)(error)),
        }
    }

    /// The object, open for reading; its bytes are not checked. It stays readable whatever becomes of the store.
    pub fn open_object(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.layout().object(digest);
        let _guard = self.guard_use()?;
        match File::open(&path) {
            Ok(file) => {
                self.note_use(&path, file.metadata().and_then(|metadata| metadata.modified()).ok());
                Ok(file)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::Absent { digest: *digest }),
            Err(error) => Err(StoreError::read(&path)(error)),
        }
    }

    /// Where the object lies. Whether it does is for [`Store::contains`] to say; nobody may write there.
    pub fn object_path(&self, digest: &Digest) -> PathBuf {
        self.layout().object(digest)
    }

    /// Reads the whole object and checks it. A damaged one is moved aside and named by the error.
    pub fn verify_object(&self, digest: &Digest) -> Result<(), StoreError> {
        let path = self.layout().object(digest);
        let mut file = self.open_object(digest)?;
        let (found, _) = Digest::of_reader(&mut file).map_err(StoreError::read(&path))?;
        self.judge(digest, found, &path)
    }

    /// All bytes of an object of at most `limit` bytes, checked.
    pub fn read_object(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        let path = self.layout().object(digest);
        let mut bytes = Vec::new();
        // One byte more than the limit, so that a longer object is seen as what it is: not the one that was meant.
        let mut reader = self.open_object(digest)?.take(limit.saturating_add(1));
        reader.read_to_end(&mut bytes).map_err(StoreError::read(&path))?;
        self.judge(digest, Digest::of(&bytes), &path).map(|()| bytes)
    }

    /// Reads every object and checks it. The damaged ones are moved to `quarantine/` and named, sorted by digest.
    pub fn verify(&self) -> Result<Vec<Damage>, StoreError> {
        let objects = self.objects()?;
        let next = std::sync::atomic::AtomicUsize::new(0);
        let damages = std::sync::Mutex::new(Vec::new());
        let work = || -> Result<(), StoreError> {
            while let Some(digest) = objects.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                match self.verify_object(digest) {
                    Err(StoreError::Corrupt { digest, found, quarantine }) => {
                        let damage = Damage { digest, found, quarantine };
                        damages.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(damage);
                    }
                    Ok(()) | Err(StoreError::Absent { .. }) => {} // absent: collected meanwhile
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| match worker.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
        let mut damages = damages.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        damages.sort_by_key(|damage| damage.digest);
        Ok(damages)
    }

    /// The names of all objects, sorted.
    pub fn objects(&self) -> Result<Vec<Digest>, StoreError> {
        let root = self.layout().objects();
        let mut digests = Vec::new();
        for directory in session::entries(&root).map_err(StoreError::read(&root))? {
            for path in session::entries(&directory).map_err(StoreError::read(&directory))? {
                let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                // Anything with another name is not ours to judge.
                digests.extend(format!("{}{}", name(&directory), name(&path)).parse::<Digest>());
            }
        }
        digests.sort_unstable();
        Ok(digests)
    }

    /// Gives a finished file its name: flushed first, renamed second. Replaces an object of that name (which has the
    /// same bytes, or is damaged).
    pub(super) fn publish_object(&self, file: &File, path: &Path, digest: &Digest) -> Result<(), StoreError> {
        let target = self.layout().object(digest);
        let publish = || {
            file.set_modified(SystemTime::now())?;
            file.sync_data()?;
            if let Some(parent) = target.parent() {
                make_directories(parent, self.layout().root(), 0o755)?;
            }
            fs::rename(path, &target)?;
            // Only now: another process may be opening the file under its old name, for writing, to wait for its lock.
            file.set_permissions(fs::Permissions::from_mode(0o444))
        };
        publish().map_err(StoreError::write(&target))
    }

    /// Held while something is found and its use noted: nothing is removed in between.
    pub(super) fn guard_use(&self) -> Result<LockFile, StoreError> {
        let path = self.layout().removal_lock();
        LockFile::shared(&path).map_err(StoreError::write(&path))
    }

    /// Notes, by the file's modification time, that this session has used it; once for each session.
    pub(super) fn note_use(&self, path: &Path, last_use: Option<SystemTime>) {
        // The file system's clock ticks more coarsely than the other: a tie may be an earlier use.
        let noted = last_use.is_some_and(|time| time > self.inner.session.started() + Duration::from_millis(20));
        if !noted {
            // A store that cannot be written to can still be used: nobody can remove anything from it either.
            let _ = File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
        }
    }

    fn judge(&self, digest: &Digest, found: Digest, path: &Path) -> Result<(), StoreError> {
        if found == *digest {
            return Ok(());
        }
        let quarantine = self.quarantine(digest, path)?;
        Err(StoreError::Corrupt { digest: *digest, found, quarantine })
    }

    /// Moves a damaged object aside. If another process has done so, or has brought it anew, that is as good.
    fn quarantine(&self, digest: &Digest, path: &Path) -> Result<PathBuf, StoreError> {
        let place = self.layout().quarantine().join(digest.to_string());
        match fs::rename(path, &place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::write(&place)(error)),
            _ => Ok(place),
        }
    }
}
