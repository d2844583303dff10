//! The header of a newc member.
//!
//! ```text
//! member   "070701" | 13 fields of 8 hexadecimal digits | name, NUL | pad to 4 | data | pad to 4
//! fields    ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
//! archive  member* | member "TRAILER!!!"
//! ```
//!
//! Padding counts from the archive's first byte. A file with several names is as many members of one inode number;
//! its data stands with the last of them, the others say size 0 (as GNU cpio writes it, and as the kernel takes it).

/// Opens each member. `070702`, the variant with checksums, is never written and not read.
pub const MAGIC: &[u8; 6] = b"070701";

/// Magic and thirteen fields.
pub const HEADER_SIZE: usize = 6 + 13 * 8;

/// The name of the member that ends an archive.
pub const TRAILER: &[u8] = b"TRAILER!!!";

/// The kernel ignores a member whose name is longer (`PATH_MAX`, the NUL included).
pub const NAME_SIZE_MAX: usize = 4096;

/// The fields of a member's header, except the checksum, which newc leaves 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// Members with the same number are one file.
    pub inode: u32,
    /// Type and permissions, as `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// How many members have this inode number.
    pub links: u32,
    /// Seconds since 1970; unsigned.
    pub mtime: u32,
    /// Bytes of data after the name.
    pub file_size: u32,
    /// Of the device that a device node stands for.
    pub device_major: u32,
    /// Of the device that a device node stands for.
    pub device_minor: u32,
    /// Bytes of the name, its NUL included.
    pub name_size: u32,
}

impl Header {
    /// The header's bytes.
    pub fn to_bytes(self) -> [u8; HEADER_SIZE] {
        let fields = [
            self.inode,
            self.mode,
            self.uid,
            self.gid,
            self.links,
            self.mtime,
            self.file_size,
            0,
            0,
            self.device_major,
            self.device_minor,
            self.name_size,
            0,
        ];
        let mut bytes = [0; HEADER_SIZE];
        bytes[..6].copy_from_slice(MAGIC);
        for (field, target) in fields.iter().zip(bytes[6..].chunks_exact_mut(8)) {
            for (place, digit) in target.iter_mut().enumerate() {
                let value = (field >> (28 - 4 * place)) & 15;
                *digit = b"0123456789abcdef"[value as usize];
            }
        }
        bytes
    }

    /// The header that stands in `bytes`; `None` if it is none.
    pub fn from_bytes(bytes: &[u8; HEADER_SIZE]) -> Option<Self> {
        let digits = bytes.strip_prefix(MAGIC)?;
        let mut fields = [0_u32; 13];
        for (field, digits) in fields.iter_mut().zip(digits.chunks_exact(8)) {
            for digit in digits {
                *field = *field << 4 | char::from(*digit).to_digit(16)?;
            }
        }
        let [inode, mode, uid, gid, links, mtime, file_size, _, _, device_major, device_minor, name_size, _] = fields;
        Some(Self { inode, mode, uid, gid, links, mtime, file_size, device_major, device_minor, name_size })
    }
}

/// Bytes of padding after `length` bytes.
pub fn padding(length: u64) -> usize {
    (length.wrapping_neg() % 4) as usize
}
