//! Inodes and directories: placed, then written.

use std::io::Write;

use super::data::{Data, Placed};
use super::survey::{Item, Survey, path_of};
use super::{Sink, WriteError};
use crate::filesystem::erofs::directory::{self, Entry};
use crate::filesystem::erofs::format::{self, BLOCK, DataLayout, Inode, MapHeader, SLOT};
use crate::filesystem::erofs::index;
use crate::filesystem::erofs::placement::{Placement, can_inline};
use crate::filesystem::erofs::{Compression, Options};
use crate::tree::{Content, Kind, Tree};

/// What the super block has to know.
#[derive(Debug)]
pub struct Metadata {
    /// Block where the metadata area starts.
    pub meta_block: u32,
    /// Node number of the root directory.
    pub root_nid: u16,
    /// Node number of the packed inode, or 0.
    pub packed_nid: u64,
    /// Number of inodes.
    pub inodes: u64,
    /// Features in use.
    pub incompat: u32,
    /// Bytes of metadata and directories.
    pub size: u64,
}

/// What stands behind an inode and its attributes.
enum Tail<'a> {
    None,
    /// A symlink's target. Linux before 6.12 wants it in the block that its inode starts in.
    Target(&'a [u8]),
    /// The last bytes of a file, read when they are written.
    FileEnd(&'a Content, usize),
    /// Map header and index.
    Index(&'a [index::Extent]),
    /// Map header that says where in the packed inode the file is.
    Fragment(u64),
    /// Table of chunks.
    Chunks(&'a [u32]),
    /// Directory entries, made when node numbers are known: those of the last, incomplete block.
    Directory(usize),
}

struct Record<'a> {
    inode: Inode,
    tail: Tail<'a>,
    offset: u64,
}

impl Record<'_> {
    /// Bytes that may cross blocks, and bytes behind them that may not.
    fn sizes(&self) -> (usize, usize) {
        let base = self.inode.base_size();
        match &self.tail {
            Tail::None => (base, 0),
            Tail::Target(target) => (0, base + target.len()),
            Tail::FileEnd(_, size) | Tail::Directory(size) => (base, *size),
            Tail::Index(_) => (base + index::compact_size(base, self.inode.size), 0),
            Tail::Fragment(_) => (base.next_multiple_of(8) + format::MAP_HEADER, 0),
            Tail::Chunks(table) => (base + 4 * table.len(), 0),
        }
    }
}

/// Writes directories' full blocks, then inodes.
pub fn write<W: Write>(
    tree: &Tree,
    survey: &Survey<'_>,
    data: &Data,
    options: &Options,
    sink: &mut Sink<'_, W>,
) -> Result<Metadata, WriteError> {
    let first_block = sink.next;
    let mut blocks = BlockCount(sink.next);
    let mut records = Vec::with_capacity(survey.items.len() + 1);
    for (number, item) in survey.items.iter().enumerate() {
        records.push(record(tree, survey, item, data.placed[number].as_ref(), &mut blocks)?);
    }
    records.extend(data.packed.as_ref().map(|(size, placed)| packed_record(*size, placed, survey)));
    let meta_block = blocks.0;
    let (shared_offset, size) = place(&mut records, survey.shared.bytes().len());
    write_blocks(tree, survey, &records, sink)?;
    debug_assert_eq!(sink.next, meta_block);
    let mut area = vec![0; usize::try_from(size).map_err(|_| WriteError::TooLarge)?];
    let shared = survey.shared.bytes();
    area[shared_offset as usize..][..shared.len()].copy_from_slice(shared);
    for (number, record) in records.iter().enumerate() {
        let mut bytes = record.inode.encode();
        if let Some(item) = survey.items.get(number) {
            let encoded = survey
                .shared
                .encode(&tree.node(item.id).metadata.xattrs, (shared_offset / 4) as u32)
                .map_err(|source| WriteError::Xattr { path: path_of(tree, item.id), source })?;
            bytes.extend_from_slice(&encoded);
        }
        encode_tail(tree, survey, &records, number, options, &mut bytes)?;
        area[record.offset as usize..][..bytes.len()].copy_from_slice(&bytes);
    }
    sink.append(&area)?;
    let nid = |record: &Record<'_>| record.offset / SLOT as u64;
    Ok(Metadata {
        meta_block,
        root_nid: nid(&records[0]) as u16,
        packed_nid: data.packed.as_ref().map_or(0, |_| nid(&records[records.len() - 1])),
        inodes: survey.items.len() as u64,
        incompat: features(data, options),
        size: u64::from(sink.next - first_block) * BLOCK as u64,
    })
}

/// Hands out block numbers for data that is written later.
struct BlockCount(u32);

impl BlockCount {
    fn take(&mut self, bytes: usize) -> Result<u32, WriteError> {
        let first = self.0;
        let blocks = u32::try_from(bytes.div_ceil(BLOCK)).map_err(|_| WriteError::TooLarge)?;
        self.0 = first.checked_add(blocks).ok_or(WriteError::TooLarge)?;
        Ok(first)
    }
}

fn record<'a>(
    tree: &'a Tree,
    survey: &Survey<'_>,
    item: &Item,
    placed: Option<&'a Placed>,
    blocks: &mut BlockCount,
) -> Result<Record<'a>, WriteError> {
    let mut inode = item.inode.clone();
    let tail = match &tree.node(item.id).kind {
        Kind::Directory(_) => {
            let size = directory::size(&directory_entries(tree, survey, item));
            inode.size = size as u64;
            let tail = size % BLOCK;
            if tail > 0 && can_inline(tail) {
                inode.layout = DataLayout::FlatInline;
                inode.union = blocks.take(size - tail)?;
                Tail::Directory(tail)
            } else {
                inode.union = blocks.take(size)?;
                Tail::None
            }
        }
        Kind::Symlink(target) if inode.base_size() + target.len() <= BLOCK => {
            inode.layout = DataLayout::FlatInline;
            Tail::Target(target)
        }
        Kind::Symlink(target) => {
            inode.union = blocks.take(target.len())?;
            Tail::None
        }
        Kind::File(content) => place_file(&mut inode, content, placed.unwrap_or(&Placed::Empty)),
        _ => Tail::None,
    };
    Ok(Record { inode, tail, offset: 0 })
}

/// Sets layout and union of a file's inode, and says what is to stand behind it.
fn place_file<'a>(inode: &mut Inode, content: &'a Content, placed: &'a Placed) -> Tail<'a> {
    match placed {
        Placed::Empty => Tail::None,
        Placed::Flat { block, inline } => {
            inode.union = *block;
            if *inline {
                inode.layout = DataLayout::FlatInline;
                return Tail::FileEnd(content, (content.size() % BLOCK as u64) as usize);
            }
            Tail::None
        }
        Placed::Fragment(offset) => {
            inode.layout = DataLayout::CompressedFull;
            Tail::Fragment(*offset)
        }
        Placed::Extents(extents) => extents_tail(inode, extents),
        Placed::Chunks(bits, table) => {
            inode.layout = DataLayout::Chunked;
            inode.union = *bits;
            Tail::Chunks(table)
        }
    }
}

fn extents_tail<'a>(inode: &mut Inode, extents: &'a [index::Extent]) -> Tail<'a> {
    inode.layout = DataLayout::CompressedCompact;
    inode.union = extents.iter().map(|extent| extent.blocks).sum();
    Tail::Index(extents)
}

/// The packed inode: no directory names it.
fn packed_record<'a>(size: u64, placed: &'a Placed, survey: &Survey<'_>) -> Record<'a> {
    let mut inode = Inode {
        extended: true,
        layout: DataLayout::FlatPlain,
        xattr_count: 0,
        mode: 0o100_600,
        size,
        union: 0,
        number: survey.items.len() as u32 + 1,
        uid: 0,
        gid: 0,
        mtime: survey.epoch.0,
        nanoseconds: survey.epoch.1,
        nlink: 1,
    };
    inode.extended = !inode.fits_compact(survey.epoch);
    let tail = match placed {
        Placed::Extents(extents) => extents_tail(&mut inode, extents),
        Placed::Flat { block, .. } => {
            inode.union = *block;
            Tail::None
        }
        _ => Tail::None,
    };
    Record { inode, tail, offset: 0 }
}

/// Places the root, the shared attributes, then all inodes but those with file data behind them, then those: looking
/// up names reads few blocks. Gives the offset of the shared attributes and the size of the area.
fn place(records: &mut [Record<'_>], shared: usize) -> (u64, u64) {
    let mut placement = Placement::new();
    let mut shared_offset = 0;
    let (mut data, mut order): (Vec<usize>, Vec<usize>) =
        (0..records.len()).partition(|number| matches!(records[*number].tail, Tail::FileEnd(..)));
    // The largest first: what they leave of a block, others fill.
    data.sort_by_key(|number| {
        let (base, inline) = records[*number].sizes();
        std::cmp::Reverse(base + inline)
    });
    order.append(&mut data);
    for number in order {
        let (base, inline) = records[number].sizes();
        records[number].offset = placement.place(base, inline);
        if number == 0 && shared > 0 {
            shared_offset = placement.place(shared, 0);
        }
    }
    (shared_offset, placement.size())
}

/// Writes what [`record`] took blocks for, in the same order.
fn write_blocks<W: Write>(
    tree: &Tree,
    survey: &Survey<'_>,
    records: &[Record<'_>],
    sink: &mut Sink<'_, W>,
) -> Result<(), WriteError> {
    for (record, item) in records.iter().zip(&survey.items) {
        match (&tree.node(item.id).kind, &record.tail) {
            (Kind::Directory(_), tail) => {
                let mut bytes = encode_directory(tree, survey, item, records);
                if let Tail::Directory(size) = tail {
                    bytes.truncate(bytes.len() - size);
                }
                sink.append(&bytes)?;
            }
            (Kind::Symlink(target), Tail::None) => {
                sink.append(target)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn directory_entries<'a>(tree: &'a Tree, survey: &Survey<'_>, item: &Item) -> Vec<Entry<'a, usize>> {
    let position = |id: crate::tree::NodeId| survey.position[id.index()];
    let names = tree.entries(item.id).into_iter().flatten().map(|(name, id)| (name.as_slice(), position(*id)));
    directory::entries(names, position(item.id), item.parent)
}

fn encode_directory(tree: &Tree, survey: &Survey<'_>, item: &Item, records: &[Record<'_>]) -> Vec<u8> {
    directory::encode(&directory_entries(tree, survey, item), |number| {
        let record = &records[number];
        (record.offset / SLOT as u64, format::file_type(record.inode.mode))
    })
}

fn encode_tail(
    tree: &Tree,
    survey: &Survey<'_>,
    records: &[Record<'_>],
    number: usize,
    options: &Options,
    bytes: &mut Vec<u8>,
) -> Result<(), WriteError> {
    let record = &records[number];
    match &record.tail {
        Tail::None => {}
        Tail::Target(target) => bytes.extend_from_slice(target),
        Tail::FileEnd(content, size) => {
            let mut end = vec![0; *size];
            content
                .read_exact_at(&mut end, content.size() - *size as u64)
                .map_err(|source| WriteError::Read { path: path_of(tree, survey.items[number].id), source })?;
            bytes.extend_from_slice(&end);
        }
        Tail::Index(extents) => {
            let algorithms = match options.compression {
                Compression::Zstd { .. } => format::ALGORITHM_ZSTD,
                _ => format::ALGORITHM_LZ4,
            };
            // A compact index has clusters of several blocks for both algorithms or for none.
            let advise = format::ADVISE_COMPACTED_2B | format::ADVISE_BIG_PCLUSTER | format::ADVISE_BIG_PCLUSTER_2;
            let header = MapHeader { fragment: 0, advise, algorithms, cluster_bits: 0 };
            bytes.extend_from_slice(&index::encode_compact(bytes.len(), header.encode(), extents));
        }
        Tail::Fragment(offset) => {
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            bytes.extend_from_slice(&(format::WHOLE_FRAGMENT | offset).to_le_bytes());
        }
        Tail::Chunks(table) => bytes.extend(table.iter().flat_map(|block| block.to_le_bytes())),
        Tail::Directory(size) => {
            let entries = encode_directory(tree, survey, &survey.items[number], records);
            bytes.extend_from_slice(&entries[entries.len() - size..]);
        }
    }
    Ok(())
}

fn features(data: &Data, options: &Options) -> u32 {
    let mut incompat = 0;
    if options.compression != Compression::None {
        incompat |= format::INCOMPAT_ZERO_PADDING | format::INCOMPAT_CONFIGS;
    }
    if data.packed.is_some() || (data.duplicates > 0 && options.compression != Compression::None) {
        incompat |= format::INCOMPAT_FRAGMENTS;
    }
    if data.placed.iter().any(|placed| matches!(placed, Some(Placed::Chunks(..)))) {
        incompat |= format::INCOMPAT_CHUNKED;
    }
    incompat
}
