//! A tree to an image.
//!
//! ```text
//! Tree ─ survey ─> inodes in tree order ─ data ─> where each file's bytes went ─ metadata ─> inodes, directories
//!                                          └──────────> output, as it is compressed              └──> output
//! ```
//!
//! The output is written from front to back, then once more at its start for the super block. Memory holds the
//! metadata, and a few segments per worker of data in flight.

mod chunks;
mod clusters;
mod data;
mod metadata;
mod pack;
mod survey;

use std::io::{self, Seek, SeekFrom, Write};

use super::codec::ZSTD_WINDOW_BITS;
use super::format::{self, BLOCK, BLOCK_BITS, PCLUSTER_MAX, SUPER_OFFSET, SuperBlock};
use super::xattr::XattrError;
use super::{Compression, Options, SegmentCache};
use crate::tree::{Tree, show};

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The cluster size is none that EROFS has.
    #[error("a compressed cluster is a power of two from 4096 to 1048576 bytes, not {0}")]
    Pcluster(usize),
    /// The level is none that the compression has.
    #[error("{compression:?}: LZ4 has levels 1 to 12, Zstandard 1 to 22")]
    Level {
        /// What was asked for.
        compression: Compression,
    },
    /// The label is too long.
    #[error("a volume label has at most 16 bytes, this one {0}")]
    Label(usize),
    /// A file's content could not be read.
    #[error("cannot read the content of {path}", path = show(.path))]
    Read {
        /// Which file.
        path: Vec<u8>,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An extended attribute that EROFS cannot hold.
    #[error("cannot store the extended attributes of {path}", path = show(.path))]
    Xattr {
        /// Which file.
        path: Vec<u8>,
        /// Why.
        #[source]
        source: XattrError,
    },
    /// The attributes of one file do not fit behind an inode.
    #[error("the extended attributes of {path} are larger than 256 KiB", path = show(.0))]
    Xattrs(Vec<u8>),
    /// A device number that Linux does not have.
    #[error("{path}: a device has a major number below 4096 and a minor number below 1048576", path = show(.0))]
    Device(Vec<u8>),
    /// A symlink without target, or with one that Linux would not follow.
    #[error("{path}: a symlink's target has 1 to 4095 bytes", path = show(.0))]
    Symlink(Vec<u8>),
    /// The image would have more blocks than EROFS can count.
    #[error("the image would be larger than 16 TiB")]
    TooLarge,
    /// The compressor failed.
    #[error("cannot compress")]
    Compress(#[source] io::Error),
    /// The output could not be written.
    #[error("cannot write the image")]
    Write(#[source] io::Error),
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Size of the image in bytes, a multiple of 4096.
    pub size: u64,
    /// Inodes: files, directories and all else, hard links counted once.
    pub inodes: u64,
    /// Bytes of all regular files, hard links counted once.
    pub content: u64,
    /// Bytes of files whose content another file has too.
    pub duplicates: u64,
    /// Bytes of small files that were compressed together.
    pub packed: u64,
    /// Bytes of inodes, attributes, indexes and directories.
    pub metadata: u64,
}

/// Writes `tree` as an EROFS image to `out`, from its current position on.
///
/// The bytes depend on the tree and the options, but for the number of workers. After an error what stands in `out`
/// is no image: the super block is written last.
pub fn write<W: Write + Seek>(tree: &Tree, options: &Options, out: &mut W) -> Result<Summary, WriteError> {
    write_job(&Job { tree, options, cache: None }, out)
}

/// Writes the image that [`write`] would write, of what `cache` has as far as it has it, and lets it keep the rest.
pub fn write_with<W: Write + Seek>(
    tree: &Tree,
    options: &Options,
    cache: &dyn SegmentCache,
    out: &mut W,
) -> Result<Summary, WriteError> {
    write_job(&Job { tree, options, cache: Some(cache) }, out)
}

/// What there is to do.
struct Job<'a> {
    tree: &'a Tree,
    options: &'a Options,
    cache: Option<&'a dyn SegmentCache>,
}

fn write_job<W: Write + Seek>(job: &Job<'_>, out: &mut W) -> Result<Summary, WriteError> {
    let Job { tree, options, .. } = *job;
    check(options)?;
    let start = out.stream_position().map_err(WriteError::Write)?;
    let survey = survey::Survey::new(tree)?;
    let mut sink = Sink { out, next: 0 };
    sink.append(&[0; BLOCK])?;
    let data = data::write(job, &survey, &mut sink)?;
    let metadata = metadata::write(tree, &survey, &data, options, &mut sink)?;
    let Sink { out, next: blocks } = sink;
    out.seek(SeekFrom::Start(start)).map_err(WriteError::Write)?;
    out.write_all(&first_block(&survey, &metadata, options, blocks)).map_err(WriteError::Write)?;
    let size = u64::from(blocks) * BLOCK as u64;
    out.seek(SeekFrom::Start(start + size)).map_err(WriteError::Write)?;
    out.flush().map_err(WriteError::Write)?;
    Ok(Summary {
        size,
        inodes: metadata.inodes,
        content: data.content,
        duplicates: data.duplicates,
        packed: data.packed_size(),
        metadata: metadata.size,
    })
}

fn check(options: &Options) -> Result<(), WriteError> {
    if !options.pcluster.is_power_of_two() || !(BLOCK..=PCLUSTER_MAX).contains(&options.pcluster) {
        return Err(WriteError::Pcluster(options.pcluster));
    }
    let known = match options.compression {
        Compression::None => true,
        Compression::Lz4 { level } => (1..=12).contains(&level),
        Compression::Zstd { level } => (1..=22).contains(&level),
    };
    if !known {
        return Err(WriteError::Level { compression: options.compression });
    }
    if options.label.len() > 16 {
        return Err(WriteError::Label(options.label.len()));
    }
    Ok(())
}

/// The block at offset 0: super block, then a record for the compression.
fn first_block(survey: &survey::Survey<'_>, metadata: &metadata::Metadata, options: &Options, blocks: u32) -> Vec<u8> {
    let mut label = [0; 16];
    label[..options.label.len()].copy_from_slice(&options.label);
    let mut super_block = SuperBlock {
        compat: format::COMPAT_CHECKSUM | format::COMPAT_MTIME,
        incompat: metadata.incompat,
        block_bits: BLOCK_BITS,
        root_nid: metadata.root_nid,
        inodes: metadata.inodes,
        epoch: survey.epoch.0,
        epoch_nanoseconds: survey.epoch.1,
        blocks,
        meta_block: metadata.meta_block,
        xattr_block: metadata.meta_block,
        uuid: options.uuid,
        label,
        packed_nid: metadata.packed_nid,
        build_time: options.build_time.checked_sub(survey.epoch.0).and_then(|d| u32::try_from(d).ok()).unwrap_or(0),
        ..SuperBlock::default()
    };
    let pcluster_blocks = (options.pcluster / BLOCK) as u16;
    let record: Vec<u8> = match options.compression {
        Compression::None => Vec::new(),
        Compression::Lz4 { .. } => {
            super_block.algorithms = 1 << format::ALGORITHM_LZ4;
            // The largest distance of the LZ4 block format, then the largest cluster.
            let mut record = vec![14, 0, 0xff, 0xff];
            record.extend_from_slice(&pcluster_blocks.to_le_bytes());
            record.resize(16, 0);
            record
        }
        Compression::Zstd { .. } => {
            super_block.algorithms = 1 << format::ALGORITHM_ZSTD;
            // Frames as they are, then log2 of the largest window above 1 KiB.
            vec![6, 0, 0, ZSTD_WINDOW_BITS - 10, 0, 0, 0, 0]
        }
    };
    let mut block = vec![0; BLOCK];
    let at = SUPER_OFFSET as usize;
    block[at..at + format::SUPER_SIZE].copy_from_slice(&super_block.encode());
    block[at + format::SUPER_SIZE..][..record.len()].copy_from_slice(&record);
    super_block.checksum = format::checksum(&block[at..]);
    block[at..at + format::SUPER_SIZE].copy_from_slice(&super_block.encode());
    block
}

/// The output, in whole blocks.
struct Sink<'a, W> {
    out: &'a mut W,
    /// Number of the next block.
    next: u32,
}

impl<W: Write> Sink<'_, W> {
    /// Appends `bytes`, padded to whole blocks, and gives the first one's number.
    fn append(&mut self, bytes: &[u8]) -> Result<u32, WriteError> {
        let first = self.next;
        let blocks = u32::try_from(bytes.len().div_ceil(BLOCK)).map_err(|_| WriteError::TooLarge)?;
        // The last number means a hole in chunked files.
        self.next = first.checked_add(blocks).filter(|next| *next < format::NULL_BLOCK).ok_or(WriteError::TooLarge)?;
        self.out.write_all(bytes).map_err(WriteError::Write)?;
        let padding = bytes.len().next_multiple_of(BLOCK) - bytes.len();
        self.out.write_all(&[0; BLOCK][..padding]).map_err(WriteError::Write)?;
        Ok(first)
    }
}
