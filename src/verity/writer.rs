//! Hashes data and writes superblock and tree.

use std::io::{self, Write};

use rayon::prelude::*;

use super::format::{BLOCK_SIZE, CHUNK_BLOCKS, DIGEST_SIZE, RootHash, Shape, Superblock};
use crate::identifier::Uuid;
use crate::tree::ReadAt;

/// Why a hash partition could not be written.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// dm-verity maps whole blocks: bytes beyond the last one would be unprotected.
    #[error("dm-verity needs data of a positive multiple of {BLOCK_SIZE} bytes, not {size}")]
    Size {
        /// Size of the data in bytes.
        size: u64,
    },
    /// The data could not be read.
    #[error("cannot read the data to protect at byte {offset}")]
    Read {
        /// Where.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The hash partition could not be written.
    #[error("cannot write the dm-verity hash tree")]
    Write(#[source] io::Error),
}

/// Writes the hash partition of the first `size` bytes of `data` to `out`: [`Shape::size`] bytes, front to back.
///
/// Holds the tree in memory while it grows, 1/127 of the data.
pub fn format(
    data: &dyn ReadAt,
    size: u64,
    salt: [u8; 32],
    uuid: Uuid,
    out: &mut dyn Write,
) -> Result<RootHash, FormatError> {
    let blocks = size / BLOCK_SIZE as u64;
    if size == 0 || !size.is_multiple_of(BLOCK_SIZE as u64) {
        return Err(FormatError::Size { size });
    }
    let superblock = Superblock { uuid, data_blocks: blocks, salt: salt.to_vec() };
    let mut levels = Vec::new();
    let mut digests = hash_data(data, blocks, &superblock)?;
    while digests.len() > DIGEST_SIZE {
        digests.resize(digests.len().next_multiple_of(BLOCK_SIZE), 0);
        let above = hash_level(&digests, &superblock);
        levels.push(std::mem::replace(&mut digests, above));
    }
    debug_assert_eq!(levels.len(), Shape::new(blocks).levels.len());
    out.write_all(&superblock.encode()).map_err(FormatError::Write)?;
    for level in levels.iter().rev() {
        out.write_all(level).map_err(FormatError::Write)?;
    }
    Ok(RootHash::from_bytes(std::array::from_fn(|i| digests[i])))
}

/// The digests of all data blocks, one after the other.
fn hash_data(data: &dyn ReadAt, blocks: u64, superblock: &Superblock) -> Result<Vec<u8>, FormatError> {
    let too_large = || FormatError::Size { size: blocks.saturating_mul(BLOCK_SIZE as u64) };
    let count = usize::try_from(blocks).ok().and_then(|n| n.checked_mul(DIGEST_SIZE)).ok_or_else(too_large)?;
    let mut digests = Vec::new();
    // Room for the padding of the last hash block, so that it does not move the whole level.
    digests.try_reserve_exact(count + BLOCK_SIZE).map_err(|_| too_large())?;
    digests.resize(count, 0);
    let hasher = superblock.hasher();
    let tasks = digests.par_chunks_mut(CHUNK_BLOCKS * DIGEST_SIZE).enumerate();
    tasks.try_for_each_init(
        || vec![0; CHUNK_BLOCKS * BLOCK_SIZE],
        |buffer, (index, digests)| {
            let offset = (index * CHUNK_BLOCKS * BLOCK_SIZE) as u64;
            let buffer = &mut buffer[..digests.len() / DIGEST_SIZE * BLOCK_SIZE];
            data.read_exact_at(buffer, offset).map_err(|source| FormatError::Read { offset, source })?;
            hasher.digests(buffer, digests);
            Ok(())
        },
    )?;
    Ok(digests)
}

/// The digests of the blocks of a level.
fn hash_level(level: &[u8], superblock: &Superblock) -> Vec<u8> {
    let hasher = superblock.hasher();
    let blocks = level.len() / BLOCK_SIZE;
    let mut digests = vec![0; blocks * DIGEST_SIZE];
    let tasks = level.par_chunks(CHUNK_BLOCKS * BLOCK_SIZE).zip(digests.par_chunks_mut(CHUNK_BLOCKS * DIGEST_SIZE));
    tasks.for_each(|(blocks, digests)| hasher.digests(blocks, digests));
    digests
}
