//! dm-verity: superblock, hash tree, root hash.
