//! dm-verity: a Merkle tree of SHA-256 over a partition, and the superblock that describes it.
//!
//! Flows in: the data (any [`crate::tree::ReadAt`]), a salt and a UUID. Flows out: the bytes of the hash partition
//! and the [`RootHash`], 32 bytes that stand for all of the data. [`format()`] writes, [`verify()`] reads back and names the
//! first block that is wrong. Both use every core; the result does not depend on how many there are.
//!
//! ```text
//! hash partition, in blocks of 4096 bytes
//! 0   superblock (512 bytes, then zeros)
//! 1   top level: 1 block of up to 128 digests
//! 2   next level: up to 128 blocks
//! ..  lowest level: one digest per data block; the last block of each level ends with zeros
//! ```
//!
//! A digest is SHA-256(salt, block) of a data block or of a hash block one level below; the root hash is that of the
//! single top block (of the data block itself if there is only one). Data is a whole number of blocks.
//!
//! Specification: Linux `Documentation/admin-guide/device-mapper/verity.rst`; the superblock is cryptsetup's
//! (`lib/verity/verity.c`, "DMVerity" wiki page), version 1, hash type 1.

mod format;
pub(crate) mod lanes;
mod reader;
mod writer;

pub use format::{BLOCK_SIZE, ParseRootHashError, RootHash, Shape, Superblock, SuperblockError};
pub use reader::{Failure, Verified, superblock, verify};
pub use writer::{FormatError, format};
