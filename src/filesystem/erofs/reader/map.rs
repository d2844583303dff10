//! From a file's inode to where its bytes are: runs of the file, each raw, encoded, in the packed inode, or nothing.

use std::sync::Arc;

use super::inode::{Budget, Located};
use super::{Fault, Image, ReadError, Unsupported, corrupt};
use crate::filesystem::erofs::codec::Decoder;
use crate::filesystem::erofs::format::{
    self, ADVISE_BIG_PCLUSTER, ADVISE_BIG_PCLUSTER_2, ADVISE_COMPACTED_2B, ADVISE_FRAGMENT, ADVISE_INLINE,
    ADVISE_INTERLACED, BLOCK_COUNT_FLAG, CLUSTER_HEAD, CLUSTER_HEAD2, CLUSTER_NONHEAD, CLUSTER_PLAIN, DECODED_MAX,
    DataLayout, MAP_HEADER, MapHeader, NULL_BLOCK, PCLUSTER_MAX, SuperBlock, WHOLE_FRAGMENT, u16_at, u32_at, u64_at,
};
use crate::filesystem::erofs::index::Packs;

/// A run of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// First byte of the file.
    pub(super) start: u64,
    /// Bytes of the file.
    pub(super) length: u64,
    /// Where they are.
    pub(super) place: Place,
}

/// Where the bytes of a run are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: zeros.
    Hole,
    /// At this byte of the image, as they are.
    Raw(u64),
    /// At this byte of the packed inode.
    Fragment(u64),
    /// In a cluster.
    Encoded {
        /// First byte in the image.
        offset: u64,
        /// Bytes in the image.
        size: u32,
        /// How to decode it.
        decoder: Decoder,
    },
}

/// The runs of a file, ascending, without gaps, up to its size.
pub(super) fn runs(
    image: &Image,
    super_block: &SuperBlock,
    located: &Located,
    budget: &mut Budget,
) -> Result<Arc<[Run]>, ReadError> {
    if located.inode.size == 0 {
        return Ok(Arc::new([]));
    }
    let runs = match located.inode.layout {
        DataLayout::FlatPlain | DataLayout::FlatInline => flat(image, located)?,
        DataLayout::Chunked => chunks(image, located, budget)?,
        DataLayout::CompressedFull | DataLayout::CompressedCompact => compressed(image, super_block, located, budget)?,
    };
    Ok(runs.into())
}

fn flat(image: &Image, located: &Located) -> Result<Vec<Run>, ReadError> {
    let inode = &located.inode;
    let tail = match inode.layout {
        DataLayout::FlatInline => (inode.size - 1) % image.block() + 1,
        _ => 0,
    };
    let body = inode.size - tail;
    let mut runs = Vec::new();
    if body > 0 {
        let place = if inode.union == NULL_BLOCK {
            Place::Hole
        } else {
            let offset = image.block_offset(inode.union);
            image.check(offset, body, located.union_offset(), "a file's data")?;
            Place::Raw(offset)
        };
        runs.push(Run { start: 0, length: body, place });
    }
    if tail > 0 {
        let offset = located.end();
        if offset % image.block() + tail > image.block() {
            return corrupt(offset, Fault::Inline);
        }
        image.check(offset, tail, located.offset, "a file's inline data")?;
        runs.push(Run { start: body, length: tail, place: Place::Raw(offset) });
    }
    Ok(runs)
}

fn chunks(image: &Image, located: &Located, budget: &mut Budget) -> Result<Vec<Run>, ReadError> {
    let inode = &located.inode;
    let format = inode.union as u16;
    if format & !(format::CHUNK_BITS | format::CHUNK_INDEXES) != 0 {
        return corrupt(located.union_offset(), Fault::ChunkFormat(format));
    }
    let entry: u64 = if format & format::CHUNK_INDEXES != 0 { 8 } else { 4 };
    let bits = u32::from(image.block_bits) + u32::from(format & format::CHUNK_BITS);
    let chunk = 1_u64 << bits;
    let count = inode.size.div_ceil(chunk);
    let table_offset = located.end().next_multiple_of(entry);
    let Some(size) = count.checked_mul(entry) else {
        return corrupt(located.offset + 8, Fault::Outside("a chunk table"));
    };
    budget.take(size, located.offset + 8)?;
    let table = image.bytes(table_offset, size, located.offset + 8, "a chunk table")?;
    let mut runs: Vec<Run> = Vec::new();
    for (number, bytes) in table.chunks_exact(entry as usize).enumerate() {
        let at = table_offset + entry * number as u64;
        if entry == 8 && u16_at(bytes, 2) != 0 {
            return Err(ReadError::Unsupported { offset: at + 2, what: Unsupported::Device });
        }
        let block = u32_at(bytes, bytes.len() - 4);
        let start = number as u64 * chunk;
        let length = chunk.min(inode.size - start);
        let place = match block {
            NULL_BLOCK => Place::Hole,
            block => {
                image.check(image.block_offset(block), length, at, "a chunk")?;
                Place::Raw(image.block_offset(block))
            }
        };
        match (runs.last_mut(), place) {
            (Some(last), Place::Hole) if last.place == Place::Hole => last.length += length,
            (Some(Run { start, length: before, place: Place::Raw(first) }), Place::Raw(offset))
                if *first + *before == offset && *start + *before == number as u64 * chunk =>
            {
                *before += length;
            }
            _ => runs.push(Run { start, length, place }),
        }
    }
    Ok(runs)
}

/// One logical cluster as its index entry tells it.
#[derive(Debug, Clone, Copy)]
enum Entry {
    /// An extent starts here.
    Head { kind: u16, offset: u16, block: u32 },
    /// None starts here; the blocks of the one before, if this is where they are told.
    NonHead { blocks: Option<u32> },
}

/// A compressed file's index and what belongs to it.
struct Index {
    /// Byte of the image of the map header.
    header_offset: u64,
    header: MapHeader,
    /// Bytes per logical cluster.
    cluster: u64,
    entries: Vec<Entry>,
    packing: Packing,
    /// Byte of the image behind the index.
    end: u64,
}

/// Where the entries of an index stand.
#[derive(Debug, Clone, Copy)]
enum Packing {
    /// One after the other, 8 bytes each, from this byte of the image.
    Full(u64),
    Compact(Packs),
}

impl Index {
    /// Byte of the image of an entry, or of the pack that holds it.
    fn entry_offset(&self, number: usize) -> u64 {
        match self.packing {
            Packing::Full(start) => start + 8 * number as u64,
            Packing::Compact(packs) => packs.pack_of(number as u64).offset,
        }
    }
}

fn compressed(
    image: &Image,
    super_block: &SuperBlock,
    located: &Located,
    budget: &mut Budget,
) -> Result<Vec<Run>, ReadError> {
    let size = located.inode.size;
    let header_offset = located.end().next_multiple_of(8);
    let mut bytes = [0; MAP_HEADER];
    image.read(&mut bytes, header_offset, located.offset, "a map header")?;
    let word = u64_at(&bytes, 0);
    if word & WHOLE_FRAGMENT != 0 {
        return Ok(vec![Run { start: 0, length: size, place: Place::Fragment(word ^ WHOLE_FRAGMENT) }]);
    }
    let header = MapHeader::decode(&bytes);
    let known = ADVISE_COMPACTED_2B
        | ADVISE_BIG_PCLUSTER
        | ADVISE_BIG_PCLUSTER_2
        | ADVISE_INLINE
        | ADVISE_INTERLACED
        | ADVISE_FRAGMENT;
    if header.advise & !known != 0 || header.cluster_bits > 15 {
        return corrupt(header_offset + 4, Fault::Index);
    }
    let index = match located.inode.layout {
        DataLayout::CompressedFull => full_index(image, located, header_offset, header, budget)?,
        _ => compact_index(image, located, header_offset, header, budget)?,
    };
    let runs = index_runs(image, super_block, size, &index)?;
    // Runs take more memory than their entries: as many as an image can use well, not as many as it can claim.
    budget.take((runs.len() * size_of::<Run>()) as u64, header_offset)?;
    Ok(runs)
}

fn full_index(
    image: &Image,
    located: &Located,
    header_offset: u64,
    header: MapHeader,
    budget: &mut Budget,
) -> Result<Index, ReadError> {
    if header.advise & ADVISE_COMPACTED_2B != 0 {
        // In a full index this bit means the extent records of Linux 6.15.
        return corrupt(header_offset + 4, Fault::Index);
    }
    let cluster = image.block() << header.cluster_bits;
    let count = located.inode.size.div_ceil(cluster);
    let start = header_offset + MAP_HEADER as u64 + 8;
    let at = located.offset + 8;
    let Some(size) = count.checked_mul(8) else {
        return corrupt(at, Fault::Outside("a cluster index"));
    };
    budget.take(size, at)?;
    let bytes = image.bytes(start, size, at, "a cluster index")?;
    let mut entries = Vec::with_capacity(bytes.len() / 8);
    let mut head: Option<usize> = None;
    for (number, bytes) in bytes.chunks_exact(8).enumerate() {
        let (advise, offset) = (u16_at(bytes, 0), u16_at(bytes, 2));
        let kind = advise & 3;
        if kind != CLUSTER_NONHEAD {
            head = Some(number);
            entries.push(Entry::Head { kind, offset, block: u32_at(bytes, 4) });
            continue;
        }
        let back = u16_at(bytes, 4);
        let distance = head.map_or(0, |head| number - head);
        let blocks = (back & BLOCK_COUNT_FLAG != 0).then(|| u32::from(back & !BLOCK_COUNT_FLAG));
        // Linux goes back by this distance to find where the extent starts.
        let expected = distance.min(usize::from(BLOCK_COUNT_FLAG) - 1);
        if distance == 0 || (blocks.is_some() && distance != 1) || (blocks.is_none() && usize::from(back) != expected) {
            return corrupt(start + 8 * number as u64 + 4, Fault::Index);
        }
        entries.push(Entry::NonHead { blocks });
    }
    Ok(Index { header_offset, header, cluster, entries, packing: Packing::Full(start), end: start + size })
}

fn compact_index(
    image: &Image,
    located: &Located,
    header_offset: u64,
    header: MapHeader,
    budget: &mut Budget,
) -> Result<Index, ReadError> {
    let big = header.advise & ADVISE_BIG_PCLUSTER != 0;
    let dense = header.advise & ADVISE_COMPACTED_2B != 0;
    let bits = u32::from(image.block_bits) + u32::from(header.cluster_bits);
    if big != (header.advise & ADVISE_BIG_PCLUSTER_2 != 0) || bits > 14 || (dense && bits > 12) {
        return corrupt(header_offset + 4, Fault::Index);
    }
    let count = located.inode.size.div_ceil(1 << bits);
    let start = header_offset + MAP_HEADER as u64;
    let packs = Packs::new(start, count, dense);
    let end = packs.end();
    let at = located.offset + 8;
    budget.take(end - start, at)?;
    let bytes = image.bytes(start, end - start, at, "a cluster index")?;
    let mut entries = Vec::with_capacity(count as usize);
    let mut blocks = 0;
    for number in 0..count {
        let pack = packs.pack_of(number);
        let (room, position) = (pack.room as usize, number - pack.first);
        let pack = &bytes[(pack.offset - start) as usize..][..pack.size() as usize];
        let (kind, low) = compact_entry(pack, room, position as usize, bits);
        if position == 0 {
            blocks = if big { 0 } else { 1 };
        }
        if kind == CLUSTER_NONHEAD {
            let told = (low & u32::from(BLOCK_COUNT_FLAG) != 0).then_some(low & !u32::from(BLOCK_COUNT_FLAG));
            // The block count of an extent stands behind its head, which counted one already if it is in this pack.
            if let Some(told) = told.filter(|_| big) {
                blocks = u32::wrapping_add(blocks, told).wrapping_sub(u32::from(position > 0));
            }
            entries.push(Entry::NonHead { blocks: told });
        } else {
            let base = u32_at(pack, pack.len() - 4);
            let block = base.wrapping_add(blocks);
            entries.push(Entry::Head { kind, offset: low as u16, block });
            blocks = blocks.wrapping_add(1);
        }
    }
    Ok(Index { header_offset, header, cluster: 1 << bits, entries, packing: Packing::Compact(packs), end })
}

/// Type and lower bits of an entry of a pack.
fn compact_entry(pack: &[u8], entries: usize, position: usize, bits: u32) -> (u16, u32) {
    let low_bits = bits.max(12);
    let width = (pack.len() - 4) * 8 / entries;
    let at = width * position;
    let mut word = [0; 4];
    let from = at / 8;
    let available = pack.len().min(from + 4) - from;
    word[..available].copy_from_slice(&pack[from..from + available]);
    let value = u32::from_le_bytes(word) >> (at % 8);
    ((value >> low_bits & 3) as u16, value & ((1 << low_bits) - 1))
}

fn index_runs(image: &Image, super_block: &SuperBlock, size: u64, index: &Index) -> Result<Vec<Run>, ReadError> {
    let mut runs: Vec<Run> = Vec::new();
    let mut heads = Vec::new();
    for (number, entry) in index.entries.iter().enumerate() {
        if let Entry::Head { offset, .. } = entry {
            let start = number as u64 * index.cluster + u64::from(*offset);
            if u64::from(*offset) >= index.cluster || start > size {
                return corrupt(index.entry_offset(number), Fault::Index);
            }
            // An extent that starts at the very end has no bytes.
            if start < size {
                heads.push((number, start));
            }
        }
    }
    if heads.first().is_none_or(|(_, start)| *start != 0) {
        return corrupt(index.entry_offset(0), Fault::Index);
    }
    for (position, (number, start)) in heads.iter().copied().enumerate() {
        let end = heads.get(position + 1).map_or(size, |(_, start)| *start);
        let length = end - start;
        let is_last = position + 1 == heads.len();
        let place = place(image, super_block, index, number, start, length, is_last)?;
        runs.push(Run { start, length, place });
    }
    Ok(runs)
}

/// Blocks of the big cluster whose head is entry `number`: the entry behind it says; one if there is none.
fn big_blocks(index: &Index, number: usize) -> Result<u32, ReadError> {
    match index.entries.get(number + 1) {
        Some(Entry::NonHead { blocks: Some(blocks) }) if *blocks > 0 => Ok(*blocks),
        Some(Entry::NonHead { .. }) => corrupt(index.entry_offset(number + 1), Fault::Index),
        _ => Ok(1),
    }
}

/// Where the extent is whose head is entry `number`.
fn place(
    image: &Image,
    super_block: &SuperBlock,
    index: &Index,
    number: usize,
    start: u64,
    length: u64,
    is_last: bool,
) -> Result<Place, ReadError> {
    let at = index.entry_offset(number);
    let Some(Entry::Head { kind, block, .. }) = index.entries.get(number).copied() else {
        return corrupt(at, Fault::Index);
    };
    let advise = index.header.advise;
    if is_last && advise & ADVISE_FRAGMENT != 0 {
        // A full index has room for the upper half of the offset in place of the block.
        let high = if matches!(index.packing, Packing::Full(_)) { u64::from(block) << 32 } else { 0 };
        return Ok(Place::Fragment(high | u64::from(index.header.fragment)));
    }
    let (offset, size) = if is_last && advise & ADVISE_INLINE != 0 && index.header.fragment >> 16 != 0 {
        let size = index.header.fragment >> 16;
        if index.end % image.block() + u64::from(size) > image.block() {
            return corrupt(index.header_offset, Fault::Inline);
        }
        (index.end, size)
    } else {
        let big = match kind {
            CLUSTER_HEAD => advise & ADVISE_BIG_PCLUSTER != 0,
            _ => advise & ADVISE_BIG_PCLUSTER_2 != 0,
        };
        let blocks = if big { big_blocks(index, number)? } else { 1 };
        let size = u64::from(blocks) << image.block_bits;
        if size > PCLUSTER_MAX as u64 {
            return corrupt(at, Fault::ClusterSize(size));
        }
        (image.block_offset(block), size as u32)
    };
    image.check(offset, u64::from(size), at, "a cluster")?;
    let decoder = match kind {
        CLUSTER_PLAIN if length > u64::from(size) => return corrupt(at, Fault::Index),
        CLUSTER_PLAIN if advise & ADVISE_INTERLACED != 0 => {
            Decoder::Interlaced { rotation: (start % image.block()) as u32, block: image.block() as u32 }
        }
        CLUSTER_PLAIN => return Ok(Place::Raw(offset)),
        _ => {
            let algorithms = index.header.algorithms;
            let number = if kind == CLUSTER_HEAD2 { algorithms >> 4 } else { algorithms & 15 };
            let padded = super_block.incompat & format::INCOMPAT_ZERO_PADDING != 0;
            let Some(decoder) = Decoder::of_algorithm(number, padded) else {
                let what = Unsupported::Algorithm(number);
                return Err(ReadError::Unsupported { offset: index.header_offset + 6, what });
            };
            let listed =
                super_block.incompat & format::INCOMPAT_CONFIGS == 0 || super_block.algorithms >> number & 1 == 1;
            if !listed {
                return corrupt(index.header_offset + 6, Fault::Algorithm(number));
            }
            decoder
        }
    };
    if length > DECODED_MAX as u64 {
        return corrupt(at, Fault::ClusterSize(length));
    }
    Ok(Place::Encoded { offset, size, decoder })
}
