//! Files to clusters: cut into pieces, encoded by all workers, written in order.
//!
//! Memory holds a few pieces per worker. A piece of a large file is one segment, of the packed inode a group; small files
//! are handled in batches. What a cache has of a piece is not compressed again, and not even read if its digest is known.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;

use super::data::Placed;
use super::pack::Pack;
use super::survey::path_of;
use super::{Job, Sink, WriteError};
use crate::digest::Digest;
use crate::filesystem::erofs::cache::{self, Kept, Subject};
use crate::filesystem::erofs::compress::{Cluster, Encoding, SEGMENT, Segment, SegmentCompressor};
use crate::filesystem::erofs::format::BLOCK;
use crate::filesystem::erofs::index::Extent;
use crate::filesystem::erofs::parallel::in_order;
use crate::filesystem::erofs::placement::can_inline;
use crate::tree::{Content, NodeId};

/// Bytes of files that are handled as one unit of work, at least.
const BATCH: u64 = 256 * 1024;

/// One file on its way.
pub struct File<'a> {
    /// Its item in the survey.
    pub item: usize,
    /// For messages; `None`: the packed inode.
    pub id: Option<NodeId>,
    /// Its bytes.
    pub content: &'a Content,
    /// Whether it may go to the packed inode.
    pub small: bool,
    /// The packed inode itself.
    pub pack: Option<&'a Pack>,
}

/// What became of a file.
pub enum Written {
    /// It was written.
    Placed(Placed),
    /// It is small and has the content of this item before it.
    Duplicate(usize),
    /// It is small and compressible: to be packed.
    Small {
        /// Its bytes, if they were read.
        bytes: Option<Vec<u8>>,
        /// Their digest.
        digest: Digest,
    },
}

/// Part of a file.
struct Piece {
    file: usize,
    range: Range<u64>,
    /// Stands for its bytes, if it is known.
    digest: Option<Digest>,
}

/// What a worker made of a piece.
enum Encoded {
    Segment(Segment),
    /// A small file.
    Small {
        digest: Digest,
        made: Small,
    },
}

/// A small file, read or not.
enum Small {
    /// Not worth compressing: its bytes.
    Plain(Vec<u8>),
    /// Worth it; its bytes, if they had to be read to know that.
    Compressible(Option<Vec<u8>>),
}

/// What a thread keeps from one piece to the next.
#[derive(Default)]
struct Worker {
    compressor: Option<SegmentCompressor>,
    buffer: Vec<u8>,
}

/// Writes `files` and tells `done` in their order what became of each.
pub fn write<W: Write>(
    job: &Job<'_>,
    files: &[File<'_>],
    sink: &mut Sink<'_, W>,
    mut done: impl FnMut(&File<'_>, Written),
) -> Result<(), WriteError> {
    let mut extents: Vec<Extent> = Vec::new();
    let mut seen: BTreeMap<(u64, Digest), usize> = BTreeMap::new();
    let work = |worker: &mut Worker, batch: &Vec<Piece>| {
        batch.iter().map(|piece| encode(job, &files[piece.file], piece, worker)).collect()
    };
    in_order(&batches(files), job.options.workers, work, |batch, encoded: Vec<Encoded>| {
        for (piece, encoded) in batch.iter().zip(encoded) {
            let file = &files[piece.file];
            let segment = match encoded {
                Encoded::Segment(segment) => segment,
                Encoded::Small { digest, made } => {
                    let original = *seen.entry((file.content.size(), digest)).or_insert(file.item);
                    if original != file.item {
                        done(file, Written::Duplicate(original));
                        continue;
                    }
                    match made {
                        Small::Plain(bytes) => Segment::plain(&bytes),
                        Small::Compressible(bytes) => {
                            done(file, Written::Small { bytes, digest });
                            continue;
                        }
                    }
                }
            };
            let is_last = piece.range.end == file.content.size();
            let inline = append(segment, file, is_last, &mut extents, sink)?;
            if is_last {
                done(file, Written::Placed(settle(std::mem::take(&mut extents), inline)));
            }
        }
        Ok(())
    })
}

/// Cuts files into pieces, and gathers small pieces.
fn batches(files: &[File<'_>]) -> Vec<Vec<Piece>> {
    let mut batches = Vec::new();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let pieces = files.iter().enumerate().flat_map(|(number, file)| pieces(number, file));
    for piece in pieces {
        bytes += piece.range.end - piece.range.start;
        batch.push(piece);
        if bytes >= BATCH {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
    }
    batches.push(batch);
    batches
}

fn pieces(file: usize, of: &File<'_>) -> Vec<Piece> {
    if let Some(pack) = of.pack {
        return pack.groups().into_iter().map(|(range, digest)| Piece { file, range, digest: Some(digest) }).collect();
    }
    let size = of.content.size();
    let digest = of.content.known_digest().filter(|_| size <= SEGMENT as u64);
    let starts = (0..size).step_by(SEGMENT);
    starts.map(|start| Piece { file, range: start..size.min(start + SEGMENT as u64), digest }).collect()
}

/// Encodes one piece, or takes what was made of it before.
fn encode(job: &Job<'_>, file: &File<'_>, piece: &Piece, worker: &mut Worker) -> Result<Encoded, WriteError> {
    if worker.compressor.is_none() {
        worker.compressor = SegmentCompressor::new(job.options).map_err(WriteError::Compress)?;
    }
    let Worker { compressor, buffer } = worker;
    let Some(compressor) = compressor else {
        return Ok(Encoded::Segment(Segment::plain(read(job, file, piece, buffer)?)));
    };
    if file.small {
        return encode_small(job, file, piece, compressor, buffer);
    }
    let Some(cache) = job.cache else {
        let bytes = read(job, file, piece, buffer)?;
        return Ok(Encoded::Segment(compressor.compress(bytes).map_err(WriteError::Compress)?));
    };
    let mut bytes = None;
    let digest = match piece.digest {
        Some(digest) => digest,
        None => Digest::of(bytes.insert(read(job, file, piece, buffer)?)),
    };
    let key = cache::key(Subject::Segment, job.options, &digest);
    let size = (piece.range.end - piece.range.start) as usize;
    let kept = cache.get(&key).and_then(|value| Kept::decode(value, size));
    let segment = match (kept, bytes) {
        (Some(kept), _) if !kept.has_plain() => kept.fill(&[]),
        (Some(kept), Some(bytes)) => kept.fill(bytes),
        (Some(kept), None) => kept.fill(read(job, file, piece, buffer)?),
        (None, bytes) => {
            let bytes = match bytes {
                Some(bytes) => bytes,
                None => read(job, file, piece, buffer)?,
            };
            let segment = compressor.compress(bytes).map_err(WriteError::Compress)?;
            cache.put(&key, &cache::encode(&segment));
            segment
        }
    };
    Ok(Encoded::Segment(segment))
}

fn encode_small(
    job: &Job<'_>,
    file: &File<'_>,
    piece: &Piece,
    compressor: &mut SegmentCompressor,
    buffer: &mut Vec<u8>,
) -> Result<Encoded, WriteError> {
    let known = job.cache.zip(piece.digest).and_then(|(cache, digest)| {
        let value = cache.get(&cache::key(Subject::Small, job.options, &digest))?;
        Some((digest, value == [1]))
    });
    if let Some((digest, true)) = known {
        return Ok(Encoded::Small { digest, made: Small::Compressible(None) });
    }
    let bytes = read(job, file, piece, buffer)?;
    let digest = piece.digest.unwrap_or_else(|| Digest::of(bytes));
    let compressible = match known {
        Some((_, compressible)) => compressible,
        None => {
            let compressible = compressor.is_compressible(bytes).map_err(WriteError::Compress)?;
            if let Some(cache) = job.cache {
                cache.put(&cache::key(Subject::Small, job.options, &digest), &[u8::from(compressible)]);
            }
            compressible
        }
    };
    let bytes = bytes.to_vec();
    let made = if compressible { Small::Compressible(Some(bytes)) } else { Small::Plain(bytes) };
    Ok(Encoded::Small { digest, made })
}

/// Reads a piece. What is not what its digest says was damaged where it lies: it must not get into an image, and what it
/// is compressed to must not be kept under that digest.
fn read<'b>(job: &Job<'_>, file: &File<'_>, piece: &Piece, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], WriteError> {
    let size = (piece.range.end - piece.range.start) as usize;
    if buffer.len() < size {
        buffer.resize(size, 0);
    }
    let bytes = &mut buffer[..size];
    let failed = |id: Option<NodeId>, source| {
        let path = id.map(|id| path_of(job.tree, id)).unwrap_or_default();
        WriteError::Read { path, source }
    };
    file.content.read_exact_at(bytes, piece.range.start).map_err(|source| failed(file.id, source))?;
    let damaged = match (file.pack, piece.digest) {
        (Some(pack), _) => pack.damaged(&piece.range, bytes),
        (None, Some(digest)) if Digest::of(bytes) != digest => file.id,
        _ => None,
    };
    match damaged {
        Some(id) => Err(failed(Some(id), io::Error::new(io::ErrorKind::InvalidData, CHANGED))),
        None => Ok(bytes),
    }
}

/// Says why bytes are refused.
const CHANGED: &str = "its bytes are no longer those that it had when it was unpacked or made";

/// Writes a segment behind what its file has already; gives whether the file's tail was left out for the inode.
fn append<W: Write>(
    mut segment: Segment,
    file: &File<'_>,
    is_last: bool,
    extents: &mut Vec<Extent>,
    sink: &mut Sink<'_, W>,
) -> Result<bool, WriteError> {
    let tail = (file.content.size() % BLOCK as u64) as usize;
    let plain = extents.iter().all(|extent| extent.encoding == Encoding::Plain)
        && segment.clusters.iter().all(|cluster| cluster.encoding == Encoding::Plain);
    let inline = is_last && plain && tail > 0 && file.id.is_some() && can_inline(tail);
    if inline {
        segment.blocks.truncate(segment.blocks.len() - BLOCK);
    }
    let mut block = sink.append(&segment.blocks)?;
    for Cluster { length, blocks, encoding } in segment.clusters {
        let (length, blocks) = (length as u64, blocks as u32);
        match extents.last_mut() {
            // What follows an incomplete block is not the next byte of the image.
            Some(last)
                if encoding == Encoding::Plain
                    && last.encoding == Encoding::Plain
                    && last.length % BLOCK as u64 == 0 =>
            {
                last.length += length;
                last.blocks += blocks;
            }
            _ => extents.push(Extent { length, block, blocks, encoding }),
        }
        block += blocks;
    }
    Ok(inline)
}

/// A file that is one plain run needs no index.
fn settle(extents: Vec<Extent>, inline: bool) -> Placed {
    match extents.as_slice() {
        [Extent { encoding: Encoding::Plain, block, .. }] => Placed::Flat { block: *block, inline },
        _ => Placed::Extents(extents.into()),
    }
}
