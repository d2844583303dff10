//! What goes wrong with a cache, and what becomes of it: the build goes on without, and its user is told once.
//!
//! | trouble | the cache afterwards |
//! |---|---|
//! | not there, no connection, no answer, answers of 5xx, too slow | turned off until the command ends |
//! | other bytes than promised, a signature that does not hold, a refusal (403) of one object | used on, this one not |
//!
//! The first trouble of either sort is a warning; the rest is not told.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::entry::EntryError;
use crate::bucket::BucketError;
use crate::telemetry::{Event, Progress};

/// Why something was not had from a cache, or not given to it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// It is not there, or its settings do not do.
    #[error("{}", told(.0))]
    Open(#[source] BucketError),
    /// This machine refuses threads.
    #[error("cannot start threads: {0}")]
    Threads(#[source] std::io::Error),
    /// What was told before: it cannot be used.
    #[error("it cannot be used")]
    Off,
    /// Nothing came.
    #[error("no answer within {} s", .0.as_secs_f32())]
    Silent(Duration),
    /// Too little came.
    #[error("slower than {} kB/s", .0 / 1000)]
    Slow(u64),
    /// What the object store, or the way there, says.
    #[error("{}", cause(.0))]
    Remote(#[source] object_store::Error),
    /// Other bytes.
    #[error("{name} is not what it should be: {why}")]
    Other {
        /// The object.
        name: String,
        /// Size or digest.
        why: &'static str,
    },
    /// An entry that is not believed.
    #[error("{name} is not believed: {source}")]
    Entry {
        /// The entry.
        name: String,
        /// Why.
        source: EntryError,
    },
    /// This machine's disk.
    #[error("cannot write {}: {source}", .path.display())]
    Local {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Trouble {
    /// Whether it concerns everything in the cache.
    fn is_general(&self) -> bool {
        match self {
            Self::Open(_) | Self::Threads(_) | Self::Off | Self::Silent(_) | Self::Slow(_) => true,
            // Who may read but not list is told 403 of what is not there.
            Self::Remote(object_store::Error::PermissionDenied { .. }) => false,
            Self::Remote(_) => true,
            Self::Other { .. } | Self::Entry { .. } | Self::Local { .. } => false,
        }
    }
}

/// An error and its cause.
fn told(error: &BucketError) -> String {
    match error {
        BucketError::Directory { source, .. } => format!("{error}: {source}"),
        BucketError::Settings { source, .. } => format!("{error}: {}", cause(source)),
    }
}

/// The last cause, in one line: what stands before it repeats addresses, and may show a token in one.
fn cause(error: &object_store::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(next) = last.source() {
        last = next;
    }
    let refused = matches!(error, object_store::Error::PermissionDenied { .. });
    let hint = if refused { " (reading needs the permissions to get objects and to list the bucket)" } else { "" };
    let line: String = last.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    line + hint
}

/// Whether a cache is still of use, and what was told of it.
pub(super) struct Health {
    address: String,
    progress: Arc<dyn Progress>,
    off: AtomicBool,
    told: AtomicBool,
}

impl Health {
    pub(super) fn new(address: String, progress: Arc<dyn Progress>) -> Self {
        let (off, told) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { address, progress, off, told }
    }

    /// Whether nothing is to be asked of it any more.
    pub(super) fn is_off(&self) -> bool {
        self.off.load(Ordering::Relaxed)
    }

    /// Takes note of a trouble in reading.
    pub(super) fn note(&self, trouble: &Trouble) {
        let what_now = match trouble.is_general() {
            true => {
                self.off.store(true, Ordering::Relaxed);
                "it is not used any more by this command"
            }
            false => "what could not be taken is fetched or built here",
        };
        self.warn(&format!("{trouble}; {what_now}"));
    }

    /// Warns, unless it was warned before.
    pub(super) fn warn(&self, text: &str) {
        if !self.told.swap(true, Ordering::Relaxed) {
            self.progress.event(&Event::Warning(&format!("the cache {}: {text}", self.address)));
        }
    }

    /// Warns of what was not written, once at the end, whatever was told of reading.
    pub(super) fn warn_of_uploads(&self, text: &str) {
        self.progress.event(&Event::Warning(&format!("the cache {}: {text}", self.address)));
    }

    /// Says something about the cache.
    pub(super) fn say(&self, text: &str) {
        self.progress.event(&Event::Message(&format!("the cache {}: {text}", self.address)));
    }
}

/// How fast everything together comes: one slow file among many is no slow cache.
#[derive(Default)]
pub(super) struct Pace {
    active: Mutex<Active>,
    bytes: AtomicU64,
}

#[derive(Default)]
struct Active {
    downloads: usize,
    since: Option<Instant>,
}

/// A download that counts in a [`Pace`] while it lives.
pub(super) struct Running<'a>(&'a Pace);

impl Pace {
    /// How long anything may take.
    const GRACE: Duration = Duration::from_secs(10);
    /// Bytes each second, after that: any mirror is faster.
    const SLOWEST: u64 = 100_000;

    pub(super) fn begin(&self) -> Running<'_> {
        let mut active = self.active.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if active.downloads == 0 {
            active.since = Some(Instant::now());
            self.bytes.store(0, Ordering::Relaxed);
        }
        active.downloads += 1;
        Running(self)
    }
}

impl Running<'_> {
    /// Takes note of bytes that came.
    pub(super) fn came(&self, bytes: u64) -> Result<(), Trouble> {
        let all = self.0.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let active = self.0.active.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let elapsed = active.since.map(|since| since.elapsed()).unwrap_or_default();
        match elapsed > Pace::GRACE && all < Pace::SLOWEST * elapsed.as_secs() {
            true => Err(Trouble::Slow(Pace::SLOWEST)),
            false => Ok(()),
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.active.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).downloads -= 1;
    }
}
