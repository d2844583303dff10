//! What was built here, on its way into the cache: beside the build, never in its way.
//!
//! A few threads of the lowest priority take one result or package after the other: files are packed, objects that the
//! cache lacks are written, then the signed entry. What fails is counted; after a few failures in a row the rest is
//! given up.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::entry::{Entry, Item, Packing};
use super::trouble::{Health, Trouble};
use super::{Inner, entry_name, locked, object_name, pack};
use crate::digest::Digest;
use crate::sign::SecretKey;
use crate::store::StageKey;

/// Things that are written at a time.
const WRITERS: usize = 4;
/// Failures in a row after which nothing more is tried.
const FAILURES: u32 = 3;
/// How long the end of a command waits for all that is left to be written.
const PATIENCE: Duration = Duration::from_secs(900);

/// The writing half of a cache.
pub(super) struct Uploads {
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    running: usize,
    written: u64,
    failed: u64,
    in_a_row: u32,
    /// Why the first failure.
    cause: Option<String>,
}

enum Job {
    Stage { name: &'static str, digest: Digest, content: PathBuf, scratch: PathBuf },
    Object { digest: Digest, path: PathBuf },
}

impl Uploads {
    /// Starts the threads. They end with the process, or when they have nothing to do after [`Uploads`] is gone.
    pub(super) fn start(inner: &Arc<Inner>, signer: &Arc<SecretKey>) -> Self {
        let queue = Arc::new(Queue::default());
        for _ in 0..WRITERS {
            let (inner, signer, queue) = (inner.clone(), signer.clone(), Arc::downgrade(&queue));
            let work = move || {
                crate::sys::yield_to_others();
                while let Some(queue) = queue.upgrade() {
                    queue.step(&inner, &signer);
                }
            };
            // Without threads nothing is written: the count at the end says so.
            let _ = std::thread::Builder::new().name("upload".to_owned()).spawn(work);
        }
        Self { queue }
    }

    pub(super) fn stage(&self, key: &StageKey, content: &Path, scratch: PathBuf) {
        let (name, digest) = (key.name(), key.digest());
        self.queue.add(Job::Stage { name, digest, content: content.to_owned(), scratch });
    }

    pub(super) fn object(&self, digest: Digest, path: &Path) {
        self.queue.add(Job::Object { digest, path: path.to_owned() });
    }

    /// Waits for what is left, and says what became of everything.
    pub(super) fn finish(&self, health: &Health) {
        let end = Instant::now() + PATIENCE;
        let mut state = locked(&self.queue.state);
        if !state.waiting.is_empty() {
            let left = state.waiting.len() + state.running;
            health.say(&format!("writing {left} results and packages to it"));
        }
        while !state.waiting.is_empty() || state.running > 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let wait = self.queue.changed.wait_timeout(state, left);
            state = wait.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        let failed = state.failed + (state.waiting.len() + state.running) as u64;
        let written = state.written;
        if failed > 0 {
            let cause = state.cause.clone().unwrap_or_else(|| "it took too long".to_owned());
            let all = failed + written;
            health.warn_of_uploads(&format!("{failed} of {all} results and packages were not written to it: {cause}"));
        } else if written > 0 {
            health.say(&format!("{written} results and packages were written to it"));
        }
    }
}

impl Queue {
    fn add(&self, job: Job) {
        locked(&self.state).waiting.push_back(job);
        self.changed.notify_all();
    }

    /// Does one job, or waits a moment for one.
    fn step(&self, inner: &Inner, signer: &SecretKey) {
        const MOMENT: Duration = Duration::from_millis(200);
        let mut state = locked(&self.state);
        let Some(job) = state.waiting.pop_front() else {
            drop(self.changed.wait_timeout(state, MOMENT));
            return;
        };
        state.running += 1;
        let given_up = state.in_a_row >= FAILURES || inner.health.is_off();
        drop(state);
        let result = (!given_up).then(|| job.run(inner, signer));
        let mut state = locked(&self.state);
        state.running -= 1;
        match result {
            Some(Ok(written)) => {
                state.written += u64::from(written);
                state.in_a_row = 0;
            }
            Some(Err(trouble)) => {
                state.failed += 1;
                state.in_a_row += 1;
                state.cause.get_or_insert(trouble.to_string());
            }
            None => {
                state.failed += 1;
                state.cause.get_or_insert("it does not answer".to_owned());
            }
        }
        drop(state);
        self.changed.notify_all();
    }
}

impl Job {
    /// `false`: it is not for sharing, or was there.
    fn run(self, inner: &Inner, signer: &SecretKey) -> Result<bool, Trouble> {
        match self {
            Self::Object { digest, path } => {
                let size = fs::metadata(&path).map_err(|source| Trouble::Local { path: path.clone(), source })?.len();
                write_object(inner, (size, digest), &path)
            }
            Self::Stage { name, digest, content, scratch } => {
                let result = write_stage(inner, signer, (name, digest), &content, &scratch);
                let _ = fs::remove_file(&scratch);
                result
            }
        }
    }
}

fn write_stage(
    inner: &Inner,
    signer: &SecretKey,
    (name, digest): (&str, Digest),
    content: &Path,
    scratch: &Path,
) -> Result<bool, Trouble> {
    let local = |source| Trouble::Local { path: content.to_owned(), source };
    let Some(listed) = pack::list(content).map_err(local)? else { return Ok(false) };
    let mut items = Vec::new();
    for (path, from, is_directory) in listed {
        if is_directory {
            items.push(Item::Directory { path });
            continue;
        }
        let item = pack::pack(path, &from, scratch).map_err(local)?;
        if let Item::File { packed, .. } = &item {
            let object = if packed.packing == Packing::Plain { from.as_path() } else { scratch };
            write_object(inner, (packed.size, packed.digest), object)?;
        }
        items.push(item);
    }
    let entry = Entry { stage: name.to_owned(), key: digest, items };
    let text = entry.sign(signer);
    inner.transfer()?.write(&entry_name(name, &digest, &signer.public().id()), text.into_bytes())?;
    Ok(true)
}

/// Writes an object that the cache lacks, or has with wrong bytes.
fn write_object(inner: &Inner, (size, digest): (u64, Digest), path: &Path) -> Result<bool, Trouble> {
    let name = object_name(&digest);
    if !locked(&inner.damaged).contains(&digest) && inner.transfer()?.has(&name, size)? {
        return Ok(false);
    }
    inner.transfer()?.upload(&name, path)?;
    Ok(true)
}
