//! SIGINT, SIGTERM and SIGHUP: what must not stay behind is removed, then the process ends with 128 + the signal's number.
//!
//! In: [`catch`] once, at the start; [`Leftover`]s while something unfinished lies where users look. Out: nothing. A
//! second signal ends the process at once. What lies in the store needs no removal: whoever opens it next sees to that.
//!
//! Invariant: a leftover is removed by this module or by its owner, never by both at a time: see [`Leftover::keep_while`].

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::fd::IntoRawFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use crate::sys;

static LEFTOVERS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// How often a directory is tried to be removed while threads of this process may still make files in it.
const ATTEMPTS: usize = 100;

/// A file or directory that an interrupt removes, as long as this value lives.
#[derive(Debug)]
pub struct Leftover {
    path: PathBuf,
}

impl Leftover {
    /// Registers the path; nothing need be there yet.
    pub fn new(path: PathBuf) -> Self {
        leftovers().insert(path.clone());
        Self { path }
    }

    /// Does `work`, which moves or removes it, while no interrupt does.
    pub fn keep_while<T>(&self, work: impl FnOnce() -> T) -> T {
        let _held = leftovers();
        work()
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        leftovers().remove(&self.path);
    }
}

fn leftovers() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    LEFTOVERS.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// From now on these signals end the process as described above, but for those that are ignored.
pub fn catch() -> io::Result<()> {
    let (mut reader, writer) = io::pipe()?;
    // Not in the signal handler: there, hardly anything is allowed.
    std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        let mut signal = [0];
        if reader.read_exact(&mut signal).is_ok() {
            let left = leftovers();
            for path in left.iter() {
                // Other threads go on until the end, and may make a file in what is being removed.
                let _ = fs::remove_file(path);
                let _ = (0..ATTEMPTS).find(|_| !path.exists() || fs::remove_dir_all(path).is_ok());
            }
            sys::end(128 + i32::from(signal[0]));
        }
    })?;
    sys::tell_interrupts(writer.into_raw_fd());
    Ok(())
}

/// Returns if there was no interrupt; otherwise waits for the end. To be called before the process ends by itself: what
/// an interrupt did to its children must not be told as a failure.
pub fn wait_if_interrupted() {
    while sys::was_interrupted() {
        std::thread::park();
    }
}
