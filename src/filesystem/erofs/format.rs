//! The structures of EROFS as they lie on disk, and nothing else: bytes to values and back.
//!
//! Specification: Linux, `fs/erofs/erofs_fs.h` and `Documentation/filesystems/erofs.rst`. All numbers are
//! little-endian. Writers here always use blocks of 4096 bytes; readers take 512 bytes to 64 KiB.
//!
//! ```text
//! super block (at byte 1024, 128 bytes)           inode, compact (32)      inode, extended (64)
//!   0 magic        4 checksum   8 compat            0 format                 0 format
//!  12 block bits  13 slots     14 root nid          2 xattr count            2 xattr count
//!  16 inodes      24 epoch     32 epoch ns          4 mode                   4 mode
//!  36 blocks      40 meta blk  44 xattr blk         6 nlink                  6 -
//!  48 uuid        64 label     80 incompat          8 size (4)               8 size (8)
//!  84 algorithms  86 devices   88 device slot      12 -                     16 union
//!  90 dir bits    91 prefixes  92 prefix start     16 union                 20 ino
//!  96 packed nid 104 -        108 build time       20 ino                   24 uid   28 gid
//!                                                  24 uid (2)  26 gid (2)   32 mtime 40 ns   44 nlink
//! ```

/// log2 of the block size that is written; every kernel reads blocks of its page size or smaller.
pub const BLOCK_BITS: u8 = 12;
/// The block size that is written.
pub const BLOCK: usize = 1 << BLOCK_BITS;
/// Where the super block lies.
pub const SUPER_OFFSET: u64 = 1024;
/// Size of the super block without extension slots.
pub const SUPER_SIZE: usize = 128;
/// `EROFS_SUPER_MAGIC_V1`.
pub const MAGIC: u32 = 0xE0F5_E1E2;
/// A node number counts slots of this many bytes from the start of the metadata area.
pub const SLOT: usize = 32;
/// Size of one directory entry.
pub const DIRENT: usize = 12;
/// Size of the header of an inode's attributes.
pub const XATTR_HEADER: usize = 12;
/// Size of the header in front of a compressed inode's index.
pub const MAP_HEADER: usize = 8;
/// Address of a chunk that is a hole.
pub const NULL_BLOCK: u32 = u32::MAX;
/// Largest physical cluster: `Z_EROFS_PCLUSTER_MAX_SIZE`.
pub const PCLUSTER_MAX: usize = 1 << 20;
/// Most bytes that one physical cluster may decode to: `Z_EROFS_PCLUSTER_MAX_DSIZE`.
pub const DECODED_MAX: usize = 12 << 20;

/// `feature_compat`: the checksum is there to be checked.
pub const COMPAT_CHECKSUM: u32 = 1;
/// `feature_compat`: times are modification times.
pub const COMPAT_MTIME: u32 = 2;
/// `feature_incompat`: compressed bytes end at the end of their cluster, zeros in front.
pub const INCOMPAT_ZERO_PADDING: u32 = 0x01;
/// `feature_incompat`: a record per algorithm follows the super block; clusters of several blocks.
pub const INCOMPAT_CONFIGS: u32 = 0x02;
/// `feature_incompat`: files made of chunks.
pub const INCOMPAT_CHUNKED: u32 = 0x04;
/// `feature_incompat`: more devices than one, or a second algorithm per file (one bit for both).
pub const INCOMPAT_DEVICES: u32 = 0x08;
/// `feature_incompat`: the last cluster of a file stands behind its index.
pub const INCOMPAT_TAIL_PACKING: u32 = 0x10;
/// `feature_incompat`: fragments in the packed inode, and clusters that several files share.
pub const INCOMPAT_FRAGMENTS: u32 = 0x20;
/// `feature_incompat`: long attribute name prefixes.
pub const INCOMPAT_XATTR_PREFIXES: u32 = 0x40;
/// What a reader here understands.
pub const INCOMPAT_KNOWN: u32 = INCOMPAT_ZERO_PADDING
    | INCOMPAT_CONFIGS
    | INCOMPAT_CHUNKED
    | INCOMPAT_DEVICES
    | INCOMPAT_TAIL_PACKING
    | INCOMPAT_FRAGMENTS
    | INCOMPAT_XATTR_PREFIXES;

/// `h_advise`: compact indexes pack 16 clusters into 32 bytes where they can.
pub const ADVISE_COMPACTED_2B: u16 = 0x01;
/// `h_advise`: clusters of several blocks for the first algorithm.
pub const ADVISE_BIG_PCLUSTER: u16 = 0x02;
/// `h_advise`: clusters of several blocks for the second algorithm and for plain data.
pub const ADVISE_BIG_PCLUSTER_2: u16 = 0x04;
/// `h_advise`: the last cluster stands behind the index.
pub const ADVISE_INLINE: u16 = 0x08;
/// `h_advise`: plain clusters keep the bytes at their offset within the block, rotated.
pub const ADVISE_INTERLACED: u16 = 0x10;
/// `h_advise`: the tail is a fragment of the packed inode.
pub const ADVISE_FRAGMENT: u16 = 0x20;
/// Bit 63 of the map header: the whole file is a fragment; the other bits are its offset.
pub const WHOLE_FRAGMENT: u64 = 1 << 63;

/// Cluster index: data as it is.
pub const CLUSTER_PLAIN: u16 = 0;
/// Cluster index: an extent of the first algorithm starts here.
pub const CLUSTER_HEAD: u16 = 1;
/// Cluster index: inside or at the end of an extent.
pub const CLUSTER_NONHEAD: u16 = 2;
/// Cluster index: an extent of the second algorithm starts here.
pub const CLUSTER_HEAD2: u16 = 3;
/// First NONHEAD of an extent: instead of a distance, the number of blocks the extent takes on disk.
pub const BLOCK_COUNT_FLAG: u16 = 1 << 11;

/// Chunk format: entries of 8 bytes instead of 4.
pub const CHUNK_INDEXES: u16 = 0x20;
/// Chunk format: log2 of the chunk size in blocks.
pub const CHUNK_BITS: u16 = 0x1f;

/// `h_algorithmtype` of LZ4.
pub const ALGORITHM_LZ4: u8 = 0;
/// `h_algorithmtype` of DEFLATE.
pub const ALGORITHM_DEFLATE: u8 = 2;
/// `h_algorithmtype` of Zstandard.
pub const ALGORITHM_ZSTD: u8 = 3;

/// How an inode's data is laid out: bits 1 to 3 of its format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataLayout {
    /// Blocks one after the other.
    FlatPlain = 0,
    /// Compressed, 8 bytes of index per block of data.
    CompressedFull = 1,
    /// Blocks one after the other, the rest behind the inode.
    FlatInline = 2,
    /// Compressed, 2 or 4 bytes of index per block of data.
    CompressedCompact = 3,
    /// Chunks, each anywhere or nowhere.
    Chunked = 4,
}

/// The super block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SuperBlock {
    /// Features that an unaware reader may ignore.
    pub compat: u32,
    /// Features that a reader must know.
    pub incompat: u32,
    /// CRC-32C as stored; see [`checksum`].
    pub checksum: u32,
    /// log2 of the block size.
    pub block_bits: u8,
    /// Extension slots of 16 bytes that follow.
    pub slots: u8,
    /// Node number of the root directory.
    pub root_nid: u16,
    /// Number of inodes.
    pub inodes: u64,
    /// Modification time, in seconds, of all compact inodes.
    pub epoch: i64,
    /// Nanoseconds of the same.
    pub epoch_nanoseconds: u32,
    /// Blocks in the image.
    pub blocks: u32,
    /// Block where the metadata area starts.
    pub meta_block: u32,
    /// Block where the shared attributes start.
    pub xattr_block: u32,
    /// UUID.
    pub uuid: [u8; 16],
    /// Volume label, NUL-padded.
    pub label: [u8; 16],
    /// Bit per algorithm in use.
    pub algorithms: u16,
    /// Further devices.
    pub devices: u16,
    /// log2 of the directory block size minus `block_bits`.
    pub directory_bits: u8,
    /// Number of long attribute name prefixes.
    pub xattr_prefixes: u8,
    /// Where they lie, in units of 4 bytes.
    pub xattr_prefix_start: u32,
    /// Node number of the packed inode, if fragments are in use.
    pub packed_nid: u64,
    /// Seconds from `epoch` to when the image was made; 0 if not told.
    pub build_time: u32,
}

impl SuperBlock {
    /// The 128 bytes.
    pub fn encode(&self) -> [u8; SUPER_SIZE] {
        let mut bytes = [0; SUPER_SIZE];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &MAGIC.to_le_bytes());
        put(4, &self.checksum.to_le_bytes());
        put(8, &self.compat.to_le_bytes());
        put(12, &[self.block_bits, self.slots]);
        put(14, &self.root_nid.to_le_bytes());
        put(16, &self.inodes.to_le_bytes());
        put(24, &self.epoch.to_le_bytes());
        put(32, &self.epoch_nanoseconds.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        put(40, &self.meta_block.to_le_bytes());
        put(44, &self.xattr_block.to_le_bytes());
        put(48, &self.uuid);
        put(64, &self.label);
        put(80, &self.incompat.to_le_bytes());
        put(84, &self.algorithms.to_le_bytes());
        put(86, &self.devices.to_le_bytes());
        put(90, &[self.directory_bits, self.xattr_prefixes]);
        put(92, &self.xattr_prefix_start.to_le_bytes());
        put(96, &self.packed_nid.to_le_bytes());
        put(108, &self.build_time.to_le_bytes());
        bytes
    }

    /// The fields, and the magic number that was found.
    pub fn decode(bytes: &[u8; SUPER_SIZE]) -> (u32, Self) {
        let value = Self {
            checksum: u32_at(bytes, 4),
            compat: u32_at(bytes, 8),
            block_bits: bytes[12],
            slots: bytes[13],
            root_nid: u16_at(bytes, 14),
            inodes: u64_at(bytes, 16),
            epoch: u64_at(bytes, 24) as i64,
            epoch_nanoseconds: u32_at(bytes, 32),
            blocks: u32_at(bytes, 36),
            meta_block: u32_at(bytes, 40),
            xattr_block: u32_at(bytes, 44),
            uuid: array_at(bytes, 48),
            label: array_at(bytes, 64),
            incompat: u32_at(bytes, 80),
            algorithms: u16_at(bytes, 84),
            devices: u16_at(bytes, 86),
            directory_bits: bytes[90],
            xattr_prefixes: bytes[91],
            xattr_prefix_start: u32_at(bytes, 92),
            packed_nid: u64_at(bytes, 96),
            build_time: u32_at(bytes, 108),
        };
        (u32_at(bytes, 0), value)
    }
}

/// The checksum of a super block: CRC-32C without the final inversion, over `block`, which runs from the super
/// block to the end of the block that holds it and has zeros in place of the checksum.
pub fn checksum(block: &[u8]) -> u32 {
    !crc32c::crc32c(block)
}

/// One inode, compact or extended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Whether it takes 64 bytes.
    pub extended: bool,
    /// How its data is laid out.
    pub layout: DataLayout,
    /// Attribute count field: 0, or 1 + (size of the attributes - 12) / 4.
    pub xattr_count: u16,
    /// All of `st_mode`.
    pub mode: u16,
    /// Size in bytes.
    pub size: u64,
    /// First block, number of compressed blocks, device number or chunk format.
    pub union: u32,
    /// Inode number for 32-bit `stat`.
    pub number: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time; compact inodes have the super block's instead.
    pub mtime: i64,
    /// Nanoseconds of the same.
    pub nanoseconds: u32,
    /// Names.
    pub nlink: u32,
}

/// Size of a compact inode.
pub const INODE_COMPACT: usize = 32;
/// Size of an extended inode.
pub const INODE_EXTENDED: usize = 64;

impl Inode {
    /// Whether 32 bytes hold it, when the super block says `epoch`.
    pub fn fits_compact(&self, epoch: (i64, u32)) -> bool {
        self.size <= u64::from(u32::MAX)
            && self.uid <= 0xffff
            && self.gid <= 0xffff
            && self.nlink <= 0xffff
            && (self.mtime, self.nanoseconds) == epoch
    }

    /// Bytes of inode and attributes, before inline data or index.
    pub fn base_size(&self) -> usize {
        let inode = if self.extended { INODE_EXTENDED } else { INODE_COMPACT };
        inode + xattr_size(self.xattr_count)
    }

    /// The 32 or 64 bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(INODE_EXTENDED);
        let format = u16::from(self.extended) | (self.layout as u16) << 1;
        bytes.extend_from_slice(&format.to_le_bytes());
        bytes.extend_from_slice(&self.xattr_count.to_le_bytes());
        bytes.extend_from_slice(&self.mode.to_le_bytes());
        if self.extended {
            bytes.extend_from_slice(&[0; 2]);
            bytes.extend_from_slice(&self.size.to_le_bytes());
            bytes.extend_from_slice(&self.union.to_le_bytes());
            bytes.extend_from_slice(&self.number.to_le_bytes());
            bytes.extend_from_slice(&self.uid.to_le_bytes());
            bytes.extend_from_slice(&self.gid.to_le_bytes());
            bytes.extend_from_slice(&self.mtime.to_le_bytes());
            bytes.extend_from_slice(&self.nanoseconds.to_le_bytes());
            bytes.extend_from_slice(&self.nlink.to_le_bytes());
            bytes.extend_from_slice(&[0; 16]);
        } else {
            bytes.extend_from_slice(&(self.nlink as u16).to_le_bytes());
            bytes.extend_from_slice(&(self.size as u32).to_le_bytes());
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&self.union.to_le_bytes());
            bytes.extend_from_slice(&self.number.to_le_bytes());
            bytes.extend_from_slice(&(self.uid as u16).to_le_bytes());
            bytes.extend_from_slice(&(self.gid as u16).to_le_bytes());
            bytes.extend_from_slice(&[0; 4]);
        }
        bytes
    }

    /// The inode at the start of `bytes` (64, or fewer where the image ends); `None` if its format is unknown or
    /// the bytes do not suffice.
    pub fn decode(bytes: &[u8], epoch: (i64, u32)) -> Option<Self> {
        let compact: &[u8; INODE_COMPACT] = bytes.first_chunk()?;
        let format = u16_at(compact, 0);
        // Bits above 3 say things that came after Linux 6.12 and change what the rest means.
        if format >> 4 != 0 {
            return None;
        }
        let layout = match format >> 1 {
            0 => DataLayout::FlatPlain,
            1 => DataLayout::CompressedFull,
            2 => DataLayout::FlatInline,
            3 => DataLayout::CompressedCompact,
            4 => DataLayout::Chunked,
            _ => return None,
        };
        let (xattr_count, mode) = (u16_at(compact, 2), u16_at(compact, 4));
        if format & 1 == 0 {
            return Some(Self {
                extended: false,
                layout,
                xattr_count,
                mode,
                size: u64::from(u32_at(compact, 8)),
                union: u32_at(compact, 16),
                number: u32_at(compact, 20),
                uid: u32::from(u16_at(compact, 24)),
                gid: u32::from(u16_at(compact, 26)),
                mtime: epoch.0,
                nanoseconds: epoch.1,
                nlink: u32::from(u16_at(compact, 6)),
            });
        }
        let bytes: &[u8; INODE_EXTENDED] = bytes.first_chunk()?;
        Some(Self {
            extended: true,
            layout,
            xattr_count,
            mode,
            size: u64_at(bytes, 8),
            union: u32_at(bytes, 16),
            number: u32_at(bytes, 20),
            uid: u32_at(bytes, 24),
            gid: u32_at(bytes, 28),
            mtime: u64_at(bytes, 32) as i64,
            nanoseconds: u32_at(bytes, 40),
            nlink: u32_at(bytes, 44),
        })
    }
}

/// Bytes of attributes behind an inode whose attribute count field is `count`.
pub fn xattr_size(count: u16) -> usize {
    if count == 0 { 0 } else { XATTR_HEADER + 4 * (usize::from(count) - 1) }
}

/// The attribute count field for `size` bytes of attributes (0, or at least 16); `None` if it does not fit.
pub fn xattr_count(size: usize) -> Option<u16> {
    if size == 0 { Some(0) } else { u16::try_from((size - XATTR_HEADER) / 4 + 1).ok() }
}

/// The header in front of a compressed inode's index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MapHeader {
    /// Offset of the tail in the packed inode (lower 32 bits), or size of the inline cluster in the upper 16.
    pub fragment: u32,
    /// `ADVISE_*`.
    pub advise: u16,
    /// First algorithm in the lower four bits, second in the upper.
    pub algorithms: u8,
    /// log2 of the logical cluster in blocks.
    pub cluster_bits: u8,
}

impl MapHeader {
    /// The 8 bytes.
    pub fn encode(&self) -> [u8; MAP_HEADER] {
        let mut bytes = [0; MAP_HEADER];
        bytes[..4].copy_from_slice(&self.fragment.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.advise.to_le_bytes());
        bytes[6..].copy_from_slice(&[self.algorithms, self.cluster_bits]);
        bytes
    }

    /// The fields.
    pub fn decode(bytes: &[u8; MAP_HEADER]) -> Self {
        Self { fragment: u32_at(bytes, 0), advise: u16_at(bytes, 4), algorithms: bytes[6], cluster_bits: bytes[7] }
    }
}

/// `new_encode_dev` of Linux: major 12 bits, minor 20 bits; `None` if they do not fit.
pub fn encode_device(major: u32, minor: u32) -> Option<u32> {
    (major < 1 << 12 && minor < 1 << 20).then_some((minor & 0xff) | major << 8 | (minor & !0xff) << 12)
}

/// Major and minor of an encoded device number.
pub fn decode_device(device: u32) -> (u32, u32) {
    (device >> 8 & 0xfff, (device & 0xff) | (device >> 12 & 0xf_ff00))
}

/// The directory entry type of an `S_IFMT` value; 0 is unknown.
pub fn file_type(mode: u16) -> u8 {
    match mode >> 12 {
        0o10 => 1,
        0o04 => 2,
        0o02 => 3,
        0o06 => 4,
        0o01 => 5,
        0o14 => 6,
        0o12 => 7,
        _ => 0,
    }
}

/// Two bytes at `at`; the caller has made sure that they are there.
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

/// Four bytes at `at`; the caller has made sure that they are there.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

/// Eight bytes at `at`; the caller has made sure that they are there.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_keep_twelve_bits_of_major_and_twenty_of_minor() {
        for (major, minor) in [(1, 3), (259, 70_000), (4095, (1 << 20) - 1), (0, 0)] {
            assert_eq!(decode_device(encode_device(major, minor).unwrap()), (major, minor));
        }
        assert_eq!(encode_device(259, 70_000), Some(0x1111_0370));
        assert_eq!(encode_device(4096, 0), None);
        assert_eq!(encode_device(0, 1 << 20), None);
    }

    #[test]
    fn inodes_of_both_sizes_come_back() {
        let mut inode = Inode {
            extended: true,
            layout: DataLayout::Chunked,
            xattr_count: 7,
            mode: 0o104755,
            size: 1 << 40,
            union: 9,
            number: 5,
            uid: 1 << 20,
            gid: u32::MAX,
            mtime: -5,
            nanoseconds: 999_999_999,
            nlink: 70_000,
        };
        assert_eq!(Inode::decode(&inode.encode(), (0, 0)), Some(inode.clone()));
        assert_eq!(inode.encode().len(), INODE_EXTENDED);
        assert!(!inode.fits_compact((-5, 999_999_999)));
        inode = Inode { extended: false, size: 1 << 31, uid: 65535, gid: 0, nlink: 65535, ..inode };
        assert!(inode.fits_compact((-5, 999_999_999)));
        assert_eq!(Inode::decode(&inode.encode(), (-5, 999_999_999)), Some(inode.clone()));
        assert_eq!(inode.encode().len(), INODE_COMPACT);
        assert_eq!(Inode::decode(&inode.encode()[..31], (0, 0)), None);
    }

    #[test]
    fn super_blocks_come_back() {
        let value = SuperBlock {
            compat: 3,
            incompat: 0x27,
            checksum: 0xdead_beef,
            block_bits: 12,
            root_nid: 1,
            inodes: 70,
            epoch: -1,
            epoch_nanoseconds: 7,
            blocks: 9,
            meta_block: 4,
            xattr_block: 3,
            uuid: [0x11; 16],
            label: *b"root\0\0\0\0\0\0\0\0\0\0\0\0",
            algorithms: 8,
            packed_nid: 1 << 40,
            build_time: 77,
            ..SuperBlock::default()
        };
        assert_eq!(SuperBlock::decode(&value.encode()), (MAGIC, value));
    }
}
