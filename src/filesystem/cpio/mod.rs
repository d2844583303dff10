//! cpio in the "new ASCII" form (newc), the one form of archive that the kernel unpacks as an initial root file system.
//!
//! [`write`](writer::write) turns a [`Tree`](crate::tree::Tree) into an archive, [`read`](reader::read) an archive
//! into a tree. The bytes depend on the tree only: inode numbers are counted in walk order, the device is 0, names
//! come in the tree's order. Compression is the caller's.
//!
//! Specification: the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`, and cpio(5), "New ASCII
//! Format".

pub mod format;
pub mod reader;
pub mod writer;

pub use reader::{ReadError, read};
pub use writer::{WriteError, write};
