//! The index of a compressed file: which cluster holds which bytes.
//!
//! ```text
//! inode, attributes │ pad to 8 │ map header 8 │ 0 (8) │ one entry of 8 bytes per block of data ...
//!
//! entry:  advise 2 (type)  │ offset 2 │ HEAD, PLAIN: block 4  |  NONHEAD: back 2, forward 2
//! ```
//!
//! An extent starts at the block of data (lcluster) whose entry is HEAD, at the offset told there, and goes on
//! through NONHEAD entries to the next HEAD or PLAIN. The first NONHEAD tells how many blocks it takes in the image.
//! Plain data has a PLAIN entry for each block.

use super::compress::Encoding;
use super::format::{BLOCK, BLOCK_COUNT_FLAG, CLUSTER_HEAD, CLUSTER_NONHEAD, CLUSTER_PLAIN, MAP_HEADER};

/// A run of a compressed file and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of the file: a multiple of the block size, but for the last.
    pub length: u64,
    /// First block in the image.
    pub block: u32,
    /// Blocks in the image.
    pub blocks: u32,
    /// How they are stored.
    pub encoding: Encoding,
}

/// Bytes from the end of the attributes, at offset `base` from the start of the inode, to the end of a full index
/// of `size` bytes of data.
pub fn full_size(base: usize, size: u64) -> usize {
    base.next_multiple_of(8) - base + MAP_HEADER + 8 + 8 * size.div_ceil(BLOCK as u64) as usize
}

/// The entries of the full index.
pub fn encode_full(extents: &[Extent]) -> Vec<u8> {
    let total: u64 = extents.iter().map(|extent| extent.length.div_ceil(BLOCK as u64)).sum();
    let mut bytes = Vec::with_capacity(8 * total as usize);
    let mut put = |kind: u16, word: u32| {
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&word.to_le_bytes());
    };
    for extent in extents {
        let lclusters = extent.length.div_ceil(BLOCK as u64) as u32;
        for number in 0..lclusters {
            match (extent.encoding, number) {
                (Encoding::Plain, _) => put(CLUSTER_PLAIN, extent.block + number),
                (Encoding::Compressed, 0) => put(CLUSTER_HEAD, extent.block),
                (Encoding::Compressed, 1) => {
                    let count = u32::from(BLOCK_COUNT_FLAG) | extent.blocks;
                    put(CLUSTER_NONHEAD, count | (lclusters - 1) << 16);
                }
                (Encoding::Compressed, _) => put(CLUSTER_NONHEAD, number | (lclusters - number) << 16),
            }
        }
    }
    bytes
}
