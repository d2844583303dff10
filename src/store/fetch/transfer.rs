//! One file, from its mirror into the store: claimed, resumed, retried, checked, published.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::{Client, Url};
use tokio::sync::{Semaphore, mpsc};

use super::super::{Store, StoreError};
use super::error::{FetchError, TransportError};
use super::partial::{Claim, Partial};
use super::retry::jitter;
use super::source::{Failure, Source, shown};
use super::{Options, Request};

/// How long to wait before looking again at a file that another process fetches.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// What the transfers of one batch share.
pub(super) struct Batch {
    pub(super) store: Store,
    pub(super) options: Options,
    pub(super) client: Client,
    /// Bytes that have arrived, of all files.
    pub(super) bytes: AtomicU64,
    /// Where to tell of what is tried again.
    pub(super) troubles: mpsc::UnboundedSender<Trouble>,
}

/// An attempt failed, not for the first time; another follows.
pub(super) struct Trouble {
    /// The file.
    pub(super) label: String,
    /// What went wrong.
    pub(super) cause: String,
}

/// One file and where to look for it: the mirror, then the snapshot archive.
pub(super) struct Job {
    pub(super) request: Request,
    pub(super) urls: Vec<Url>,
    /// The connections to the mirror's host.
    pub(super) host: Arc<Semaphore>,
}

impl Batch {
    /// Brings the file into the store. `Err(Missing)` names the file's first address.
    pub(super) async fn bring(&self, job: &Job) -> Result<(), FetchError> {
        let Request { digest, size, .. } = job.request;
        loop {
            // The connection first, the lock second: else a batch would hold as many open files as it has requests.
            // A semaphore that nobody closes always gives a permit.
            let _connection = job.host.acquire().await;
            match Partial::claim(&self.store, digest, size)? {
                Claim::Mine(partial) => return self.fill(job, *partial).await,
                Claim::Busy => {}
                Claim::Done => {
                    self.bytes.fetch_add(size, Ordering::Relaxed);
                    return Ok(());
                }
            }
            drop(_connection);
            tokio::time::sleep(BUSY_PAUSE).await;
        }
    }

    async fn fill(&self, job: &Job, mut partial: Partial) -> Result<(), FetchError> {
        self.bytes.fetch_add(partial.length(), Ordering::Relaxed);
        let mut refusal = None;
        for url in &job.urls {
            match self.fill_from(url, &job.request, &mut partial).await {
                Ok(()) => return self.publish(partial).await,
                // The snapshot archive may have what the mirror has lost or replaced. What the mirror said is reported.
                Err(error @ (FetchError::Missing { .. } | FetchError::Digest { .. } | FetchError::Size { .. })) => {
                    refusal.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        partial.abandon()?;
        Err(refusal.unwrap_or(FetchError::NoMirror { repository: job.request.repository.clone() }))
    }

    async fn publish(&self, partial: Partial) -> Result<(), FetchError> {
        let store = self.store.clone();
        // Flushing to disk takes its time; the connections' threads have better things to do.
        match tokio::task::spawn_blocking(move || partial.publish(&store)).await {
            Ok(result) => Ok(result?),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Ok(()), // cancelled: the batch has failed otherwise, nobody asks for this result
        }
    }

    /// Completes the partial file from one address, and checks it.
    async fn fill_from(&self, url: &Url, request: &Request, partial: &mut Partial) -> Result<(), FetchError> {
        let mut failures = 0;
        let mut fresh = false;
        loop {
            let before = partial.length();
            let failure = match self.attempt(url, request, partial, fresh).await {
                Ok(()) if partial.found() == request.digest => return Ok(()),
                Ok(()) => {
                    let found = partial.found();
                    self.restart(partial)?;
                    if fresh {
                        return Err(FetchError::Digest { url: shown(url), expected: request.digest, found });
                    }
                    // What was kept from earlier was wrong, or a cache on the way is: once more, from the start.
                    fresh = true;
                    continue;
                }
                Err(failure) => failure,
            };
            let (cause, pause) = match failure {
                Failure::Missing => return Err(FetchError::Missing { files: vec![shown(url)] }),
                Failure::Lasting(error @ FetchError::Size { .. }) => {
                    self.restart(partial)?;
                    return Err(error);
                }
                Failure::Lasting(error) => return Err(error),
                Failure::Range if partial.length() > 0 => {
                    self.restart(partial)?;
                    continue;
                }
                Failure::Range => (TransportError::Status("with a part that was not asked for".to_owned()), None),
                Failure::Passing(cause, pause) => (cause, pause),
            };
            failures = if partial.length() > before { 1 } else { failures + 1 };
            let Some(delay) = self.options.retry.delay(failures, jitter(), pause) else {
                return Err(FetchError::Transport { url: shown(url), attempts: failures, source: cause });
            };
            if failures > 1 {
                let trouble = Trouble { label: request.label.clone(), cause: cause.root_cause() };
                let _ = self.troubles.send(trouble); // nobody listens to a batch that has failed
            }
            tokio::time::sleep(delay).await;
        }
    }

    /// Reads from where the partial file ends until it has its size.
    async fn attempt(&self, url: &Url, request: &Request, partial: &mut Partial, fresh: bool) -> Result<(), Failure> {
        let expected = request.size;
        if partial.length() == expected && expected > 0 {
            return Ok(());
        }
        let wrong_size = |found| Failure::Lasting(FetchError::Size { url: shown(url), expected, found });
        let mut source = Source::open(&self.client, &self.options, url, partial.length(), fresh).await?;
        if let Some(size) = source.size.filter(|size| *size != expected) {
            return Err(wrong_size(size));
        }
        if source.offset != partial.length() {
            self.restart(partial).map_err(lasting)?;
        }
        loop {
            let bytes = source.next().await?;
            let length = partial.length() + bytes.len() as u64;
            if length > expected {
                return Err(wrong_size(length));
            }
            if bytes.is_empty() {
                let found = partial.length();
                let truncated = || Failure::Passing(TransportError::Truncated { expected, found }, None);
                return if found == expected { Ok(()) } else { Err(truncated()) };
            }
            partial.append(&bytes).map_err(lasting)?;
            self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
    }

    fn restart(&self, partial: &mut Partial) -> Result<(), StoreError> {
        self.bytes.fetch_sub(partial.length(), Ordering::Relaxed);
        partial.restart()
    }

    /// A file of unknown digest, in memory: the beginning of a chain of trust, to be checked by its signature.
    pub(super) async fn read(&self, url: &Url, limit: u64) -> Result<Vec<u8>, FetchError> {
        let mut failures = 0;
        loop {
            let (cause, pause) = match self.read_once(url, limit).await {
                Ok(bytes) => return Ok(bytes),
                Err(Failure::Missing) => return Err(FetchError::Missing { files: vec![shown(url)] }),
                Err(Failure::Lasting(error)) => return Err(error),
                Err(Failure::Range) => (TransportError::Status("with a part that was not asked for".to_owned()), None),
                Err(Failure::Passing(cause, pause)) => (cause, pause),
            };
            failures += 1;
            match self.options.retry.delay(failures, jitter(), pause) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(FetchError::Transport { url: shown(url), attempts: failures, source: cause }),
            }
        }
    }

    async fn read_once(&self, url: &Url, limit: u64) -> Result<Vec<u8>, Failure> {
        let mut source = Source::open(&self.client, &self.options, url, 0, true).await?;
        let mut bytes = Vec::new();
        loop {
            let next = source.next().await?;
            if next.is_empty() {
                break;
            }
            if bytes.len() as u64 + next.len() as u64 > limit {
                return Err(Failure::Lasting(FetchError::TooLarge { url: shown(url), limit }));
            }
            bytes.extend_from_slice(&next);
        }
        match source.size {
            Some(expected) if expected != bytes.len() as u64 => {
                let found = bytes.len() as u64;
                Err(Failure::Passing(TransportError::Truncated { expected, found }, None))
            }
            _ => Ok(bytes),
        }
    }
}

fn lasting(error: StoreError) -> Failure {
    Failure::Lasting(error.into())
}
