//! The contents of regular files: compressed by all workers, written in tree order.
//!
//! ```text
//! file ──┬─ empty ──────────────────────────> nothing
//!        ├─ same content as a file before ──> its data again
//!        ├─ mostly holes ───────────────────> chunks
//!        ├─ small and compressible ─────────> packed inode
//!        └─ else: segments ─────────────────> clusters; blocks as they are if none could be compressed
//! ```

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use super::survey::{Survey, path_of};
use super::{Sink, WriteError};
use crate::digest::Digest;
use crate::filesystem::erofs::compress::{Cluster, Encoding, SEGMENT, Segment, SegmentCompressor};
use crate::filesystem::erofs::format::{BLOCK, NULL_BLOCK};
use crate::filesystem::erofs::index::Extent;
use crate::filesystem::erofs::parallel::in_order;
use crate::filesystem::erofs::placement::can_inline;
use crate::filesystem::erofs::{Compression, Options};
use crate::tree::{Content, Kind, NodeId, ReadAt, Tree};

/// Bytes of small files that are handled as one unit of work.
const BATCH: u64 = 256 * 1024;
/// A copy of chunks goes through memory in pieces of at most this many bytes.
const COPY: u64 = 1 << 20;

/// Where a file's bytes went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    /// It has none.
    Empty,
    /// Blocks one after the other from here; whether the last, incomplete one is to stand behind the inode.
    Flat {
        /// First block.
        block: u32,
        /// Whether the last `size % 4096` bytes were left out.
        inline: bool,
    },
    /// At this offset of the packed inode.
    Fragment(u64),
    /// In clusters.
    Extents(Arc<[Extent]>),
    /// In chunks: log2 of their size in blocks, and the first block of each.
    Chunks(u32, Arc<[u32]>),
}

/// Where all files' bytes went.
#[derive(Debug)]
pub struct Data {
    /// By item; `None` for what is no regular file.
    pub placed: Vec<Option<Placed>>,
    /// The packed inode's size and place, if there is one.
    pub packed: Option<(u64, Placed)>,
    /// Bytes of all regular files.
    pub content: u64,
    /// Bytes of files whose content another file has too.
    pub duplicates: u64,
}

impl Data {
    /// Bytes of small files that were compressed together.
    pub fn packed_size(&self) -> u64 {
        self.packed.as_ref().map_or(0, |(size, _)| *size)
    }
}

/// One file on its way.
struct File<'a> {
    content: &'a Content,
    /// For messages; `None`: the packed inode.
    id: Option<NodeId>,
    /// Bytes of inode and attributes: whether a tail can be inlined depends on it.
    base: usize,
    /// Whether it may go to the packed inode.
    small: bool,
}

/// What a thread keeps from one piece to the next.
#[derive(Default)]
struct Worker {
    compressor: Option<SegmentCompressor>,
    buffer: Vec<u8>,
}

/// Part of a file.
struct Piece {
    file: usize,
    range: Range<u64>,
}

/// Writes the contents of all regular files.
pub fn write<W: Write>(
    tree: &Tree,
    survey: &Survey<'_>,
    options: &Options,
    sink: &mut Sink<'_, W>,
) -> Result<Data, WriteError> {
    let mut data = Data { placed: vec![None; survey.items.len()], packed: None, content: 0, duplicates: 0 };
    let originals = originals(tree, survey, options)?;
    let (mut files, mut items, mut sparse) = (Vec::new(), Vec::new(), Vec::new());
    for (number, item) in survey.items.iter().enumerate() {
        let Kind::File(content) = &tree.node(item.id).kind else { continue };
        data.content += content.size();
        if content.size() == 0 {
            data.placed[number] = Some(Placed::Empty);
        } else if originals.contains_key(&number) {
            data.duplicates += content.size();
        } else if is_sparse(content, options) {
            sparse.push((number, content));
        } else {
            let small = options.compression != Compression::None && content.size() <= options.packed_max as u64;
            files.push(File { content, id: Some(item.id), base: item.inode.base_size(), small });
            items.push(number);
        }
    }
    let placed = write_files(tree, &files, options, sink)?;
    let mut packed = Vec::new();
    for (placed, (number, file)) in placed.into_iter().zip(items.into_iter().zip(&files)) {
        match placed {
            Some(placed) => data.placed[number] = Some(placed),
            None => packed.push((number, file.content.clone())),
        }
    }
    if !packed.is_empty() {
        write_packed(tree, packed, options, sink, &mut data)?;
    }
    for (number, content) in sparse {
        let id = survey.items[number].id;
        data.placed[number] = Some(write_chunks(tree, id, content, sink)?);
    }
    for (number, original) in originals {
        data.placed[number] = data.placed[original].clone();
    }
    Ok(data)
}

/// Items whose content is that of an item before them.
fn originals(tree: &Tree, survey: &Survey<'_>, options: &Options) -> Result<BTreeMap<usize, usize>, WriteError> {
    let mut sizes: BTreeMap<u64, Vec<(usize, &Content)>> = BTreeMap::new();
    for (number, item) in survey.items.iter().enumerate() {
        match &tree.node(item.id).kind {
            Kind::File(content) if content.size() > 0 && !is_sparse(content, options) => {
                sizes.entry(content.size()).or_default().push((number, content));
            }
            _ => {}
        }
    }
    let candidates: Vec<_> = sizes.into_values().filter(|same| same.len() > 1).flatten().collect();
    let mut first: BTreeMap<(u64, Digest), usize> = BTreeMap::new();
    let mut originals = BTreeMap::new();
    let work = |_: &mut (), (number, content): &(usize, &Content)| {
        content.digest().map_err(|source| WriteError::Read { path: path_of(tree, survey.items[*number].id), source })
    };
    in_order(&candidates, options.workers, work, |(number, content), digest| {
        match first.get(&(content.size(), digest)) {
            Some(original) => {
                originals.insert(*number, *original);
            }
            None => {
                first.insert((content.size(), digest), *number);
            }
        }
        Ok(())
    })?;
    Ok(originals)
}

/// Holes cost nothing in chunks, but chunks are not compressed: where data prevails, zeros are compressed away.
fn is_sparse(content: &Content, options: &Options) -> bool {
    let data: u64 = content.extents().iter().map(|extent| extent.end - extent.start).sum();
    match options.compression {
        Compression::None => data < content.size(),
        _ => data <= content.size() / 2,
    }
}

/// Cuts files into pieces, and small pieces into batches.
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

/// Writes `files`; gives for each where it went, `None` if it is to be packed.
fn write_files<W: Write>(
    tree: &Tree,
    files: &[File<'_>],
    options: &Options,
    sink: &mut Sink<'_, W>,
) -> Result<Vec<Option<Placed>>, WriteError> {
    let batches = batches(files);
    let mut extents: Vec<Extent> = Vec::new();
    let mut placed = Vec::with_capacity(files.len());
    let work = |worker: &mut Worker, batch: &Vec<Piece>| {
        batch.iter().map(|piece| encode(tree, &files[piece.file], piece, options, worker)).collect()
    };
    in_order(&batches, options.workers, work, |batch, encoded: Vec<Option<Segment>>| {
        for (piece, segment) in batch.iter().zip(encoded) {
            let file = &files[piece.file];
            let is_last = piece.range.end == file.content.size();
            match segment {
                None => placed.push(None),
                Some(segment) => {
                    let inline = append(segment, file, is_last, &mut extents, sink)?;
                    if is_last {
                        placed.push(Some(settle(std::mem::take(&mut extents), inline)));
                    }
                }
            }
        }
        Ok(())
    })?;
    Ok(placed)
}

/// Reads and encodes one piece; `None` if its file is to be packed.
fn encode(
    tree: &Tree,
    file: &File<'_>,
    piece: &Piece,
    options: &Options,
    worker: &mut Worker,
) -> Result<Option<Segment>, WriteError> {
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
        return Ok(Some(Segment::plain(bytes)));
    };
    if file.small {
        let compressible = compressor.is_compressible(bytes).map_err(WriteError::Compress)?;
        return Ok((!compressible).then(|| Segment::plain(bytes)));
    }
    Ok(Some(compressor.compress(bytes).map_err(WriteError::Compress)?))
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
    let inline = is_last && plain && tail > 0 && file.id.is_some() && can_inline(file.base, tail);
    if inline {
        let whole = segment.blocks.len().saturating_sub(1) / BLOCK * BLOCK;
        segment.blocks.truncate(whole);
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

/// Files one after the other, as one content.
struct Concatenation {
    /// End offset and content of each.
    parts: Vec<(u64, Content)>,
}

impl ReadAt for Concatenation {
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        let mut number = self.parts.partition_point(|(end, _)| *end <= offset);
        while !buffer.is_empty() {
            let (end, content) = self.parts.get(number).ok_or(io::ErrorKind::UnexpectedEof)?;
            let count = (end - offset).min(buffer.len() as u64) as usize;
            let (head, rest) = buffer.split_at_mut(count);
            content.read_exact_at(head, content.size() - (end - offset))?;
            (buffer, offset, number) = (rest, offset + count as u64, number + 1);
        }
        Ok(())
    }
}

fn write_packed<W: Write>(
    tree: &Tree,
    files: Vec<(usize, Content)>,
    options: &Options,
    sink: &mut Sink<'_, W>,
    data: &mut Data,
) -> Result<(), WriteError> {
    let mut parts = Vec::with_capacity(files.len());
    let mut size = 0;
    for (number, content) in files {
        data.placed[number] = Some(Placed::Fragment(size));
        size += content.size();
        parts.push((size, content));
    }
    let content = Content::new(size, Arc::new(Concatenation { parts }), 0);
    let file = File { content: &content, id: None, base: 0, small: false };
    let placed = write_files(tree, &[file], options, sink)?.into_iter().flatten().next();
    data.packed = Some((size, placed.unwrap_or(Placed::Empty)));
    Ok(())
}

/// Writes a file's data extents as chunks, of the size that makes data and chunk table smallest.
fn write_chunks<W: Write>(
    tree: &Tree,
    id: NodeId,
    content: &Content,
    sink: &mut Sink<'_, W>,
) -> Result<Placed, WriteError> {
    let (size, extents) = (content.size(), content.extents());
    let bits = (0..=31).min_by_key(|bits| chunked_size(&extents, size, *bits)).unwrap_or(0);
    let chunk = (BLOCK as u64) << bits;
    let mut table = vec![NULL_BLOCK; size.div_ceil(chunk) as usize];
    for number in chunks_of(&extents, chunk) {
        let (mut start, end) = (number * chunk, size.min((number + 1) * chunk));
        table[number as usize] = sink.next;
        while start < end {
            let mut bytes = vec![0; (end - start).min(COPY) as usize];
            content
                .read_exact_at(&mut bytes, start)
                .map_err(|source| WriteError::Read { path: path_of(tree, id), source })?;
            sink.append(&bytes)?;
            start += bytes.len() as u64;
        }
    }
    Ok(Placed::Chunks(bits, table.into()))
}

/// The chunks that hold data, ascending.
fn chunks_of(extents: &[Range<u64>], chunk: u64) -> impl Iterator<Item = u64> {
    let mut next = 0;
    extents.iter().flat_map(move |extent| {
        let range = (extent.start / chunk).max(next)..extent.end.div_ceil(chunk);
        next = range.end.max(next);
        range
    })
}

/// Bytes of data and table with chunks of `1 << bits` blocks.
fn chunked_size(extents: &[Range<u64>], size: u64, bits: u32) -> u64 {
    let chunk = (BLOCK as u64) << bits;
    let mut next = 0;
    let mut data = 0;
    for extent in extents {
        let (first, end) = ((extent.start / chunk).max(next), extent.end.div_ceil(chunk));
        data += end.saturating_sub(first) * chunk;
        next = end;
    }
    data.saturating_add(4 * size.div_ceil(chunk))
}
