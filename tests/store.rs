//! The store: fetching through faults, sharing between processes, surviving `kill -9`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use adamant::apt::{self, FileIdentity, IndexSource};
use adamant::digest::Digest;
use adamant::store::fetch::{FetchError, Fetcher, Options, Request, Retry, TransportError};
use adamant::store::mirror::{Mirrors, Origin};
use adamant::store::{Amount, Damage, Limits, StageKey, Store, StoreError};
use adamant::telemetry::{Event, Progress, Silent};
use proptest::prelude::*;

use crate::support::http::{Fault, Server};

mod fetch;
mod objects;
mod processes;
mod room;
mod stages;
mod tls;

/// A directory that is served, a store, and what is in them.
struct Bench {
    directory: tempfile::TempDir,
    server: Server,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("served")).unwrap();
        let server = Server::serve(&directory.path().join("served"));
        Self { directory, server }
    }

    fn served(&self) -> PathBuf {
        self.directory.path().join("served")
    }

    /// Serves a file of pseudo-random bytes; gives a request for it.
    fn file(&self, path: &str, size: usize) -> Request {
        let bytes = content(path, size);
        let target = self.served().join(path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(target, &bytes).unwrap();
        request(path, &bytes)
    }

    fn store_path(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn store(&self) -> Store {
        Store::open(&self.store_path()).unwrap()
    }

    fn mirrors(&self) -> Mirrors {
        Mirrors::from_values(&[format!("debian={}", self.server.url())], Origin::Argument).unwrap()
    }

    fn fetcher(&self) -> Fetcher {
        Fetcher::new(self.store(), self.mirrors(), hasty())
    }

    fn fetch(&self, request: &Request) -> Result<Vec<u8>, FetchError> {
        let paths = self.fetcher().fetch(std::slice::from_ref(request), &Silent)?;
        Ok(std::fs::read(&paths[0]).unwrap())
    }

    /// Puts bytes where a killed process would have left what had arrived of a file.
    fn leave_partial(&self, request: &Request, bytes: &[u8]) {
        drop(self.store());
        std::fs::write(self.partial(request), bytes).unwrap();
    }

    fn partial(&self, request: &Request) -> PathBuf {
        self.store_path().join("partial").join(request.digest.to_string())
    }
}

/// Options that do not let a test wait.
fn hasty() -> Options {
    Options {
        stall_timeout: Duration::from_millis(1500),
        connect_timeout: Duration::from_secs(5),
        retry: Retry { attempts: 3, first_delay: Duration::from_millis(2), longest_delay: Duration::from_millis(20) },
        proxy: false,
        ..Options::default()
    }
}

fn content(seed: &str, size: usize) -> Vec<u8> {
    let mut state = u64::from_le_bytes(Digest::of(seed.as_bytes()).as_bytes()[..8].try_into().unwrap()) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..size).map(|_| next()).collect()
}

fn request(path: &str, bytes: &[u8]) -> Request {
    Request {
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        repository: "debian".to_owned(),
        path: path.to_owned(),
        label: path.to_owned(),
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The error and its causes, as a user sees them.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Changes a bit in the middle of a file.
fn corrupt(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn key(input: &str) -> StageKey {
    StageKey::new("test").with("input", input.as_bytes())
}

fn write_result(text: &'static str) -> impl Fn(&Path) -> Result<(), StoreError> {
    move |directory| {
        std::fs::write(directory.join("result"), text).unwrap();
        Ok(())
    }
}
