//! The index of a compressed file: which cluster holds which bytes.
//!
//! ```text
//! inode, attributes │ pad to 8 │ map header 8 │ entries, one per block of data (lcluster) ...
//!
//! pack of 2:   │ entry 16 bit │ entry 16 bit │ block 4 B │           4 bytes per entry
//! pack of 16:  │ 16 entries of 14 bits each  │ block 4 B │           2 bytes per entry
//!
//! entry:       low 12 bits │ type 2 bits
//!              HEAD, PLAIN: offset in the lcluster where an extent starts
//!              NONHEAD:     lclusters back to the HEAD; the first one 0x800 + blocks in the image instead;
//!                           the last of a pack lclusters to the next HEAD instead, unless it is the first
//! ```
//!
//! This is the compact index. An extent goes on to where the next one starts. A pack tells one block number: that of
//! the first extent that starts in it, less what an extent still open from the pack before has told in this one. The
//! extents of a file follow each other in the image, so that suffices. Packs of 16 have to start at a multiple of 32
//! bytes; packs of 2 stand before and after them. Specification: Linux, `fs/erofs/zmap.c`.

use super::compress::Encoding;
use super::format::{BLOCK, BLOCK_COUNT_FLAG, CLUSTER_HEAD, CLUSTER_NONHEAD, CLUSTER_PLAIN, MAP_HEADER};

/// A run of a compressed file and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of the file: at least a block, but for the last.
    pub length: u64,
    /// First block in the image.
    pub block: u32,
    /// Blocks in the image.
    pub blocks: u32,
    /// How they are stored.
    pub encoding: Encoding,
}

/// Where the packs of a compact index are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packs {
    /// Offset of the first pack.
    start: u64,
    /// Entries in packs of 2 before the packs of 16.
    initial: u64,
    /// Entries in packs of 16.
    dense: u64,
    /// All entries.
    count: u64,
}

/// One pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pack {
    /// Offset of its first byte, counted as that of the first pack.
    pub offset: u64,
    /// Entries it has room for: 2 or 16.
    pub room: u64,
    /// The number of its first entry.
    pub first: u64,
}

impl Pack {
    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        if self.room == 16 { 32 } else { 8 }
    }
}

impl Packs {
    /// The packs of `count` entries (at least one) that start at `start`; whether there are packs of 16.
    pub fn new(start: u64, count: u64, has_dense: bool) -> Self {
        let initial = ((32 - start % 32) / 4) % 8;
        let dense = if has_dense && initial < count { (count - initial) / 16 * 16 } else { 0 };
        Self { start, initial: initial.min(count), dense, count }
    }

    /// The pack that holds entry `number`.
    pub fn pack_of(&self, number: u64) -> Pack {
        let dense_start = self.start + 4 * self.initial;
        if number < self.initial {
            let first = number / 2 * 2;
            return Pack { offset: self.start + 4 * first, room: 2, first };
        }
        if number < self.initial + self.dense {
            let first = (number - self.initial) / 16 * 16;
            return Pack { offset: dense_start + 2 * first, room: 16, first: self.initial + first };
        }
        let first = (number - self.initial - self.dense) / 2 * 2;
        let offset = dense_start + 2 * self.dense + 4 * first;
        Pack { offset, room: 2, first: self.initial + self.dense + first }
    }

    /// Offset behind the last pack.
    pub fn end(&self) -> u64 {
        let last = self.pack_of(self.count - 1);
        last.offset + last.size()
    }
}

/// Bytes from the end of the attributes, at offset `base` from the start of the inode (which is a multiple of 32), to
/// the end of the compact index of `size` bytes of data.
pub fn compact_size(base: usize, size: u64) -> usize {
    (packs(base, size).end() - base as u64) as usize
}

fn packs(base: usize, size: u64) -> Packs {
    let start = base.next_multiple_of(8) + MAP_HEADER;
    Packs::new(start as u64, size.div_ceil(BLOCK as u64), true)
}

/// What one entry says.
#[derive(Debug, Clone, Copy)]
enum Entry {
    Head {
        kind: u16,
        offset: u16,
        block: u32,
    },
    /// The first one behind a HEAD tells the number of blocks.
    NonHead {
        back: u16,
        forward: u16,
        blocks: Option<u16>,
    },
}

/// The entries of `extents`, which follow each other in the file and in the image.
fn entries(extents: &[Extent]) -> Vec<Entry> {
    let block = BLOCK as u64;
    let size: u64 = extents.iter().map(|extent| extent.length).sum();
    let mut entries = Vec::with_capacity(size.div_ceil(block) as usize);
    let mut start = 0;
    for extent in extents {
        let end = start + extent.length;
        let offset = (start % block) as u16;
        let head = start / block;
        if extent.encoding == Encoding::Plain {
            // Each block on its own. Linux takes no plain data that goes on in the next lcluster.
            debug_assert!(offset == 0 || offset as u64 + extent.length <= block);
            let starts = extent.block..extent.block + extent.blocks;
            entries.extend(starts.map(|block| Entry::Head { kind: CLUSTER_PLAIN, offset, block }));
        } else {
            entries.push(Entry::Head { kind: CLUSTER_HEAD, offset, block: extent.block });
            // The next extent starts in this lcluster; the file may end before.
            let next = if end == size { size.div_ceil(block) } else { end / block };
            for number in head + 1..next {
                let blocks = (number == head + 1).then_some(extent.blocks as u16);
                entries.push(Entry::NonHead { back: (number - head) as u16, forward: (next - number) as u16, blocks });
            }
        }
        start = end;
    }
    entries
}

/// Padding, map header and compact index, to follow `base` bytes of inode and attributes.
pub fn encode_compact(base: usize, header: [u8; MAP_HEADER], extents: &[Extent]) -> Vec<u8> {
    let size = extents.iter().map(|extent| extent.length).sum();
    let packs = packs(base, size);
    let entries = entries(extents);
    let mut bytes = vec![0; base.next_multiple_of(8) - base];
    bytes.extend_from_slice(&header);
    let mut number = 0;
    while number < entries.len() {
        let pack = packs.pack_of(number as u64);
        let end = entries.len().min(number + pack.room as usize);
        encode_pack(pack, &entries[number..end], &mut bytes);
        number = end;
    }
    bytes
}

fn encode_pack(pack: Pack, entries: &[Entry], bytes: &mut Vec<u8>) {
    let width = if pack.room == 16 { 14 } else { 16 };
    let mut base = None;
    // Blocks that the entries before the first HEAD tell: a reader adds them to the base.
    let mut told_before = 0;
    let mut packed = [0_u8; 28];
    for (position, entry) in entries.iter().enumerate() {
        let (kind, low) = match *entry {
            Entry::Head { kind, offset, block } => {
                base.get_or_insert(block.wrapping_sub(told_before));
                (kind, offset)
            }
            Entry::NonHead { blocks: Some(blocks), .. } => {
                told_before += u32::from(blocks);
                (CLUSTER_NONHEAD, BLOCK_COUNT_FLAG | blocks)
            }
            Entry::NonHead { forward, .. } if position + 1 == pack.room as usize => (CLUSTER_NONHEAD, forward),
            Entry::NonHead { back, .. } => (CLUSTER_NONHEAD, back),
        };
        let value = u32::from(low) | u32::from(kind) << 12;
        let at = width * position;
        for (byte, part) in packed[at / 8..].iter_mut().zip((value << (at % 8)).to_le_bytes()) {
            *byte |= part;
        }
    }
    bytes.extend_from_slice(&packed[..pack.size() as usize - 4]);
    bytes.extend_from_slice(&base.unwrap_or(0).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_of_sixteen_start_at_multiples_of_32() {
        for start in [0, 8, 16, 24, 40] {
            for count in [1, 2, 3, 7, 16, 17, 22, 40, 100] {
                let packs = Packs::new(start, count, true);
                let mut at = start;
                let mut number = 0;
                while number < count {
                    let pack = packs.pack_of(number);
                    assert_eq!((pack.offset, pack.first), (at, number), "{start} {count}");
                    assert!(pack.room == 2 || pack.offset.is_multiple_of(32));
                    at += pack.size();
                    number += pack.room;
                }
                assert_eq!(packs.end(), at);
            }
        }
    }

    #[test]
    fn an_extent_that_starts_within_a_block_has_its_offset() {
        let extent = |length, block, blocks, encoding| Extent { length, block, blocks, encoding };
        let extents = [
            extent(10_000, 100, 1, Encoding::Compressed),
            extent(2288, 101, 1, Encoding::Plain),
            extent(8192, 102, 2, Encoding::Plain),
            extent(5000, 104, 1, Encoding::Compressed),
        ];
        let shown: Vec<_> = entries(&extents)
            .into_iter()
            .map(|entry| match entry {
                Entry::Head { kind, offset, block } => (kind, offset, block),
                Entry::NonHead { back, forward, blocks } => {
                    (CLUSTER_NONHEAD, back, u32::from(forward) | u32::from(blocks.unwrap_or(0)) << 16)
                }
            })
            .collect();
        // 25,480 bytes are seven lclusters: heads in 0, 2, 3, 4 and 5.
        assert_eq!(
            shown,
            [
                (CLUSTER_HEAD, 0, 100),
                (CLUSTER_NONHEAD, 1, 1 | 1 << 16),
                (CLUSTER_PLAIN, 1808, 101),
                (CLUSTER_PLAIN, 0, 102),
                (CLUSTER_PLAIN, 0, 103),
                (CLUSTER_HEAD, 0, 104),
                (CLUSTER_NONHEAD, 1, 1 | 1 << 16),
            ]
        );
    }
}
