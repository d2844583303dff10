//! Workspaces, and results of stages kept by the digest of everything they were made from.
//!
//! ```text
//! sessions/<session>/<n>/content/    a workspace: what the caller fills
//! stages/<name>/<digest>/content/    the same directory after one rename: a result
//!                        seal        "boot <id>" (counts during this boot) or "settled" (flushed to disk)
//! ```
//!
//! Invariants: a result is never altered once it is named. Its key covers all that it depends on, so a stale result has
//! another name. Only one process builds a key at a time; the others wait and take its result.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::layout::{make_directories, make_directory};
use super::lock_file::LockFile;
use super::{Store, StoreError, layout, session};
use crate::digest::{Digest, Hasher};

/// The name of a stage's result: the stage and the digest of everything that the result depends on.
#[derive(Clone)]
pub struct StageKey {
    name: &'static str,
    inputs: Hasher,
    local: bool,
}

impl StageKey {
    /// The key of a stage without inputs so far, other than the source of this program (see `build.rs`): other source
    /// may make other results of the same inputs. The name is lower-case ASCII, a word: it becomes a directory.
    pub fn new(name: &'static str) -> Self {
        debug_assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
        let mut inputs = Hasher::new();
        inputs.update(name.as_bytes());
        inputs.update(b"\0");
        inputs.update(env!("ADAMANT_STAGE_SOURCE").as_bytes());
        Self { name, inputs, local: false }
    }

    /// The key with one more input. Label and length go into the digest too, so no two lists of inputs run together.
    pub fn with(mut self, label: &str, value: &[u8]) -> Self {
        for part in [label.as_bytes(), value] {
            self.inputs.update(&(part.len() as u64).to_le_bytes());
            self.inputs.update(part);
        }
        self
    }

    /// The key of a result that stays on this machine: not to be had from a cache that others write to, nor written there.
    pub fn of_this_machine(mut self) -> Self {
        self.local = true;
        self
    }

    /// Whether the result stays on this machine.
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// The stage's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The digest over the name, the program's source and all inputs.
    pub fn digest(&self) -> Digest {
        self.inputs.digest()
    }
}

/// A directory that vanishes: with this value, or, if the process is killed, when the store is next opened.
#[derive(Debug)]
pub struct Workspace {
    place: PathBuf,
    store: Store,
}

impl Workspace {
    /// The directory, empty at first, mode 0755.
    pub fn path(&self) -> PathBuf {
        self.place.join("content")
    }

    /// Deletes the workspace by `remove`, which can delete what a sandbox left there for other user ids.
    pub fn remove_with(self, remove: &dyn Fn(&Path) -> io::Result<()>) -> Result<(), StoreError> {
        if session::delete(&self.place).is_ok() {
            return Ok(());
        }
        remove(&self.place).map_err(StoreError::write(&self.place))
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if self.place.exists()
            && let Ok(dead) = session::move_to_trash(&self.place, &self.store.layout().trash())
        {
            let _ = session::delete(&dead); // what resists waits for `empty_trash`
        }
    }
}

/// A finished stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageResult {
    /// The directory that the stage filled. Not to be written to.
    pub path: PathBuf,
    /// Whether it was there already.
    pub cached: bool,
}

impl StageResult {
    /// The directory that holds the result and its seal: without it, the stage is built again.
    pub fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }
}

impl Store {
    /// An empty directory to work in.
    pub fn workspace(&self) -> Result<Workspace, StoreError> {
        let place = self.inner.session.fresh_path();
        make_directory(&place, 0o700)
            .and_then(|()| make_directory(&place.join("content"), 0o755))
            .map_err(StoreError::write(&place))?;
        Ok(Workspace { place, store: self.clone() })
    }

    /// The result of a stage, if the store has it.
    pub fn stage(&self, key: &StageKey) -> Result<Option<PathBuf>, StoreError> {
        let place = self.stage_place(key);
        let seal = place.join("seal");
        let _guard = self.guard_use()?;
        let text = match fs::read_to_string(&seal) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(StoreError::read(&seal)(error)),
        };
        if self.counts(&text) {
            if text != SETTLED {
                self.remember_unsettled(seal.clone());
            }
            self.note_use(&seal, fs::metadata(&seal).and_then(|metadata| metadata.modified()).ok());
            return Ok(Some(place.join("content")));
        }
        Ok(None)
    }

    /// The result of a stage, built by `build` in the directory that it is given if the store has none. If `build`
    /// fails, nothing is kept. If another process is building this stage, waits for its result.
    pub fn build_stage<E: From<StoreError>>(
        &self,
        key: &StageKey,
        build: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<StageResult, E> {
        if let Some(path) = self.stage(key)? {
            return Ok(StageResult { path, cached: true });
        }
        self.locking_stage(key, || {
            if let Some(path) = self.find_stage(key)? {
                return Ok(StageResult { path, cached: true });
            }
            let workspace = self.workspace()?;
            build(&workspace.path())?;
            let path = self.publish_stage(key, workspace)?;
            if let Some(shared) = self.shared() {
                shared.offer_stage(key, &path, self.inner.session.fresh_path());
            }
            Ok(StageResult { path, cached: false })
        })
    }

    /// Does `work` while no other process makes this result.
    pub(super) fn locking_stage<T, E: From<StoreError>>(
        &self,
        key: &StageKey,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let path = self.layout().stage_locks().join(format!("{}-{}", key.name(), key.digest()));
        let lock = LockFile::exclusive(&path).map_err(StoreError::write(&path))?;
        let result = work();
        let _ = lock.remove(); // one that stays is removed when the store is next opened
        result
    }

    /// All results of a stage: their keys' digests and what the stage filled, sorted.
    pub fn stage_results(&self, name: &str) -> Result<Vec<(Digest, PathBuf)>, StoreError> {
        let directory = self.layout().stages().join(name);
        let places = match session::entries(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            result => result.map_err(StoreError::read(&directory))?,
        };
        let named = |place: PathBuf| Some((place.file_name()?.to_str()?.parse().ok()?, place.join("content")));
        let mut results: Vec<(Digest, PathBuf)> = places.into_iter().filter_map(named).collect();
        results.sort();
        Ok(results)
    }

    /// The results of a stage that count, at most `limit` of those that were used last, the latest first: their keys'
    /// digests and what the stage filled. That they were looked at is no use of them: see [`Store::note_stage_use`].
    pub fn recent_stage_results(&self, name: &str, limit: usize) -> Result<Vec<(Digest, PathBuf)>, StoreError> {
        let used = |path: &Path| fs::metadata(path.with_file_name("seal")).and_then(|metadata| metadata.modified());
        let mut results: Vec<_> = self
            .stage_results(name)?
            .into_iter()
            .filter_map(|(key, path)| Some((used(&path).ok()?, key, path)))
            .collect();
        results.sort_by(|one, other| (other.0, &one.1).cmp(&(one.0, &other.1)));
        results.truncate(limit);
        results.retain(|(_, _, path)| {
            fs::read_to_string(path.with_file_name("seal")).is_ok_and(|text| self.counts(&text))
        });
        Ok(results.into_iter().map(|(_, key, path)| (key, path)).collect())
    }

    /// Notes that this session has used a result that [`Store::recent_stage_results`] gave.
    pub fn note_stage_use(&self, name: &str, key: &Digest) -> Result<(), StoreError> {
        let seal = self.layout().stages().join(name).join(key.to_string()).join("seal");
        let _guard = self.guard_use()?;
        if let Ok(metadata) = fs::metadata(&seal) {
            self.remember_unsettled(seal.clone());
            self.note_use(&seal, metadata.modified().ok());
        }
        Ok(())
    }

    /// Removes a result that was found damaged; it is built again when it is next needed.
    pub fn discard_stage(&self, name: &str, key: &Digest) -> Result<(), StoreError> {
        let place = self.layout().stages().join(name).join(key.to_string());
        match session::move_to_trash(&place, &self.layout().trash()) {
            Ok(dead) => {
                let _ = session::delete(&dead); // what resists waits for `empty_trash`
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()), // collected meanwhile
            Err(error) => Err(StoreError::write(&place)(error)),
        }
    }

    /// Flushes to disk the results that this session has made or used, so that they outlast a power failure. To be
    /// called when the build is done and its user need not wait.
    pub fn settle(&self) -> Result<(), StoreError> {
        let seals = std::mem::take(&mut *self.unsettled());
        if seals.is_empty() {
            return Ok(());
        }
        let stages = self.layout().stages();
        fs::File::open(&stages)
            .and_then(|directory| nix::unistd::syncfs(&directory).map_err(io::Error::from))
            .map_err(StoreError::write(&stages))?;
        for seal in seals {
            self.write_seal(&seal, SETTLED)?;
        }
        Ok(())
    }

    /// What was noted under `name`, a word of ASCII, if anything was.
    pub fn note(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.layout().notes().join(name);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some).map_err(StoreError::read(&path)),
        }
    }

    /// Notes something small, in place of what was noted under `name`. Not flushed: a crash of the machine may lose it.
    pub fn set_note(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let (fresh, path) = (self.inner.session.fresh_path(), self.layout().notes().join(name));
        layout::write_file(&fresh, bytes).and_then(|()| fs::rename(&fresh, &path)).map_err(StoreError::write(&path))
    }

    pub(super) fn publish_stage(&self, key: &StageKey, workspace: Workspace) -> Result<PathBuf, StoreError> {
        let place = self.stage_place(key);
        match &self.inner.boot {
            Some(boot) => self.write_seal(&workspace.place.join("seal"), &format!("boot {boot}\n"))?,
            None => {
                // A kernel that does not tell its boots apart: flushed at once.
                fs::File::open(&workspace.place)
                    .and_then(|directory| nix::unistd::syncfs(&directory).map_err(io::Error::from))
                    .map_err(StoreError::write(&workspace.place))?;
                self.write_seal(&workspace.place.join("seal"), SETTLED)?;
            }
        }
        if place.exists() {
            // Made before the machine went down, and never flushed: parts of it may be missing. So it counts for nobody.
            let dead = session::move_to_trash(&place, &self.layout().trash()).map_err(StoreError::write(&place))?;
            let _ = session::delete(&dead);
        }
        if let Some(parent) = place.parent() {
            make_directories(parent, self.layout().root(), 0o700).map_err(StoreError::write(parent))?;
        }
        fs::rename(&workspace.place, &place).map_err(StoreError::write(&place))?;
        self.remember_unsettled(place.join("seal"));
        Ok(place.join("content"))
    }

    /// Replaces a seal by one rename: it is never read half-written.
    fn write_seal(&self, seal: &Path, text: &str) -> Result<(), StoreError> {
        let path = self.inner.session.fresh_path();
        layout::write_file(&path, text).map_err(StoreError::write(&path))?;
        match fs::rename(&path, seal) {
            // The result was removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(StoreError::write(seal)),
        }
    }

    fn stage_place(&self, key: &StageKey) -> PathBuf {
        self.layout().stages().join(key.name()).join(key.digest().to_string())
    }

    /// Whether a result with this seal counts: it is on disk, or was made in this boot.
    fn counts(&self, seal: &str) -> bool {
        let boot = seal.strip_prefix("boot ").and_then(|rest| rest.strip_suffix('\n'));
        seal == SETTLED || (boot.is_some() && boot == self.inner.boot.as_deref())
    }

    fn unsettled(&self) -> std::sync::MutexGuard<'_, Vec<PathBuf>> {
        self.inner.unsettled.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn remember_unsettled(&self, seal: PathBuf) {
        let mut seals = self.unsettled();
        if !seals.contains(&seal) {
            seals.push(seal);
        }
    }
}

/// The seal of a result that is on disk.
const SETTLED: &str = "settled\n";

/// The kernel's name of this boot (random(4)).
pub(super) fn boot_identity() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let identity = text.trim_end();
    (!identity.is_empty()).then(|| identity.to_owned())
}
