//! Inodes and their attributes.

use std::collections::BTreeMap;

use super::{Fault, Image, ReadError, Unsupported, corrupt};
use crate::filesystem::erofs::format::{self, INODE_EXTENDED, Inode, SLOT, SuperBlock, XATTR_HEADER, u16_at, u32_at};
use crate::filesystem::erofs::xattr;

/// Attribute values that all inodes together may have beyond the size of the image: shared ones are counted for each
/// inode that has them.
const XATTR_ROOM: u64 = 64 << 20;
/// Bytes that the paths of all names may have together beyond what the image's size warrants. A name takes 13 bytes of
/// the image, its path may take half a megabyte, and whoever walks over the tree makes all of them.
const PATH_ROOM: u64 = 64 << 20;
/// Bytes of paths for each byte of the image: an empty file in a deep directory.
const PATHS_PER_BYTE: u64 = 16;

/// What reading the metadata has cost so far, against what the image can warrant.
pub(super) struct Budget {
    /// Bytes of directories, indexes and chunk tables: each has its own bytes in the image.
    metadata: u64,
    xattrs: u64,
    paths: u64,
}

impl Budget {
    pub(super) fn new(image: &Image) -> Self {
        let paths = image.size.saturating_mul(PATHS_PER_BYTE).saturating_add(PATH_ROOM);
        Self { metadata: image.size, xattrs: image.size.saturating_add(XATTR_ROOM), paths }
    }

    /// Takes `bytes` for what is told at byte `at`.
    pub(super) fn take(&mut self, bytes: u64, at: u64) -> Result<(), ReadError> {
        take(&mut self.metadata, bytes, at)
    }

    /// Takes a path of `bytes` for the name at byte `at`.
    pub(super) fn take_path(&mut self, bytes: u64, at: u64) -> Result<(), ReadError> {
        take(&mut self.paths, bytes, at)
    }

    fn take_xattrs(&mut self, bytes: u64, at: u64) -> Result<(), ReadError> {
        take(&mut self.xattrs, bytes, at)
    }
}

fn take(room: &mut u64, bytes: u64, at: u64) -> Result<(), ReadError> {
    match room.checked_sub(bytes) {
        Some(left) => {
            *room = left;
            Ok(())
        }
        None => corrupt(at, Fault::Amplified),
    }
}

/// An inode and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Located {
    pub(super) inode: Inode,
    /// Byte of the image.
    pub(super) offset: u64,
}

impl Located {
    /// Byte of the image behind inode and attributes.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.inode.base_size() as u64
    }

    /// Byte of the image where the union stands: it tells where data is.
    pub(super) fn union_offset(&self) -> u64 {
        self.offset + 16
    }
}

/// The inode `nid`; `at` is the byte of the image where the number stands.
pub(super) fn read(image: &Image, super_block: &SuperBlock, nid: u64, at: u64) -> Result<Located, ReadError> {
    let area = image.block_offset(super_block.meta_block);
    let offset = nid.checked_mul(SLOT as u64).and_then(|offset| offset.checked_add(area));
    let Some(offset) = offset.filter(|offset| *offset < image.size) else {
        return corrupt(at, Fault::Outside("an inode"));
    };
    let size = (image.size - offset).min(INODE_EXTENDED as u64);
    let bytes = image.bytes(offset, size, at, "an inode")?;
    let epoch = (super_block.epoch, super_block.epoch_nanoseconds);
    let Some(inode) = Inode::decode(&bytes, epoch) else {
        return corrupt(offset, Fault::InodeFormat);
    };
    if inode.nanoseconds >= 1_000_000_000 {
        let at = if inode.extended { offset + 40 } else { format::SUPER_OFFSET + 32 };
        return corrupt(at, Fault::Nanoseconds(inode.nanoseconds));
    }
    // The kernel's sizes have a sign.
    if i64::try_from(inode.size).is_err() {
        return corrupt(offset + 8, Fault::Size(inode.size));
    }
    let located = Located { inode, offset };
    image.check(offset, located.inode.base_size() as u64, offset + 2, "an inode's attributes")?;
    Ok(located)
}

/// The attributes of an inode.
pub(super) fn xattrs(
    image: &Image,
    super_block: &SuperBlock,
    located: &Located,
    budget: &mut Budget,
) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, ReadError> {
    let mut attributes = BTreeMap::new();
    let size = format::xattr_size(located.inode.xattr_count);
    if size == 0 {
        return Ok(attributes);
    }
    let start = located.end() - size as u64;
    let bytes = image.bytes(start, size as u64, start, "an inode's attributes")?;
    let shared = usize::from(bytes[4]);
    let Some(mut rest) = bytes[XATTR_HEADER..].get(4 * shared..) else {
        return corrupt(start + 4, Fault::Xattr);
    };
    for number in 0..shared {
        let at = XATTR_HEADER + 4 * number;
        let id = u64::from(u32_at(&bytes, at));
        let offset = image.block_offset(super_block.xattr_block) + 4 * id;
        let entry = shared_entry(image, offset, start + at as u64)?;
        add(&mut attributes, &entry, offset, budget)?;
    }
    while !rest.is_empty() {
        let offset = start + (size - rest.len()) as u64;
        let length = entry_size(rest).filter(|length| *length <= rest.len());
        let Some(length) = length else {
            return corrupt(offset, Fault::Xattr);
        };
        add(&mut attributes, &rest[..length], offset, budget)?;
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    Ok(attributes)
}

/// Bytes of the entry at the start of `bytes`, without padding.
fn entry_size(bytes: &[u8]) -> Option<usize> {
    let head: &[u8; 4] = bytes.first_chunk()?;
    Some(4 + usize::from(head[0]) + usize::from(u16_at(head, 2)))
}

fn shared_entry(image: &Image, offset: u64, at: u64) -> Result<Vec<u8>, ReadError> {
    let mut head = [0; 4];
    image.read(&mut head, offset, at, "a shared attribute")?;
    let size = entry_size(&head).unwrap_or(4);
    image.bytes(offset, size as u64, offset, "a shared attribute")
}

/// Adds the attribute of one entry, which is `entry` to its last byte.
fn add(
    attributes: &mut BTreeMap<Vec<u8>, Vec<u8>>,
    entry: &[u8],
    offset: u64,
    budget: &mut Budget,
) -> Result<(), ReadError> {
    let (head, rest) = entry.split_at(4);
    let (name, value) = rest.split_at(usize::from(head[0]));
    if head[1] & 0x80 != 0 {
        return Err(ReadError::Unsupported { offset: offset + 1, what: Unsupported::XattrPrefix });
    }
    budget.take_xattrs(entry.len() as u64, offset)?;
    let Some(name) = xattr::join(head[1], name).filter(|name| !name.contains(&0)) else {
        return corrupt(offset, Fault::Xattr);
    };
    match attributes.insert(name, value.to_vec()) {
        None => Ok(()),
        Some(_) => corrupt(offset, Fault::XattrTwice),
    }
}
