//! What adamant keeps on disk between builds: fetched files by their digest, results of stages by their key.
//!
//! Flows in: bytes to keep, requests for files, keys of stages. Flows out: open files and directories.
//!
//! ```text
//! <store>/format                      "adamant store 1"
//!         objects/sha256/ab/cdef…     an object: the file whose SHA-256 is abcdef…, mode 0444
//!         partial/<digest>            what has arrived of a download; locked by who downloads it
//!         stages/<name>/<digest>/     a stage's result: content/ and seal
//!         locks/<name>-<digest>       held by who builds that stage
//!         sessions/…                  what living processes are writing, and the litter of dead ones
//!         trash/…                     what is being deleted
//!         quarantine/<digest>         objects whose bytes were found changed
//!         roots/<digest>              a lock whose objects are kept
//!         sessions.lock removal.lock  short-lived locks
//! ```
//!
//! Invariants
//! - An object or a stage result appears by one `rename(2)`, whole: at any moment a process may be killed, and another
//!   may look. What is unfinished lies in the process's session and is cleared away by who opens the store next.
//! - An object is on disk (`fdatasync(2)`) before it is named, so a power failure leaves it whole or absent. A stage
//!   result would cost too much to flush: its seal names the boot it was made in, and after another boot it
//!   counts only if [`Store::settle`] has flushed it since.
//! - Nothing depends on the umask.
//! - Any number of processes may use a store. Two that want the same file or stage share the work: the second waits.
//! - What a living process has used is not removed: see [`Store::collect`].
//!
//! The store knows no environment and no default place; the caller gives its directory ([`default_directory`]).

mod collect;
mod error;
pub mod fetch;
mod layout;
mod lock_file;
pub mod mirror;
mod object;
mod root;
mod session;
pub mod shared;
mod stage;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use self::layout::{Layout, LayoutError};
use self::session::Session;
use self::shared::Shared;

pub use self::collect::{Amount, Collected, Limits, Usage};
pub use self::error::StoreError;
pub use self::layout::default_directory;
pub use self::object::Damage;
pub use self::root::Root;
pub use self::stage::{StageKey, StageResult, Workspace};

/// An opened store. Clones share one session; it ends with the last of them.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    layout: Layout,
    session: Session,
    /// The kernel's name of this boot; `None` where it tells none.
    boot: Option<String>,
    /// Seals of this boot that `settle` is to make lasting.
    unsettled: Mutex<Vec<PathBuf>>,
    /// Asked for what is not here.
    shared: OnceLock<Shared>,
}

impl Store {
    /// Opens the store in `directory`, makes it if there is none, and clears away what killed processes left.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let failed = |source: std::io::Error| match StoreError::write(directory)(source) {
            StoreError::Write { path, source } => StoreError::Open { directory: path, source },
            full => full,
        };
        let layout = Layout::make(directory).map_err(|error| match error {
            LayoutError::Io(source) => failed(source),
            LayoutError::Format(found) => StoreError::Format { directory: directory.to_owned(), found },
        })?;
        let session = Session::begin(&layout).map_err(failed)?;
        let boot = stage::boot_identity();
        let (unsettled, shared) = (Mutex::default(), OnceLock::new());
        Ok(Self { inner: Arc::new(Inner { layout, session, boot, unsettled, shared }) })
    }

    /// The store's directory, absolute.
    pub fn directory(&self) -> &Path {
        self.inner.layout.root()
    }

    /// Where the objects lie: `ab/cdef…`. For reading only.
    pub fn objects_directory(&self) -> PathBuf {
        self.inner.layout.objects()
    }

    /// Deletes what could not be deleted so far, by `remove`: files of the user ids of a sandbox, for which an
    /// ordinary user needs that sandbox's user namespace. Gives the first failure, after having tried all.
    pub fn empty_trash(&self, remove: &dyn Fn(&Path) -> std::io::Result<()>) -> Result<(), StoreError> {
        let trash = self.inner.layout.trash();
        let mut first_failure = Ok(());
        for dead in session::entries(&trash).map_err(StoreError::read(&trash))? {
            if session::delete(&dead).is_err()
                && let Err(error) = remove(&dead)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                first_failure = first_failure.and(Err(StoreError::write(&dead)(error)));
            }
        }
        first_failure
    }

    fn layout(&self) -> &Layout {
        &self.inner.layout
    }
}
