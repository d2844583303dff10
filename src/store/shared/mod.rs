//! A cache that several machines share: what one has fetched or built, the others need not.
//!
//! Flows in: a [`Bucket`], the keys that are believed, perhaps a key to sign with. Flows out: objects and results of
//! stages, into the store; and from the store into the cache.
//!
//! ```text
//! <address>/objects/sha256/ab/cdef…            an object: the bytes whose SHA-256 is abcdef…
//!           stages/<name>/<digest>/<key's id>  a stage's result, as the holder of that key made it: see `entry`
//! ```
//!
//! Packages are objects, by the digest that the lock has. A result's files are objects too, packed (see `pack`); its
//! entry names them and is signed, and is written last.
//!
//! Invariants
//! - What comes from a cache is believed as far as it can be checked: an object by its digest, which is known before
//!   it is asked for; a result if a listed key signed that it is the result of exactly this stage and these inputs.
//!   Nothing else ever enters the store.
//! - A cache is a convenience. Whatever it does (fail, stall, crawl, lie), the command goes on as if there were none;
//!   the user is told once (see `trouble`).
//! - Reading needs no permission to write. Nothing is written without a key to sign with, and nothing is signed but
//!   what was built here.

pub mod entry;
mod pack;
mod transfer;
mod trouble;
mod upload;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use self::entry::{ENTRY_MAX, Entry, Item};
use self::transfer::{PATIENCE, Transfer};
use self::trouble::{Health, Trouble};
use self::upload::Uploads;
use super::{StageKey, Store, StoreError};
use crate::bucket::{Address, Bucket};
use crate::digest::Digest;
use crate::sign::{KeyId, PublicKey, SecretKey};
use crate::telemetry::{Progress, human_bytes};

/// Things that are asked for at a time: what a request takes is mostly waiting.
const AT_ONCE: usize = 16;

/// Bytes of one result that take long enough to be told of.
const TOLD: u64 = 50_000_000;

/// A cache in use.
pub struct Shared {
    inner: Arc<Inner>,
    signer: Option<Arc<SecretKey>>,
    /// Begun with the first thing to be written.
    uploads: OnceLock<Uploads>,
}

/// What downloads and uploads have in common.
struct Inner {
    address: Address,
    /// Opened with the first question; `None`: it cannot be.
    transfer: OnceLock<Option<Transfer>>,
    health: Health,
    keys: Vec<PublicKey>,
    /// Results that were looked for and not found: not asked for again by this command.
    absent: Mutex<BTreeSet<(&'static str, Digest)>>,
    /// Objects whose bytes were wrong: to be written anew by who can.
    damaged: Mutex<BTreeSet<Digest>>,
    said_no_keys: AtomicBool,
    stages: AtomicU64,
    objects: AtomicU64,
}

/// What came from a cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Brought {
    /// Results of stages.
    pub stages: u64,
    /// Packages.
    pub objects: u64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("keys", &self.inner.keys).finish_non_exhaustive()
    }
}

impl Shared {
    /// The cache at `address`, which is not looked at before something is asked of it. Results are believed that one of
    /// `keys`, or `signer`, signed; with a signer, what is built or fetched is written to the cache.
    pub fn new(
        address: Address,
        mut keys: Vec<PublicKey>,
        signer: Option<SecretKey>,
        progress: Arc<dyn Progress>,
    ) -> Self {
        keys.extend(signer.as_ref().map(SecretKey::public));
        if let (Some(_), Address::Directory(path)) = (&signer, &address) {
            // What is wrong with it is told when it is opened.
            let _ = fs::create_dir_all(path);
        }
        let inner = Arc::new(Inner {
            health: Health::new(address.to_string(), progress),
            address,
            transfer: OnceLock::new(),
            keys,
            absent: Mutex::default(),
            damaged: Mutex::default(),
            said_no_keys: AtomicBool::new(false),
            stages: AtomicU64::new(0),
            objects: AtomicU64::new(0),
        });
        Self { inner, signer: signer.map(Arc::new), uploads: OnceLock::new() }
    }

    /// What came from the cache so far.
    pub fn brought(&self) -> Brought {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Brought { stages: count(&self.inner.stages), objects: count(&self.inner.objects) }
    }

    /// Waits until what was built has been written to the cache, or cannot be; says what came and what went.
    pub fn finish(&self) {
        let Brought { stages, objects } = self.brought();
        if stages + objects > 0 {
            self.inner.health.say(&format!("{stages} results of stages and {objects} packages came from it"));
        }
        if let Some(uploads) = self.uploads.get() {
            uploads.finish(&self.inner.health);
        }
    }

    /// Fills `directory` with a stage's result; `false`: it must be built.
    fn bring_stage(&self, key: &StageKey, directory: &Path, scratch: &Path) -> bool {
        let name = (key.name(), key.digest());
        if key.is_local() || self.inner.health.is_off() || locked(&self.inner.absent).contains(&name) {
            return false;
        }
        if self.inner.keys.is_empty() {
            if !self.inner.said_no_keys.swap(true, Ordering::Relaxed) {
                let health = &self.inner.health;
                health.say("results of stages are not used, for no key is listed that signs them (--cache-key)");
            }
            return false;
        }
        let result = self.inner.fill(name, directory, scratch);
        let found = result.unwrap_or_else(|trouble| {
            self.inner.health.note(&trouble);
            false
        });
        match found {
            true => drop(self.inner.stages.fetch_add(1, Ordering::Relaxed)),
            false => drop(locked(&self.inner.absent).insert(name)),
        }
        found
    }

    /// Writes an object into the new file `target`; `false`: it must come from elsewhere.
    fn bring_object(&self, size: u64, digest: Digest, target: &Path) -> bool {
        if self.inner.health.is_off() {
            return false;
        }
        let found = self.inner.object((size, digest), target).unwrap_or_else(|trouble| {
            self.inner.health.note(&trouble);
            false
        });
        self.inner.objects.fetch_add(u64::from(found), Ordering::Relaxed);
        found
    }

    /// Writes a result that was built here to the cache, some time.
    pub(super) fn offer_stage(&self, key: &StageKey, content: &Path, scratch: std::path::PathBuf) {
        if let Some(uploads) = self.uploads().filter(|_| !key.is_local()) {
            uploads.stage(key, content, scratch);
        }
    }

    /// Writes an object that was fetched to the cache, some time.
    pub(super) fn offer_object(&self, digest: Digest, path: &Path) {
        if let Some(uploads) = self.uploads() {
            uploads.object(digest, path);
        }
    }

    fn uploads(&self) -> Option<&Uploads> {
        let signer = self.signer.as_ref()?;
        Some(self.uploads.get_or_init(|| Uploads::start(&self.inner, signer)))
    }
}

impl Inner {
    fn transfer(&self) -> Result<&Transfer, Trouble> {
        let open = || -> Result<Transfer, Trouble> {
            let bucket = Bucket::open(&self.address, &PATIENCE).map_err(Trouble::Open)?;
            Transfer::new(bucket).map_err(Trouble::Threads)
        };
        let transfer = self.transfer.get_or_init(|| open().inspect_err(|trouble| self.health.note(trouble)).ok());
        transfer.as_ref().ok_or(Trouble::Off)
    }

    /// Fills the directory with what the first listed key that has an entry says.
    fn fill(&self, (stage, digest): (&str, Digest), directory: &Path, scratch: &Path) -> Result<bool, Trouble> {
        for key in &self.keys {
            let name = entry_name(stage, &digest, &key.id());
            let Some(bytes) = self.transfer()?.read(&name, ENTRY_MAX)? else { continue };
            let read = Entry::read(&bytes, stage, &digest, &self.keys);
            let entry = read.map_err(|source| Trouble::Entry { name, source })?;
            let result = self.unpack(&entry, directory, scratch);
            if let Err(Trouble::Other { .. }) = &result {
                // The others were not looked at: whoever writes this result again writes them too.
                let files = entry.items.iter().filter_map(|item| match item {
                    Item::File { packed, .. } => Some(packed.digest),
                    Item::Directory { .. } => None,
                });
                locked(&self.damaged).extend(files);
            }
            return result;
        }
        Ok(false)
    }

    fn unpack(&self, entry: &Entry, directory: &Path, scratch: &Path) -> Result<bool, Trouble> {
        let packed = |item: &Item| if let Item::File { packed, .. } = item { packed.size } else { 0 };
        let bytes: u64 = entry.items.iter().map(packed).sum();
        if bytes > TOLD {
            self.health.say(&format!("fetching {} of {}", human_bytes(bytes), entry.stage));
        }
        for item in &entry.items {
            let target = directory.join(item.path());
            let local = |source| Trouble::Local { path: target.clone(), source };
            let Item::File { size, digest, packed, .. } = item else {
                super::layout::make_directory(&target, 0o755).map_err(local)?;
                continue;
            };
            if !self.object((packed.size, packed.digest), scratch)? {
                return Ok(false); // by a lifecycle rule, say
            }
            let whole = pack::unpack(scratch, packed.packing, &target, (*size, *digest)).map_err(local)?;
            fs::remove_file(scratch).map_err(local)?;
            if !whole {
                let why = "it does not hold the file that its signer says";
                return Err(Trouble::Other { name: object_name(&packed.digest), why });
            }
        }
        Ok(true)
    }

    fn object(&self, (size, digest): (u64, Digest), target: &Path) -> Result<bool, Trouble> {
        let result = self.transfer()?.download(&object_name(&digest), target, (size, digest));
        if let Err(trouble) = &result {
            let _ = fs::remove_file(target);
            if matches!(trouble, Trouble::Other { .. }) {
                locked(&self.damaged).insert(digest);
            }
        }
        result
    }
}

impl Store {
    /// Uses `shared` for what this store lacks. The first one stays.
    pub fn share(&self, shared: Shared) {
        let _ = self.inner.shared.set(shared);
    }

    /// The cache in use.
    pub fn shared(&self) -> Option<&Shared> {
        self.inner.shared.get()
    }

    /// Brings results that this store lacks from the cache, several at a time: the many small ones of a stage would
    /// otherwise wait for one another's answers.
    pub fn bring_stages(&self, keys: &[StageKey]) -> Result<(), StoreError> {
        if self.shared().is_none() {
            return Ok(());
        }
        at_once(keys, |key| match self.stage(key)? {
            Some(_) => Ok(()),
            None => self.locking_stage(key, || self.find_stage(key).map(drop)),
        })
    }

    /// A result of the store, else of the cache. The caller has locked it.
    pub(super) fn find_stage(&self, key: &StageKey) -> Result<Option<std::path::PathBuf>, StoreError> {
        match self.stage(key)? {
            Some(path) => Ok(Some(path)),
            None => self.bring_stage(key),
        }
    }

    /// A result from the cache, published.
    fn bring_stage(&self, key: &StageKey) -> Result<Option<std::path::PathBuf>, StoreError> {
        let Some(shared) = self.shared().filter(|shared| !shared.inner.health.is_off()) else { return Ok(None) };
        let workspace = self.workspace()?;
        match shared.bring_stage(key, &workspace.path(), &self.inner.session.fresh_path()) {
            true => self.publish_stage(key, workspace).map(Some),
            false => Ok(None),
        }
    }

    /// Brings objects that this store lacks, by size and digest, from the cache; those that it has not are not there
    /// afterwards either.
    pub fn bring_objects(&self, wanted: &[(u64, Digest)]) -> Result<(), StoreError> {
        let Some(shared) = self.shared() else { return Ok(()) };
        at_once(wanted, |(size, digest)| {
            let path = self.inner.session.fresh_path();
            if !shared.bring_object(*size, *digest, &path) {
                return Ok(());
            }
            let file = fs::File::options().read(true).write(true).open(&path).map_err(StoreError::read(&path))?;
            self.publish_object(&file, &path, digest)
        })
    }
}

/// Does `work` to each item, [`AT_ONCE`] at a time; the first error, after which nothing is begun.
fn at_once<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<(), StoreError> + Sync) -> Result<(), StoreError> {
    let next = AtomicUsize::new(0);
    let run = || -> Result<(), StoreError> {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(item).inspect_err(|_| next.store(items.len(), Ordering::Relaxed))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE.min(items.len())).map(|_| scope.spawn(run)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

/// Where an object lies, below the address.
fn object_name(digest: &Digest) -> String {
    let text = digest.to_string();
    format!("objects/sha256/{}/{}", &text[..2], &text[2..])
}

/// Where the entry of a stage's result by a key lies, below the address.
fn entry_name(stage: &str, digest: &Digest, key: &KeyId) -> String {
    format!("stages/{stage}/{digest}/{key}")
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
