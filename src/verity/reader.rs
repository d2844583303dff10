//! Checks data and tree against a root hash and names the first block that is wrong.

use std::io;
use std::ops::Range;

use rayon::prelude::*;

use super::format::{BLOCK_SIZE, CHUNK_BLOCKS, DIGEST_SIZE, RootHash, Shape, Superblock, SuperblockError};
use crate::tree::ReadAt;

/// The first thing that is wrong. Offsets are bytes from the start of the partition that is named.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The superblock is not one of ours.
    #[error("the superblock of the hash partition is wrong at byte {}", .0.offset())]
    Superblock(#[source] SuperblockError),
    /// Superblock and partition sizes do not fit together.
    #[error("the superblock speaks of {blocks} data blocks, which the {what} partition of {size} bytes cannot hold")]
    Size {
        /// Data blocks by the superblock.
        blocks: u64,
        /// `data` or `hash`.
        what: &'static str,
        /// Size of that partition in bytes.
        size: u64,
    },
    /// A block of the tree does not have the digest that the level above (or the root hash) gives.
    #[error("hash tree block at byte {offset} of the hash partition (level {level}) does not match its digest")]
    HashBlock {
        /// 0 is the lowest level.
        level: usize,
        /// Where the block starts in the hash partition.
        offset: u64,
    },
    /// A data block does not have the digest that the tree gives.
    #[error("data block {block} (byte {offset} of the data partition) does not match its digest in the hash tree")]
    DataBlock {
        /// Which block.
        block: u64,
        /// Where it starts in the data partition.
        offset: u64,
    },
    /// A byte that dm-verity does not protect is not zero.
    #[error("byte {offset} of the {what} partition lies outside what dm-verity protects and is not zero")]
    Padding {
        /// `data` or `hash`.
        what: &'static str,
        /// Where it stands in that partition.
        offset: u64,
    },
    /// A partition could not be read.
    #[error("cannot read the {what} partition at byte {offset}")]
    Read {
        /// `data` or `hash`.
        what: &'static str,
        /// Where.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Failure {
    /// Whether the failure lies in the data partition, and where in its partition.
    pub fn place(&self) -> (bool, u64) {
        match self {
            Self::Superblock(error) => (false, error.offset() as u64),
            Self::Size { .. } => (false, 72),
            Self::HashBlock { offset, .. } => (false, *offset),
            Self::DataBlock { offset, .. } => (true, *offset),
            Self::Padding { what, offset } | Self::Read { what, offset, .. } => (*what == "data", *offset),
        }
    }
}

/// What was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The superblock.
    pub superblock: Superblock,
    /// Bytes of the data partition that the root hash covers.
    pub data_size: u64,
    /// Bytes of the hash partition in use.
    pub hash_size: u64,
}

/// Reads the superblock of a hash partition, without any check of the tree.
pub fn superblock(hash: &dyn ReadAt, hash_size: u64) -> Result<Superblock, Failure> {
    if hash_size < BLOCK_SIZE as u64 {
        return Err(Failure::Size { blocks: 0, what: "hash", size: hash_size });
    }
    let mut block = [0; BLOCK_SIZE];
    read(hash, "hash", &mut block, 0)?;
    Superblock::decode(&block).map_err(Failure::Superblock)
}

/// Checks every block of the tree, from the top, then every data block, then that all beyond is zero.
///
/// Of several wrong blocks the first is named: tree before data, higher levels before lower ones, then by offset.
pub fn verify(
    data: &dyn ReadAt,
    data_size: u64,
    hash: &dyn ReadAt,
    hash_size: u64,
    root_hash: &RootHash,
) -> Result<Verified, Failure> {
    let superblock = superblock(hash, hash_size)?;
    let blocks = superblock.data_blocks;
    let covered = blocks.checked_mul(BLOCK_SIZE as u64).filter(|covered| (1..=data_size).contains(covered));
    let covered = covered.ok_or(Failure::Size { blocks, what: "data", size: data_size })?;
    let shape = Shape::new(blocks);
    if shape.size() > hash_size {
        return Err(Failure::Size { blocks, what: "hash", size: hash_size });
    }
    let mut expected = root_hash.as_bytes().to_vec();
    for (level, range) in shape.levels.iter().enumerate().rev() {
        let bytes = read_level(hash, range)?;
        let wrong = mismatch(&superblock, &bytes, &expected);
        if let Some(block) = wrong {
            return Err(Failure::HashBlock { level, offset: (range.start + block as u64) * BLOCK_SIZE as u64 });
        }
        expected = bytes;
    }
    verify_data(data, blocks, &superblock, &expected)?;
    verify_zero(data, "data", covered..data_size)?;
    verify_zero(hash, "hash", shape.size()..hash_size)?;
    Ok(Verified { superblock, data_size: covered, hash_size: shape.size() })
}

fn read(source: &dyn ReadAt, what: &'static str, buffer: &mut [u8], offset: u64) -> Result<(), Failure> {
    source.read_exact_at(buffer, offset).map_err(|source| Failure::Read { what, offset, source })
}

/// A level's blocks. Its size is bounded by the hash partition's, which was compared before.
fn read_level(hash: &dyn ReadAt, range: &Range<u64>) -> Result<Vec<u8>, Failure> {
    let offset = range.start * BLOCK_SIZE as u64;
    let mut bytes = Vec::new();
    let mut position = offset;
    let end = range.end * BLOCK_SIZE as u64;
    // Grown piece by piece: a partition may claim a size that the file behind it does not have.
    while position < end {
        let step = (end - position).min((CHUNK_BLOCKS * BLOCK_SIZE) as u64) as usize;
        let start = bytes.len();
        bytes.resize(start + step, 0);
        read(hash, "hash", &mut bytes[start..], position)?;
        position += step as u64;
    }
    Ok(bytes)
}

/// The first block whose digest is not the expected one.
fn mismatch(superblock: &Superblock, blocks: &[u8], expected: &[u8]) -> Option<usize> {
    let hasher = superblock.hasher();
    let tasks = blocks.par_chunks(CHUNK_BLOCKS * BLOCK_SIZE).zip(expected.par_chunks(CHUNK_BLOCKS * DIGEST_SIZE));
    let wrong = |(index, (blocks, expected))| Some(index * CHUNK_BLOCKS + hasher.first_mismatch(blocks, expected)?);
    tasks.enumerate().filter_map(wrong).min()
}

fn verify_data(data: &dyn ReadAt, blocks: u64, superblock: &Superblock, digests: &[u8]) -> Result<(), Failure> {
    let hasher = superblock.hasher();
    let digests = &digests[..blocks as usize * DIGEST_SIZE];
    let chunks = digests.par_chunks(CHUNK_BLOCKS * DIGEST_SIZE).enumerate();
    let check = |buffer: &mut Vec<u8>, index: usize, digests: &[u8]| {
        let first = (index * CHUNK_BLOCKS) as u64;
        let offset = first * BLOCK_SIZE as u64;
        let buffer = &mut buffer[..digests.len() / DIGEST_SIZE * BLOCK_SIZE];
        read(data, "data", buffer, offset)?;
        match hasher.first_mismatch(buffer, digests) {
            None => Ok(()),
            Some(wrong) => {
                let block = first + wrong as u64;
                Err(Failure::DataBlock { block, offset: block * BLOCK_SIZE as u64 })
            }
        }
    };
    chunks
        .map_init(|| vec![0; CHUNK_BLOCKS * BLOCK_SIZE], |buffer, (index, digests)| check(buffer, index, digests))
        .find_first(Result::is_err)
        .unwrap_or(Ok(()))
}

fn verify_zero(source: &dyn ReadAt, what: &'static str, range: Range<u64>) -> Result<(), Failure> {
    let mut buffer = vec![0; CHUNK_BLOCKS * BLOCK_SIZE];
    let mut offset = range.start;
    while offset < range.end {
        let step = (range.end - offset).min(buffer.len() as u64) as usize;
        read(source, what, &mut buffer[..step], offset)?;
        if let Some(position) = buffer[..step].iter().position(|byte| *byte != 0) {
            return Err(Failure::Padding { what, offset: offset + position as u64 });
        }
        offset += step as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::format as write;
    use super::*;
    use crate::identifier::Uuid;

    /// 300 blocks: two levels, the lowest of three blocks.
    fn sample() -> (Vec<u8>, Vec<u8>, RootHash) {
        let data: Vec<u8> = (0..300 * BLOCK_SIZE).map(|i| (i / 7 % 251) as u8).collect();
        let mut hash = Vec::new();
        let root = write(&data, data.len() as u64, [3; 32], Uuid::from_u128(1), &mut hash).unwrap();
        (data, hash, root)
    }

    fn check(data: &[u8], hash: &[u8], root: &RootHash) -> Result<Verified, Failure> {
        let (data, hash) = (data.to_vec(), hash.to_vec());
        verify(&data, data.len() as u64, &hash, hash.len() as u64, root)
    }

    #[test]
    fn accepts_what_was_written_and_zeros_behind() {
        let (mut data, mut hash, root) = sample();
        let verified = check(&data, &hash, &root).unwrap();
        assert_eq!((verified.data_size, verified.hash_size), (300 * 4096, 5 * 4096));
        data.resize(data.len() + 8192, 0);
        hash.resize(hash.len() + 8192, 0);
        assert_eq!(check(&data, &hash, &root).unwrap(), verified);
    }

    #[test]
    fn names_the_first_changed_block_wherever_it_is() {
        let (data, hash, root) = sample();
        for block in [0, 1, 255, 256, 299] {
            let mut data = data.clone();
            data[block * BLOCK_SIZE + 17] ^= 1;
            data[299 * BLOCK_SIZE] ^= 1;
            let failure = check(&data, &hash, &root).unwrap_err();
            assert!(matches!(failure, Failure::DataBlock { block: found, .. } if found == block as u64), "{failure}");
            assert_eq!(failure.place(), (true, (block * BLOCK_SIZE) as u64));
        }
        for (block, expected) in [(1, 1), (2, 0), (4, 0)] {
            let mut hash = hash.clone();
            hash[block * BLOCK_SIZE + BLOCK_SIZE - 1] ^= 1;
            let failure = check(&data, &hash, &root).unwrap_err();
            assert!(matches!(failure, Failure::HashBlock { level, .. } if level == expected), "{failure}");
            assert_eq!(failure.place(), (false, (block * BLOCK_SIZE) as u64));
        }
    }

    #[test]
    fn names_bytes_hidden_behind_the_protected_ones() {
        let (mut data, hash, root) = sample();
        data.resize(data.len() + 4096, 0);
        data[300 * 4096 + 9] = 1;
        let failure = check(&data, &hash, &root).unwrap_err();
        assert!(matches!(failure, Failure::Padding { what: "data", offset: 1_228_809 }), "{failure}");
    }

    #[test]
    fn refuses_another_root_hash_and_another_salt() {
        let (data, mut hash, root) = sample();
        let mut other = *root.as_bytes();
        other[0] ^= 1;
        let failure = check(&data, &hash, &RootHash::from_bytes(other)).unwrap_err();
        assert!(matches!(failure, Failure::HashBlock { level: 1, offset: 4096 }), "{failure}");
        hash[88] ^= 1;
        let failure = check(&data, &hash, &root).unwrap_err();
        assert!(matches!(failure, Failure::HashBlock { level: 1, offset: 4096 }), "{failure}");
    }

    #[test]
    fn refuses_sizes_that_the_partitions_do_not_have() {
        let (data, hash, root) = sample();
        for blocks in [0u64, 301, u64::MAX] {
            let mut hash = hash.clone();
            hash[72..80].copy_from_slice(&blocks.to_le_bytes());
            assert!(matches!(check(&data, &hash, &root), Err(Failure::Size { what: "data", .. })));
        }
        let short = hash[..4 * 4096].to_vec();
        assert!(matches!(check(&data, &short, &root), Err(Failure::Size { what: "hash", .. })));
        assert!(matches!(check(&data, &[], &root), Err(Failure::Size { .. })));
    }

    #[test]
    fn data_must_be_whole_blocks() {
        for size in [0, 1, 4095, 4097] {
            let data = vec![0; 8192];
            assert!(write(&data, size, [0; 32], Uuid::NIL, &mut Vec::new()).is_err(), "{size}");
        }
    }

    #[test]
    fn a_single_block_is_its_own_tree() {
        let data = vec![7; BLOCK_SIZE];
        let mut hash = Vec::new();
        let root = write(&data, 4096, [3; 32], Uuid::NIL, &mut hash).unwrap();
        assert_eq!(hash.len(), 4096);
        check(&data, &hash, &root).unwrap();
        let changed = vec![8; BLOCK_SIZE];
        assert!(matches!(check(&changed, &hash, &root), Err(Failure::DataBlock { block: 0, offset: 0 })));
    }
}
