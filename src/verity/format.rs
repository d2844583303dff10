//! Superblock, tree geometry and root hash: what writer and reader share.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::lanes::BlockHasher;
use crate::digest::{Digest, ParseDigestError};
use crate::identifier::Uuid;

/// Size of data and hash blocks in bytes: the page size of the machines we build for, and what `veritysetup` and
/// systemd-repart take by default.
pub const BLOCK_SIZE: usize = 4096;
/// Bytes of a SHA-256 digest.
pub(super) const DIGEST_SIZE: usize = 32;
/// Digests in a hash block.
pub(super) const DIGESTS_PER_BLOCK: u64 = (BLOCK_SIZE / DIGEST_SIZE) as u64;
/// Blocks hashed by one task: 1 MiB, large enough for sequential reads, small enough to share out evenly.
pub(super) const CHUNK_BLOCKS: usize = 256;

const SIGNATURE: [u8; 8] = *b"verity\0\0";
const SALT_OFFSET: usize = 88;
/// The longest salt that the superblock holds.
const SALT_MAX: usize = 256;

/// The digest that stands for a whole verified partition.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RootHash(Digest);

/// A text that is no root hash.
pub type ParseRootHashError = ParseDigestError;

impl RootHash {
    /// A root hash whose bytes are known.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Digest::from_bytes(bytes))
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// UUID of the data partition by the Discoverable Partitions Specification: the first 16 bytes, as they are.
    pub fn data_partition(&self) -> Uuid {
        Uuid::from_bytes(std::array::from_fn(|i| self.as_bytes()[i]))
    }

    /// UUID of the hash partition: the last 16 bytes, as they are.
    pub fn hash_partition(&self) -> Uuid {
        Uuid::from_bytes(std::array::from_fn(|i| self.as_bytes()[16 + i]))
    }
}

impl fmt::Display for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootHash({self})")
    }
}

impl FromStr for RootHash {
    type Err = ParseRootHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl Serialize for RootHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RootHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Digest::deserialize(deserializer).map(Self)
    }
}

/// What the first block of a hash partition says.
///
/// ```text
///   0  signature "verity\0\0"        8  version u32 = 1       12  hash type u32 = 1
///  16  UUID                         32  algorithm "sha256" (32 bytes, NUL-padded)
///  64  data block size u32 = 4096   68  hash block size u32 = 4096
///  72  data blocks u64              80  salt size u16, 6 bytes zero
///  88  salt (256 bytes)            344  zeros up to 512         all integers little-endian
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Identifies the hash partition to tools; the kernel does not look at it.
    pub uuid: Uuid,
    /// Size of the data in blocks.
    pub data_blocks: u64,
    /// Hashed in front of every block; at most 256 bytes, 32 in what adamant writes.
    pub salt: Vec<u8>,
}

/// A superblock that is none, or that describes a tree other than ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    /// A field with a value that is not supported.
    #[error("{field} of the dm-verity superblock is not {expected}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
        /// Where it stands, in bytes from the start of the superblock.
        offset: usize,
    },
}

impl SuperblockError {
    /// Where the wrong field stands, in bytes from the start of the superblock.
    pub fn offset(&self) -> usize {
        let Self::Field { offset, .. } = self;
        *offset
    }
}

impl Superblock {
    /// The superblock, padded to a whole block.
    pub fn encode(&self) -> [u8; BLOCK_SIZE] {
        let mut block = [0; BLOCK_SIZE];
        let mut put = |offset: usize, bytes: &[u8]| block[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(0, &SIGNATURE);
        put(8, &1u32.to_le_bytes());
        put(12, &1u32.to_le_bytes());
        put(16, self.uuid.as_bytes());
        put(32, b"sha256");
        put(64, &(BLOCK_SIZE as u32).to_le_bytes());
        put(68, &(BLOCK_SIZE as u32).to_le_bytes());
        put(72, &self.data_blocks.to_le_bytes());
        put(80, &(self.salt.len() as u16).to_le_bytes());
        put(SALT_OFFSET, &self.salt);
        block
    }

    /// Reads a superblock; what it says besides UUID, size and salt must be what adamant writes, and all padding zero.
    pub fn decode(block: &[u8; BLOCK_SIZE]) -> Result<Self, SuperblockError> {
        let field = |range: Range<usize>, field, expected, bytes: &[u8]| {
            let found = &block[range.clone()];
            let wrong = found.iter().zip(bytes.iter().chain(std::iter::repeat(&0))).position(|(a, b)| a != b);
            match wrong {
                None => Ok(()),
                Some(position) => Err(SuperblockError::Field { field, expected, offset: range.start + position }),
            }
        };
        field(0..8, "signature", "\"verity\"", &SIGNATURE)?;
        field(8..12, "version", "1", &[1])?;
        field(12..16, "hash type", "1", &[1])?;
        field(32..64, "algorithm", "sha256", b"sha256")?;
        field(64..68, "data block size", "4096", &(BLOCK_SIZE as u32).to_le_bytes())?;
        field(68..72, "hash block size", "4096", &(BLOCK_SIZE as u32).to_le_bytes())?;
        let salt_size = usize::from(u16::from_le_bytes([block[80], block[81]]));
        if salt_size > SALT_MAX {
            return Err(SuperblockError::Field { field: "salt size", expected: "at most 256", offset: 80 });
        }
        field(82..SALT_OFFSET, "padding", "zero", &[])?;
        field(SALT_OFFSET + salt_size..BLOCK_SIZE, "padding", "zero", &[])?;
        Ok(Self {
            uuid: Uuid::from_bytes(std::array::from_fn(|i| block[16 + i])),
            data_blocks: u64::from_le_bytes(std::array::from_fn(|i| block[72 + i])),
            salt: block[SALT_OFFSET..SALT_OFFSET + salt_size].to_vec(),
        })
    }

    /// What hashes the blocks of data and tree.
    pub(super) fn hasher(&self) -> BlockHasher {
        BlockHasher::new(&self.salt)
    }
}

/// Where the levels of a tree lie in the hash partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Blocks of each level within the hash partition, the lowest level first; none for a single data block.
    pub levels: Vec<Range<u64>>,
}

impl Shape {
    /// The tree over `data_blocks` blocks, behind a superblock of one block.
    pub fn new(data_blocks: u64) -> Self {
        let mut sizes = Vec::new();
        let mut blocks = data_blocks;
        while blocks > 1 {
            blocks = blocks.div_ceil(DIGESTS_PER_BLOCK);
            sizes.push(blocks);
        }
        let mut start = 1;
        let mut levels: Vec<_> = sizes
            .into_iter()
            .rev()
            .map(|size| {
                let level = start..start + size;
                start = level.end;
                level
            })
            .collect();
        levels.reverse();
        Self { levels }
    }

    /// Size of superblock and tree in bytes.
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(1, |lowest| lowest.end).saturating_mul(BLOCK_SIZE as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_stand_top_first_behind_the_superblock() {
        assert_eq!(Shape::new(1).levels, []);
        assert_eq!(Shape::new(1).size(), 4096);
        assert_eq!(Shape::new(2).levels.as_slice(), std::slice::from_ref(&(1..2)));
        assert_eq!(Shape::new(128), Shape::new(2));
        assert_eq!(Shape::new(129).levels, [2..4, 1..2]);
        assert_eq!(Shape::new(128 * 128 + 1).levels, [4..133, 2..4, 1..2]);
        assert_eq!(Shape::new(u64::MAX).levels.len(), 10);
        assert_eq!(Shape::new(u64::MAX).size(), u64::MAX);
    }

    #[test]
    fn a_superblock_reads_back_and_any_other_byte_is_refused_or_changes_it() {
        let superblock = Superblock { uuid: Uuid::from_u128(7), data_blocks: 9, salt: vec![5; 32] };
        let block = superblock.encode();
        assert_eq!(Superblock::decode(&block), Ok(superblock.clone()));
        for position in 0..BLOCK_SIZE {
            let mut changed = block;
            changed[position] ^= 0x80;
            assert_ne!(Superblock::decode(&changed), Ok(superblock.clone()), "byte {position}");
        }
    }

    #[test]
    fn names_where_a_superblock_is_wrong() {
        let mut block = Superblock { uuid: Uuid::NIL, data_blocks: 1, salt: Vec::new() }.encode();
        block[300] = 1;
        assert_eq!(Superblock::decode(&block).unwrap_err().offset(), 300);
    }

    #[test]
    fn partition_uuids_are_the_halves_of_the_root_hash() {
        let root = RootHash::from_bytes(std::array::from_fn(|i| i as u8));
        assert_eq!(root.data_partition().to_string(), "00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert_eq!(root.hash_partition().to_string(), "10111213-1415-1617-1819-1a1b1c1d1e1f");
    }
}
