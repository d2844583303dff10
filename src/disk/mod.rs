//! The disk: a GUID partition table around an EFI system partition, the root file system and its dm-verity hashes.
//!
//! Flows in: the contents of the partitions and what names them ([`Image`]). Flows out: a [`Disk`], whose bytes are a
//! [`Content`] that refers to the partitions' bytes; [`write_sparse`] puts it into a file and leaves its zeros out.
//!
//! ```text
//! sector 0          protective MBR
//! sector 1          GPT header
//! sector 2..34      128 partition entries
//! 1 MiB             esp            FAT32; the UKI as /EFI/BOOT/BOOT<ARCH>.EFI
//! MiB boundary      <name>_<version>         root, EROFS; UUID: first half of the root hash
//! MiB boundary      <name>_<version>_verity  its hash tree; UUID: second half of the root hash
//! last 33 sectors   copy of the entries, copy of the header      (the disk is whole MiB)
//! ```
//!
//! Sectors are 512 bytes. The firmware starts the UKI itself, without a boot loader in between: nothing to wait for,
//! nothing to configure, one file to verify. Everything outside the partitions and the table is zero.
//!
//! A machine's disk is larger than the image: what makes the machine puts the image at its front, the copy of the table
//! is then not at the end, and systemd-repart moves it there on the first boot, before it makes partitions in the
//! space behind. An image therefore has no reserve for state.
//!
//! Specification: UEFI 2.10 chapter 5; UAPI group, Discoverable Partitions Specification; labels as systemd-sysupdate
//! expects them (`sysupdate.d(5)`).

mod gpt;
mod layout;
mod raw;

pub use gpt::{Entry, ReadError, Table, TableError, attribute};
pub use layout::{Disk, ESP, Esp, Image, LayoutError, Partition, esp_size, root_offset};
pub use raw::{write_sparse, write_sparse_around};
