//! What takes the room in a store, and making room.
//!
//! An object's or a result's last use is the modification time of its file or seal: every session notes it once, when
//! it first uses the thing. Collection removes what was used least recently, but never what was used since the oldest
//! living session began: a running build may still need it. Finding a thing and noting its use happen under the shared
//! removal lock, deciding and removing under the exclusive one, so nobody finds what is then removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::lock_file::LockFile;
use super::{Store, StoreError, session};
use crate::digest::Digest;

/// What a store may keep. Without any limit nothing but litter is removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Room on disk, in bytes, for objects and results together.
    pub bytes: Option<u64>,
    /// How long something is kept after its last use.
    pub age: Option<Duration>,
}

/// How many things, and the room that they take on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub count: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

impl Amount {
    /// One more, of that size.
    pub fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// What takes the room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Objects.
    pub objects: Amount,
    /// Those of them that are Debian packages.
    pub packages: Amount,
    /// Results, by the stage's name.
    pub stages: BTreeMap<String, Amount>,
    /// Downloads in the making.
    pub partial: Amount,
    /// Damaged objects.
    pub quarantine: Amount,
    /// Of living processes, this one's included.
    pub workspaces: Amount,
    /// What could not be deleted yet.
    pub trash: Amount,
}

impl Usage {
    /// Objects and results: what limits are about.
    pub fn kept_bytes(&self) -> u64 {
        self.objects.bytes + self.stages.values().map(|amount| amount.bytes).sum::<u64>()
    }
}

/// What a collection removed, or would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Objects.
    pub objects: Amount,
    /// Results, by the stage's name.
    pub stages: BTreeMap<String, Amount>,
    /// Bytes of objects and results that are left.
    pub left: u64,
}

impl Collected {
    /// All of it.
    pub fn total(&self) -> Amount {
        let mut total = self.objects;
        for amount in self.stages.values() {
            (total.count, total.bytes) = (total.count + amount.count, total.bytes + amount.bytes);
        }
        total
    }
}

/// How long a broken-off download or a damaged object is kept: long enough to be gone on with, or looked at.
const LITTER_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Something that may be removed.
struct Candidate {
    /// What is moved to the trash.
    path: PathBuf,
    /// The file whose modification time is the last use.
    mark: PathBuf,
    last_use: SystemTime,
    bytes: u64,
    /// Of an object.
    digest: Option<Digest>,
    /// The stage of a result.
    stage: Option<String>,
}

/// Whether a collection is for real.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Remove,
    Pretend,
}

impl Store {
    /// What takes the room.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let mut usage = Usage::default();
        for candidate in self.object_candidates()? {
            usage.objects.add(candidate.bytes);
            if is_package(&candidate.path) {
                usage.packages.add(candidate.bytes);
            }
        }
        for candidate in self.stage_candidates()? {
            usage.stages.entry(candidate.stage.unwrap_or_default()).or_default().add(candidate.bytes);
        }
        for (directory, amount) in [
            (self.layout().partial(), &mut usage.partial),
            (self.layout().quarantine(), &mut usage.quarantine),
            (self.layout().sessions(), &mut usage.workspaces),
            (self.layout().trash(), &mut usage.trash),
        ] {
            for path in session::entries(&directory).map_err(StoreError::read(&directory))? {
                amount.add(bytes_on_disk(&path));
            }
        }
        Ok(usage)
    }

    /// Makes room until the limits hold, least recently used first; gives what was removed. Spares `keep` and whatever a
    /// living process has used.
    pub fn collect(&self, limits: &Limits, keep: &BTreeSet<Digest>) -> Result<Collected, StoreError> {
        self.sweep(limits, keep, Mode::Remove)
    }

    /// What [`Self::collect`] would remove now; nothing is.
    pub fn collectable(&self, limits: &Limits, keep: &BTreeSet<Digest>) -> Result<Collected, StoreError> {
        self.sweep(limits, keep, Mode::Pretend)
    }

    fn sweep(&self, limits: &Limits, keep: &BTreeSet<Digest>, mode: Mode) -> Result<Collected, StoreError> {
        // Measured before the lock is taken: to walk through large results takes time, in which no build should wait.
        let mut candidates = self.object_candidates()?;
        candidates.extend(self.stage_candidates()?);
        let now = SystemTime::now();
        let age = |time: SystemTime| now.duration_since(time).unwrap_or_default();
        let mut collected =
            Collected { left: candidates.iter().map(|candidate| candidate.bytes).sum(), ..Collected::default() };
        candidates.retain(|candidate| candidate.digest.is_none_or(|digest| !keep.contains(&digest)));
        candidates.sort_by(|a, b| (a.last_use, &a.path).cmp(&(b.last_use, &b.path)));
        let mut dead = if mode == Mode::Remove { self.litter(&age)? } else { Vec::new() };
        let lock_path = self.layout().removal_lock();
        let guard = LockFile::exclusive(&lock_path).map_err(StoreError::write(&lock_path))?;
        let sessions = self.layout().sessions();
        let oldest = session::oldest_living(self.layout()).map_err(StoreError::read(&sessions))?;
        for candidate in candidates {
            let last_use = modified(&candidate.mark); // it may have been used since it was measured
            let too_old = limits.age.is_some_and(|limit| age(last_use) > limit);
            let too_much = limits.bytes.is_some_and(|limit| collected.left > limit);
            let in_use = oldest.is_some_and(|began| last_use >= began);
            if in_use || !(too_old || too_much) {
                continue;
            }
            if mode == Mode::Remove {
                match session::move_to_trash(&candidate.path, &self.layout().trash()) {
                    Ok(place) => dead.push(place),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {} // another collection was faster
                    Err(error) => return Err(StoreError::write(&candidate.path)(error)),
                }
            }
            collected.left = collected.left.saturating_sub(candidate.bytes);
            match candidate.stage {
                Some(stage) => collected.stages.entry(stage).or_default().add(candidate.bytes),
                None => collected.objects.add(candidate.bytes),
            }
        }
        drop(guard);
        for path in dead {
            let _ = session::delete(&path); // what resists waits for `empty_trash`
        }
        Ok(collected)
    }

    /// Moves old broken-off downloads and damaged objects to the trash; gives their places there.
    fn litter(&self, age: &dyn Fn(SystemTime) -> Duration) -> Result<Vec<PathBuf>, StoreError> {
        let mut dead = Vec::new();
        let partial = self.layout().partial();
        for path in session::entries(&partial).map_err(StoreError::read(&partial))? {
            if age(modified(&path)) > LITTER_AGE
                && let Ok(Some(lock)) = LockFile::try_exclusive(&path)
            {
                let _ = lock.remove();
            }
        }
        let quarantine = self.layout().quarantine();
        for path in session::entries(&quarantine).map_err(StoreError::read(&quarantine))? {
            if age(modified(&path)) > LITTER_AGE {
                dead.extend(session::move_to_trash(&path, &self.layout().trash()));
            }
        }
        Ok(dead)
    }

    fn object_candidates(&self) -> Result<Vec<Candidate>, StoreError> {
        let candidate = |digest: Digest| {
            let path = self.layout().object(&digest);
            let (mark, last_use, bytes) = (path.clone(), modified(&path), bytes_on_disk(&path));
            Candidate { path, mark, last_use, bytes, digest: Some(digest), stage: None }
        };
        Ok(self.objects()?.into_iter().map(candidate).collect())
    }

    fn stage_candidates(&self) -> Result<Vec<Candidate>, StoreError> {
        let root = self.layout().stages();
        let mut candidates = Vec::new();
        for stage in session::entries(&root).map_err(StoreError::read(&root))? {
            let name = stage.file_name().unwrap_or_default().to_string_lossy().into_owned();
            for path in session::entries(&stage).map_err(StoreError::read(&stage))? {
                let mark = path.join("seal");
                let (last_use, bytes) = (modified(&mark), bytes_on_disk(&path));
                let stage = Some(name.clone());
                candidates.push(Candidate { path, mark, last_use, bytes, digest: None, stage });
            }
        }
        Ok(candidates)
    }
}

/// Whether the file begins as a Debian package does (deb(5)).
fn is_package(path: &Path) -> bool {
    const BEGINNING: &[u8] = b"!<arch>\ndebian-binary";
    let mut bytes = [0; BEGINNING.len()];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut bytes)).is_ok() && bytes == BEGINNING
}

/// A file's modification time; the distant past if it has none any more.
fn modified(path: &Path) -> SystemTime {
    fs::symlink_metadata(path).and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The room that a file, or a directory with all below it, takes on disk, as far as it can be seen (what a sandbox left
/// to other user ids may be closed to us). A file with several names counts at each.
fn bytes_on_disk(path: &Path) -> u64 {
    const BLOCK: u64 = 512; // the unit of st_blocks, whatever the file system's (inode(7))
    let mut bytes = 0;
    let mut queue = vec![path.to_owned()];
    while let Some(path) = queue.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        bytes += metadata.blocks() * BLOCK;
        if metadata.is_dir() {
            queue.extend(session::entries(&path).unwrap_or_default());
        }
    }
    bytes
}
