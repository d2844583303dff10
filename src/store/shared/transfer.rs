//! Bytes between a bucket and this machine: bounded in size and time, compared with what was promised.

use std::fs::File;
use std::future::Future;
use std::io::{Read, Write};
use std::path::Path as FilePath;
use std::time::Duration;

use futures_util::StreamExt;
use object_store::{GetResult, ObjectStoreExt, PutPayload, WriteMultipart};
use tokio::runtime::{Handle, Runtime};

use super::trouble::{Pace, Trouble};
use crate::bucket::{Bucket, Patience};
use crate::digest::{Digest, Hasher};

/// For a cache: what takes longer than this is sooner built.
pub(super) const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(3),
    // Of a disk image on a thin line; what stalls or crawls is given up sooner, below.
    request: Duration::from_secs(3600),
    repeats: 2,
    repeats_within: Duration::from_secs(4),
};

/// How long an answer may take to begin, its repetitions included, and how long a small one may take to end.
const ANSWER: Duration = Duration::from_secs(6);
/// How long nothing may come in the midst of one.
const STALL: Duration = Duration::from_secs(6);
/// How long a part of an upload may take.
const PART: Duration = Duration::from_secs(60);
/// Files up to this size are sent in one piece; S3 takes parts of 5 MiB or more.
const PART_BYTES: usize = 8 << 20;
/// Parts of a file on their way at a time: they are in memory.
const PARTS_AT_ONCE: usize = 2;

/// A bucket with a runtime for its requests. Every call blocks.
pub(super) struct Transfer {
    bucket: Bucket,
    /// Its threads drive the requests.
    handle: Handle,
    runtime: Option<Runtime>,
    pace: Pace,
}

impl Drop for Transfer {
    /// Waits for nothing: a name that is still being looked up, or a mount that hangs, would hold the command up.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Transfer {
    pub(super) fn new(bucket: Bucket) -> std::io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("cache").enable_all().build()?;
        let handle = runtime.handle().clone();
        Ok(Self { bucket, handle, runtime: Some(runtime), pace: Pace::default() })
    }

    /// A small object's bytes; `None` if there is none of that name.
    pub(super) fn read(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, Trouble> {
        self.handle.block_on(async {
            let Some(answer) = self.ask(name).await? else { return Ok(None) };
            let mut bytes = Vec::new();
            if answer.meta.size > limit as u64 {
                return Err(other(name, "it is too large"));
            }
            let mut stream = answer.into_stream();
            let body = async {
                while let Some(piece) = stream.next().await {
                    let piece = piece.map_err(Trouble::Remote)?;
                    if bytes.len() + piece.len() > limit {
                        return Err(other(name, "it is too large"));
                    }
                    bytes.extend_from_slice(&piece);
                }
                Ok(())
            };
            within(ANSWER, body).await??;
            Ok(Some(bytes))
        })
    }

    /// Writes the object `name` into the new file `target`; `false` if there is none. Whatever else comes than `size`
    /// bytes of that digest is an error.
    pub(super) fn download(
        &self,
        name: &str,
        target: &FilePath,
        (size, digest): (u64, Digest),
    ) -> Result<bool, Trouble> {
        let local = |source| Trouble::Local { path: target.to_owned(), source };
        self.handle.block_on(async {
            let Some(answer) = self.ask(name).await? else { return Ok(false) };
            if answer.meta.size != size {
                return Err(other(name, "it has another size"));
            }
            let running = self.pace.begin();
            let mut file = File::create_new(target).map_err(local)?;
            let mut hasher = Hasher::new();
            let mut stream = answer.into_stream();
            while let Some(piece) = within(STALL, stream.next()).await? {
                let piece = piece.map_err(Trouble::Remote)?;
                hasher.update(&piece);
                if hasher.length() > size {
                    return Err(other(name, "it has another size"));
                }
                file.write_all(&piece).map_err(local)?;
                running.came(piece.len() as u64)?;
            }
            match (hasher.length() == size, hasher.digest() == digest) {
                (true, true) => Ok(true),
                (false, _) => Err(other(name, "it ends early")),
                (true, false) => Err(other(name, "it has another digest")),
            }
        })
    }

    async fn ask(&self, name: &str) -> Result<Option<GetResult>, Trouble> {
        let path = self.bucket.path(name);
        match within(ANSWER, self.bucket.store().get(&path)).await? {
            Ok(answer) => Ok(Some(answer)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(Trouble::Remote(error)),
        }
    }

    /// Whether there is an object of that name and size. Its bytes are not looked at.
    pub(super) fn has(&self, name: &str, size: u64) -> Result<bool, Trouble> {
        let path = self.bucket.path(name);
        match self.handle.block_on(within(ANSWER, self.bucket.store().head(&path)))? {
            Ok(found) => Ok(found.size == size),
            // Who may write but not list is told 403 of what is not there.
            Err(object_store::Error::NotFound { .. } | object_store::Error::PermissionDenied { .. }) => Ok(false),
            Err(error) => Err(Trouble::Remote(error)),
        }
    }

    /// Writes a small object. It appears whole.
    pub(super) fn write(&self, name: &str, bytes: Vec<u8>) -> Result<(), Trouble> {
        let path = self.bucket.path(name);
        let put = async { self.bucket.store().put(&path, PutPayload::from(bytes)).await };
        self.handle.block_on(within(PART, put))?.map(drop).map_err(Trouble::Remote)
    }

    /// Writes the file `source` as the object `name`. It appears whole.
    pub(super) fn upload(&self, name: &str, source: &FilePath) -> Result<(), Trouble> {
        let local = |error| Trouble::Local { path: source.to_owned(), source: error };
        let mut file = File::open(source).map_err(local)?;
        let mut next = || -> Result<Vec<u8>, Trouble> {
            let mut part = Vec::new();
            (&mut file).take(PART_BYTES as u64).read_to_end(&mut part).map_err(local)?;
            Ok(part)
        };
        let first = next()?;
        if first.len() < PART_BYTES {
            return self.write(name, first);
        }
        let path = self.bucket.path(name);
        self.handle.block_on(async {
            let upload = within(PART, self.bucket.store().put_multipart(&path)).await?.map_err(Trouble::Remote)?;
            let mut writer = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
            let mut part = first;
            let sent = loop {
                if part.is_empty() {
                    break Ok(());
                }
                writer.write(&part);
                match within(PART, writer.wait_for_capacity(PARTS_AT_ONCE)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => break Err(Trouble::Remote(error)),
                    Err(trouble) => break Err(trouble),
                }
                part = next()?;
            };
            match sent {
                Ok(()) => within(PART, writer.finish()).await?.map(drop).map_err(Trouble::Remote),
                Err(trouble) => {
                    let _ = within(ANSWER, writer.abort()).await;
                    Err(trouble)
                }
            }
        })
    }
}

fn other(name: &str, why: &'static str) -> Trouble {
    Trouble::Other { name: name.to_owned(), why }
}

async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, Trouble> {
    tokio::time::timeout(limit, future).await.map_err(|_| Trouble::Silent(limit))
}
