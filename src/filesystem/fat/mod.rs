//! FAT32, for EFI system partitions: a writer that gives the same bytes for the same tree, and a strict reader.
//!
//! Flows in: a [`crate::tree::Tree`] of directories and files ([`write()`]), or the bytes of a volume
//! ([`Volume::open`]). Flows out: a [`crate::tree::Content`] that refers to the files' bytes instead of copying them, or
//! the tree again.
//!
//! ```text
//! sector 0        boot sector with the BIOS parameter block
//! sector 1        FSInfo: free clusters, next free cluster
//! sector 6, 7     copies of both
//! sector 32..     first FAT, second FAT: 32 bits per cluster
//! cluster 2       root directory (its first entry is the volume label), other directories, then files,
//!                 each contiguous, in the order of the tree
//! ```
//!
//! Sectors are 512 bytes: firmware does not read others on disks of 512-byte sectors. The volume is FAT32 even when
//! small, because the UEFI specification asks for it on fixed disks; that takes at least 65,525 clusters, so 33 MiB.
//! Times are UTC, no file has a creation or access time of its own. Names keep their case by long-name entries.
//!
//! Invariants of what is read: each cluster belongs to at most one file, chains are exactly as long as the file's size
//! says, both FATs agree, names are unique without regard to case.
//!
//! Specification: Microsoft, "FAT: General Overview of On-Disk Format", 1.03; UEFI 2.10, section 13.3.

mod format;
mod reader;
mod writer;

pub use reader::{ReadError, Volume};
pub use writer::{Options, WriteError, minimum_size, write};

#[cfg(test)]
mod tests;
