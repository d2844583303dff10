//! The bytes of a file of an image, decoded when they are read.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::map::{Place, Run};
use super::{Fault, Image, ReadError, corrupt};
use crate::filesystem::erofs::codec::Decoder;
use crate::tree::{Content, ReadAt};

/// Decoded bytes that an image keeps: readers go through files in steps smaller than a cluster, and small files
/// share clusters.
const CACHE_BYTES: usize = 32 << 20;
/// And at most so many clusters, because they are looked through one by one.
const CACHE_CLUSTERS: usize = 64;

/// Clusters that were decoded last, by their offset in the image and their size.
#[derive(Default)]
pub(super) struct Cache(Mutex<VecDeque<(Key, Arc<[u8]>)>>);

type Key = (u64, u64, Decoder);

impl Cache {
    fn get(&self, key: Key) -> Option<Arc<[u8]>> {
        let mut clusters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let position = clusters.iter().position(|(other, _)| *other == key)?;
        let found = clusters.remove(position)?;
        let bytes = Arc::clone(&found.1);
        clusters.push_back(found);
        Some(bytes)
    }

    fn put(&self, key: Key, bytes: Arc<[u8]>) {
        let mut clusters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut total: usize = clusters.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() + bytes.len();
        while total > CACHE_BYTES || clusters.len() >= CACHE_CLUSTERS {
            let Some((_, oldest)) = clusters.pop_front() else { break };
            total -= oldest.len();
        }
        clusters.push_back((key, bytes));
    }
}

/// A file's bytes by its runs.
struct Mapped {
    image: Arc<Image>,
    runs: Arc<[Run]>,
    /// The packed inode, if there is one.
    packed: Option<Content>,
}

/// The content of a file whose runs are known. `packed` is the packed inode's content.
pub(super) fn content(image: &Arc<Image>, size: u64, runs: Arc<[Run]>, packed: Option<&Content>) -> Content {
    let holes = runs.iter().any(|run| run.place == Place::Hole);
    let extents: Vec<_> = match holes {
        true => {
            runs.iter().filter(|run| run.place != Place::Hole).map(|run| run.start..run.start + run.length).collect()
        }
        false => Vec::new(),
    };
    let mapped = Mapped { image: Arc::clone(image), runs, packed: packed.cloned() };
    let content = Content::new(size, Arc::new(mapped), 0);
    if holes { content.with_extents(extents) } else { content }
}

impl ReadAt for Mapped {
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        let mut number = self.runs.partition_point(|run| run.start + run.length <= offset);
        while !buffer.is_empty() {
            let run = self.runs.get(number).ok_or(io::ErrorKind::UnexpectedEof)?;
            let skip = offset - run.start;
            let count = (run.length - skip).min(buffer.len() as u64) as usize;
            let (part, rest) = buffer.split_at_mut(count);
            self.read_run(run, skip, part)?;
            (buffer, offset, number) = (rest, offset + count as u64, number + 1);
        }
        Ok(())
    }
}

impl Mapped {
    fn read_run(&self, run: &Run, skip: u64, part: &mut [u8]) -> io::Result<()> {
        match run.place {
            Place::Hole => part.fill(0),
            Place::Raw(offset) => {
                self.image.read(part, offset + skip, offset, "a file's data")?;
            }
            Place::Fragment(offset) => match &self.packed {
                Some(packed) => packed.read_exact_at(part, offset + skip)?,
                None => corrupt(offset, Fault::Fragment)?,
            },
            Place::Encoded { offset, size, decoder } => {
                if part.len() as u64 == run.length {
                    self.decode(offset, size, decoder, part)?;
                    return Ok(());
                }
                let key = (offset, run.length, decoder);
                let bytes = match self.image.cache.get(key) {
                    Some(bytes) => bytes,
                    None => {
                        let mut bytes = vec![0; run.length as usize];
                        self.decode(offset, size, decoder, &mut bytes)?;
                        let bytes: Arc<[u8]> = bytes.into();
                        self.image.cache.put(key, Arc::clone(&bytes));
                        bytes
                    }
                };
                part.copy_from_slice(&bytes[skip as usize..][..part.len()]);
            }
        }
        Ok(())
    }

    fn decode(&self, offset: u64, size: u32, decoder: Decoder, output: &mut [u8]) -> Result<(), ReadError> {
        let cluster = self.image.bytes(offset, u64::from(size), offset, "a cluster")?;
        match decoder.decode(&cluster, output) {
            Some(()) => Ok(()),
            None => corrupt(offset, Fault::Cluster),
        }
    }
}
