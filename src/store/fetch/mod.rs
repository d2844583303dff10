//! Fetching files that are named by digest: from the store if it has them, else from a cache that
//! machines share, else from a mirror, in parallel.
//!
//! Flows in: [`Request`]s. Flows out: objects in the store, events for who watches.
//!
//! A download that breaks (or whose process is killed) goes on where it ended, over a range request, also from
//! another mirror. One that comes out wrong is begun anew once, past any cache, and is then an error: nothing with
//! another digest is ever kept. Faults that may pass (no connection, no data, 5xx) are tried again at growing
//! distances; a file that is not there (404, 410) or is another one is asked for at the snapshot archive, if there
//! is one. Of two processes that want a file, one fetches it.
//!
//! With [`Options::offline`] no connection is opened, not even a name looked up; `file:` mirrors are not read either.

mod error;
mod index_source;
mod partial;
mod retry;
mod source;
mod transfer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use reqwest::{Client, Url};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use self::transfer::{Batch, Job, Trouble};
use super::mirror::Mirrors;
use super::{Store, StoreError};
use crate::digest::Digest;
use crate::telemetry::{Event, Progress};

pub use self::error::{FetchError, TransportError};
pub use self::retry::Retry;

/// How often the progress of a transfer is reported.
const TICK: Duration = Duration::from_millis(100);

/// A file that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its SHA-256.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The repository that has it.
    pub repository: String,
    /// Its path in the repository, segments separated by `/`, nothing escaped.
    pub path: String,
    /// What to call it in messages: a package's name and version, say.
    pub label: String,
}

/// How to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Take everything from the store; what is not there is an error.
    pub offline: bool,
    /// Connections to one host at a time.
    pub connections_per_host: usize,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How long a server may send nothing.
    pub stall_timeout: Duration,
    /// Further attempts.
    pub retry: Retry,
    /// Whether to use the proxies that the environment names (`http_proxy`, `https_proxy`, `no_proxy`).
    pub proxy: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            offline: false,
            connections_per_host: 8, // as browsers do; mirrors bear it
            connect_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(30),
            retry: Retry::default(),
            proxy: true,
        }
    }
}

/// Fetches into one store from one set of mirrors. Its calls block; its threads are started when first needed.
pub struct Fetcher {
    store: Store,
    mirrors: Mirrors,
    options: Options,
    network: OnceLock<Network>,
    hosts: Mutex<BTreeMap<String, Arc<Semaphore>>>,
}

struct Network {
    runtime: Runtime,
    client: Client,
}

impl Fetcher {
    /// A fetcher that has touched nothing yet.
    pub fn new(store: Store, mirrors: Mirrors, options: Options) -> Self {
        Self { store, mirrors, options, network: OnceLock::new(), hosts: Mutex::default() }
    }

    /// The store that is fetched into.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Sees to it that the store has all the files, and gives their objects in the order of the requests.
    ///
    /// At the first error that concerns more than one file (no connection, a full disk) all transfers stop; files that
    /// the mirror does not have are named all together.
    pub fn fetch(&self, requests: &[Request], progress: &dyn Progress) -> Result<Vec<PathBuf>, FetchError> {
        let mut absent = self.absent(requests)?;
        if let Some(shared) = self.store.shared().filter(|_| !self.options.offline && !absent.is_empty()) {
            let wanted: Vec<(u64, Digest)> = absent.iter().map(|request| (request.size, request.digest)).collect();
            self.store.bring_objects(&wanted)?;
            absent = self.absent(&absent)?;
            self.bring(absent.clone(), progress)?;
            absent.iter().for_each(|one| shared.offer_object(one.digest, &self.store.object_path(&one.digest)));
        } else {
            self.bring(absent, progress)?;
        }
        Ok(requests.iter().map(|request| self.store.object_path(&request.digest)).collect())
    }

    /// What the store lacks, each once.
    fn absent(&self, requests: &[Request]) -> Result<Vec<Request>, StoreError> {
        let mut seen = BTreeSet::new();
        let mut absent = Vec::new();
        for request in requests {
            if seen.insert(request.digest) && !self.store.contains(&request.digest, request.size)? {
                absent.push(request.clone());
            }
        }
        Ok(absent)
    }

    /// A file's bytes, at most `limit`. With its digest and size known, it is kept in the store; without, it comes from
    /// the mirror each time and the caller must check it by other means.
    pub fn fetch_bytes(
        &self,
        repository: &str,
        path: &str,
        expected: Option<(Digest, u64)>,
        limit: u64,
    ) -> Result<Vec<u8>, FetchError> {
        let Some((digest, size)) = expected else { return self.read(repository, path, limit) };
        if size > limit {
            return Err(FetchError::TooLarge { url: path.to_owned(), limit });
        }
        let request =
            Request { digest, size, repository: repository.to_owned(), path: path.to_owned(), label: path.to_owned() };
        // An index of each day is nothing for a cache of packages.
        let silent = &crate::telemetry::Silent;
        self.bring(self.absent(std::slice::from_ref(&request))?, silent)?;
        match self.store.read_object(&digest, size) {
            // Moved aside now: fetched anew.
            Err(StoreError::Corrupt { .. }) => {
                self.bring(vec![request], silent)?;
                Ok(self.store.read_object(&digest, size)?)
            }
            result => Ok(result?),
        }
    }

    fn read(&self, repository: &str, path: &str, limit: u64) -> Result<Vec<u8>, FetchError> {
        if self.options.offline {
            return Err(FetchError::Offline { files: vec![path.to_owned()] });
        }
        let url = self.mirror_url(repository, path)?;
        let network = self.network()?;
        let (troubles, _) = mpsc::unbounded_channel();
        let batch = self.batch(network, troubles);
        network.runtime.block_on(batch.read(&url, limit))
    }

    fn bring(&self, mut absent: Vec<Request>, progress: &dyn Progress) -> Result<(), FetchError> {
        if absent.is_empty() {
            return Ok(());
        }
        if self.options.offline {
            return Err(FetchError::Offline { files: absent.into_iter().map(|request| request.label).collect() });
        }
        // The largest first: else the last file is a large one that comes alone.
        absent.sort_by_key(|request| std::cmp::Reverse(request.size));
        let (files, bytes) = (absent.len() as u64, absent.iter().map(|request| request.size).sum());
        let jobs = absent.into_iter().map(|request| self.job(request)).collect::<Result<Vec<_>, _>>()?;
        let network = self.network()?;
        let started = Instant::now();
        progress.event(&Event::TransferStarted { files, bytes });
        let result = network.runtime.block_on(self.run(network, jobs, progress));
        progress.event(&match result {
            Ok(()) => Event::TransferFinished { files, bytes, duration: started.elapsed() },
            Err(_) => Event::TransferFailed,
        });
        result
    }

    async fn run(&self, network: &Network, jobs: Vec<Job>, progress: &dyn Progress) -> Result<(), FetchError> {
        let (troubles, mut heard) = mpsc::unbounded_channel();
        let batch = Arc::new(self.batch(network, troubles));
        let mut transfers = JoinSet::new();
        for job in jobs {
            let batch = Arc::clone(&batch);
            transfers.spawn(async move { batch.bring(&job).await });
        }
        let mut ticks = tokio::time::interval(TICK);
        let mut missing = Vec::new();
        let mut told = Told::default();
        let mut files = 0;
        loop {
            tokio::select! {
                joined = transfers.join_next() => match joined {
                    None => break,
                    Some(Ok(Ok(()))) => files += 1,
                    Some(Ok(Err(FetchError::Missing { files }))) => missing.extend(files),
                    Some(Ok(Err(error))) => return Err(error), // dropping the set stops the other transfers
                    Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Some(Err(_)) => {}
                },
                _ = ticks.tick() => {
                    let bytes = batch.bytes.load(Ordering::Relaxed);
                    progress.event(&Event::TransferProgress { files, bytes });
                }
                Some(trouble) = heard.recv() => told.tell(&trouble, progress),
            }
        }
        missing.sort();
        if missing.is_empty() { Ok(()) } else { Err(FetchError::Missing { files: missing }) }
    }

    fn batch(&self, network: &Network, troubles: mpsc::UnboundedSender<Trouble>) -> Batch {
        Batch {
            store: self.store.clone(),
            options: self.options.clone(),
            client: network.client.clone(),
            bytes: AtomicU64::new(0),
            troubles,
        }
    }

    fn job(&self, request: Request) -> Result<Job, FetchError> {
        let mirror = self.mirror_url(&request.repository, &request.path)?;
        let host = mirror.host_str().unwrap_or_default().to_owned();
        let mut hosts = self.hosts.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let connections = self.options.connections_per_host.max(1);
        let host = Arc::clone(hosts.entry(host).or_insert_with(|| Arc::new(Semaphore::new(connections))));
        let mut urls = vec![mirror];
        if let Some(base) = self.mirrors.snapshot(&request.repository) {
            urls.extend(join(&base, &request.path));
        }
        Ok(Job { request, urls, host })
    }

    fn mirror_url(&self, repository: &str, path: &str) -> Result<Url, FetchError> {
        let Some(mirror) = self.mirrors.mirror(repository) else {
            return Err(FetchError::NoMirror { repository: repository.to_owned() });
        };
        join(&mirror.url, path)
            .ok_or_else(|| FetchError::Path { repository: repository.to_owned(), path: path.to_owned() })
    }

    fn network(&self) -> Result<&Network, FetchError> {
        if let Some(network) = self.network.get() {
            return Ok(network);
        }
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get()).min(4);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("fetch")
            .enable_all()
            .build()
            .map_err(|source| FetchError::Runtime { source })?;
        let client = source::client(&self.options)?;
        Ok(self.network.get_or_init(|| Network { runtime, client }))
    }
}

/// What was last told of troubles: connections to one host fail together, which is one thing to say and not eight.
#[derive(Default)]
struct Told {
    last: Option<(String, Instant)>,
}

impl Told {
    fn tell(&mut self, trouble: &Trouble, progress: &dyn Progress) {
        const AGAIN_AFTER: Duration = Duration::from_secs(5);
        let said = |(cause, when): &(String, Instant)| *cause == trouble.cause && when.elapsed() < AGAIN_AFTER;
        if !self.last.as_ref().is_some_and(said) {
            progress.event(&Event::Message(&format!("{}: {}; trying again", trouble.label, trouble.cause)));
            self.last = Some((trouble.cause.clone(), Instant::now()));
        }
    }
}

/// The address of a file under a base address that ends in `/`. `None` for a path that is empty or absolute, or has a
/// segment that is empty, `.` or `..`: such a path comes from an index that is broken or means harm.
fn join(base: &Url, path: &str) -> Option<Url> {
    let lost =
        |segment: &str| segment.is_empty() || segment == "." || segment == ".." || segment.contains(['\\', '\0']);
    if path.split('/').any(lost) {
        return None;
    }
    let mut url = base.clone();
    // Escapes what has a meaning in URLs: `%`, `?`, `#`.
    url.path_segments_mut().ok()?.pop_if_empty().extend(path.split('/'));
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_below_the_base_and_escaped() {
        let base = Url::parse("http://m.example/debian/").unwrap();
        let joined = |path| join(&base, path).map(|url| url.to_string());
        assert_eq!(
            joined("pool/main/g/g++/g++_4%3a14.2~1_amd64.deb?").as_deref(),
            Some("http://m.example/debian/pool/main/g/g++/g++_4%253a14.2~1_amd64.deb%3F")
        );
        for bad in ["", "/etc/passwd", "pool/../../x", "pool//x", "./x", "pool/", "a\\..\\b"] {
            assert_eq!(joined(bad), None, "{bad}");
        }
    }
}
