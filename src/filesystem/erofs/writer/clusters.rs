//! Files to clusters: cut into pieces, encoded by all workers, written in order.
//!
//! Memory holds a few pieces per worker. A piece of a large file is one segment; small files are handled in batches.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;

use super::data::Placed;
use super::survey::path_of;
use super::{Sink, WriteError};
use crate::digest::Digest;
use crate::filesystem::erofs::Options;
use crate::filesystem::erofs::compress::{Cluster, Encoding, SEGMENT, Segment, SegmentCompressor};
use crate::filesystem::erofs::format::BLOCK;
use crate::filesystem::erofs::index::Extent;
use crate::filesystem::erofs::parallel::in_order;
use crate::filesystem::erofs::placement::can_inline;
use crate::tree::{Content, NodeId, Tree};

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
}

/// What became of a file.
pub enum Written {
    /// It was written.
    Placed(Placed),
    /// It is small and has the content of this item before it.
    Duplicate(usize),
    /// It is small and compressible: its bytes, to be packed.
    Small(Vec<u8>),
}

/// Part of a file.
struct Piece {
    file: usize,
    range: Range<u64>,
}

/// What a worker made of a piece.
enum Encoded {
    Segment(Segment),
    /// All bytes of a small file, and whether they are worth compressing.
    Small {
        bytes: Vec<u8>,
        digest: Digest,
        compressible: bool,
    },
}

/// What a thread keeps from one piece to the next.
#[derive(Default)]
struct Worker {
    compressor: Option<SegmentCompressor>,
    buffer: Vec<u8>,
}

/// Writes `files` and tells `done` in their order what became of each.
pub fn write<W: Write>(
    tree: &Tree,
    files: &[File<'_>],
    options: &Options,
    sink: &mut Sink<'_, W>,
    mut done: impl FnMut(&File<'_>, Written),
) -> Result<(), WriteError> {
    let mut extents: Vec<Extent> = Vec::new();
    let mut seen: BTreeMap<(usize, Digest), usize> = BTreeMap::new();
    let work = |worker: &mut Worker, batch: &Vec<Piece>| {
        batch.iter().map(|piece| encode(tree, &files[piece.file], piece, options, worker)).collect()
    };
    in_order(&batches(files), options.workers, work, |batch, encoded: Vec<Encoded>| {
        for (piece, encoded) in batch.iter().zip(encoded) {
            let file = &files[piece.file];
            let segment = match encoded {
                Encoded::Segment(segment) => segment,
                Encoded::Small { bytes, digest, compressible } => {
                    let original = *seen.entry((bytes.len(), digest)).or_insert(file.item);
                    if original != file.item {
                        done(file, Written::Duplicate(original));
                        continue;
                    }
                    if compressible {
                        done(file, Written::Small(bytes));
                        continue;
                    }
                    Segment::plain(&bytes)
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
    for (number, file) in files.iter().enumerate() {
        let size = file.content.size();
        let mut start = 0;
        while start < size {
            let end = size.min(start + SEGMENT as u64);
            batch.push(Piece { file: number, range: start..end });
            bytes += end - start;
            start = end;
            if bytes >= BATCH {
                batches.push(std::mem::take(&mut batch));
                bytes = 0;
            }
        }
    }
    batches.push(batch);
    batches
}

/// Reads and encodes one piece.
fn encode(
    tree: &Tree,
    file: &File<'_>,
    piece: &Piece,
    options: &Options,
    worker: &mut Worker,
) -> Result<Encoded, WriteError> {
    let size = (piece.range.end - piece.range.start) as usize;
    if worker.buffer.len() < size {
        worker.buffer.resize(size, 0);
    }
    let bytes = &mut worker.buffer[..size];
    file.content.read_exact_at(bytes, piece.range.start).map_err(|source| {
        let path = file.id.map(|id| path_of(tree, id)).unwrap_or_default();
        WriteError::Read { path, source }
    })?;
    if worker.compressor.is_none() {
        worker.compressor = SegmentCompressor::new(options).map_err(WriteError::Compress)?;
    }
    let Some(compressor) = &mut worker.compressor else {
        return Ok(Encoded::Segment(Segment::plain(bytes)));
    };
    if file.small {
        let compressible = compressor.is_compressible(bytes).map_err(WriteError::Compress)?;
        let digest = file.content.known_digest().unwrap_or_else(|| Digest::of(bytes));
        return Ok(Encoded::Small { bytes: bytes.to_vec(), digest, compressible });
    }
    Ok(Encoded::Segment(compressor.compress(bytes).map_err(WriteError::Compress)?))
}

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
