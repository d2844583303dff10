//! An image to a tree.
//!
//! Reads what [`write`](super::write) writes and, beyond it, what mkfs.erofs does by default: compact indexes,
//! clusters behind the index, shared clusters, DEFLATE. Not read, and refused by name: LZMA, several devices, long
//! attribute prefixes, and what came after Linux 6.12 (48-bit addresses, metadata that is compressed itself).
//!
//! Metadata is read at once and checked, contents when they are asked for. The image is not trusted: every offset is
//! checked before it is used, nothing is allocated that the image has no bytes for, and no directory is read twice.
//! Every error has the byte of the image where the wrong thing stands; one that comes up while a content is read is
//! inside the [`io::Error`].

mod content;
mod directory;
mod inode;
mod map;

use std::io;
use std::sync::Arc;

use super::format::{self, MAGIC, SUPER_OFFSET, SUPER_SIZE, SuperBlock};
use crate::tree::{ReadAt, Tree};

use content::Cache;

/// Why an image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The medium failed.
    #[error("cannot read the image at byte {offset}")]
    Io {
        /// Byte of the image.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no EROFS.
    #[error("no EROFS at byte {offset}: its magic number is 0xe0f5e1e2, found {found:#010x}")]
    Magic {
        /// Byte of the image.
        offset: u64,
        /// What stands there.
        found: u32,
    },
    /// The super block's checksum is wrong.
    #[error("the EROFS super block at byte {offset} has checksum {found:#010x}, its bytes have {computed:#010x}")]
    Checksum {
        /// Byte of the image.
        offset: u64,
        /// What stands there.
        found: u32,
        /// What should.
        computed: u32,
    },
    /// The image uses something that this reader does not know.
    #[error("EROFS, byte {offset}: {what} is not supported")]
    Unsupported {
        /// Byte of the image.
        offset: u64,
        /// What is used.
        what: Unsupported,
    },
    /// The image is wrong.
    #[error("EROFS, byte {offset}: {fault}")]
    Corrupt {
        /// Byte of the image.
        offset: u64,
        /// What is wrong.
        fault: Fault,
    },
}

/// What a reader may meet and not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// Bits of `feature_incompat`.
    #[error("feature set {0:#x}")]
    Features(u32),
    /// More than one device.
    #[error("data on another device")]
    Device,
    /// A block size that EROFS does not have.
    #[error("a block size of 2^{0}")]
    BlockSize(u8),
    /// A number of `h_algorithmtype`.
    #[error("compression algorithm {0}")]
    Algorithm(u8),
    /// Long attribute prefixes.
    #[error("a long attribute name prefix")]
    XattrPrefix,
}

/// What may be wrong with an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Something points outside the image.
    #[error("{0} lies outside the image")]
    Outside(&'static str),
    /// More metadata is claimed than the image has room for.
    #[error("the metadata would be larger than the image")]
    Amplified,
    /// The inode's format is none.
    #[error("an inode of unknown format")]
    InodeFormat,
    /// The type in `st_mode` is none, or has no place here.
    #[error("an inode of type {0:#o}")]
    InodeType(u16),
    /// The layout of the data cannot be that of this type.
    #[error("a data layout that this type of file cannot have")]
    Layout,
    /// A time with more nanoseconds than a second has.
    #[error("a time with {0} nanoseconds")]
    Nanoseconds(u32),
    /// A size that no file can have.
    #[error("an inode of {0} bytes")]
    Size(u64),
    /// Attributes that overlap their end, or have no valid name.
    #[error("an extended attribute that is not well-formed")]
    Xattr,
    /// An inode has one attribute twice.
    #[error("an extended attribute that is there twice")]
    XattrTwice,
    /// A symlink with no target, or one with NUL or of more than 4095 bytes.
    #[error("a symlink target of {0} bytes, or one that holds NUL")]
    Symlink(u64),
    /// A directory block whose entries are not well-formed.
    #[error("a directory block that is not well-formed")]
    Directory,
    /// Names that are not in byte order: Linux would not find them.
    #[error("a directory entry that is not in byte order")]
    Order,
    /// A name that no file can have.
    #[error("a directory entry with a name that no file can have")]
    Name,
    /// `.` or `..` are missing or lead elsewhere.
    #[error("a directory whose `.` or `..` is missing or leads elsewhere")]
    Dots,
    /// A directory has two names.
    #[error("a directory that has a second name")]
    DirectoryLink,
    /// Directories nested deeper than any path reaches.
    #[error("directories nested too deep")]
    Depth,
    /// The entry's type is not that of the inode.
    #[error("a directory entry whose type is not that of its inode")]
    EntryType,
    /// The link count is not the number of names.
    #[error("a link count of {found}, of {names} names")]
    Links {
        /// What the inode says.
        found: u32,
        /// What there are.
        names: u32,
    },
    /// Inline data that crosses a block.
    #[error("inline data that crosses a block")]
    Inline,
    /// A cluster index that is not well-formed.
    #[error("a cluster index that is not well-formed")]
    Index,
    /// The algorithm is not among those that the super block lists.
    #[error("compression algorithm {0}, which the super block does not list")]
    Algorithm(u8),
    /// A cluster that decodes to more than a reader may be asked for.
    #[error("a cluster that decodes to {0} bytes")]
    ClusterSize(u64),
    /// A chunk format that is none.
    #[error("a chunk format of {0:#x}")]
    ChunkFormat(u16),
    /// A fragment where there is no packed inode, or beyond its end.
    #[error("a fragment outside the packed inode")]
    Fragment,
    /// Compressed bytes that do not decode to what the index says.
    #[error("a compressed cluster that does not decode")]
    Cluster,
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io { ref source, .. } => io::Error::new(source.kind(), error),
            _ => io::Error::new(io::ErrorKind::InvalidData, error),
        }
    }
}

fn corrupt<T>(offset: u64, fault: Fault) -> Result<T, ReadError> {
    Err(ReadError::Corrupt { offset, fault })
}

/// The bytes of an image, whose size is known.
struct Image {
    source: Arc<dyn ReadAt>,
    size: u64,
    block_bits: u8,
    cache: Cache,
}

impl Image {
    fn block(&self) -> u64 {
        1 << self.block_bits
    }

    /// Where block `number` starts.
    fn block_offset(&self, number: u32) -> u64 {
        u64::from(number) << self.block_bits
    }

    /// Fills `buffer`; `at` is the byte of the image that an error is to name, where the address stands.
    fn read(&self, buffer: &mut [u8], offset: u64, at: u64, what: &'static str) -> Result<(), ReadError> {
        self.check(offset, buffer.len() as u64, at, what)?;
        self.source.read_exact_at(buffer, offset).map_err(|source| ReadError::Io { offset, source })
    }

    /// `size` bytes, allocated only if the image has them.
    fn bytes(&self, offset: u64, size: u64, at: u64, what: &'static str) -> Result<Vec<u8>, ReadError> {
        self.check(offset, size, at, what)?;
        let mut buffer = vec![0; usize::try_from(size).or_else(|_| corrupt(at, Fault::Outside(what)))?];
        self.source.read_exact_at(&mut buffer, offset).map_err(|source| ReadError::Io { offset, source })?;
        Ok(buffer)
    }

    fn check(&self, offset: u64, size: u64, at: u64, what: &'static str) -> Result<(), ReadError> {
        match offset.checked_add(size) {
            Some(end) if end <= self.size => Ok(()),
            _ => corrupt(at, Fault::Outside(what)),
        }
    }
}

/// An EROFS image.
pub struct Reader {
    image: Arc<Image>,
    super_block: SuperBlock,
}

impl Reader {
    /// Opens the image of `size` bytes that is `source`.
    pub fn open(source: Arc<dyn ReadAt>, size: u64) -> Result<Self, ReadError> {
        let mut image = Image { source, size, block_bits: format::BLOCK_BITS, cache: Cache::default() };
        let mut bytes = [0; SUPER_SIZE];
        image.read(&mut bytes, SUPER_OFFSET, SUPER_OFFSET, "the super block")?;
        let (magic, super_block) = SuperBlock::decode(&bytes);
        if magic != MAGIC {
            return Err(ReadError::Magic { offset: SUPER_OFFSET, found: magic });
        }
        let unsupported = |at: u64, what| Err(ReadError::Unsupported { offset: SUPER_OFFSET + at, what });
        if !(9..=16).contains(&super_block.block_bits) {
            return unsupported(12, Unsupported::BlockSize(super_block.block_bits));
        }
        image.block_bits = super_block.block_bits;
        check_checksum(&image, &super_block)?;
        if super_block.incompat & !format::INCOMPAT_KNOWN != 0 {
            return unsupported(80, Unsupported::Features(super_block.incompat & !format::INCOMPAT_KNOWN));
        }
        if super_block.devices != 0 {
            return unsupported(86, Unsupported::Device);
        }
        if super_block.directory_bits != 0 {
            return unsupported(90, Unsupported::BlockSize(super_block.directory_bits));
        }
        let claimed = u64::from(super_block.blocks) << super_block.block_bits;
        image.check(0, claimed, SUPER_OFFSET + 36, "the last block")?;
        image.size = claimed.max(SUPER_OFFSET + SUPER_SIZE as u64);
        Ok(Self { image: Arc::new(image), super_block })
    }

    /// Volume UUID.
    pub fn uuid(&self) -> [u8; 16] {
        self.super_block.uuid
    }

    /// Volume label, without its padding.
    pub fn label(&self) -> &[u8] {
        let label = &self.super_block.label;
        &label[..label.iter().position(|byte| *byte == 0).unwrap_or(label.len())]
    }

    /// Size of the image in bytes, as its super block tells.
    pub fn size(&self) -> u64 {
        self.image.size
    }

    /// The tree. Contents are read and decompressed when they are asked for.
    pub fn tree(&self) -> Result<Tree, ReadError> {
        directory::tree(&self.image, &self.super_block)
    }
}

fn check_checksum(image: &Image, super_block: &SuperBlock) -> Result<(), ReadError> {
    if super_block.compat & format::COMPAT_CHECKSUM == 0 {
        return Ok(());
    }
    // The rest of the block that the super block lies in; blocks smaller than its offset end with the super block's.
    let end = (SUPER_OFFSET + 1).next_multiple_of(image.block());
    let mut block = image.bytes(SUPER_OFFSET, end - SUPER_OFFSET, SUPER_OFFSET, "the first block")?;
    block[4..8].fill(0);
    let computed = format::checksum(&block);
    if computed != super_block.checksum {
        return Err(ReadError::Checksum { offset: SUPER_OFFSET + 4, found: super_block.checksum, computed });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::num::NonZeroUsize;

    use super::*;
    use crate::filesystem::erofs::{Compression, Options, write};
    use crate::tree::{Content, Kind, Metadata, Node};

    /// A small image with something of everything, whose super block has no checksum.
    fn image(compression: Compression) -> Vec<u8> {
        let mut tree = Tree::default();
        let mut metadata = Metadata::with_mode(0o755);
        metadata.xattrs.insert(b"user.a".to_vec(), b"1".to_vec());
        metadata.xattrs.insert(b"security.b".to_vec(), b"shared".to_vec());
        tree.make_directories(b"a/b", &metadata).unwrap();
        let text: Vec<u8> = (0..30_000_u32).flat_map(|n| (n * n % 977).to_le_bytes()).collect();
        let holes = Content::from_bytes(text.clone()).with_extents([0..10, 70_000..70_001]);
        for (path, kind) in [
            (&b"a/large"[..], Kind::File(Content::from_bytes(text.clone()))),
            (b"a/medium", Kind::File(Content::from_bytes(&text[..9000]))),
            (b"a/small", Kind::File(Content::from_bytes(&text[..900]))),
            (b"a/b/tiny", Kind::File(Content::from_bytes("tiny"))),
            (b"a/b/holes", Kind::File(holes)),
            (b"a/link", Kind::Symlink(b"b/tiny".to_vec())),
            (b"fifo", Kind::Fifo),
        ] {
            tree.insert(path, Node { metadata: metadata.clone(), kind }).unwrap();
        }
        tree.link(b"fifo", b"a/fifo").unwrap();
        let options =
            Options { compression, pcluster: 8192, packed_max: 4096, workers: NonZeroUsize::MIN, ..Options::default() };
        let mut out = Cursor::new(Vec::new());
        write(&tree, &options, &mut out).unwrap();
        let mut image = out.into_inner();
        image[1032] &= !1;
        image
    }

    /// Reads all metadata and the start of every content.
    fn read_all(image: &[u8]) -> Result<usize, io::Error> {
        let tree = Reader::open(Arc::new(image.to_vec()), image.len() as u64)?.tree()?;
        let mut names = 0;
        for (_, id) in tree.walk() {
            names += 1;
            if let Kind::File(content) = &tree.node(id).kind {
                let mut bytes = vec![0; content.size().min(200_000) as usize];
                content.read_exact_at(&mut bytes, 0)?;
            }
        }
        Ok(names)
    }

    #[test]
    fn a_changed_image_never_panics() {
        for compression in [Compression::None, Compression::Lz4 { level: 9 }, Compression::Zstd { level: 3 }] {
            let image = image(compression);
            assert_eq!(read_all(&image).unwrap(), 11);
            let mut random = 1_u64;
            let mut next = || {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                random >> 33
            };
            let metadata = u32::from_le_bytes(image[1064..1068].try_into().unwrap()) as u64 * 4096;
            let mut refused = 0;
            for round in 0..3000 {
                let mut changed = image.clone();
                for _ in 0..=round % 4 {
                    // The super block, the metadata, anywhere.
                    let position = match next() % 4 {
                        0 => 1024 + next() % 128,
                        1 => next() % image.len() as u64,
                        _ => metadata + next() % (image.len() as u64 - metadata),
                    };
                    let values = [0, 0xff, next() as u8, changed[position as usize] ^ 1 << (next() % 8)];
                    changed[position as usize] = values[next() as usize % 4];
                }
                refused += usize::from(read_all(&changed).is_err());
            }
            assert!(refused > 300, "{refused} of 3000 were refused");
            for size in (0..image.len()).step_by(97) {
                assert!(read_all(&image[..size]).is_err(), "cut to {size} bytes");
            }
        }
    }

    /// Byte of the image where the inode of `path` stands.
    fn inode_of(image: &[u8], path: &[u8]) -> usize {
        let word = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap()) as usize;
        let area = word(1064) * 4096;
        let mut inode = area + usize::from(u16::from_le_bytes(image[1038..1040].try_into().unwrap())) * 32;
        for name in crate::tree::components(path) {
            let entry = (inode..).find(|at| image[*at..].starts_with(name) && *at > inode + 64).unwrap();
            // The entry whose name stands there: by its name offset, within one block of inline entries.
            let base = inode + if image[inode] & 1 == 1 { 64 } else { 32 };
            let base = base
                + match image[inode + 2] {
                    0 => 0,
                    count => 12 + 4 * (usize::from(count) - 1),
                };
            let position = (0..).find(|n| base + usize::from(image[base + 12 * n + 8]) == entry).unwrap();
            inode = area + word(base + 12 * position) * 32;
        }
        inode
    }

    fn fault(image: &[u8]) -> (u64, Fault) {
        match Reader::open(Arc::new(image.to_vec()), image.len() as u64).and_then(|reader| reader.tree()) {
            Err(ReadError::Corrupt { offset, fault }) => (offset, fault),
            other => panic!("{:?}", other.map(|_| ())),
        }
    }

    #[test]
    fn an_error_has_the_byte_where_the_wrong_thing_stands() {
        let good = image(Compression::Zstd { level: 3 });
        let changed = |at: usize, value: u8| {
            let mut image = good.clone();
            image[at] = value;
            image
        };
        let fifo = inode_of(&good, b"fifo");
        let links = fifo + if good[fifo] & 1 == 1 { 44 } else { 6 };
        assert_eq!(fault(&changed(links, 3)), (links as u64, Fault::Links { found: 3, names: 2 }));
        assert_eq!(fault(&changed(fifo, 0x20)), (fifo as u64, Fault::InodeFormat));
        let large = inode_of(&good, b"a/large");
        let size = large + 8;
        assert_eq!(fault(&changed(size + 3, 0x7f)), (size as u64, Fault::Amplified));
        let mut wrong_checksum = good.clone();
        wrong_checksum[1032] |= 1;
        wrong_checksum[1030] ^= 1;
        let opened = Reader::open(Arc::new(wrong_checksum.clone()), wrong_checksum.len() as u64);
        assert!(matches!(opened, Err(ReadError::Checksum { offset: 1028, .. })));
        let opened = Reader::open(Arc::new(vec![0_u8; 8192]), 8192);
        assert!(matches!(opened, Err(ReadError::Magic { offset: 1024, found: 0 })));
    }

    #[test]
    fn a_broken_cluster_is_told_when_it_is_read_with_its_offset() {
        let mut image = image(Compression::Zstd { level: 3 });
        // The first file with data of its own has the first block behind the super block's.
        let block = 1;
        image[block * 4096..(block + 2) * 4096].fill(0x55);
        let tree = Reader::open(Arc::new(image.clone()), image.len() as u64).unwrap().tree().unwrap();
        let Kind::File(content) = &tree.node(tree.lookup(b"a/large").unwrap()).kind else { panic!("a file") };
        let error = content.to_vec().unwrap_err();
        let error = error.get_ref().unwrap().downcast_ref::<ReadError>().unwrap();
        let expected = block as u64 * 4096;
        assert!(
            matches!(error, ReadError::Corrupt { offset, fault: Fault::Cluster } if *offset == expected),
            "{error}"
        );
    }
}
